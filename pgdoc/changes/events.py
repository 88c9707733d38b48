"""The events of a change stream: `ChangeEvent`."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 (a named tuple's fields are looked up)
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from pgdoc.changes.diff import UpdateDescription, diff
from pgdoc.decoding.records import COLLECTION_COLUMNS, ROW_KINDS
from pgdoc.errors import HistoryLost, InvalidDocument, ReplicaIdentityChanged, UnreadableDocument
from pgdoc.model import json_codec
from pgdoc.model.documents import Document, data_text
from pgdoc.model.tokens import ResumeToken, SnapshotProgress, token_at

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.decoding.records import CollectionChange, Images, RowChange
    from pgdoc.model.positions import Ids

__all__ = ["ChangeEvent", "EventType", "UpdateDescription"]


class EventType(StrEnum):
    """What an event reports. Each member is also a `str`."""

    INSERT = "insert"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    TRUNCATE = "truncate"
    CREATE = "create"
    RENAME = "rename"
    DROP = "drop"
    INVALIDATE = "invalidate"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class ChangeEvent:
    """A change of one document or of a whole collection.

    Fields are decoded on first access, in the thread that accesses them. If a stored document can't be decoded, that
    access raises `UnreadableDocument`; the event's id and token remain available.

    Attributes:
        event_type: what happened.
        collection: the name of the collection.
        document_id: the id of the document; `None` for a change of a whole collection.
        full_document: the document exactly as this change left it (insert, update, replace), or as the snapshot read it
            (snapshot); otherwise `None`.
        full_document_before_change: the document before this change (update, replace, delete); otherwise `None`.
        update_description: what changed (update); otherwise `None`.
        resume_token: the position of this event; a stream with `resume_after` set to it continues with the next event.
        timestamp: when the transaction committed, at its origin if it was replicated, or when the snapshot read the
            document; timezone-aware, in UTC.
        transaction_id: PostgreSQL's transaction id (xid); 0 for a snapshot.
        metadata: the metadata that the writer attached (see `pgdoc.metadata`); `{}` if it attached none.
        renamed_to: the collection's new name (rename); otherwise `None`.
    """

    event_type: EventType
    collection: str
    document_id: str | None
    full_document: Document | None
    full_document_before_change: Document | None
    update_description: UpdateDescription | None
    resume_token: ResumeToken
    timestamp: datetime
    transaction_id: int
    metadata: dict[str, Any]
    renamed_to: str | None = field(default_factory=lambda: None)  # a plain default would be found before `__getattr__`

    def __getattr__(self, name: str) -> Any:
        compute = _FIELDS.get(name)
        if compute is None or "_change" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = self.__dict__[name] = compute(self)
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Return the event as a dict of JSON-compatible values. `where` filters apply to this form.

        Raises:
            UnreadableDocument: Python can't hold the stored data.
        """
        return self._shape(_PLAIN)

    def to_json(self) -> bytes:
        """Return the event as JSON text with exact numbers.

        A document that was not accessed is copied as the server sent it, without decoding.

        Raises:
            UnreadableDocument: Python can't hold the stored data, or can't encode it again.
        """
        try:
            return orjson.dumps(self._shape(_JSON))
        except InvalidDocument as exc:
            raise UnreadableDocument(
                f'document {self.document_id!r} of collection "{self.collection}" cannot be written as JSON: {exc}',
                collection=self.collection,
                document_id=self.document_id,
            ) from exc

    def _shape(self, form: _Form) -> dict[str, Any]:
        return {name: shape(self, form) for name, shape in _SHAPES.items()}


def from_change(change: Change, ids: Ids, progress: SnapshotProgress | None = None) -> ChangeEvent:
    """Make the event of a change; `ids` become a part of its token.

    Inside a snapshot, `progress` is how far it had come.
    """
    event = object.__new__(ChangeEvent)
    state = event.__dict__
    state["_change"], state["_ids"], state["_progress"] = change, ids, progress
    return event


