"""Decodes wal2json, format version 2: one JSON message for each record (wal2json's README, "Format version 2").

A record's LSN comes from the XLogData header, at no cost. Only the `lsn` of a B message is read: that of the commit
record. Options that would only add bytes to each message are off.
"""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from pgdoc.decoding.frames import PAYLOAD, PRIMARY_KEEPALIVE, parse_keepalive, sent_at, unpack_lsn, xlog_start
from pgdoc.decoding.parts import EVERYTHING, Part
from pgdoc.decoding.records import (
    COLLECTION_COLUMNS,
    REST,
    Begin,
    Commit,
    Idle,
    Images,
    Message,
    Record,
    RowChange,
)
from pgdoc.decoding.registry_rows import REGISTRY, read_registry_row
from pgdoc.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEGIN, _COMMIT, _MESSAGE, _INSERT, _UPDATE = b"BCMIU"
_ROWS = {ord(kind): kind for kind in "IUDT"}
_HAVE_AFTER = frozenset(b"IU")
_SCHEMA, _TABLE, _ROW = b'"schema":"', b'","table":"', b'":[{'
_IDENTITY, _NAME, _LATE_COLUMN = b'"identity":[', b'"name":"', b'"name":"replaced_version"'
"""Inside a JSON string every quote is escaped, so these are found only where they are structure."""
_ID, _DATA, _VERSION = b':[{"name":"id","value":', b'},{"name":"data","value":', b'},{"name":"version","value":'
_OTHER_COLUMNS = re.compile(
    rb'\},\{"name":"version","value":(\d+)\},\{"name":"replaced_version","value":(\d+)\}'
    rb',\{"name":"created_at","value":"([^"\\]*)"\},\{"name":"updated_at","value":"([^"\\]*)"\}\]'
).match
_ACTION = PAYLOAD + len('{"action":"')
_UNKNOWN_TIME = "2000-01-01 00:00:00+00"
"""The time of a transaction whose session has a replication origin but gave no time: PostgreSQL's zero."""
_PATTERN_CHARACTERS = frozenset("\\ ,.*'\"")
_REGISTRY = "\0registry"
"""Stands for the registry's name, which a table of another schema can have, too."""


def wal2json_options(schema: str, part: Part = EVERYTHING) -> dict[str, str]:
    """Return the START_REPLICATION options for one schema's changes, the registry's, and pgdoc's messages."""
    tables = ["*"] if part.only is None else [_escaped(name) for name in sorted(part.only)]
    options = {
        "format-version": "2",
        "include-lsn": "1",
        "include-xids": "1",
        "include-timestamp": "1",
        "include-schemas": "1",
        "include-types": "0",
        "add-tables": ",".join([*(f"{_escaped(schema)}.{table}" for table in tables), ".".join(REGISTRY)]),
        "add-msg-prefixes": "pgdoc",
    }
    if not part.has_messages:
        options["filter-msg-prefixes"] = "pgdoc"  # wal2json filters before it adds: nothing is left
    return options


def _escaped(name: str) -> str:
    return "".join(f"\\{char}" if char in _PATTERN_CHARACTERS else char for char in name)


class Wal2Json:
    """Decodes wal2json's frames.

    The server sends B and C for every transaction of the database, most without changes for this reader. So a B is
    decoded only when a change follows it.
    """

    def __init__(self) -> None:
        self._begin: bytes | None = None
        self._tables: dict[bytes, str] = {}
        # What the last row has from `_at` on, up to its first column, and its table: the rows of a transaction are
        # alike, which spares two searches. Nowhere but there can a message have this: see `_SCHEMA`.
        self._address, self._at, self._table = b"\0", 0, ""

    def decode(self, frames: Iterable[bytes]) -> list[Record]:
        """Decode frames; see `Decoder`."""
        records: list[Record] = []
        append, make = records.append, tuple.__new__
        for frame in frames:
            action = frame[_ACTION] if len(frame) > _ACTION else 0
            kind = _ROWS.get(action)
            if kind is not None:
                if self._begin is not None:
                    self._append_begin(records)
                if frame.startswith(self._address, self._at) and frame.endswith(b"}"):
                    table = self._table
                elif (table := self._find_table(frame)) is _REGISTRY:
                    if kind in "IU":
                        append(read_registry_row(xlog_start(frame), kind, read_images(frame), frame))
                    continue
                complete = frame.rfind(_LATE_COLUMN) > 0 if kind == "I" else kind == "T" or _has_before(frame)
                row = (unpack_lsn(frame, 1)[0], kind, table, frame, complete, read_parts, 0)
                append(make(RowChange, row))  # takes half the time of RowChange(*row)
            elif action == _COMMIT:
                self._begin = None
                append(Commit(xlog_start(frame)))
            elif action == _BEGIN:
                self._begin = frame
            else:
                self._decode_other(action, frame, records)
        return records

    @property
    def begun(self) -> Begin | None:
        """See `Decoder`."""
        return None if self._begin is None else _begin(self._begin)

    def _decode_other(self, action: int, frame: bytes, records: list[Record]) -> None:
        if action == _MESSAGE:
            self._append_begin(records)
            records.append(Message(xlog_start(frame), _content(frame)))
        elif frame[:1] == PRIMARY_KEEPALIVE and action == 0:
            if self._begin is None:  # inside a transaction it is no watermark
                records.append(Idle(parse_keepalive(frame).wal_end))
        else:
            raise ProtocolError(
                f"wal2json sent an unknown message: {frame[PAYLOAD : PAYLOAD + 40]!r}", offset=min(PAYLOAD, len(frame))
            )

    def _append_begin(self, records: list[Record]) -> None:
        if self._begin is not None:
            records.append(_begin(self._begin))
            self._begin = None

    def _find_table(self, frame: bytes) -> str:
        """Return the table of a row; remember where it stands, for the next row that has the same there."""
        start = frame.find(_SCHEMA, _ACTION)
        end = frame.find(_ROW, start)  # -1 for a T
        address = frame[start : end + len(_ROW)]
        table = self._tables.get(address)
        if table is None or not frame.endswith(b"}"):
            table = _table(frame)
            if end > 0 and b"\\" not in address:  # else the address may end inside the name
                self._tables[address] = table
        if table is not _REGISTRY and address in self._tables:
            self._address, self._at, self._table = address, start, table
        return table


