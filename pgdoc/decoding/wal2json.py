"""wal2json, format-version 2: one JSON message a record (README of wal2json, "Format version 2").

The LSN of a record is taken from the XLogData header, which costs nothing to read; the only message whose own `lsn`
is needed is B, where it is the LSN of the commit record. Options that would only add bytes to each message are off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pgdoc.decoding.frames import PAYLOAD, PRIMARY_KEEPALIVE, parse_keepalive, xlog_start
from pgdoc.decoding.records import Begin, Commit, Idle, Message, Record, RowChange
from pgdoc.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEGIN, _COMMIT, _MESSAGE = ord("B"), ord("C"), ord("M")
_ROWS = frozenset(b"IUDT")
_CHANGES = frozenset(b"IUDTM")
_ACTION = PAYLOAD + len('{"action":"')
_PATTERN_CHARACTERS = frozenset("\\ ,.*'\"")


def options(schema: str) -> dict[str, str]:
    """Give the START_REPLICATION options for the changes of one schema, and the metadata messages."""
    escaped = "".join(f"\\{char}" if char in _PATTERN_CHARACTERS else char for char in schema)
    return {
        "format-version": "2",
        "include-lsn": "1",
        "include-xids": "1",
        "include-timestamp": "1",
        "include-schemas": "0",
        "include-types": "0",
        "add-tables": f"{escaped}.*",
        "add-msg-prefixes": "pgdoc",
    }


class Wal2Json:
    """Turns frames into records; how the frames are grouped into calls never changes what comes out.

    B and C come for every transaction of the database, most of them empty here: a B is kept unread until a change
    follows it.
    """

    def __init__(self) -> None:
        self._begin: memoryview | bytes | None = None

    def decode(self, frames: Iterable[memoryview | bytes]) -> list[Record]:
        """Give the records of frames, in order.

        Raises:
            ProtocolError: a message that wal2json does not write.
        """
        records: list[Record] = []
        append = records.append
        for frame in frames:
            action = frame[_ACTION] if len(frame) > _ACTION else 0
            if action == 0 and len(frame) and frame[0] == PRIMARY_KEEPALIVE:
                if self._begin is None:  # inside a transaction it says nothing
                    append(Idle(parse_keepalive(frame).wal_end))
                continue
            lsn = xlog_start(frame)
            if action == _COMMIT:
                self._begin = None
                append(Commit(lsn))
                continue
            if action == _BEGIN:
                self._begin = frame
                continue
            if self._begin is not None and action in _CHANGES:
                append(_begin(self._begin))
                self._begin = None
            if action in _ROWS:
                append(_row(lsn, frame))
            elif action == _MESSAGE:
                append(Message(lsn, _content(frame)))
            else:
                raise ProtocolError(f"wal2json sent {bytes(frame[PAYLOAD : PAYLOAD + 40])!r}", offset=PAYLOAD)
        return records


def _row(lsn: int, frame: memoryview | bytes) -> RowChange:
    try:
        fields = orjson.loads(frame[PAYLOAD:])
        return RowChange(
            lsn, fields["action"], fields["table"], fields.get("columns", []), fields.get("identity", []), len(frame)
        )
    except orjson.JSONDecodeError as exc:
        raise ProtocolError(f"wal2json sent broken JSON: {exc}", offset=PAYLOAD + exc.pos) from exc
    except (KeyError, TypeError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a change without {exc}", offset=PAYLOAD) from exc


def _begin(frame: memoryview | bytes) -> Begin:
    try:
        fields = orjson.loads(frame[PAYLOAD:])
        high, low = fields["lsn"].split("/")
        return Begin((int(high, 16) << 32) | int(low, 16), fields["xid"], fields["timestamp"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a begin that can't be read: {exc}", offset=PAYLOAD) from exc


def _content(frame: memoryview | bytes) -> str | None:
    """Give a message's text; what SQL writers put there may be no JSON string, which must not stop a stream."""
    try:
        content = orjson.loads(frame[PAYLOAD:])["content"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return content if isinstance(content, str) else None
