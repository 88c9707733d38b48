"""What the event of a change computes on first access."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.changes.diff import UpdateDescription, describe_update
from pgdoc.changes.event_json import payload_text
from pgdoc.changes.event_type import EventType
from pgdoc.changes.row_images import (
    check_columns,
    columns_of,
    images_of,
    later_time,
    metadata_of,
    other_columns,
    time_of,
)
from pgdoc.changes.table_rows import columns_text_of, data_of
from pgdoc.decoding.records import MESSAGE_KIND, REST, CollectionChange, OddColumns
from pgdoc.model import json_codec
from pgdoc.model.documents import Document, Origin, TypedDocument, document_of_image, plain_data
from pgdoc.model.stored_times import moment_of
from pgdoc.model.table_names import is_table_name
from pgdoc.model.table_row import TableRow
from pgdoc.model.tokens import token_at
from pgdoc.model.topics import topic_of
from pgdoc.model.typed.reader import ModelReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pgdoc.changes.row_images import ReadEvent
    from pgdoc.model.tokens import ResumeToken

__all__ = ["OF_CHANGE"]

_UPDATE: Final = EventType.UPDATE  # looking up a member takes as long as making an event
_ROW_EVENTS = {
    "I": EventType.INSERT,
    "D": EventType.DELETE,
    "T": EventType.TRUNCATE,
    MESSAGE_KIND: EventType.MESSAGE,
}


def _event_type(event: ReadEvent) -> EventType:
    row = event._change.row  # noqa: SLF001
    kind, table = row.kind, row.table
    if kind != "U":
        return _ROW_EVENTS.get(kind) or EventType(kind)
    if is_table_name(table):
        return _UPDATE
    new, old = event._images  # noqa: SLF001
    after = columns_of(new, table)
    event.__dict__["_written"] = after["updated_at"]  # for the timestamp, which mostly is read, too
    return _type_of_update(after, old, table)


def _type_of_update(after: dict[str, Any], old: dict[str, Any], table: str) -> EventType:
    version = after["version"]
    # A version that did not grow says nothing: the table's trigger did not run, as its owner can arrange.
    if after["replaced_version"] == version and version != columns_of(old, table).get("version"):
        return EventType.REPLACE
    return _UPDATE


def _document_id(event: ReadEvent) -> str | None:
    state = event.__dict__
    kind = state["_change"].row.kind
    if kind not in "IUDM":
        return None
    images = state.get("_images")
    if images is None:  # as the field does, which takes longer
        images = state["_images"] = images_of(event)
    document_id: str | None = images[kind == "D"]["id"]
    return document_id


def _full_document(event: ReadEvent) -> Document[Any] | None:
    """Make the document. In the usual case, store what else the row says: together, the fields take less time."""
    state = event.__dict__
    _, transaction, row = state["_change"]
    _, kind, table, _, _, _, _ = row
    if kind not in "IU":
        return None
    images = state.get("_images")
    if images is None:  # as the field does, which takes longer
        images = state["_images"] = images_of(event)
    new, old = images
    rest = new.get(REST)
    if rest is None or (kind == "U" and REST not in old):
        return _document(state, table, new)
    columns = rest[0](rest[1])  # `columns_of`, inline
    if columns.__class__ is OddColumns:
        return _document(state, table, new)
    _, reported, metadata, is_sent_time = transaction
    moment = _usual_moment(reported, columns["updated_at"], is_sent_time)
    origin = _origin(table, state.get("_decode"))
    document = document_of_image(new["id"], new["data"], rest, origin)
    if kind == "I":
        state.update(_OF_INSERT)
    else:
        state["full_document_before_change"] = document_of_image(old["id"], old["data"], old[REST], origin)
        if columns["replaced_version"] != columns["version"]:  # else `_type_of_update` has to look, and may fail
            state["event_type"] = _UPDATE
    state["document_id"] = document.id
    if moment is not None:
        state["timestamp"] = moment
    if not metadata and "metadata" not in state:
        state["metadata"] = {}
    state["full_document"] = document
    return document


_OF_INSERT = {"event_type": EventType.INSERT, "full_document_before_change": None, "update_description": None}


@lru_cache(maxsize=256)
def _usual_moment(reported: str, written: str, is_sent_time: bool) -> datetime | None:
    """Return the timestamp of a row; `None` if the field has to raise an error. The same for many rows."""
    try:
        return moment_of(later_time(reported, written, is_sent_time))
    except (ValueError, OverflowError):
        return None


def _full_document_before_change(event: ReadEvent) -> Document[Any] | None:
    state = event.__dict__
    row = state["_change"].row
    if row.kind not in "UD":
        return None
    if row.kind == "U":
        event.full_document  # noqa: B018 (which mostly stores both: each document must be made once)
        if "full_document_before_change" in state:
            made: Document[Any] = state["full_document_before_change"]
            return made
    return _document(state, row.table, event._images[1])  # noqa: SLF001


def _origin(table: str, decode: Any) -> Origin:
    if decode.__class__ is ModelReader:
        return Origin(table, other_columns, decode, TypedDocument)  # a cache would keep the model's class alive
    return _origin_of(table, decode)


def _document(state: dict[str, Any], table: str, image: dict[str, Any]) -> Document[Any]:
    decode: Any = state.get("_decode")
    if REST in image:
        return document_of_image(image["id"], image["data"], image[REST], _origin(table, decode))
    if is_table_name(table):
        columns = columns_text_of(image, table)
        return TableRow.of(image["id"], data_of(image, table), table, decode, columns)
    check_columns(image, table)
    values = [image[name] for name in ("id", "data", "version", "created_at", "updated_at")]
    kind = TypedDocument if decode.__class__ is ModelReader else Document
    return kind.from_text(*values, collection=table, decode_text=decode)


@lru_cache(maxsize=256)
def _origin_of(table: str, decode_text: json_codec.JsonDecoder | None) -> Origin:
    return Origin(table, other_columns, decode_text or json_codec.decode)


def _update_description(event: ReadEvent) -> UpdateDescription | None:
    before, after = event.full_document_before_change, event.full_document
    if before is None or after is None or event.event_type is not _UPDATE:
        return None
    new, old = event._images  # noqa: SLF001
    if new["data"] == old["data"]:  # equal texts need no decoding
        return UpdateDescription({}, [], [], {})
    if after.__class__ is TypedDocument:
        return describe_update(plain_data(before), plain_data(after))
    return describe_update(before.data, after.data)


def _timestamp(event: ReadEvent) -> datetime:
    _, transaction, row = event._change  # noqa: SLF001
    written = event.__dict__.get("_written")
    if written is None and row.kind in "IU" and not is_table_name(row.table):
        written = columns_of(event._images[0], row.table)["updated_at"]  # noqa: SLF001
    return moment_of(time_of(transaction, written))


def _columns(event: ReadEvent) -> dict[str, Any] | None:
    row = event._change.row  # noqa: SLF001
    if isinstance(row, CollectionChange):
        shapes = zip(("before", "after"), row.shapes or (), strict=False)
        return {when: {column.name: column.type for column in shape.columns} for when, shape in shapes} or None
    if row.kind not in "IUD" or not is_table_name(row.table):
        return None
    text = columns_text_of(event._images[row.kind == "D"], row.table)  # noqa: SLF001
    return None if text is None else (event.__dict__.get("_decode") or json_codec.decode_comparable)(text)


def _topic(event: ReadEvent) -> str | None:
    row = event._change.row  # noqa: SLF001
    return topic_of(row.table) if row.kind == MESSAGE_KIND else None


def _payload(event: ReadEvent) -> Any:
    text = payload_text(event)
    return None if text is None else (event.__dict__.get("_decode") or json_codec.decode)(text)


def _resume_token(event: ReadEvent) -> ResumeToken:
    return token_at(event._change.position, event._ids, event._progress)  # noqa: SLF001


OF_CHANGE: Final[dict[str, Callable[[ReadEvent], Any]]] = {
    "_images": images_of,
    "event_type": _event_type,
    "collection": lambda event: event._change.row.table,  # noqa: SLF001
    "document_id": _document_id,
    "full_document": _full_document,
    "full_document_before_change": _full_document_before_change,
    "update_description": _update_description,
    "resume_token": _resume_token,
    "timestamp": _timestamp,
    "transaction_id": lambda event: event._change.transaction.xid,  # noqa: SLF001
    "metadata": lambda event: metadata_of(event) if event._change.transaction.metadata else {},  # noqa: SLF001
    "renamed_to": lambda event: event._change.row.renamed_to,  # noqa: SLF001
    "columns": _columns,
    "topic": _topic,
    "payload": _payload,
}
"""The fields that the event of a change computes on first access."""
