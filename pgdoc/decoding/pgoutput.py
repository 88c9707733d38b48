"""Decodes pgoutput, protocol version 1, with values as text (PostgreSQL: Logical Replication Message Formats).

A Relation message describes a table before its first change, and again after each ALTER; a change names its table only
by its oid. The publication contains the registry and the collections of every schema, and pgoutput sends messages of
every prefix. This decoder keeps the messages with the prefix `pgdoc`. It keeps the changes of every table: a Relation
message can have the former name of a renamed schema, and only the registry knows which oids are wanted.

Values are text, not binary: the server is equally fast with both, and wal2json sends text for columns of any type.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.decoding.frames import PAYLOAD, PRIMARY_KEEPALIVE, iso_time, parse_keepalive, sent_at, unpack_lsn, xlog_start
from pgdoc.decoding.message_rows import MESSAGES, images_of_message, pgoutput_name
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
    RegistryRow,
    RowChange,
)
from pgdoc.decoding.registry_rows import REGISTRY, read_registry_row
from pgdoc.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PUBLICATION = "pgdoc"

_BEGIN, _COMMIT, _MESSAGE, _RELATION, _TRUNCATE = b"BCMRT"
_INSERT, _UPDATE, _DELETE = b"IUD"
_ROWS = {ord(kind): kind for kind in "IUD"}
_IGNORED = frozenset(b"OY")  # Origin, and Type, which text values do not need
_OLD, _KEY, _NEW = b"O", b"K", b"N"
_NULL, _UNCHANGED, _TEXT = b"nut"
_TABLE, _TUPLE = PAYLOAD + 1, PAYLOAD + 5
"""The offsets of the table's number and of the first tuple in the message of a row."""
_PREFIX = PAYLOAD + 10
_PART_OF_KEY = 1
_INTEGER_TYPES = frozenset({20, 21, 23})  # int8, int2, int4
_NO_IMAGES = Images({}, {})
_COLLECTION = [("id", 25), ("data", 3802), ("version", 20), ("replaced_version", 20)]
_COLLECTION += [("created_at", 1184), ("updated_at", 1184)]
"""The columns of a collection as `pgdoc.create_collection` makes it, with the oids of their types."""
_OLD_ROW, _NEW_ROW = (int.from_bytes(kind + b"\0\6t") for kind in (_OLD, _NEW))
_NEXT_ROW = b"N\0\6t"
"""The start of a tuple of six columns, of which the first is text. No text has a zero byte."""
_TIME = len("2026-11-29 07:08:51.817473+00")
_TIME_HEAD = b"t\0\0\0" + bytes([_TIME])
_UPDATED, _BETWEEN = slice(-_TIME, None), slice(-_TIME - len(_TIME_HEAD), -_TIME)
_CREATED, _BEFORE_CREATED = slice(_BETWEEN.start - _TIME, _BETWEEN.start), slice(_BETWEEN.start - _TIME)
_VERSIONS = re.compile(rb"t\0\0\0(.)(\d{1,19})t\0\0\0(.)(\d{1,19})%b" % re.escape(_TIME_HEAD), re.DOTALL).fullmatch

_begin_fields = struct.Struct(">QqI").unpack_from
_row_head, _value_head = struct.Struct(">II").unpack_from, struct.Struct(">BI").unpack_from
_byte, _short, _long, _lsn = (struct.Struct(f">{code}").unpack_from for code in "BHIQ")


def pgoutput_options(
    schema: str,  # noqa: ARG001 (the same for all plugins)
    part: Part = EVERYTHING,
    watched: Iterable[str] = (),  # noqa: ARG001 (as above)
) -> dict[str, str]:
    """Return the START_REPLICATION options, the same for every schema. pgoutput can't leave out a single table."""
    return {"proto_version": "1", "publication_names": PUBLICATION, "messages": str(part.has_messages).lower()}


