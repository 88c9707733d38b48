"""The rows of a snapshot as the server sends them: each column of many rows as one value."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from struct import Struct
from typing import Final, TypeAlias

import orjson

from pgdoc.model.stored_times import EPOCH

__all__ = ["WIDTH", "StoredRow", "columns_of_stored", "iso_of_binary", "parts_of_stored", "rows_by_id", "rows_by_key"]

StoredRow: TypeAlias = bytes
"""Version, created_at and updated_at in binary form, then the data as JSON text, empty if the server can't print it.

One object without references: the garbage collector would look through 10,000 tuples again and again.
"""

_COLUMNS: Final = Struct(">qqq")
WIDTH: Final = _COLUMNS.size
"""Where the data of a stored row begins."""

_SEPARATOR: Final = b"\0"


def rows_by_id(ids: bytes | None, texts: bytes | None, columns: bytes | None) -> dict[str, StoredRow]:
    """Take apart what `part` of `streams.sql` returns; all are `None` if there is no row."""
    if ids is None or texts is None or columns is None:
        return {}
    texts_at = zip(range(0, len(columns), WIDTH), texts.split(_SEPARATOR), strict=True)
    rows = [columns[at : at + WIDTH] + text for at, text in texts_at]
    return dict(zip(ids.decode().split("\0"), rows, strict=True))


def rows_by_key(ids: bytes | None, rows: bytes | None, *, is_composite: bool) -> dict[str, bytes]:
    """Take apart what `read_table` of the catalog returns; both are `None` if there is no row."""
    if ids is None or rows is None:
        return {}
    keys = ids.decode().split("\0")
    if is_composite:  # in the form that the ids of changes have
        keys = [orjson.dumps(orjson.loads(key)).decode() for key in keys]
    return dict(zip(keys, rows.split(_SEPARATOR), strict=True))


def parts_of_stored(row: StoredRow) -> tuple[bytes | None, int, int, int]:
    """Return the JSON text, the version, and the two times in PostgreSQL's binary form."""
    return row[WIDTH:] or None, *_COLUMNS.unpack_from(row)


def columns_of_stored(row: StoredRow, _collection: str) -> dict[str, int]:
    """Return what is neither the id nor the data, for `Origin.columns`."""
    _, version, created_at, updated_at = parts_of_stored(row)
    return {"version": version, "created_at": created_at, "updated_at": updated_at}


@lru_cache(maxsize=256)
def iso_of_binary(moment: int) -> str | None:
    """Return the text of a time as `datetime` writes it; `None` if the time is out of Python's range."""
    try:
        return (EPOCH + timedelta(microseconds=moment)).isoformat()
    except OverflowError:
        return None