def _table(frame: bytes) -> str:
    start = frame.find(_SCHEMA, _ACTION) + len(_SCHEMA)
    end = frame.find(b'"', frame.find(_TABLE, start) + len(_TABLE))  # inside the name if it has a quote, escaped then
    if start < PAYLOAD or end < 0 or not frame.endswith(b"}"):
        raise ProtocolError(f"wal2json sent an incomplete change: {frame[PAYLOAD : PAYLOAD + 40]!r}", offset=PAYLOAD)
    address = frame[start:end]
    try:
        if b"\\" in address:
            fields = _loads(frame)
            schema, table = fields["schema"], str(fields["table"])
        else:
            schema, _, table = address.decode().partition(_TABLE.decode())
    except (UnicodeDecodeError, KeyError, TypeError) as exc:
        raise ProtocolError(f"wal2json sent a change with an unreadable table name: {exc!r}", offset=start) from exc
    return _REGISTRY if (schema, table) == REGISTRY else table


def _has_before(frame: bytes) -> bool:
    """Return whether a U or D has a collection's columns in its before image, without decoding it."""
    start = frame.find(_IDENTITY, _ACTION)
    return start > 0 and frame.count(_NAME, start) >= len(COLLECTION_COLUMNS)


def read_parts(frame: bytes) -> Images:
    """Decode the row of an I, U or D, by slicing: id and data at once, the other columns when they are asked for.

    A row of another shape (another order of columns, a value that is left in TOAST) is decoded as a whole.
    """
    parts, action = frame.split(_DATA), frame[_ACTION]
    if len(parts) == (3 if action == _UPDATE else 2):
        first = _part(frame, parts[0], parts[1], is_before=action not in _HAVE_AFTER)
        if action != _UPDATE:
            if first is not None:
                return Images(first, {}) if action == _INSERT else Images({}, first)
        elif first is not None and (before := _part(frame, parts[1], parts[2], is_before=True)) is not None:
            return Images(first, before)
    return read_images(frame)


def _part(frame: bytes, head: bytes, tail: bytes, *, is_before: bool) -> dict[str, Any] | None:
    """Return an image from the text before and after the name of its `data`; `None` for another shape."""
    start, end = head.rfind(_ID), tail.find(_VERSION)
    if start < 0 or end < 0:
        return None
    try:
        return {
            "id": orjson.loads(head[start + len(_ID) :]),
            "data": orjson.loads(tail[:end]),
            REST: partial(_other_columns, frame, tail[end:], is_before),
        }
    except orjson.JSONDecodeError:
        return None


def _other_columns(frame: bytes, tail: bytes, is_before: bool) -> dict[str, Any]:
    found = _OTHER_COLUMNS(tail)
    if found is not None:
        version, replaced_version, created_at, updated_at = found.groups()
        with contextlib.suppress(ValueError):  # the frame is damaged
            return {
                "version": int(version),
                "replaced_version": int(replaced_version),
                "created_at": created_at.decode(),
                "updated_at": updated_at.decode(),
            }
    return read_images(frame)[is_before]


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
        timestamp, commit_lsn = fields["timestamp"], (int(high, 16) << 32) | int(low, 16)
        is_unknown = timestamp.startswith(_UNKNOWN_TIME)
        return Begin(commit_lsn, fields["xid"], sent_at(frame) if is_unknown else timestamp, is_unknown)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a malformed begin: {exc}", offset=PAYLOAD) from exc


def _content(frame: bytes) -> str | None:
    """Return a message's text, or `None` if it is not a JSON string: SQL writers can send any bytes."""
    try:
        content = orjson.loads(frame[PAYLOAD:])["content"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return content if isinstance(content, str) else None