def from_snapshot(collection: str, document: Document, token: ResumeToken, read_at: datetime) -> ChangeEvent:
    """Make the event of a document that a snapshot read."""
    return ChangeEvent(
        event_type=EventType.SNAPSHOT,
        collection=collection,
        document_id=document.id,
        full_document=document,
        full_document_before_change=None,
        update_description=None,
        resume_token=token,
        timestamp=read_at,
        transaction_id=0,
        metadata={},
    )


class _Form(NamedTuple):
    """How a document's data, and other values that users supplied, are represented."""

    data: Callable[[Document], Any]
    value: Callable[[Any], Any]


_PLAIN: Final = _Form(lambda document: document.data, lambda value: value)
_JSON: Final = _Form(
    lambda document: orjson.Fragment(data_text(document)),
    lambda value: orjson.Fragment(json_codec.encode_value(value, "")),
)


def plain_field(event: ChangeEvent, name: str) -> Any:
    """Return one field of `to_dict()` without computing the others."""
    return _SHAPES[name](event, _PLAIN)


def _shape_of(document: Document | None, form: _Form) -> dict[str, Any] | None:
    if document is None:
        return None
    return {
        "id": document.id,
        "data": form.data(document),
        "version": document.version,
        "created_at": document.created_at.isoformat(),
        "updated_at": document.updated_at.isoformat(),
    }


def _shape_of_description(description: UpdateDescription | None, form: _Form) -> dict[str, Any] | None:
    if description is None:
        return None
    return {
        "updated_fields": {path: form.value(new) for path, new in description.updated_fields.items()},
        "removed_fields": description.removed_fields,
        "truncated_arrays": [{"field": name, "new_size": size} for name, size in description.truncated_arrays],
        "disambiguated_paths": description.disambiguated_paths,
    }


_SHAPES: Final[dict[str, Callable[[ChangeEvent, _Form], Any]]] = {
    "event_type": lambda event, _form: str(event.event_type),
    "collection": lambda event, _form: event.collection,
    "document_id": lambda event, _form: event.document_id,
    "full_document": lambda event, form: _shape_of(event.full_document, form),
    "full_document_before_change": lambda event, form: _shape_of(event.full_document_before_change, form),
    "update_description": lambda event, form: _shape_of_description(event.update_description, form),
    "resume_token": lambda event, _form: str(event.resume_token),
    "timestamp": lambda event, _form: event.timestamp.isoformat(),
    "transaction_id": lambda event, _form: event.transaction_id,
    "metadata": lambda event, form: form.value(event.metadata),
    "renamed_to": lambda event, _form: event.renamed_to,
}

FIELDS: Final = tuple(_SHAPES)
"""The names of an event's fields, in the order of `to_dict()`."""


def _row(event: ChangeEvent) -> RowChange | CollectionChange:
    row: RowChange | CollectionChange = event._change.row  # noqa: SLF001 (this module's own)
    return row


_columns = itemgetter(*COLLECTION_COLUMNS)


def _images(event: ChangeEvent) -> Images:
    row = _row(event)
    images = row.images()
    if row.kind in "IUD":
        image = images.after or images.before
        try:
            _columns(image)  # the cheapest test
        except KeyError as exc:
            lost = ", ".join(sorted(COLLECTION_COLUMNS - image.keys()))
            raise UnreadableDocument(
                f'a row of collection "{row.table}" lacks {lost}: the table was changed where no event trigger refuses '
                "it; restore the column",
                collection=row.table,
            ) from exc
    return images


def _document(image: dict[str, Any], collection: str) -> Document:
    return Document.from_text(
        image["id"],
        image["data"],
        image["version"],
        image["created_at"],
        image["updated_at"],
        collection=collection,
    )


_ROW_EVENTS = {"I": EventType.INSERT, "D": EventType.DELETE, "T": EventType.TRUNCATE}


