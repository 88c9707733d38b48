"""What the event of a document that a snapshot read computes on first access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from pgdoc.changes.table_rows import image_of_row
from pgdoc.model import json_codec
from pgdoc.model.documents import Document, document_of_image
from pgdoc.model.stored_rows import WIDTH
from pgdoc.model.table_row import TableRow
from pgdoc.model.tokens import Mark, token_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.row_images import ReadEvent
    from pgdoc.changes.snapshot import DuePart
    from pgdoc.decoding.records import TableShape
    from pgdoc.model.tokens import ResumeToken, SnapshotProgress

__all__ = ["OF_SNAPSHOT", "mark_of", "texts_of_row"]


def mark_of(event: ReadEvent) -> Mark:
    """Return how far acknowledging the event acknowledges."""
    return Mark.at(_part_of(event).place.position, _progress_of(event))


def _part_of(event: ReadEvent) -> DuePart:
    part: DuePart = event._part  # noqa: SLF001 (what `from_snapshot` sets, here and below)
    return part


def _progress_of(event: ReadEvent) -> SnapshotProgress:
    number, _ = event._numbered_row  # noqa: SLF001
    return _part_of(event).progress(number, event.document_id)


def _full_document(event: ReadEvent) -> Document:
    state = event.__dict__
    (_, row), part = state["_numbered_row"], state["_part"]
    if row.__class__ is not bytes:  # a change has put a document in the row's place
        document: Document = row
        return document
    if part.shape is None:
        return document_of_image(state["document_id"], row[WIDTH:] or None, row, part.origin)
    text, columns = texts_of_row(row, part.shape)
    return TableRow.of(state["document_id"], text, part.collection, part.place.decode_text, columns)


def texts_of_row(row: bytes, shape: TableShape) -> tuple[bytes | str, bytes | str | None]:
    """Return the JSON of a row, or of its document and its other columns, as `read_table` of the catalog sends it."""
    if row.startswith(b"["):
        names = [column.name for column in shape.columns]
        image = image_of_row(dict(zip(names, orjson.loads(row), strict=True)), shape)
        return image["data"], image["columns"]
    columns, separator, document = row.partition(b"\1")
    return (document, columns) if separator else (row, None)


def _columns(event: ReadEvent) -> dict[str, Any] | None:
    row = event.full_document
    text = row.columns_text if isinstance(row, TableRow) else None
    return None if text is None else (_part_of(event).place.decode_text or json_codec.decode_comparable)(text)


def _resume_token(event: ReadEvent) -> ResumeToken:
    place = _part_of(event).place
    return token_at(place.position, place.ids, _progress_of(event))


OF_SNAPSHOT: Final[dict[str, Callable[[ReadEvent], Any]]] = {
    "collection": lambda event: _part_of(event).collection,
    "full_document": _full_document,
    "full_document_before_change": lambda _event: None,
    "update_description": lambda _event: None,
    "resume_token": _resume_token,
    "timestamp": lambda event: _part_of(event).read_at,
    "transaction_id": lambda _event: 0,
    "metadata": lambda _event: {},
    "renamed_to": lambda _event: None,
    "columns": _columns,
    "topic": lambda _event: None,
    "payload": lambda _event: None,
}