class PgOutput:
    """Decodes pgoutput's frames. As with wal2json, a Begin is decoded only when a wanted change follows it."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._begin: bytes | None = None
        self._inside = False
        self._relations: dict[bytes, Relation] = {}

    def decode(self, frames: Iterable[bytes]) -> list[Record]:
        """Decode frames; see `Decoder`."""
        records: list[Record] = []
        append, make, relations = records.append, tuple.__new__, self._relations
        for frame in frames:
            tag = frame[PAYLOAD] if len(frame) > PAYLOAD else 0
            kind = _ROWS.get(tag)
            if kind is not None:
                relation = relations.get(frame[_TABLE:_TUPLE]) or self._relation(frame[_TABLE:_TUPLE])
                if self._begin is not None:
                    self._append_begin(records)
                if relation.is_of_catalog:
                    records += relation.read_catalog_row(kind, frame)
                    continue
                complete = relation.has_collection_columns and (kind == "I" or frame.startswith(_OLD, _TUPLE))
                lsn = unpack_lsn(frame, 1)[0]
                row = (lsn, kind, relation.table, frame, complete, relation.read_images, relation.oid)
                append(make(RowChange, row))  # takes half the time of RowChange(*row)
            elif tag == _COMMIT:
                self._begin, self._inside = None, False
                append(Commit(_read(_lsn, frame, PAYLOAD + 10)))
            elif tag == _BEGIN:
                self._begin, self._inside = frame, True
            else:
                self._decode_other(tag, frame, records)
        return records

    @property
    def begun(self) -> Begin | None:
        """See `Decoder`."""
        return None if self._begin is None else _read_begin(self._begin)

    def _decode_other(self, tag: int, frame: bytes, records: list[Record]) -> None:
        if tag == 0 and frame[:1] == PRIMARY_KEEPALIVE:
            if not self._inside:  # inside a transaction it is no watermark
                records.append(Idle(parse_keepalive(frame).wal_end))
        elif tag == _MESSAGE:
            if _is_wanted(frame):
                self._append_begin(records)
                records.append(Message(xlog_start(frame), _content(frame)))
        elif tag == _RELATION:
            self._relations[frame[_TABLE:_TUPLE]] = _read_relation(frame, self._schema)
        elif tag == _TRUNCATE:
            for relation in [self._relation(table) for table in _truncated(frame)]:
                if not relation.is_of_catalog:
                    self._append_begin(records)
                    records.append(
                        RowChange(xlog_start(frame), "T", relation.table, frame, True, _no_images, relation.oid)
                    )
        elif tag not in _IGNORED:
            raise ProtocolError(
                f"pgoutput sent an unknown message: {frame[PAYLOAD : PAYLOAD + 40]!r}", offset=min(PAYLOAD, len(frame))
            )

    def _relation(self, table: bytes) -> Relation:
        """Return the table with this oid."""
        try:
            return self._relations[table]
        except KeyError:
            raise ProtocolError(f"pgoutput sent a change of the unknown table {table.hex()}", offset=_TABLE) from None

    def _append_begin(self, records: list[Record]) -> None:
        if self._begin is not None:
            records.append(_read_begin(self._begin))
            self._begin = None


class _TableColumn(NamedTuple):
    """A column of a table; `is_key` if the replica identity has it."""

    name: str
    type_oid: int
    is_key: bool


class Relation:
    """A table as it was when the changes that follow were made. Called with a row's message, it decodes the row.

    Args:
        table: its name; empty if it is in another schema.
        columns: in their order.
    """

    __slots__ = ("columns", "has_collection_columns", "is_of_catalog", "is_registry", "oid", "read_images", "table")

    def __init__(
        self, oid: int, table: str, columns: list[_TableColumn], *, is_registry: bool, is_messages: bool = False
    ) -> None:
        self.oid = oid
        self.table = table
        self.is_registry = is_registry
        self.is_of_catalog = is_registry or is_messages
        self.columns = columns
        self.has_collection_columns = {column.name for column in columns} >= COLLECTION_COLUMNS
        is_usual = [(column.name, column.type_oid) for column in columns] == _COLLECTION
        self.read_images: Callable[[bytes], Images] = self._read_parts if is_usual else self  # every row change has it

    def read_catalog_row(self, kind: str, frame: bytes) -> list[Record]:
        """Return what a change of a table of the catalog is, if it is anything."""
        if self.is_registry:
            return [self.read_registry_row(kind, frame)] if kind != "D" else []
        if kind != "I":  # a message is deleted at once
            return []
        name = pgoutput_name(frame, _TUPLE + 3, self.columns)
        return [RowChange(xlog_start(frame), MESSAGE_KIND, name, frame, True, self._read_message, self.oid)]

    def _read_message(self, frame: bytes) -> Images:
        return images_of_message(self(frame).after)

    def read_registry_row(self, kind: str, frame: bytes) -> RegistryRow:
        """Decode a row of the registry. A name is exact in any case: an oid can't be taken for another table's."""
        row = read_registry_row(xlog_start(frame), kind, self(frame), frame)
        return row if row.opened_by == "alter" else row._replace(exact=True)

    def _read_parts(self, frame: bytes) -> Images:
        """Decode the row of an I, U or D by its lengths: id and data at once, the other columns when asked for.

        A row of another shape (a value that is NULL or left in TOAST) is decoded as a whole.
        """
        kind = frame[PAYLOAD]
        try:
            if kind == _INSERT:
                after, _ = self._part(frame, _TUPLE, _NEW_ROW)
                return tuple.__new__(Images, (after, {}))  # takes half the time of Images(after, {})
            before, end = self._part(frame, _TUPLE, _OLD_ROW, has_next=kind == _UPDATE)
            if kind == _DELETE:
                return Images({}, before)
            after, _ = self._part(frame, end, _NEW_ROW)
            return tuple.__new__(Images, (after, before))
        except (LookupError, struct.error, UnicodeDecodeError):
            return self(frame)

    def _part(self, frame: bytes, at: int, head: int, *, has_next: bool = False) -> tuple[dict[str, Any], int]:
        """Return the image that begins at an offset, with its id and data, and its end.

        Raises:
            LookupError: the image has another shape.
        """
        found, size = _row_head(frame, at)
        id_end = at + 8 + size
        tag, size = _value_head(frame, id_end)
        data_end = id_end + 5 + size
        if found != head or tag != _TEXT or frame[data_end] != _TEXT:
            raise LookupError
        end = frame.find(_NEXT_ROW, data_end) if has_next else len(frame)
        rest = _other_columns, frame[data_end:end]
        return {"id": frame[at + 8 : id_end].decode(), "data": frame[id_end + 5 : data_end], REST: rest}, end

    def __call__(self, frame: bytes) -> Images:
        """Decode the row of an I, U or D."""
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        at = _TUPLE
        kind, tag = frame[PAYLOAD : PAYLOAD + 1], frame[at : at + 1]
        if kind != b"I" and tag in (_OLD, _KEY):
            at = self._read_tuple(frame, at + 1, before, key_only=tag == _KEY)
            tag = frame[at : at + 1]
        if kind != b"D":
            if tag != _NEW:
                raise ProtocolError(
                    f"pgoutput sent a change with a tuple of the unknown kind {tag!r}", offset=min(at, len(frame))
                )
            after |= before
            at = self._read_tuple(frame, at + 1, after)
        if at != len(frame):  # incomplete, or too long
            raise ProtocolError(
                f"pgoutput sent a change of {len(frame)} bytes whose tuples end at byte {at}",
                offset=min(at, len(frame)),
            )
        return Images(after, before)

    def _read_tuple(self, frame: bytes, at: int, row: dict[str, Any], *, key_only: bool = False) -> int:
        """Add a tuple's values to `row`; return its end. A key tuple has NULL outside the key."""
        count = _read(_short, frame, at)
        if count != len(self.columns):
            raise ProtocolError(
                f"pgoutput sent a tuple of {count} columns for a table of {len(self.columns)}", offset=at
            )
        at += 2
        try:
            for name, type_oid, is_key in self.columns:
                tag = frame[at]
                at += 1
                if tag == _TEXT:
                    start = at + 4
                    at = start + _long(frame, at)[0]
                    value = frame[start:at]
                    row[name] = int(value) if type_oid in _INTEGER_TYPES else value.decode()
                elif tag == _NULL:
                    if is_key or not key_only:
                        row[name] = None
                elif tag != _UNCHANGED:
                    raise ProtocolError(f"pgoutput sent a value of the unknown kind {tag}", offset=at - 1)
        except (IndexError, ValueError, struct.error) as exc:  # UnicodeDecodeError is a ValueError
            raise ProtocolError(f"pgoutput sent a malformed value: {exc}", offset=min(at, len(frame))) from exc
        return at


