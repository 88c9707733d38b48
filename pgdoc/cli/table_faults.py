"""What `pgdoc doctor` finds about tables that are watched as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["find_table_faults"]


def find_table_faults(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    """Report watched tables whose changes are incomplete, or that the registry knows in another shape."""
    tables = connection.execute(statement("doctor", "watched_tables").encode()).fetchall()
    for table in tables:
        yield from _faults_of(table)
    if not tables:
        return
    yield "ok", f"{len(tables)} {'table is watched as it is' if len(tables) == 1 else 'tables are watched as they are'}"
    ((follows,),) = connection.execute(statement("doctor", "follows_ddl").encode()).fetchall()
    if not follows:
        found = "no event trigger follows ALTER TABLE, so streams notice a change of columns late, and need pgoutput"
        yield "warn", f"{found}: `pgdoc init` adds it if a superuser owns the catalog; another one can't have it"
    inexact = [f"{table.name} ({', '.join(table.inexact)})" for table in tables if table.inexact]
    if inexact:
        yield "ok", f"wal2json would send NaN and infinities as null, so streams use pgoutput: {', '.join(inexact)}"


def _faults_of(table: Any) -> Iterator[tuple[str, str]]:
    subject = f'table "{table.name}"'
    add = f"run SELECT pgdoc.add_table({', '.join(_literal(each) for each in (table.quoted, table.document) if each)})"
    if table.fault is not None:
        yield "wrong", f"{subject} can't be watched any more: {table.fault[0]}: {table.fault[1]}"
    if table.conflict is not None:
        yield "wrong", f"{subject}: {table.conflict[0]}: {table.conflict[1]}"
    if not table.is_full:
        yield (
            "wrong",
            f"{subject} lacks REPLICA IDENTITY FULL, so its changes have no before images: {add} as its owner",
        )
    if not table.is_published:
        yield "wrong", f"{subject} is not in the publication, so pgoutput does not see its changes: {add} as its owner"
    if table.is_stale:
        yield "warn", f"{subject} has other columns than the registry says: run SELECT pgdoc.follow_tables()"
    if table.has_policies:
        yield "warn", f"{subject} has row-level security, and streams ignore it: they show all rows"
    if table.unwatched_partition is not None:
        yield (
            "warn",
            f"{subject} is a partition, and {table.unwatched_partition} beside it is not watched: add it, too",
        )


def _literal(text: str) -> str:
    """Write a text of another role as a literal of SQL, which it must not end."""
    return "'" + text.replace("'", "''") + "'"
