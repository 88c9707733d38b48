"""The rows of a snapshot as the server sends them: each column of many rows as one value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.model.documents import Document

if TYPE_CHECKING:
    from pgdoc.model.json_codec import JsonDecoder

__all__ = ["StoredRow", "document_of", "rows_by_id"]

StoredRow: TypeAlias = tuple[bytes, bytes]
"""The data as JSON text, empty if the server can't print it; and version, created_at and updated_at in binary form.

A bare tuple, because `zip` makes 10,000 of them in a millisecond.
"""

_COLUMNS: Final = Struct(">qqq")
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SEPARATOR: Final = b"\0"


def rows_by_id(ids: bytes | None, texts: bytes | None, columns: bytes | None) -> dict[str, StoredRow]:
    """Take apart what `part` of `streams.sql` returns; all are `None` if there is no row."""
    if ids is None or texts is None or columns is None:
        return {}
    width = _COLUMNS.size
    each = (columns[at : at + width] for at in range(0, len(columns), width))
    return dict(zip(ids.decode().split("\0"), zip(texts.split(_SEPARATOR), each, strict=True), strict=True))


def document_of(
    document_id: str, row: StoredRow | Document, collection: str, decode_text: JsonDecoder | None
) -> Document:
    """Make the document of a row; return one that a change has put in the row's place."""
    if isinstance(row, Document):
        return row
    text, columns = row
    return Document.from_image(
        {"id": document_id, "data": text or None}, partial(_read_columns, columns), collection, decode_text
    )


def _read_columns(columns: bytes) -> dict[str, Any]:
    version, created_at, updated_at = _COLUMNS.unpack(columns)
    return {"version": version, "created_at": _moment(created_at), "updated_at": _moment(updated_at)}


def _moment(microseconds: int) -> datetime | None:
    """Return the time; `None` for infinity, and for a year that Python does not have."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
