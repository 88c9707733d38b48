"""The layout of an event as a dict and as JSON."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 (a named tuple's fields are looked up)
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from pgdoc.changes.diff import UpdateDescription, diff
from pgdoc.changes.row_images import all_columns, metadata_of, row_of
from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model import json_codec
from pgdoc.model.documents import data_text
from pgdoc.model.tokens import token_text

if TYPE_CHECKING:
    from pgdoc.changes.row_images import ReadEvent
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
    return {name: shape(event, _PLAIN) for name, shape in _SHAPES.items()}


def json_of(event: ReadEvent) -> bytes:
    """See `ChangeEvent.to_json`."""
    is_untouched = "_change" in event.__dict__ and event.__dict__.keys().isdisjoint(_CHANGEABLE)
    try:
        return (_spliced(event) if is_untouched else None) or _encoded(event)
    except InvalidDocument as exc:
        raise UnreadableDocument(
            f'document {event.document_id!r} of collection "{event.collection}" cannot be written as JSON: {exc}',
            collection=event.collection,
            document_id=event.document_id,
        ) from exc


def _encoded(event: ReadEvent) -> bytes:
    return orjson.dumps({name: shape(event, _JSON) for name, shape in _SHAPES.items()})


_CHANGEABLE: Final = frozenset(
    {"full_document", "full_document_before_change", "update_description", "metadata", "_decode"}
)
"""Once one of these was accessed, the user may have changed it. `_decode` is there if numbers have another form."""

_EVENT_TEXT: Final = ("{" + ",".join(f'"{name}":%b' for name in FIELDS) + "}").encode()
_DOCUMENT_TEXT: Final = b'{"id":%b,"data":%b,"version":%d,"created_at":"%b","updated_at":"%b"}'
_NO_DESCRIPTION: Final = orjson.dumps(_shape_of_description(UpdateDescription({}, [], [], {}), _JSON))


def _spliced(event: ReadEvent) -> bytes | None:
    """Return the event as JSON by joining what the server sent; `None` if that takes more than joining.

    The result equals that of `_SHAPES`, which a test compares. It takes a third of the time.
    """
    change, row = event._change, row_of(event)  # noqa: SLF001
    try:
        after, before = _document_text(event, "IU", 0), _document_text(event, "UD", 1)
        if after is None or before is None:
            return None
        description = _description_text(event) if event.event_type == "update" else b"null"
    except UnreadableDocument:
        return None  # whose fields say which
    metadata = metadata_of(event) if change.transaction.metadata else None
    return _EVENT_TEXT % (
        b'"%b"' % event.event_type.encode(),
        orjson.dumps(row.table),
        orjson.dumps(event.document_id),
        after,
        before,
        description,
        b'"%b"' % token_text(change.position, event._ids, event._progress).encode(),  # noqa: SLF001
        b'"%b"' % event.timestamp.isoformat().encode(),
        b"%d" % change.transaction.xid,
        json_codec.encode_value(metadata, "") if metadata else b"{}",
        orjson.dumps(row.renamed_to),
    )


def _document_text(event: ReadEvent, kinds: str, index: int) -> bytes | None:
    """Return the JSON of a document; `None` for times that PostgreSQL does not write as usual."""
    row = row_of(event)
    if row.kind not in kinds:
        return b"null"
    image = all_columns(event._images[index], row.table)  # noqa: SLF001
    created_at, updated_at = image["created_at"], image["updated_at"]
    if not _is_usual(created_at) or not _is_usual(updated_at):
        return None
    return _DOCUMENT_TEXT % (
        orjson.dumps(image["id"]),
        image["data"].encode(),
        image["version"],
        b"%bT%b+00:00" % (created_at[:10].encode(), created_at[11:26].encode()),
        b"%bT%b+00:00" % (updated_at[:10].encode(), updated_at[11:26].encode()),
    )


def _is_usual(moment: str) -> bool:
    """Whether it is like `2026-11-29 07:08:51.817473+00`: in UTC, with a year of four digits and all microseconds."""
    return len(moment) == 29 and moment[10] == " " and moment.endswith("+00")


def _description_text(event: ReadEvent) -> bytes:
    after, before = event._images  # noqa: SLF001
    if after["data"] == before["data"]:
        return _NO_DESCRIPTION
    description = diff(json_codec.decode(before["data"]), json_codec.decode(after["data"]))
    return orjson.dumps(_shape_of_description(description, _JSON))
