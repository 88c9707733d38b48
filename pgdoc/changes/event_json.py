"""The layout of an event as a dict and as JSON."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 (a named tuple's fields are looked up)
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from pgdoc.changes.diff import UpdateDescription, describe_update
from pgdoc.changes.row_images import columns_of, images_of, iso_of, metadata_of, time_of
from pgdoc.changes.table_rows import changed_of, columns_text_of, data_of
from pgdoc.changes.value_json import encode_json, json_of_decoded, json_value
from pgdoc.decoding.records import MESSAGE_KIND, REST, ROW_KINDS
from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model import json_codec
from pgdoc.model.documents import data_text, plain_data
from pgdoc.model.stored_rows import iso_of_binary, parts_of_stored
from pgdoc.model.table_names import is_table_name
from pgdoc.model.table_row import TableRow
from pgdoc.model.tokens import token_text

if TYPE_CHECKING:
    from pgdoc.changes.row_images import ReadEvent
    from pgdoc.decoding.records import RowChange
    from pgdoc.model.documents import Document

__all__ = ["FIELDS", "document_shape", "json_of", "payload_text", "plain_field", "plain_of", "printed_of"]


class _Form(NamedTuple):
    """How a document's data, and other values that users supplied, are represented.

    Attributes:
        data: represents the data of a document.
        text: represents data that is still the server's text.
        value: represents any other value.
        decoded: represents values that were decoded a moment ago, by name.
    """

    data: Callable[[Document], Any]
    text: Callable[[bytes | str, json_codec.JsonDecoder], Any]
    value: Callable[[Any], Any]
    decoded: Callable[[dict[str, Any]], Any]


def _text_of(document: Document) -> bytes | str:
    """Return the JSON of a document; that of a table's row can be any value, and have a field `_id`."""
    if isinstance(document, TableRow) and "_data" not in document.__dict__:
        return encode_json(document.data)
    return data_text(document)


