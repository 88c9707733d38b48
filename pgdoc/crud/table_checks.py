"""Makes what the server says about a table a `TableCheck`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgdoc.model.watched_tables import LockHolder, Refusal, TableCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

__all__ = ["MISSING", "TableFacts", "lock_of", "missing_table", "table_check"]

MISSING: Final = Refusal("it does not exist", "check the name; it has the schema, and no quotes")

_OLD_ROW_HEADER: Final = 5
"""The bytes of `xl_heap_header`, which precedes the old row in a record of the WAL."""


class TableFacts(NamedTuple):
    """A row of `check_table` in `tables.sql`. Only a plain table can ever be added."""

    quoted: str
    is_plain: bool
    fault: list[str] | None
    conflict: list[str] | None
    role_fault: list[str] | None
    is_watched: bool
    watched_document: str | None
    is_full: bool
    is_published: bool
    has_policies: bool
    has_children: bool
    is_partition: bool
    has_generated: bool
    row_bytes: int | None
    updates: int
    deletes: int
    counted_since: datetime | None


def missing_table(name: str) -> TableCheck:
    """Return the check of a table that does not exist."""
    return TableCheck(name, False, (MISSING,), (), None, (), None, 0, None, ())


def lock_of(facts: TableFacts) -> str | None:
    """Return the mode of the lock that `add_table` takes; `None` if it would do nothing."""
    if not facts.is_plain:
        return None
    if not facts.is_full:
        return "ACCESS EXCLUSIVE"
    return None if facts.is_watched and facts.is_published else "SHARE ROW EXCLUSIVE"


def table_check(name: str, document: str | None, facts: TableFacts, holders: Sequence[tuple[Any, ...]]) -> TableCheck:
    """Return the check of a table. `document` is the column that was asked for."""
    return TableCheck(
        name=name,
        is_watched=facts.is_watched,
        refusals=tuple(_refusals(document, facts)),
        steps=tuple(_steps(document, facts)),
        lock=lock_of(facts),
        holders=tuple(LockHolder(*holder) for holder in holders),
        wal_bytes_per_change=_wal_bytes_per_change(facts),
        changes=facts.updates + facts.deletes,
        counted_since=facts.counted_since,
        notes=tuple(_notes(facts)),
    )


def _wal_bytes_per_change(facts: TableFacts) -> int | None:
    if facts.is_full:
        return 0
    return None if facts.row_bytes is None else facts.row_bytes + _OLD_ROW_HEADER


def _refusals(document: str | None, facts: TableFacts) -> Iterator[Refusal]:
    if facts.is_watched and facts.watched_document != document:
        found = "its whole rows" if facts.watched_document is None else f'the document "{facts.watched_document}"'
        yield Refusal(f"it is watched already, with {found}", "remove it first")
    for fault in (facts.fault, facts.conflict, facts.role_fault):
        if fault is not None:
            yield Refusal(*fault)


def _steps(document: str | None, facts: TableFacts) -> Iterator[str]:
    if not facts.is_plain:
        return
    if not facts.is_full:
        yield f"ALTER TABLE ONLY {facts.quoted} REPLICA IDENTITY FULL"
    if not facts.is_published:
        yield f"ALTER PUBLICATION pgdoc ADD TABLE ONLY {facts.quoted}"
    if not facts.is_watched:
        with_document = "" if document is None else f", document {document}"
        yield f"INSERT INTO pgdoc.registry: table {facts.quoted}{with_document}"


def _notes(facts: TableFacts) -> Iterator[str]:
    if facts.has_policies:
        yield "its row-level security does not apply to streams: a role that reads a stream sees all rows"
    if facts.has_children:
        yield "rows of the tables that inherit from it are not its events: add these tables, too"
    if facts.is_partition:
        yield "it is a partition: a row that moves to another one is deleted here, and new partitions are not added"
    if facts.has_generated:
        yield "its generated columns are not in events"
