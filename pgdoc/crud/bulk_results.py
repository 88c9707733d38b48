"""The writes of a bulk: what is sent for each, and what its rows say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.crud.write_errors import compare_versions, duplicate, update_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgdoc.errors import PgdocError
    from pgdoc.query.updates.nodes import Update

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_STATEMENTS",
    "BulkResult",
    "ResultParser",
    "Statement",
    "Target",
    "at_version",
    "changed",
    "counted",
    "deleted",
    "inserted",
    "size_of",
    "stored",
    "there",
    "updated",
    "upserted",
]

CHUNK_STATEMENTS: Final = 1_000
CHUNK_BYTES: Final = 1 << 20
"""How much waits in memory: when one is reached, all that waits is sent."""

ResultRows: TypeAlias = "Sequence[tuple[Any, ...]]"
Done: TypeAlias = tuple[str, int]
"""A field of `BulkResult`, and how much it grows."""
ResultParser: TypeAlias = "Callable[[ResultRows], Done]"


@dataclass(frozen=True)
class BulkResult:
    """What a bulk did; a document that was written several times counts each time.

    Attributes:
        inserted: documents that are new.
        changed: documents that an update changed, or that were replaced.
        deleted: documents that are gone.
    """

    inserted: int = 0
    changed: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """What a write is about, for the error that it may end in.

    Attributes:
        operation: the name of the call.
        collection: the name of the collection.
        subject: what error messages call the collection.
        key: the id, or `None` where the write goes by a filter.
    """

    operation: str
    collection: str
    subject: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a write.

    Attributes:
        query: as psycopg takes it.
        params: its parameters.
        table: the collection's table, quoted.
        create: schema and name, where the table is created if it is missing.
        judge: says what the rows mean, or raises the error that they mean; there are none where there is no table.
    """

    query: bytes
    params: Sequence[Any]
    table: str
    create: tuple[str, str] | None
    judge: ResultParser


def size_of(value: Any) -> int:
    """Return about how many bytes a parameter, or a sequence of them, takes."""
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    return len(value) if isinstance(value, str) else 8


def inserted(target: Target, rows: ResultRows) -> Done:
    """Judge an insert, which gives a row where it made one."""
    if not rows:
        raise duplicate(target.subject, str(target.key))
    return "inserted", 1


def stored(rows: ResultRows) -> Done:
    """Judge a replace with upsert, which gives the version that it made; the first one is a new document's."""
    return "inserted" if rows[0][0] == 1 else "changed", 1


def changed(rows: ResultRows) -> Done:
    """Judge a write that gives a row for each document that it changed."""
    return "changed", len(rows)


def deleted(rows: ResultRows) -> Done:
    """Judge a delete, which gives a row where there was something."""
    return "deleted", len(rows)


def counted(rows: ResultRows) -> Done:
    """Judge a delete by filter, which gives one number."""
    return "deleted", sum(count for (count,) in rows)


def updated(subject: str, update: Update, rows: ResultRows) -> Done:
    """Judge an update, which gives the number of documents that it changed, or one that it does not fit."""
    for count, key, text in rows:
        if key is not None:
            raise update_error(subject, key, text, update)
        return "changed", count
    return "changed", 0


def upserted(target: Target, update: Update, rows: ResultRows) -> Done:
    """Judge an update with upsert, which gives version and misfit of what it wrote; no row where that is nothing."""
    for version, text in rows:
        if text is not None:
            raise update_error(target.subject, str(target.key), text, update)
        return "inserted" if version == 1 else "changed", 1
    return "changed", 0


def at_version(target: Target, if_version: int, rows: ResultRows) -> Done:
    """Judge the look at a document's version before a write that asks for one."""
    compare_versions(target.subject, str(target.key), rows[0][0] if rows else None, if_version)
    return "changed", 0


def there(error: PgdocError, rows: ResultRows) -> Done:
    """Judge the look at a document that has to be there."""
    if not rows:
        raise error
    return "changed", 0
