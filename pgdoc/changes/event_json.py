"""The layout of an event as a dict and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable  # noqa: TC003 (a named tuple's fields are looked up)
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from pgdoc.changes.diff import UpdateDescription, describe_update
from pgdoc.changes.row_images import all_columns, iso_of, metadata_of, time_of
from pgdoc.decoding.records import LOST, REST, ROW_KINDS
from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model import json_codec
from pgdoc.model.documents import data_text
from pgdoc.model.stored_rows import columns_of, iso_of_binary
from pgdoc.model.table_names import is_table_name
from pgdoc.model.table_row import TableRow
from pgdoc.model.tokens import token_text

if TYPE_CHECKING:
    from pgdoc.changes.row_images import ReadEvent
    from pgdoc.decoding.records import RowChange
    from pgdoc.model.documents import Document

__all__ = ["FIELDS", "json_of", "plain_field", "plain_of"]


class _Form(NamedTuple):
    """How a document's data, and other values that users supplied, are represented.

    Attributes:
        data: represents the data of a document.
        text: represents data that is still the server's text.
        value: represents any other value.
    """

    data: Callable[[Document], Any]
    text: Callable[[bytes | str, json_codec.JsonDecoder], Any]
    value: Callable[[Any], Any]


def _text_of(document: Document) -> bytes | str:
    """Return the JSON of a document; that of a table's row can be any value, and have a field `_id`."""
    if isinstance(document, TableRow) and "_data" not in document.__dict__:
        return _encode(document.data)
    return data_text(document)


def _encode(value: Any) -> bytes:
    try:
        return json_codec.encode_value(value, "")
    except InvalidDocument:
        return _encode_odd(value).encode()


