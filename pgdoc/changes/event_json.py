"""The layout of an event as a dict and as JSON."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 (a named tuple's fields are looked up)
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from pgdoc.changes.diff import UpdateDescription, diff
from pgdoc.changes.row_images import all_columns, iso_of, metadata_of, time_of
from pgdoc.decoding.records import REST
from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model import json_codec
from pgdoc.model.documents import data_text, decode_stored
from pgdoc.model.tokens import token_text

if TYPE_CHECKING:
    from pgdoc.changes.row_images import ReadEvent
    from pgdoc.decoding.records import RowChange
    from pgdoc.model.documents import Document

__all__ = ["FIELDS", "json_of", "plain_field", "plain_of"]


class _Form(NamedTuple):
    """How a document's data, and other values that users supplied, are represented."""

    data: Callable[[Document], Any]
    value: Callable[[Any], Any]


_PLAIN: Final = _Form(lambda document: document.data, lambda value: value)
_JSON: Final = _Form(
    lambda document: orjson.Fragment(data_text(document)),
    lambda value: orjson.Fragment(json_codec.encode_value(value, "")),
)


def plain_field(event: ReadEvent, name: str) -> Any:
    """Return one field of `to_dict()` without computing the others."""
    return _SHAPES[name](event, _PLAIN)


def _shape_of_document(document: Document | None, form: _Form) -> dict[str, Any] | None:
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


_SHAPES: Final[dict[str, Callable[[ReadEvent, _Form], Any]]] = {
    "event_type": lambda event, _form: str(event.event_type),
    "collection": lambda event, _form: event.collection,
    "document_id": lambda event, _form: event.document_id,
    "full_document": lambda event, form: _shape_of_document(event.full_document, form),
    "full_document_before_change": lambda event, form: _shape_of_document(event.full_document_before_change, form),
    "update_description": lambda event, form: _shape_of_description(event.update_description, form),
    "resume_token": lambda event, _form: str(event.resume_token),
    "timestamp": lambda event, _form: event.timestamp.isoformat(),
    "transaction_id": lambda event, _form: event.transaction_id,
    "metadata": lambda event, form: form.value(event.metadata),
    "renamed_to": lambda event, _form: event.renamed_to,
}

FIELDS: Final = tuple(_SHAPES)
"""The names of an event's fields, in the order of `to_dict()`."""


def plain_of(event: ReadEvent) -> dict[str, Any]:
    """See `ChangeEvent.to_dict`."""
    values = _read_directly(event, _DIRECT_PLAIN)
    if values is None:
        return {name: shape(event, _PLAIN) for name, shape in _SHAPES.items()}
    return dict(zip(FIELDS, values, strict=True))


def json_of(event: ReadEvent) -> bytes:
    """See `ChangeEvent.to_json`."""
    try:
        values = _read_directly(event, _DIRECT_JSON)
        if values is None:
            return orjson.dumps({name: shape(event, _JSON) for name, shape in _SHAPES.items()})
        return _joined(values)
    except InvalidDocument as exc:
        raise UnreadableDocument(
            f'document {event.document_id!r} of collection "{event.collection}" cannot be written as JSON: {exc}',
            collection=event.collection,
            document_id=event.document_id,
        ) from exc


class _Unusual(Exception):  # noqa: N818 (no error)
    """A row of another shape than the usual, from which the fields have to be made."""


class _DirectForm(NamedTuple):
    """How a document and an update are represented if no field of their event was accessed.

    Attributes:
        has_values: whether `document` needs the decoded data.
        document: represents an image, given its decoded data and the text of its two times.
    """

    has_values: bool
    document: Callable[[dict[str, Any], Any, str, str], Any]
    description: Callable[[UpdateDescription], Any]


def _plain_document(image: dict[str, Any], data: Any, created_at: str, updated_at: str) -> dict[str, Any]:
    return {
        "id": image["id"],
        "data": data,
        "version": image["version"],
        "created_at": created_at,
        "updated_at": updated_at,
    }


def _document_text(image: dict[str, Any], _data: Any, created_at: str, updated_at: str) -> bytes:
    return _DOCUMENT_TEXT % (
        orjson.dumps(image["id"]),
        image["data"].encode(),
        orjson.dumps(image["version"]),
        created_at.encode(),
        updated_at.encode(),
    )


