"""Decodes wal2json, format version 2: one JSON message for each record (wal2json's README, "Format version 2").

A record's LSN comes from the XLogData header, at no cost. Only the `lsn` of a B message is read: that of the commit
record. Options that would only add bytes to each message are off.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from pgdoc.decoding.frames import PAYLOAD, PRIMARY_KEEPALIVE, parse_keepalive, sent_at, unpack_lsn, xlog_start
from pgdoc.decoding.message_rows import MESSAGES, read_wal2json_message, wal2json_name
from pgdoc.decoding.parts import EVERYTHING, Part
from pgdoc.decoding.records import (
    COLLECTION_COLUMNS,
    MESSAGE_KIND,
    REST,
    Begin,
    Commit,
    Idle,
    Images,
    Message,
    OddColumns,
    Record,
    RowChange,
)
from pgdoc.decoding.registry_rows import REGISTRY, read_registry_row
from pgdoc.errors import ProtocolError
from pgdoc.model.table_names import is_table_name, table_address
from pgdoc.model.topics import is_topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.decoding.records import TableShape

_BEGIN, _COMMIT, _MESSAGE, _INSERT, _UPDATE = b"BCMIU"
_ROWS = {ord(kind): kind for kind in "IUDT"}
_HAVE_AFTER = frozenset(b"IU")
_SCHEMA, _TABLE, _ROW = b'"schema":"', b'","table":"', b'":[{'
_IDENTITY, _NAME, _LATE_COLUMN = b'"identity":[', b'"name":"', b'"name":"replaced_version"'
"""Inside a JSON string every quote is escaped, so these are found only where they are structure."""
_ID, _ID_AFTER_ROW = b',"%b":[{"name":"id","value":', b'"}],"identity":[{"name":"id","value":'
_NEW_ID, _OLD_ID = _ID % b"columns", _ID % b"identity"
_DATA, _VERSION = b'},{"name":"data","value":', b'},{"name":"version","value":'
_UPDATED_AT, _END_OF_ROW = b'"},{"name":"updated_at","value":"', b'"}]}'
_VERSIONS = re.compile(
    rb'(\d{1,19})\},\{"name":"replaced_version","value":(\d{1,19})\},\{"name":"created_at","value":"'
).fullmatch
_TIME = len("2026-11-29 07:08:51.817473+00")
_UPDATED, _BETWEEN = slice(-_TIME, None), slice(-_TIME - len(_UPDATED_AT), -_TIME)
_CREATED, _BEFORE_CREATED = slice(_BETWEEN.start - _TIME, _BETWEEN.start), slice(_BETWEEN.start - _TIME)
_WITHOUT_END = slice(-len(_END_OF_ROW))
_LONG = (
    256  # no row of the usual shape has as much after its data; `_versions` would keep a long value of another column
)
_ACTION = PAYLOAD + len('{"action":"')
_UNKNOWN_TIME = "2000-01-01 00:00:00+00"
"""The time of a transaction whose session has a replication origin but gave no time: PostgreSQL's zero."""
_PATTERN_CHARACTERS = frozenset("\\ \t\n\r\v\f,.*'\"")
_REGISTRY, _MESSAGES = "\0registry", "\0messages"
"""Stand for the names of tables of the catalog, which tables of another schema can have, too."""


def wal2json_options(schema: str, part: Part = EVERYTHING, watched: Iterable[str] = ()) -> dict[str, str]:
    """Return the START_REPLICATION options for one schema's changes, the registry's, and pgdoc's messages.

    `watched` are the names, in events, of tables of any schema whose changes are asked for, too.
    """
    messages = ".".join(MESSAGES)
    if part.only is None:
        names = [f"{_escaped(schema)}.*", *map(_qualified, sorted(watched)), messages]
    else:
        others = sorted(name for name in part.only if not is_topic(name))
        names = [_qualified(name if is_table_name(name) else f"{schema}.{name}") for name in others]
        names += [messages] if len(others) < len(part.only) else []
    options = {
        "format-version": "2",
        "include-lsn": "1",
        "include-xids": "1",
        "include-timestamp": "1",
        "include-schemas": "1",
        "include-types": "0",
        "add-tables": ",".join([*names, ".".join(REGISTRY)]),
        "add-msg-prefixes": "pgdoc",
    }
    if not part.has_messages:
        options["filter-msg-prefixes"] = "pgdoc"  # wal2json filters before it adds: nothing is left
    return options


