"""The writes of a bulk: their statements, and what the rows of their results mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from pgdoc.crud.write_errors import compare_versions, dropped, duplicate, update_error
from pgdoc.errors import BulkIncomplete

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgdoc.crud.first_write import FirstWrite
    from pgdoc.crud.guard import GuardedQuery
    from pgdoc.errors import PgdocError
    from pgdoc.errors.documents import BulkFailure
    from pgdoc.query.updates.nodes import Update

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_STATEMENTS",
    "BulkResult",
    "Look",
    "Queued",
    "ResultParser",
    "Statement",
    "Target",
    "at_version",
    "changed",
    "counted",
    "deleted",
    "exists",
    "first_written",
    "first_written_or_dropped",
    "incomplete",
    "inserted",
    "inserted_or_dropped",
    "parse_results",
    "size_of",
    "stored",
    "updated",
    "upserted",
    "upserted_apart",
    "upserted_or_dropped",
    "written_or_dropped",
]

CHUNK_STATEMENTS: Final = 1_000
CHUNK_BYTES: Final = 1 << 20
"""The limits of the queue in memory: when it reaches one of them, the bulk sends everything in it."""

_SHOWN: Final = 3
"""How many failures an error message names."""

ResultRows: TypeAlias = "Sequence[tuple[Any, ...]]"
Outcome: TypeAlias = tuple[str, int]
"""A field of `BulkResult`, and how much to add to it."""
ResultParser: TypeAlias = "Callable[[ResultRows], Outcome]"
"""Returns the outcome of a statement with these rows, or raises the error that they mean."""


@dataclass(frozen=True)
class BulkResult:
    """The result of a bulk. A document that was written several times counts each time.

    Attributes:
        inserted: the number of new documents.
        changed: the number of documents that were updated or replaced.
        deleted: the number of documents that were deleted.
        failures: the writes of an unordered bulk that failed, in the order of their calls.
    """

    inserted: int = 0
    changed: int = 0
    deleted: int = 0
    failures: tuple[BulkFailure, ...] = ()


def incomplete(failures: tuple[BulkFailure, ...]) -> BulkIncomplete:
    """Return the error for an unordered bulk with these failures; its message names the first few."""
    shown = "; ".join(
        f"write {each.index}, {each.operation}{'' if each.document_id is None else f' of {each.document_id!r}'}: "
        f"{each.error}"
        for each in failures[:_SHOWN]
    )
    more = f"; and {len(failures) - _SHOWN:,} more" if len(failures) > _SHOWN else ""
    return BulkIncomplete(
        f"{len(failures):,} {'write' if len(failures) == 1 else 'writes'} of the bulk failed, all others are stored: "
        f"{shown}{more}",
        failures=failures,
    )


@dataclass(frozen=True, slots=True)
class Target:
    """What a write applies to, for error messages.

    Attributes:
        subject: the collection as error messages name it.
        key: the id; `None` if the write uses a filter.
    """

    operation: str
    collection: str
    subject: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a write.

    Attributes:
        creates: whether it may create the collection.
        parse: parses the result; a missing table has no rows.
        look: the look to send after it, if the table may drop rows.
    """

    query: GuardedQuery
    params: Sequence[Any]
    creates: bool
    parse: ResultParser
    look: Look | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A read of the document right after a write, which says whether a write without rows was dropped.

    Attributes:
        parse: parses the results of the write and of the look.
        always: whether to send it whatever the table.
    """

    query: GuardedQuery
    params: Sequence[Any]
    parse: Callable[[ResultRows, ResultRows], Outcome]
    always: bool = False


class Queued(NamedTuple):
    """A statement that waits to be sent.

    Attributes:
        number: of its write in the bulk, from 0; a write may have several statements.
    """

    number: int
    target: Target
    statement: Statement


def parse_results(statement: Statement, results: Sequence[ResultRows]) -> Outcome:
    """Return the outcome of a statement and, if it was sent, of its look, or raise the error that they mean."""
    if statement.look is None or len(results) == 1:
        return statement.parse(results[0])
    return statement.look.parse(*results)


def size_of(value: Any) -> int:
    """Return the approximate size in bytes of a parameter or a sequence of parameters."""
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    return len(value) if isinstance(value, str) else 8


def inserted(target: Target, rows: ResultRows) -> Outcome:
    """Parse an insert: one row if it created the document."""
    if not rows:
        raise duplicate(target.subject, str(target.key))
    return "inserted", 1


def stored(target: Target, rows: ResultRows) -> Outcome:
    """Parse a replace with upsert: the new version, 1 for a new document."""
    if not rows:
        raise dropped(target.subject, target.key)
    return "inserted" if rows[0][0] == 1 else "changed", 1


def inserted_or_dropped(target: Target, rows: ResultRows, looked: ResultRows) -> Outcome:
    """Parse an insert, and a look that has a row if the document exists."""
    if not rows and not looked:
        raise dropped(target.subject, target.key)
    return inserted(target, rows)


def written_or_dropped(target: Target, parse: ResultParser, rows: ResultRows, looked: ResultRows) -> Outcome:
    """Parse a replace or delete by id, and a look that has a row if the document exists."""
    if not rows and looked:
        raise dropped(target.subject, target.key)
    return parse(rows)


def upserted_or_dropped(target: Target, update: Update, rows: ResultRows, looked: ResultRows) -> Outcome:
    """Parse an update with upsert, and a look whose last column says whether the document is as after the update."""
    if not rows and not (looked and looked[0][-1]):
        raise dropped(target.subject, target.key)
    return upserted(target, update, rows)


def changed(target: Target, if_version: int | None, rows: ResultRows) -> Outcome:
    """Parse a replace by id: one row if the document existed, as it does if its version was checked before."""
    if not rows and if_version is not None:
        raise dropped(target.subject, target.key)
    return "changed", len(rows)


def deleted(target: Target, if_version: int | None, rows: ResultRows) -> Outcome:
    """Parse a delete by id: one row if the document existed, as it does if its version was checked before."""
    if not rows and if_version is not None:
        raise dropped(target.subject, target.key)
    return "deleted", len(rows)


def counted(rows: ResultRows) -> Outcome:
    """Parse a delete by filter: one row with the number of deleted documents."""
    return "deleted", sum(count for (count,) in rows)


def updated(target: Target, update: Update, rows: ResultRows) -> Outcome:
    """Parse an update: how many documents changed, how many were to change, and one that the update does not fit."""
    for count, wanted, key, text, *_ in rows:
        if key is not None:
            raise update_error(target.subject, key, text, update)
        if count < wanted and target.operation != "update_many":
            raise dropped(target.subject, target.key)
        return "changed", count
    return "changed", 0


def first_written(target: Target, write: FirstWrite, rows: ResultRows) -> Outcome:
    """Parse a write to the first document that matches.

    One row, or none if nothing matched and nothing was inserted: how many documents matched, were to be written, were
    changed, and were inserted; and the id and text of one that the update does not fit.
    """
    for _, wanted, changed_, inserted_, key, text in rows:
        if key is not None:
            raise update_error(target.subject, key, text, write.update)
        if changed_ < wanted:
            raise dropped(target.subject, target.key)
        return ("inserted", inserted_) if inserted_ else ("changed", changed_)
    if write.obstacle is not None:
        raise write.obstacle
    if write.insertion is not None:
        raise duplicate(target.subject, write.insertion.key)
    return "changed", 0


def first_written_or_dropped(target: Target, write: FirstWrite, rows: ResultRows, looked: ResultRows) -> Outcome:
    """Parse a write to the first document that matches, and a look that has a row if the document to insert exists."""
    if not rows and not looked and write.insertion is not None:
        raise dropped(target.subject, write.insertion.key)
    return first_written(target, write, rows)


def upserted(target: Target, update: Update, rows: ResultRows) -> Outcome:
    """Parse an update with upsert: the version and, if the update does not fit, the document's text.

    No row means that nothing changed.
    """
    for version, text in rows:
        if text is not None:
            raise update_error(target.subject, str(target.key), text, update)
        return "inserted" if version == 1 else "changed", 1
    return "changed", 0


def upserted_apart(target: Target, update: Update, rows: ResultRows, looked: ResultRows) -> Outcome:
    """Parse an update with upsert that leaves alone what it does not fit: its version, and a look at the document.

    The look has the document's text if the update does not fit, and whether the document is as after the update.
    """
    if rows:
        return "inserted" if rows[0][0] == 1 else "changed", 1
    if looked and looked[0][0] is not None:
        raise update_error(target.subject, str(target.key), looked[0][0], update)
    if not looked or not looked[0][1]:
        raise dropped(target.subject, target.key)
    return "changed", 0


def at_version(target: Target, if_version: int, rows: ResultRows) -> Outcome:
    """Check the document's version before a write with `if_version`."""
    compare_versions(target.subject, str(target.key), rows[0][0] if rows else None, if_version)
    return "changed", 0


def exists(error: PgdocError, rows: ResultRows) -> Outcome:
    """Check that the document exists."""
    if not rows:
        raise error
    return "changed", 0