def _description_text(description: UpdateDescription) -> bytes:
    if description.removed_fields or description.truncated_arrays or description.disambiguated_paths:
        return orjson.dumps(_shape_of_description(description, _JSON))
    return _UPDATED_FIELDS_TEXT % json_codec.encode_value(description.updated_fields, "")


_DOCUMENT_TEXT: Final = b'{"id":%b,"data":%b,"version":%b,"created_at":"%b","updated_at":"%b"}'
_UPDATED_FIELDS_TEXT: Final = (
    b'{"updated_fields":%b,"removed_fields":[],"truncated_arrays":[],"disambiguated_paths":{}}'
)
_PLAIN_TEXTS: Final = frozenset({"event_type", "resume_token", "timestamp"})  # nothing in them has to be escaped
_EVENT_TEXT: Final = (
    "{" + ",".join(f'"{name}":"%b"' if name in _PLAIN_TEXTS else f'"{name}":%b' for name in FIELDS) + "}"
).encode()
_DIRECT_PLAIN: Final = _DirectForm(
    has_values=True,
    document=_plain_document,
    description=lambda description: _shape_of_description(description, _PLAIN),
)
_DIRECT_JSON: Final = _DirectForm(has_values=False, document=_document_text, description=_description_text)
_NO_CHANGE: Final = UpdateDescription({}, [], [], {})
_CHANGEABLE: Final = frozenset({"full_document", "full_document_before_change", "update_description", "metadata"})
"""Once one of these was accessed, the user may have changed it."""


def _joined(values: tuple[Any, ...]) -> bytes:
    event_type, collection, document_id, after, before, description, token, timestamp, xid, metadata, renamed_to = (
        values
    )
    return _EVENT_TEXT % (
        event_type.encode(),
        orjson.dumps(collection),
        orjson.dumps(document_id),
        after or b"null",
        before or b"null",
        description or b"null",
        token.encode(),
        timestamp.encode(),
        b"%d" % xid,
        json_codec.encode_value(metadata, "") if metadata else b"{}",
        b"null" if renamed_to is None else orjson.dumps(renamed_to),
    )


def _read_directly(event: ReadEvent, form: _DirectForm) -> tuple[Any, ...] | None:
    """Return the values of `FIELDS` from what the server sent, without making the fields; `None` if that can't be done.

    They equal those of `_SHAPES`, which a test compares. It takes less than half the time.
    """
    state = event.__dict__
    if "_change" not in state or not state.keys().isdisjoint(_CHANGEABLE):
        return None
    change = state["_change"]
    position, transaction, row = change
    document_id = after = before = description = None
    new: dict[str, Any] = {}
    try:
        if row.kind in "IUD":
            new, old = event._images  # noqa: SLF001
            document_id = (new or old)["id"]
            after, before, description = _read_documents(event, row, form)
        timestamp = iso_of(time_of(change, new))
    except (_Unusual, UnreadableDocument, InvalidDocument):
        return None
    if timestamp is None:
        return None
    return (
        str(event.event_type),
        row.table,
        document_id,
        after,
        before,
        description,
        token_text(position, state["_ids"], state["_progress"]),
        timestamp,
        transaction.xid,
        metadata_of(event) if transaction.metadata else {},
        row.renamed_to,
    )


def _read_documents(event: ReadEvent, row: RowChange, form: _DirectForm) -> tuple[Any, Any, Any]:
    """Return the two documents and the description of the update."""
    new, old = event._images  # noqa: SLF001
    new_data = old_data = None
    if form.has_values:
        decode = event.__dict__.get("_decode") or json_codec.decode
        new_data = decode_stored(new["data"], decode) if new else None
        old_data = decode_stored(old["data"], decode) if old else None
    after = _read_document(new, row.table, new_data, form) if new else None
    before = _read_document(old, row.table, old_data, form) if old else None
    if row.kind != "U" or event.event_type != "update":
        return after, before, None
    if new["data"] == old["data"]:
        return after, before, form.description(_NO_CHANGE)
    if not form.has_values:
        decode = event.__dict__.get("_decode") or json_codec.decode
        new_data, old_data = decode(new["data"]), decode(old["data"])
    return after, before, form.description(diff(old_data, new_data))


def _read_document(image: dict[str, Any], table: str, data: Any, form: _DirectForm) -> Any:
    if REST not in image:
        raise _Unusual
    all_columns(image, table)
    created_at, updated_at = iso_of(image["created_at"]), iso_of(image["updated_at"])
    if created_at is None or updated_at is None:
        raise _Unusual
    return form.document(image, data, created_at, updated_at)