def _encode_odd(value: Any) -> str:
    """Encode a value with text that no document has, but a table's column of type json: NUL or a lone surrogate."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(key)}:{_encode_odd(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_encode_odd, value))}]"
    return json_codec.encode_value(value, "").decode()


_PLAIN: Final = _Form(lambda document: document.data, lambda text, decode: decode(text), lambda value: value)
_JSON: Final = _Form(
    lambda document: orjson.Fragment(_text_of(document)),
    lambda text, _decode: orjson.Fragment(text),
    lambda value: orjson.Fragment(_encode(value)),
)


def plain_field(event: ReadEvent, name: str) -> Any:
    """Return one field of `to_dict()` without computing the others."""
    return _SHAPES[name](event, _PLAIN)


def _shape_of_document(document: Document | None, form: _Form) -> dict[str, Any] | None:
    if document is None:
        return None
    if isinstance(document, TableRow):
        return {"id": document.id, "data": form.data(document)}
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
        "updated_fields": form.value({**description.updated_fields}),
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
    values = _read_directly(event, _PLAIN)
    return _read_fields(event, _PLAIN) if values is None else values


def _read_fields(event: ReadEvent, form: _Form) -> dict[str, Any]:
    found = {name: shape(event, form) for name, shape in _SHAPES.items()}
    if event.columns is not None:
        found["columns"] = form.value(event.columns)
    return found


def json_of(event: ReadEvent) -> bytes:
    """See `ChangeEvent.to_json`."""
    try:
        values = _read_directly(event, _JSON)
        return orjson.dumps(_read_fields(event, _JSON) if values is None else values)
    except InvalidDocument as exc:
        raise UnreadableDocument(
            f'document {event.document_id!r} of collection "{event.collection}" cannot be written as JSON: {exc}',
            collection=event.collection,
            document_id=event.document_id,
        ) from exc


class _Unusual(Exception):  # noqa: N818 (no error)
    """A row of another shape than the usual, from which the fields have to be made."""


_CHANGEABLE: Final = ("full_document", "full_document_before_change", "update_description")
"""Once one of these, or the metadata, was accessed and is not `None`, the user may have changed it."""


def _read_directly(event: ReadEvent, form: _Form) -> dict[str, Any] | None:
    """Return what `_SHAPES` returns, without making the fields; `None` if that can't be done.

    It takes less than half the time. A test compares both.
    """
    state = event.__dict__
    if "metadata" in state or any(map(state.get, _CHANGEABLE)):
        return None
    if "_change" not in state:
        return _read_of_snapshot(state, form) if "_part" in state else None
    change = state["_change"]
    position, transaction, row = change
    is_table = is_table_name(row.table)
    if is_table and (row.kind not in ROW_KINDS or "columns" in state):
        return None
    document_id = after = before = description = None
    new: dict[str, Any] = {}
    try:
        if row.kind in "IUD":
            new, old = event._images  # noqa: SLF001
            document_id = (new or old)["id"]
            after, before, description = _read_documents(event, row, form)
        timestamp = iso_of(time_of(change, {} if is_table else new))
    except (_Unusual, UnreadableDocument, InvalidDocument):
        return None
    if timestamp is None:
        return None
    found = {
        "event_type": str(event.event_type),
        "collection": row.table,
        "document_id": document_id,
        "full_document": after,
        "full_document_before_change": before,
        "update_description": description,
        "resume_token": token_text(position, state["_ids"], state["_progress"]),
        "timestamp": timestamp,
        "transaction_id": transaction.xid,
        "metadata": form.value(metadata_of(event)) if transaction.metadata else {},
        "renamed_to": row.renamed_to,
    }
    if is_table and event.columns is not None:
        found["columns"] = form.value(event.columns)
    return found


def _read_of_snapshot(state: dict[str, Any], form: _Form) -> dict[str, Any] | None:
    part, row, document_id = state["_part"], state["_row"], state["document_id"]
    if part.shape is not None or not isinstance(row, bytes):  # of a table, or a change has put a document there
        return None
    text, version, *times = columns_of(row)
    created_at, updated_at = map(iso_of_binary, times)
    place = part.place
    if text is None or created_at is None or updated_at is None:
        return None
    try:
        data = form.text(text, place.decode_text or json_codec.decode)
    except UnreadableDocument:
        return None
    return {
        "event_type": "snapshot",
        "collection": part.collection,
        "document_id": document_id,
        "full_document": {
            "id": document_id,
            "data": data,
            "version": version,
            "created_at": created_at,
            "updated_at": updated_at,
        },
        "full_document_before_change": None,
        "update_description": None,
        "resume_token": token_text(place.position, place.ids, part.progress(state["_number"], document_id)),
        "timestamp": part.read_at.isoformat(),
        "transaction_id": 0,
        "metadata": {},
        "renamed_to": None,
    }


def _read_documents(event: ReadEvent, row: RowChange, form: _Form) -> tuple[Any, Any, Any]:
    """Return the two documents and the description of the update."""
    new, old = event._images  # noqa: SLF001
    decode = event.__dict__.get("_decode") or json_codec.decode
    after = _read_document(new, row.table, form, decode) if new else None
    before = _read_document(old, row.table, form, decode) if old else None
    if row.kind != "U" or after is None or before is None or event.event_type != "update":
        return after, before, None
    if new["data"] == old["data"]:
        description: UpdateDescription | None = UpdateDescription({}, [], [], {})
    elif form is _PLAIN:
        description = describe_update(before["data"], after["data"])
    else:
        description = describe_update(decode(old["data"]), decode(new["data"]))
    return after, before, _shape_of_description(description, form)


def _read_document(image: dict[str, Any], table: str, form: _Form, decode: json_codec.JsonDecoder) -> dict[str, Any]:
    if REST not in image or image["data"].__class__ is not str:
        if is_table_name(table) and LOST not in image:
            return {"id": image["id"], "data": form.text(image["data"], decode)}
        raise _Unusual
    all_columns(image, table)
    created_at, updated_at = iso_of(image["created_at"]), iso_of(image["updated_at"])
    if created_at is None or updated_at is None:
        raise _Unusual
    return {
        "id": image["id"],
        "data": form.text(image["data"], decode),
        "version": image["version"],
        "created_at": created_at,
        "updated_at": updated_at,
    }