def _qualified(name: str) -> str:
    return ".".join(map(_escaped, table_address(name)))


def _escaped(name: str) -> str:
    return "".join(f"\\{char}" if char in _PATTERN_CHARACTERS else char for char in name)


class Wal2Json:
    """Decodes wal2json's frames.

    The server sends B and C for every transaction of the database, most without changes for this reader. So a B is
    decoded only when a change follows it.

    Args:
        schema: that of the collections. A table that can't be one of them is named with its schema.
    """

    def __init__(self, schema: str | None = None) -> None:
        self._schema = schema
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
                elif (table := self._find_table(frame)) is _REGISTRY or table is _MESSAGES:
                    records += _read_catalog_row(table, kind, frame)
                    continue
                complete = "." in table or (  # `is_table_name`, inline: the assembler looks at such a table's rows
                    frame.rfind(_LATE_COLUMN) > 0 if kind == "I" else kind == "T" or _has_before(frame)
                )
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
            table = _table(frame, self._schema)
            if end > 0 and b"\\" not in address:  # else the address may end inside the name
                self._tables[address] = table
        if table is not _REGISTRY and table is not _MESSAGES and address in self._tables:
            self._address, self._at, self._table = address, start, table
        return table


def _table(frame: bytes, wanted_schema: str | None) -> str:
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
    if (schema, table) in _OF_CATALOG:
        return _OF_CATALOG[schema, table]
    is_bare = wanted_schema is None or (wanted_schema == schema and not is_table_name(table))
    return table if is_bare else f"{schema}.{table}"


_OF_CATALOG = {REGISTRY: _REGISTRY, MESSAGES: _MESSAGES}


def _read_catalog_row(table: str, kind: str, frame: bytes) -> list[Record]:
    """Return what a change of a table of the catalog is, if it is anything."""
    lsn = xlog_start(frame)
    if table is _REGISTRY:
        return [read_registry_row(lsn, kind, read_images(frame), frame)] if kind in "IU" else []
    if kind != "I":  # a message is deleted at once
        return []
    return [RowChange(lsn, MESSAGE_KIND, wal2json_name(frame), frame, True, read_wal2json_message)]


def _has_before(frame: bytes) -> bool:
    """Return whether a U or D has a collection's columns in its before image, without decoding it."""
    start = frame.rfind(_IDENTITY)
    return start > 0 and frame.count(_NAME, start) >= len(COLLECTION_COLUMNS)


def read_parts(frame: bytes) -> Images:
    """Decode the row of an I, U or D, by slicing: id and data at once, the other columns when they are asked for.

    A row of another shape (another order of columns, a value that is left in TOAST) is decoded as a whole.
    """
    parts, action = frame.split(_DATA), frame[_ACTION]
    if not frame.endswith(_END_OF_ROW) or len(parts) != (3 if action == _UPDATE else 2):
        return read_images(frame)
    is_before = action not in _HAVE_AFTER
    _, separator, id_ = parts[0].rpartition(_OLD_ID if is_before else _NEW_ID)
    data, found, rest = parts[1].partition(_VERSION)
    try:
        if action == _UPDATE:
            rest, between, old_id = rest.rpartition(_ID_AFTER_ROW)
            old_data, old_found, old_rest = parts[2].partition(_VERSION)
            if separator and found and between and old_found:
                after = _part(orjson.loads(id_), data, rest)
                old_key = after["id"] if old_id == id_ else orjson.loads(old_id)
                before = _part(old_key, old_data, old_rest[_WITHOUT_END])
                return tuple.__new__(Images, (after, before))  # takes half the time of Images(after, before)
        elif separator and found:
            image = _part(orjson.loads(id_), data, rest[_WITHOUT_END])
            return tuple.__new__(Images, ({}, image) if is_before else (image, {}))
    except orjson.JSONDecodeError:  # for example, an image has no data, and what is taken for its id is more
        pass
    return read_images(frame)


