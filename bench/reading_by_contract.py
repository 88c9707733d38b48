"""Events by hand that have what the contract says, and nothing else: the least that reading them can take in Python.

An event decodes each field when it is first read, keeps it, and can be read again. Numbers are exact, a document that
can't be decoded names itself and leaves the rest readable, `True` differs from `1` in a difference, an update differs
from a replacement, and times may have any number of digits. All of it is for inserts, updates and replacements of a
collection, from messages of one shape. What a stream has besides is noticed, since it may come next, and left to
pgdoc's own functions: deletes, watched tables, metadata, decimals, replicated times, damaged messages. Streams that get
the same change share what it was cut into. There are no snapshots, filters, pickles or events from JSON.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from bench.counted import IDS
from bench.reading_by_hand import HANDS, moment, size_at, token_by_hand
from pgdoc.changes.diff import diff
from pgdoc.changes.events import from_change
from pgdoc.changes.row_images import iso_of, time_of
from pgdoc.errors import ProtocolError, UnreadableDocument
from pgdoc.model.json_codec import decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bench.reading_by_hand import Row
    from pgdoc.changes.change import Change
    from pgdoc.model.positions import Ids

_MISSING: Any = object()
_ALIKE, _LONG = bytes.maketrans(b"123456789", b"000000000"), b"0" * 19


class Columns(NamedTuple):
    """What a row has besides its id and data."""

    version: int
    replaced_version: int
    created_at: str
    updated_at: str


@lru_cache(maxsize=256)
def wal2json_columns(rest: bytes) -> Columns:
    version, replaced, created_at, updated_at = rest.split(b'"value":')
    return Columns(
        int(version.partition(b"}")[0]),
        int(replaced.partition(b"}")[0]),
        created_at[1 : created_at.index(b'"', 1)].decode(),
        updated_at[1:].decode(),
    )


@lru_cache(maxsize=256)
def pgoutput_columns(rest: bytes) -> Columns:
    texts, at = [], 1
    while at < len(rest):
        end = at + 4 + size_at(rest, at)[0]
        texts.append(rest[at + 4 : end].decode())
        at = end + 1
    return Columns(int(texts[0]), int(texts[1]), texts[2], texts[3])


def exactly(text: bytes | str) -> Any:
    """Decode data; what may have a number that orjson rounds is left to pgdoc."""
    raw = text.encode() if isinstance(text, str) else text
    return decode(raw) if raw.translate(_ALIKE).find(_LONG) >= 0 else orjson.loads(raw)


@lru_cache(maxsize=256)
def moment_of_row(reported: str, written: str, is_sent_time: bool) -> datetime:
    """Return when a row's transaction committed; the session of a replicated one may have told no time."""
    return moment(reported) if written <= reported and not is_sent_time else moment(written)


class Description:
    """How a document was changed."""

    __slots__ = ("disambiguated_paths", "removed_fields", "truncated_arrays", "updated_fields")

    def __init__(self, updated: dict[str, Any], removed: list[str]) -> None:
        self.updated_fields, self.removed_fields = updated, removed
        self.truncated_arrays: list[Any] = []
        self.disambiguated_paths: dict[str, Any] = {}


def difference(old: dict[str, Any], new: dict[str, Any]) -> Any:
    """Compare the fields as jsonb does; changes inside of fields are left to pgdoc."""
    updated: dict[str, Any] = {}
    kept = len(new)
    for key, value in new.items():
        was, kind = old.get(key, _MISSING), value.__class__
        if kind is was.__class__:
            if kind is dict or kind is list:
                if orjson.dumps(value) != orjson.dumps(was):
                    return diff(old, new)
                continue
            if value == was:
                continue
        elif was is _MISSING:
            kept -= 1
        else:
            return diff(old, new)
        if not key.isidentifier() or kind is dict or kind is list:
            return diff(old, new)
        updated[key] = value
    return Description(updated, [key for key in old if key not in new] if kept != len(old) else [])


class DocumentByHand:
    __slots__ = ("_data", "_plugin", "_rest", "_text", "id")

    def __init__(self, row: Row, plugin: Plugin) -> None:
        self.id, self._text, self._rest = row
        self._data: Any = None
        self._plugin = plugin

    @property
    def data(self) -> Any:
        data = self._data
        if data is None:
            try:
                data = self._data = self._plugin.decode(self._text)
            except ValueError as exc:
                raise UnreadableDocument(f"document {self.id!r}: {exc}", document_id=self.id) from exc
        return data

    @property
    def columns(self) -> Columns:
        return self._plugin.columns(self._rest)


class TokenByHand:
    """Compares in the order of the events."""

    __slots__ = ("ids", "position")

    def __init__(self, position: tuple[int, ...], ids: Ids) -> None:
        self.position, self.ids = position, ids

    def __lt__(self, other: TokenByHand) -> bool:
        return self.position < other.position


