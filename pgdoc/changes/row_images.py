"""What an event reads of its change: the images of the row, and the writer's metadata."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.decoding.records import COLLECTION_COLUMNS, REST, Images, OddColumns
from pgdoc.errors import UnreadableDocument
from pgdoc.model import json_codec
from pgdoc.model.stored_times import moment_of
from pgdoc.model.table_names import is_table_name

if TYPE_CHECKING:
    from pgdoc.changes.change import TransactionInfo
    from pgdoc.decoding.records import CollectionChange, RowChange

__all__ = [
    "ReadEvent",
    "check_columns",
    "columns_of",
    "images_of",
    "iso_of",
    "later_time",
    "metadata_of",
    "other_columns",
    "time_of",
]


ReadEvent: TypeAlias = Any
"""A `ChangeEvent`. Its module imports this one, so it can't be named here."""


_columns = itemgetter(*COLLECTION_COLUMNS)


def images_of(event: ReadEvent) -> Images:
    """Return the images of the row; they may lack columns that `columns_of` reads.

    Raises:
        UnreadableDocument: the table has lost a column.
    """
    row: RowChange | CollectionChange = event._change.row  # noqa: SLF001
    latest_row, images = _latest[0]
    if latest_row is row:
        return images
    message = row.message
    images = row.read(message)
    image = images[row.kind == "D"]
    if REST not in image and row.kind in "IUD" and not is_table_name(row.table):
        check_columns(image, row.table)
    if len(message) <= _SHARED_BYTES:
        _latest[0] = row, images
    return images


_SHARED_BYTES: Final = 1 << 16
_latest: Final[list[tuple[RowChange | CollectionChange | None, Images]]] = [(None, Images({}, {}))]
"""The row that was read last, and its images: many streams read one change in turn.

Images hold only texts and numbers, so sharing them shares nothing that users can change. Any thread may replace the
entry, which is one tuple. It keeps a message from being freed, so a large one is not entered.
"""


def check_columns(image: dict[str, Any], table: str) -> None:
    """Raise an UnreadableDocument for an image that lacks a column."""
    try:
        _columns(image)  # the cheapest test
    except KeyError as exc:
        lost = ", ".join(sorted(COLLECTION_COLUMNS - image.keys()))
        raise UnreadableDocument(
            f'a row of collection "{table}" lacks {lost}: the table was changed where no event trigger refuses '
            "it; restore the column",
            collection=table,
        ) from exc


def columns_of(image: dict[str, Any], table: str) -> dict[str, Any]:
    """Return the columns of an image, except the id and the data; never change the dict."""
    if REST not in image:
        return image
    read, text = image[REST]  # `rest_of`, inline
    found: dict[str, Any] = read(text)
    if found.__class__ is OddColumns:
        check_columns({"id": "", "data": "", **found}, table)
    return found


def other_columns(rest: object, table: str) -> dict[str, Any]:
    """Return what `columns_of` returns for an image whose `REST` this is."""
    return columns_of({REST: rest}, table)


def metadata_of(event: ReadEvent) -> dict[str, Any]:
    """Decode the writer's message; ignore text that is not pgdoc's, since any SQL writer can send one."""
    text = event._change.transaction.metadata  # noqa: SLF001
    try:
        content = (event.__dict__.get("_decode") or json_codec.decode)(text) if text else None
    except (ValueError, UnreadableDocument):
        return {}
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def time_of(transaction: TransactionInfo, written: str | None) -> str:
    """Return when the transaction committed, or the nearest time that is known, as PostgreSQL's text.

    `written` is the row's `updated_at`, if the change left one.
    In a session with a replication origin, PostgreSQL writes the time that the session set last: none in its first
    transaction, and a stale one later. Such a time lies before the row's `updated_at`, the start of the transaction.
    """
    _, reported, _, is_sent_time = transaction
    return reported if written is None else later_time(reported, written, is_sent_time)


@lru_cache(maxsize=256)
def later_time(reported: str, written: str, is_sent_time: bool) -> str:
    """See `time_of`."""
    try:
        if written <= reported and written[4:5] == "-" and written.endswith("+00") and not is_sent_time:
            return reported  # the usual case: both are ISO 8601 in UTC, with a space and a year of four digits
        is_later = moment_of(written) > moment_of(reported)
    except (ValueError, OverflowError, TypeError):  # `infinity`, a year that Python does not have, or no text
        return reported
    return written if is_later or is_sent_time else reported


@lru_cache(maxsize=256)
def iso_of(text: str | None) -> str | None:
    """Return the text of a time as `datetime` writes it; `None` if the time is out of Python's range."""
    if text is None:
        return None
    try:
        if text.endswith("+00") and (moment := datetime.fromisoformat(text[:-3])).tzinfo is None:
            return f"{moment.isoformat()}+00:00"  # in half the time
        return moment_of(text).isoformat()
    except (ValueError, OverflowError):
        return None