def _part(id_: Any, data: bytes, rest: bytes) -> dict[str, Any]:
    """Return an image of which `REST` is not read; the data is JSON."""
    read = _shared_columns if len(rest) < _LONG else _other_columns
    return {"id": id_, "data": orjson.loads(data), REST: (read, rest)}


def _other_columns(rest: bytes) -> dict[str, Any]:
    """Decode the columns that follow the data, from the version's value to the last one without its quote.

    Times have 29 characters, except every tenth. So slices from the end, which take a quarter of a regular expression's
    time, are enough for most rows.
    """
    versions = _versions(rest[_BEFORE_CREATED]) if len(rest) < _LONG else None
    if versions is not None and rest[_BETWEEN] == _UPDATED_AT:
        times = (rest[_CREATED] + rest[_UPDATED]).decode(errors="replace")
        if '"' not in times and "\\" not in times and len(times) == 2 * _TIME:
            return {
                "version": versions[0],
                "replaced_version": versions[1],
                "created_at": times[:_TIME],
                "updated_at": times[_TIME:],
            }
    return OddColumns(read_images(_MESSAGE_OF_REST + rest + _END_OF_ROW).after)


_shared_columns = lru_cache(maxsize=256)(_other_columns)
"""The rows of a transaction mostly have the same versions and times. Looking them up takes a seventh of the time."""
_MESSAGE_OF_REST = bytes(PAYLOAD) + b'{"columns":[' + _VERSION[len("},") :]


@lru_cache(maxsize=256)
def _versions(text: bytes) -> tuple[int, int] | None:
    """Parse both versions: the same in many rows. `None` for another shape."""
    found = _VERSIONS(text)
    return None if found is None else (int(found[1]), int(found[2]))


def read_images(frame: bytes) -> Images:
    """Decode the row of an I, U or D."""
    fields = _loads(frame)
    try:
        before = {column["name"]: column["value"] for column in fields.get("identity", ())}
        after = {column["name"]: column["value"] for column in fields.get("columns", ())}
    except (KeyError, TypeError, AttributeError) as exc:
        raise ProtocolError(f"wal2json sent a malformed change: {exc!r}", offset=PAYLOAD) from exc
    return Images({**before, **after} if after else after, before)


_RAW = json.JSONDecoder(parse_int=str, parse_float=str).decode


def read_texts(frame: bytes) -> Images:
    """Decode the row of a watched table to the texts of its values; those of type bytea lack their prefix."""
    try:
        fields = _RAW(frame[PAYLOAD:].decode())
        before = {column["name"]: _TEXTS.get(column["value"], column["value"]) for column in fields.get("identity", ())}
        after = {column["name"]: _TEXTS.get(column["value"], column["value"]) for column in fields.get("columns", ())}
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise ProtocolError(f"wal2json sent a malformed change: {exc!r}", offset=PAYLOAD) from exc
    if not after and frame[_ACTION] in _HAVE_AFTER:
        raise ProtocolError("wal2json sent a change without columns", offset=PAYLOAD)
    return Images({**before, **after} if after else after, before)


_TEXTS = {True: "t", False: "f"}


@lru_cache(maxsize=1024)
def columns_losing_nan(shape: TableShape) -> tuple[str, ...]:
    """Return the columns of which NaN and the infinities are sent as NULL: not those of arrays or domains."""
    return tuple(column.name for column in shape.columns if loses_nan(column.type))


def loses_nan(type_name: str) -> bool:
    """Return whether NaN and the infinities of a type are sent as NULL."""
    return type_name.partition("(")[0] in _LOSING_NAN and not type_name.endswith("[]")


_LOSING_NAN = frozenset({"numeric", "real", "double precision"})


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