class EventByHand:
    __slots__ = ("_change", "_description", "_metadata", "_new", "_old", "_plugin", "_token", "_type", "ids")

    def __init__(self, plugin: Plugin, change: Change, ids: Ids) -> None:
        self._plugin, self._change, self.ids = plugin, change, ids
        self._new: DocumentByHand | None = None
        self._old: DocumentByHand | None = None
        self._type: str | None = None
        self._description: Any = None
        self._token: TokenByHand | None = None
        self._metadata: dict[str, Any] | None = None

    def _read(self) -> DocumentByHand:
        plugin = self._plugin
        new, old = images(plugin, self._change.row.message)
        if old is not None:
            self._old = DocumentByHand(old, plugin)
        document = self._new = DocumentByHand(new, plugin)
        return document

    @property
    def full_document(self) -> DocumentByHand:
        return self._new or self._read()

    @property
    def full_document_before_change(self) -> DocumentByHand | None:
        if self._new is None:
            self._read()
        return self._old

    @property
    def document_id(self) -> str:
        return (self._new or self._read()).id

    @property
    def event_type(self) -> str:
        kind = self._type
        if kind is None:
            columns = (self._new or self._read()).columns
            old = self._old
            is_replaced = columns[0] == columns[1] and old is not None and old.columns[0] != columns[0]
            kind = self._type = "insert" if old is None else "replace" if is_replaced else "update"
        return kind

    @property
    def update_description(self) -> Any:
        description = self._description
        if description is None and self.event_type == "update":
            description = self._description = difference(self._old.data, self._new.data)  # type: ignore[union-attr]
        return description

    @property
    def resume_token(self) -> TokenByHand:
        token = self._token
        if token is None:
            token = self._token = TokenByHand(self._change.position, self.ids)
        return token

    @property
    def timestamp(self) -> datetime:
        _, reported, _, is_sent_time = self._change.transaction
        return moment_of_row(reported, (self._new or self._read()).columns[3], is_sent_time)

    @property
    def metadata(self) -> dict[str, Any]:
        metadata = self._metadata
        if metadata is None:
            metadata = self._metadata = metadata_of(self._change)
        return metadata

    def to_json(self) -> bytes:
        """Return what pgdoc's `to_json` returns, without making the fields."""
        if self._new is not None or self._metadata is not None:
            return from_change(self._change, self.ids).to_json()  # who has read a field may have changed it
        plugin, (position, transaction, row) = self._plugin, self._change
        new, old = images(plugin, row.message)
        columns = plugin.columns(new[2])
        before, description, kind = None, None, "insert"
        if old is not None:
            former = plugin.columns(old[2])
            before = _document(old, former)
            kind = "replace" if columns[0] == columns[1] and former[0] != columns[0] else "update"
        if old is not None and kind == "update":
            found = difference(plugin.decode(old[1]), plugin.decode(new[1]))
            arrays = found.truncated_arrays and [{"field": name, "new_size": n} for name, n in found.truncated_arrays]
            description = {
                "updated_fields": found.updated_fields,
                "removed_fields": found.removed_fields,
                "truncated_arrays": arrays,
                "disambiguated_paths": found.disambiguated_paths,
            }
        return orjson.dumps(
            {
                "event_type": kind,
                "collection": row.table,
                "document_id": new[0],
                "full_document": _document(new, columns),
                "full_document_before_change": before,
                "update_description": description,
                "resume_token": token_by_hand(position),
                "timestamp": iso_of(time_of(transaction, columns[3])),
                "transaction_id": transaction.xid,
                "metadata": metadata_of(self._change),
                "renamed_to": None,
            }
        )


def _document(row: Row, columns: Columns) -> dict[str, Any]:
    return {
        "id": row[0],
        "data": orjson.Fragment(row[1]),
        "version": columns[0],
        "created_at": iso_of(columns[2]),
        "updated_at": iso_of(columns[3]),
    }


def metadata_of(change: Change) -> dict[str, Any]:
    return from_change(change, IDS).metadata if change.transaction.metadata else {}


class Plugin(NamedTuple):
    """How a message is taken apart, how its end looks, what follows the data of a row, and how the data is decoded."""

    row: Callable[[bytes], tuple[Row, Row | None]]
    end: bytes
    columns: Callable[[bytes], Columns]
    decode: Callable[[bytes | str], Any] = exactly


READERS = {
    "wal2json": Plugin(HANDS["wal2json"].row, b'"}]}', wal2json_columns),
    "pgoutput": Plugin(HANDS["pgoutput"].row, b"", pgoutput_columns),
}


def images(plugin: Plugin, message: bytes) -> tuple[Row, Row | None]:
    """Take a message apart, unless another stream has done so a moment ago."""
    latest, found = _latest[0]
    if latest is message:
        return found
    if not message.endswith(plugin.end):
        raise ProtocolError("the server sent a part of a message")
    found = plugin.row(message)
    _latest[0] = message, found
    return found


_latest: list[tuple[bytes, tuple[Row, Row | None]]] = [(b"", (("", b"", b""), None))]
