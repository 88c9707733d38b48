"""Decodes wal2json, format version 2: one JSON message for each record (wal2json's README, "Format version 2").

A record's LSN comes from the XLogData header, at no cost. Only the `lsn` of a B message is read: that of the commit
record. Options that would only add bytes to each message are off.
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
"""Inside a JSON string every quote is escaped, so these are found only where they are structure."""
_ACTION = PAYLOAD + len('{"action":"')
_PATTERN_CHARACTERS = frozenset("\\ ,.*'\"")


def wal2json_options(schema: str) -> dict[str, str]:
    """Return the START_REPLICATION options for one schema's changes and pgdoc's messages."""
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
    """Decodes wal2json's frames.

    The server sends B and C for every transaction of the database, most without changes for this reader. So a B is
    decoded only when a change follows it.
    """

    def __init__(self) -> None:
        self._begin: bytes | None = None
        self._tables: dict[bytes, str] = {}

    def decode(self, frames: Iterable[bytes]) -> list[Record]:
        """Decode frames; see `Decoder`."""
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
                if self._begin is None:  # inside a transaction it is no watermark
                    append(Idle(parse_keepalive(frame).wal_end))
            else:
                raise ProtocolError(
                    f"wal2json sent an unknown message: {frame[PAYLOAD : PAYLOAD + 40]!r}",
                    offset=min(PAYLOAD, len(frame)),
                )
        return records

    def _row(self, kind: str, frame: bytes) -> RowChange:
        start = frame.find(_TABLE, _ACTION) + len(_TABLE)
        end = frame.find(b'"', start)
        name = frame[start:end]
        table = self._tables.get(name)
        if table is None or start < PAYLOAD or end < 0 or not frame.endswith(b"}"):
            table = self._tables[name] = _table(frame, start, end)
        row = (xlog_start(frame), kind, table, frame, kind == "T" or _is_complete(kind, frame), read_images)
        return tuple.__new__(RowChange, row)  # takes half the time of RowChange(*row)


def _table(frame: bytes, start: int, end: int) -> str:
    if start < PAYLOAD or end < 0 or not frame.endswith(b"}"):
        raise ProtocolError(f"wal2json sent an incomplete change: {frame[PAYLOAD : PAYLOAD + 40]!r}", offset=PAYLOAD)
    name = frame[start:end]
    try:
        return name.decode() if b"\\" not in name else str(_loads(frame)["table"])
    except (UnicodeDecodeError, KeyError, TypeError) as exc:
        raise ProtocolError(
            f"wal2json sent a change with the unreadable table name {name!r}: {exc!r}", offset=start
        ) from exc


def _is_complete(kind: str, frame: bytes) -> bool:
    """Return whether the image that the kind needs has a collection's columns, without decoding it."""
    if kind == "I":
        return frame.rfind(_LATE_COLUMN) > 0
    start = frame.find(_IDENTITY, _ACTION)
    return start > 0 and frame.count(_NAME, start) >= len(COLLECTION_COLUMNS)


def read_images(frame: bytes) -> Images:
    """Decode the row of an I, U or D."""
    fields = _loads(frame)
    try:
        before = {column["name"]: column["value"] for column in fields.get("identity", ())}
        after = {column["name"]: column["value"] for column in fields.get("columns", ())}
    except (KeyError, TypeError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a malformed change: {exc!r}", offset=PAYLOAD) from exc
    return Images({**before, **after} if after else after, before)


def _loads(frame: bytes) -> Any:
    try:
        return orjson.loads(memoryview(frame)[PAYLOAD:])
    except orjson.JSONDecodeError as exc:
        raise ProtocolError(f"wal2json sent malformed JSON: {exc}", offset=PAYLOAD + exc.pos) from exc


def _begin(frame: bytes) -> Begin:
    try:
        fields = orjson.loads(frame[PAYLOAD:])
        high, low = fields["lsn"].split("/")
        return Begin((int(high, 16) << 32) | int(low, 16), fields["xid"], fields["timestamp"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a malformed begin: {exc}", offset=PAYLOAD) from exc


def _content(frame: bytes) -> str | None:
    """Return a message's text, or `None` if it is not a JSON string: SQL writers can send any bytes."""
    try:
        content = orjson.loads(frame[PAYLOAD:])["content"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return content if isinstance(content, str) else None