_PLAIN: Final = _Form(plain_data, lambda text, decode: decode(text), lambda value: value, lambda values: values)
_JSON: Final = _Form(
    lambda document: orjson.Fragment(_text_of(document)),
    lambda text, _decode: orjson.Fragment(text),
    json_value,
    json_of_decoded,
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


def document_shape(document: Document) -> dict[str, Any]:
    """Return what orjson writes for a document, as `json_of` does: a row of a watched table has no version."""
    return _shape_of_document(document, _JSON) or {}


def _shape_of_description(description: UpdateDescription | None, shape: Callable[[Any], Any]) -> dict[str, Any] | None:
    if description is None:
        return None
    return {
        "updated_fields": shape({**description.updated_fields}),
        "removed_fields": description.removed_fields,
        "truncated_arrays": [{"field": name, "new_size": size} for name, size in description.truncated_arrays],
        "disambiguated_paths": description.disambiguated_paths,
    }


def _description_of(event: ReadEvent) -> UpdateDescription | None:
    """Return what changed. It decodes copies of the documents: their own text, with all digits, stays for later."""
    found: UpdateDescription | None
    if "update_description" in event.__dict__:
        found = event.update_description
        return found
    twin = object.__new__(type(event))
    twin.__dict__.update(event.__dict__)
    for name in ("full_document", "full_document_before_change"):
        document = getattr(event, name)
        if document is not None:
            twin.__dict__[name] = same = object.__new__(type(document))
            same.__dict__.update(document.__dict__)
    found = twin.update_description
    return found


_SHAPES: Final[dict[str, Callable[[ReadEvent, _Form], Any]]] = {
    "event_type": lambda event, _form: str(event.event_type),
    "collection": lambda event, _form: event.collection,
    "document_id": lambda event, _form: event.document_id,
    "full_document": lambda event, form: _shape_of_document(event.full_document, form),
    "full_document_before_change": lambda event, form: _shape_of_document(event.full_document_before_change, form),
    "update_description": lambda event, form: _shape_of_description(_description_of(event), form.value),
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
    columns = _shape_of_columns(event, form)
    if columns is not None:
        found["columns"] = columns
    if event.topic is not None:
        found["topic"], found["payload"] = event.topic, _shape_of_payload(event, form)
    return found


def payload_text(event: ReadEvent) -> bytes | str | None:
    """Return the JSON of the payload as the server sent it; `None` if the event is no message, or has only a value."""
    state = event.__dict__
    if "_change" in state:
        text: bytes | str | None = event._images[0]["data"] if state["_change"].row.kind == MESSAGE_KIND else None  # noqa: SLF001
        return text
    return state["_texts"].get("payload") if "_texts" in state else None


def _shape_of_payload(event: ReadEvent, form: _Form) -> Any:
    """Represent the payload by its text, as a document, unless it was accessed."""
    text = None if "payload" in event.__dict__ else payload_text(event)
    return (
        form.value(event.payload)
        if text is None
        else form.text(text, event.__dict__.get("_decode") or json_codec.decode)
    )


def _shape_of_columns(event: ReadEvent, form: _Form) -> Any:
    """Represent the other columns of a table's row by their text, as its document, unless they were accessed."""
    document = event.full_document_before_change if event.full_document is None else event.full_document
    if "columns" not in event.__dict__ and isinstance(document, TableRow) and document.columns_text is not None:
        return form.text(document.columns_text, event.__dict__.get("_decode") or json_codec.decode_comparable)
    return None if event.columns is None else form.value(event.columns)


def json_of(event: ReadEvent) -> bytes:
    """See `ChangeEvent.to_json`."""
    state = event.__dict__
    if "_json" in state and not _is_accessed(state) and state.get("columns") is None and state.get("payload") is None:
        text: bytes = state["_json"]
        return text
    values = _read_directly(event, _JSON)
    if values is not None:
        try:
            return orjson.dumps(values)
        except TypeError:  # see `_WRITTEN_BY_ORJSON`
            pass
    try:
        return orjson.dumps(_read_fields(event, _JSON))
    except InvalidDocument as exc:
        raise UnreadableDocument(
            f'document {event.document_id!r} of collection "{event.collection}" cannot be written as JSON: {exc}',
            collection=event.collection,
            document_id=event.document_id,
        ) from exc
    except TypeError:  # a field was removed whose name has a lone surrogate
        return encode_json(_read_fields(event, _PLAIN))


def printed_of(event: ReadEvent) -> tuple[bytes, dict[str, Any]]:
    """Return what `json_of` returns, and the fields that were made for it: some only for writing.

    The type, the collection, the id and the token are text, and the metadata is true if there is any.
    """
    if "_json" not in event.__dict__:
        values = _read_directly(event, _JSON)
        if values is not None:
            try:
                return orjson.dumps(values), values
            except TypeError:  # see `_WRITTEN_BY_ORJSON`
                pass
    return json_of(event), {name: plain_field(event, name) for name in _PRINTED}


_PRINTED: Final = ("event_type", "collection", "document_id", "resume_token", "metadata")


class _Unusual(Exception):  # noqa: N818 (no error)
    """A row of another shape than the usual, from which the fields have to be made."""


_CHANGEABLE: Final = frozenset(("full_document", "full_document_before_change", "update_description", "metadata"))
"""Once one of these was accessed and is not `None`, the user may have changed it."""


def _is_accessed(state: dict[str, Any]) -> bool:
    """Return whether the user may have changed a part of the event."""
    return not _CHANGEABLE.isdisjoint(state) and ("metadata" in state or any(map(state.get, _CHANGEABLE)))


def _read_directly(event: ReadEvent, form: _Form) -> dict[str, Any] | None:
    """Return what `_SHAPES` returns, without making the fields; `None` if that can't be done.

    It takes less than half the time. A test compares both.
    """
    state = event.__dict__
    if _is_accessed(state):
        return None
    if "_change" not in state:
        return _read_of_snapshot(state, form) if "_part" in state else None
    position, transaction, row = state["_change"]
    columns: str | None = None
    try:
        if row.kind not in "IUD":
            if row.kind == MESSAGE_KIND or (row.kind not in ROW_KINDS and is_table_name(row.table)):
                return None
            of_row: tuple[Any, ...] = (str(event.event_type), *_NO_ROW)
        elif is_table_name(row.table):
            of_row, columns = _read_table_row(event, row, form)
        else:
            of_row = _read_row(event, row, form)
        event_type, document_id, after, before, description, written = of_row
        timestamp = iso_of(time_of(transaction, written))
        metadata = form.value(metadata_of(event)) if transaction.metadata else {}
    except (_Unusual, UnreadableDocument, InvalidDocument):
        return None
    if timestamp is None:
        return None
    found = {
        "event_type": event_type,
        "collection": row.table,
        "document_id": document_id,
        "full_document": after,
        "full_document_before_change": before,
        "update_description": description,
        "resume_token": token_text(position, state["_ids"], state["_progress"]),
        "timestamp": timestamp,
        "transaction_id": transaction.xid,
        "metadata": metadata,
        "renamed_to": row.renamed_to,
    }
    if columns is not None:
        found["columns"] = form.text(columns, state.get("_decode") or json_codec.decode_comparable)
    return found


def _read_of_snapshot(state: dict[str, Any], form: _Form) -> dict[str, Any] | None:
    part, (number, row), document_id = state["_part"], state["_numbered_row"], state["document_id"]
    if part.shape is not None or not isinstance(row, bytes):  # of a table, or a change has put a document there
        return None
    text, version, *times = parts_of_stored(row)
    created_at, updated_at = map(iso_of_binary, times)
    place = part.place
    if text is None or created_at is None or updated_at is None:
        return None
    try:
        data = form.text(text, part.origin.decode_text)
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
        "resume_token": token_text(place.position, place.ids, part.progress(number, document_id)),
        "timestamp": part.read_at.isoformat(),
        "transaction_id": 0,
        "metadata": {},
        "renamed_to": None,
    }


_NO_ROW: Final = (None, None, None, None, None)


def _read_row(event: ReadEvent, row: RowChange, form: _Form) -> tuple[Any, ...]:
    """Return the type, the id, both documents and the description of the update, and when the row was written."""
    state, kind, table = event.__dict__, row.kind, row.table
    new, old = state.get("_images") or images_of(event)
    decode = state.get("_decode") or json_codec.decode
    if kind == "D":
        return "delete", old["id"], None, _read_document(old, columns_of(old, table), form, decode), None, None
    columns = columns_of(new, table)
    after = _read_document(new, columns, form, decode)
    if kind == "I":
        return "insert", new["id"], after, None, None, columns["updated_at"]
    before = _read_document(old, columns_of(old, table), form, decode)
    if columns["replaced_version"] == columns["version"] and event.event_type != "update":
        return "replace", new["id"], after, before, None, columns["updated_at"]
    description = _read_description(new, old, after, before, form, decode)
    return "update", new["id"], after, before, description, columns["updated_at"]


def _read_description(  # noqa: PLR0913, PLR0917 (what its callers have)
    new: dict[str, Any], old: dict[str, Any], after: Any, before: Any, form: _Form, decode: json_codec.JsonDecoder
) -> dict[str, Any] | None:
    if new["data"] == old["data"]:
        description: UpdateDescription | None = UpdateDescription({}, [], [], {})
    elif form is _PLAIN:
        description = describe_update(before["data"], after["data"])
    else:
        description = describe_update(decode(old["data"]), decode(new["data"]))
    return _shape_of_description(description, form.decoded)


def _read_table_row(event: ReadEvent, row: RowChange, form: _Form) -> tuple[tuple[Any, ...], str | None]:
    """Return what `_read_row` does for a row of a watched table, and the JSON of its other columns."""
    state, kind, table = event.__dict__, row.kind, row.table
    if "columns" in state:  # the user may have changed them
        raise _Unusual
    new, old = state.get("_images") or images_of(event)
    decode = state.get("_decode") or json_codec.decode_comparable
    image = old if kind == "D" else new
    document_id, columns = image["id"], columns_text_of(image, table)
    after = None if kind == "D" else {"id": document_id, "data": form.text(data_of(new, table), decode)}
    before = None if kind == "I" else {"id": old["id"], "data": form.text(data_of(old, table), decode)}
    if kind != "U":
        return ("insert" if kind == "I" else "delete", document_id, after, before, None, None), columns
    changed = changed_of(new, old) if form is _JSON else None
    if changed is not None:  # saves the decoding of what is equal
        former, latter = map(decode, changed)
        description = _shape_of_description(describe_update(former, latter), form.decoded)
    else:
        description = _read_description(new, old, after, before, form, decode)
    return ("update", document_id, after, before, description, None), columns


def _read_document(
    image: dict[str, Any], columns: dict[str, Any], form: _Form, decode: json_codec.JsonDecoder
) -> dict[str, Any]:
    kind: type = image["data"].__class__
    if REST not in image or (kind is not str and kind is not bytes):
        raise _Unusual
    created_at, updated_at = iso_of(columns["created_at"]), iso_of(columns["updated_at"])
    if created_at is None or updated_at is None:
        raise _Unusual
    return {
        "id": image["id"],
        "data": form.text(image["data"], decode),
        "version": columns["version"],
        "created_at": created_at,
        "updated_at": updated_at,
    }
