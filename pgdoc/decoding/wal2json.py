"""wal2json, format-version 2: one JSON message a record (README of wal2json, "Format version 2").

The LSN of a record is taken from the XLogData header, which costs nothing to read; the only message whose own `lsn`
is needed is B, where it is the LSN of the commit record. Options that would only add bytes to each message are off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pgdoc.decoding.frames import PAYLOAD, PRIMARY_KEEPALIVE, parse_keepalive, xlog_start
from pgdoc.decoding.records import COLLECTION_COLUMNS, Begin, Commit, Idle, Images, Message, Record, RowChange
from pgdoc.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEGIN, _COMMIT, _MESSAGE = ord("B"), ord("C"), ord("M")
_ROWS = {ord(kind): kind for kind in "IUDT"}
_CHANGES = frozenset(b"IUDTM")
_TABLE, _IDENTITY, _NAME, _LATE_COLUMN = b'"table":"', b'"identity":[', b'"name":"', b'"name":"replaced_version"'
"""Inside a JSON text each quote stands behind a backslash, so these are found nowhere but where they belong."""
_ACTION = PAYLOAD + len('{"action":"')
_PATTERN_CHARACTERS = frozenset("\\ ,.*'\"")


def wal2json_options(schema: str) -> dict[str, str]:
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
        self._begin: bytes | None = None
        self._tables: dict[bytes, str] = {}

    def decode(self, frames: Iterable[bytes]) -> list[Record]:
        """Give the records of frames, in order.

        Raises:
            ProtocolError: a message that wal2json does not write.
        """
        records: list[Record] = []
        append = records.append
        for frame in frames:
            action = frame[_ACTION] if len(frame) > _ACTION else 0
            if action in _CHANGES:
                if self._begin is not None:
                    append(_begin(self._begin))
                    self._begin = None
                kind = _ROWS.get(action)
                append(Message(xlog_start(frame), _content(frame)) if kind is None else self._row(kind, frame))
            elif action == _COMMIT:
                self._begin = None
                append(Commit(xlog_start(frame)))
            elif action == _BEGIN:
                self._begin = frame
            elif frame[:1] == PRIMARY_KEEPALIVE and action == 0:
                if self._begin is None:  # inside a transaction it says nothing
                    append(Idle(parse_keepalive(frame).wal_end))
            else:
                raise ProtocolError(f"wal2json sent {frame[PAYLOAD : PAYLOAD + 40]!r}", offset=min(PAYLOAD, len(frame)))
        return records

    def _row(self, kind: str, frame: bytes) -> RowChange:
        start = frame.find(_TABLE, _ACTION) + len(_TABLE)
        end = frame.find(b'"', start)
        name = frame[start:end]
        table = self._tables.get(name)
        if table is None or start < PAYLOAD or end < 0 or not frame.endswith(b"}"):
            table = self._tables[name] = _table(frame, start, end)
        row = (xlog_start(frame), kind, table, frame, kind == "T" or _is_complete(kind, frame), read_images)
        return tuple.__new__(RowChange, row)  # half the time of RowChange(*row)


def _table(frame: bytes, start: int, end: int) -> str:
    """Read the table's name, and look whether the message is whole."""
    if start < PAYLOAD or end < 0 or not frame.endswith(b"}"):
        raise ProtocolError(
            f"wal2json sent a change that is cut short: {frame[PAYLOAD : PAYLOAD + 40]!r}", offset=PAYLOAD
        )
    name = frame[start:end]
    try:
        return name.decode() if b"\\" not in name else str(_loads(frame)["table"])
    except (UnicodeDecodeError, KeyError, TypeError) as exc:
        raise ProtocolError(f"wal2json sent a change of a table {name!r}: {exc!r}", offset=start) from exc


def _is_complete(kind: str, frame: bytes) -> bool:
    """Tell whether the row, or the old one, is there with the columns of a collection, without reading it."""
    if kind == "I":
        return frame.rfind(_LATE_COLUMN) > 0
    start = frame.find(_IDENTITY, _ACTION)
    return start > 0 and frame.count(_NAME, start) >= len(COLLECTION_COLUMNS)


def read_images(frame: bytes) -> Images:
    """Read the row of an I, U or D; what an UPDATE did not touch in TOAST is taken from the old row.

    Raises:
        ProtocolError: the message is broken.
    """
    fields = _loads(frame)
    try:
        before = {column["name"]: column["value"] for column in fields.get("identity", ())}
        after = {column["name"]: column["value"] for column in fields.get("columns", ())}
    except (KeyError, TypeError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a change that can't be read: {exc!r}", offset=PAYLOAD) from exc
    return Images({**before, **after} if after else after, before)


def _loads(frame: bytes) -> Any:
    try:
        return orjson.loads(memoryview(frame)[PAYLOAD:])
    except orjson.JSONDecodeError as exc:
        raise ProtocolError(f"wal2json sent broken JSON: {exc}", offset=PAYLOAD + exc.pos) from exc


def _begin(frame: bytes) -> Begin:
    try:
        fields = orjson.loads(frame[PAYLOAD:])
        high, low = fields["lsn"].split("/")
        return Begin((int(high, 16) << 32) | int(low, 16), fields["xid"], fields["timestamp"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a begin that can't be read: {exc}", offset=PAYLOAD) from exc


def _content(frame: bytes) -> str | None:
    """Give a message's text; what SQL writers put there may be no JSON string, which must not stop a stream."""
    try:
        content = orjson.loads(frame[PAYLOAD:])["content"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return content if isinstance(content, str) else None
