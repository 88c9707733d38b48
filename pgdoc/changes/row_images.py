"""What an event reads of its change: the images of the row, and the writer's metadata."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from pgdoc.decoding.records import COLLECTION_COLUMNS, REST, whole
from pgdoc.errors import UnreadableDocument
from pgdoc.model import json_codec

if TYPE_CHECKING:
    from pgdoc.decoding.records import CollectionChange, Images, RowChange

__all__ = ["ReadEvent", "after_of", "all_columns", "images_of", "metadata_of", "row_of"]


ReadEvent: TypeAlias = Any
"""A `ChangeEvent`. Its module imports this one, so it can't be named here."""


def row_of(event: ReadEvent) -> RowChange | CollectionChange:
    """Return the record that the event was made from."""
    row: RowChange | CollectionChange = event._change.row  # noqa: SLF001 (what `from_change` sets)
    return row


_columns = itemgetter(*COLLECTION_COLUMNS)


def images_of(event: ReadEvent) -> Images:
    """Return the images of the row; they may have to be read `whole`.

    Raises:
        UnreadableDocument: the table has lost a column.
    """
    row = row_of(event)
    images = row.read(row.message)
    if row.kind in "IUD":
        image = images.after or images.before
        if REST not in image:
            _check_columns(image, row.table)
    return images


def _check_columns(image: dict[str, Any], table: str) -> None:
    try:
        _columns(image)  # the cheapest test
    except KeyError as exc:
        lost = ", ".join(sorted(COLLECTION_COLUMNS - image.keys()))
        raise UnreadableDocument(
            f'a row of collection "{table}" lacks {lost}: the table was changed where no event trigger refuses '
            "it; restore the column",
            collection=table,
        ) from exc


def all_columns(image: dict[str, Any], table: str) -> dict[str, Any]:
    """Return the image with every column."""
    if "version" not in image and REST in image:
        _check_columns(whole(image), table)
    return image


def after_of(event: ReadEvent) -> dict[str, Any]:
    """Return the image that the change left, with every column."""
    return all_columns(event._images.after, row_of(event).table)  # noqa: SLF001


def metadata_of(event: ReadEvent) -> dict[str, Any]:
    """Decode the writer's message; ignore text that is not pgdoc's, since any SQL writer can send one."""
    text = event._change.transaction.metadata  # noqa: SLF001
    try:
        content = (event.__dict__.get("_decode") or json_codec.decode)(text) if text else None
    except (ValueError, UnreadableDocument):
        return {}
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return metadata if isinstance(metadata, dict) else {}