def relation_of(read: Callable[[bytes], Images]) -> Relation:
    """Return the relation of the row that the function reads."""
    found = read if isinstance(read, Relation) else getattr(read, "__self__", None)
    assert isinstance(found, Relation)  # noqa: S101 (each row of pgoutput has one of them)
    return found


def _read(unpack: Any, frame: bytes, at: int) -> int:
    try:
        return int(unpack(frame, at)[0])
    except struct.error as exc:
        raise ProtocolError("pgoutput sent an incomplete message", offset=len(frame)) from exc


@lru_cache(maxsize=256)
def _other_columns(rest: bytes) -> dict[str, Any]:
    """Decode the columns that follow the data. The rows of a transaction mostly have the same.

    Times have 29 characters, except every tenth. So slices from the end are enough for most rows.
    """
    versions = _versions(rest[_BEFORE_CREATED])
    if versions is None or rest[_BETWEEN] != _TIME_HEAD:
        return OddColumns(_REST.read_images(_MESSAGE_OF_REST + rest).after)
    version, replaced_version = versions
    return {
        "version": version,
        "replaced_version": replaced_version,
        "created_at": rest[_CREATED].decode(errors="replace"),
        "updated_at": rest[_UPDATED].decode(errors="replace"),
    }


_REST = Relation(0, "", [_TableColumn(name, oid, False) for name, oid in _COLLECTION[2:]], is_registry=False)
_MESSAGE_OF_REST = bytes(PAYLOAD) + b"I\0\0\0\0N\0\4"