def _event_type(event: ChangeEvent) -> EventType:
    kind = _row(event).kind
    if kind == "U":
        after, before = event._images  # noqa: SLF001
        # A version that did not grow says nothing: the table's trigger did not run, as its owner can arrange.
        is_replacement = after["replaced_version"] == after["version"] != before.get("version")
        return EventType.REPLACE if is_replacement else EventType.UPDATE
    return _ROW_EVENTS.get(kind) or EventType(kind)


def _document_id(event: ChangeEvent) -> str | None:
    if _row(event).kind not in "IUD":
        return None
    after, before = event._images  # noqa: SLF001
    document_id: str = (after or before)["id"]
    return document_id


def _full_document(event: ChangeEvent) -> Document | None:
    return _document(event._images.after, _row(event).table) if _row(event).kind in "IU" else None  # noqa: SLF001


def _full_document_before_change(event: ChangeEvent) -> Document | None:
    return _document(event._images.before, _row(event).table) if _row(event).kind in "UD" else None  # noqa: SLF001


def _update_description(event: ChangeEvent) -> UpdateDescription | None:
    before, after = event.full_document_before_change, event.full_document
    if event.event_type is not EventType.UPDATE or before is None or after is None:
        return None
    return diff(before.data, after.data)


def _metadata(event: ChangeEvent) -> dict[str, Any]:
    """Decode the writer's message; ignore text that is not pgdoc's, since any SQL writer can send one."""
    text = event._change.transaction.metadata  # noqa: SLF001
    try:
        content = json_codec.decode(text) if text else None
    except (ValueError, UnreadableDocument):
        return {}
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _timestamp(event: ChangeEvent) -> datetime:
    """Return when the transaction committed, or the nearest time that is known.

    In a session with a replication origin, PostgreSQL writes the time that the session set last: none in its first
    transaction, and a stale one later. Such a time lies before the row's `updated_at`, the start of the transaction.
    """
    transaction = event._change.transaction  # noqa: SLF001
    reported = datetime.fromisoformat(transaction.timestamp).astimezone(UTC)
    if _row(event).kind not in "IU":
        return reported
    text = event._images.after["updated_at"]  # noqa: SLF001
    if text[4] == "-" and text.endswith("+00") and text <= transaction.timestamp and not transaction.is_sent_time:
        return reported  # the usual case: both are ISO 8601 in UTC, with a space and a year of four digits
    try:
        written = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):  # `infinity`, or a year that Python does not have
        return reported
    return written if transaction.is_sent_time or written > reported else reported


def _resume_token(event: ChangeEvent) -> ResumeToken:
    return token_at(event._change.position, event._ids, event._progress)  # noqa: SLF001


_FIELDS: dict[str, Callable[[ChangeEvent], Any]] = {
    "_images": _images,
    "event_type": _event_type,
    "collection": lambda event: _row(event).table,
    "document_id": _document_id,
    "full_document": _full_document,
    "full_document_before_change": _full_document_before_change,
    "update_description": _update_description,
    "resume_token": _resume_token,
    "timestamp": _timestamp,
    "transaction_id": lambda event: event._change.transaction.xid,  # noqa: SLF001
    "metadata": _metadata,
    "renamed_to": lambda event: _row(event).renamed_to,
}


def check_images(change: Change) -> None:
    """Raise an error for a change that is not whole.

    Raises:
        HistoryLost: the change of a collection was found late, and rows before it may be missing.
        ReplicaIdentityChanged: a row lacks the before image that its kind needs.
    """
    row = change.row
    if row.complete:
        return
    if row.kind not in ROW_KINDS:
        raise HistoryLost(
            f'collection "{row.table}" was renamed, moved or dropped in SQL, which no event trigger followed, and '
            "wal2json tells tables apart by name only, so changes may be missing: rebuild from the collections, and "
            "stream from now through pgoutput, or have a superuser create the catalog"
        )
    raise ReplicaIdentityChanged(
        f'collection "{row.table}": a change of transaction {change.transaction.xid} has no before image, because the '
        "table's replica identity was changed: run ALTER TABLE ... REPLICA IDENTITY FULL on it, rebuild your copy from "
        "the collection, and start a new stream"
    )