@lru_cache(maxsize=256)
def _versions(values: bytes) -> tuple[int, int] | None:
    """Parse both versions: the same in many rows. `None` for another shape."""
    found = _VERSIONS(values)
    if found is None or ord(found[1]) != len(found[2]) or ord(found[3]) != len(found[4]):
        return None
    return int(found[2]), int(found[4])


def _no_images(_frame: bytes) -> Images:
    return _NO_IMAGES


def _read_begin(frame: bytes) -> Begin:
    try:
        commit_lsn, committed_us, xid = _begin_fields(frame, PAYLOAD + 1)
        if committed_us == 0:  # The session has a replication origin, but gave no time for it.
            return Begin(commit_lsn, xid, sent_at(frame), is_sent_time=True)
        return Begin(commit_lsn, xid, iso_time(committed_us))
    except (struct.error, OverflowError) as exc:
        raise ProtocolError(f"pgoutput sent a malformed begin: {exc}", offset=PAYLOAD) from exc


def _read_relation(frame: bytes, wanted_schema: str) -> Relation:
    oid = _read(_long, frame, _TABLE)
    schema, at = _text(frame, _TUPLE)
    table, at = _text(frame, at)
    count = _read(_short, frame, at + 1)  # after the kind of replica identity
    at += 3
    columns = []
    for _ in range(count):
        flags = _read(_byte, frame, at)
        name, at = _text(frame, at + 1)
        columns.append(_TableColumn(name, _read(_long, frame, at), bool(flags & _PART_OF_KEY)))
        at += 8
    is_registry, is_messages = (schema, table) == REGISTRY, (schema, table) == MESSAGES
    name = table if schema == wanted_schema else ""
    return Relation(oid, name, columns, is_registry=is_registry, is_messages=is_messages)


def _text(frame: bytes, at: int) -> tuple[str, int]:
    """Return the text up to the next zero byte, and the offset after it."""
    end = frame.find(b"\0", at)
    if end < 0:
        raise ProtocolError("pgoutput sent a name without its zero byte", offset=min(at, len(frame)))
    try:
        return frame[at:end].decode(), end + 1
    except UnicodeDecodeError as exc:
        raise ProtocolError(f"pgoutput sent a name that is not UTF-8: {exc}", offset=at) from exc


def _truncated(frame: bytes) -> list[bytes]:
    count, at = _read(_long, frame, PAYLOAD + 1), PAYLOAD + 6
    if len(frame) != at + 4 * count:
        raise ProtocolError(f"pgoutput sent a truncation of {count} tables in {len(frame)} bytes", offset=PAYLOAD + 1)
    return [frame[start : start + 4] for start in range(at, len(frame), 4)]


def _is_wanted(frame: bytes) -> bool:
    """Return whether a message is transactional and has the prefix `pgdoc`."""
    if frame.find(b"\0", _PREFIX) < 0:
        raise ProtocolError("pgoutput sent a message without a prefix", offset=min(_PREFIX, len(frame)))
    return bool(frame[PAYLOAD + 1]) and frame.startswith(b"pgdoc\0", _PREFIX)


def _content(frame: bytes) -> str | None:
    """Return a message's text up to a zero byte, as wal2json does; `None` if it is not UTF-8."""
    start = _PREFIX + len(b"pgdoc\0") + 4
    size = _read(_long, frame, start - 4)
    if len(frame) != start + size:
        raise ProtocolError(f"pgoutput sent a message of {size} bytes in {len(frame)} bytes", offset=start - 4)
    with suppress(UnicodeDecodeError):
        return frame[start:].partition(b"\0")[0].decode()
    return None
