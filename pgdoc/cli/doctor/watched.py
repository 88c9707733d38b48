"""Checks of tables that are watched as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.cli.doctor.commands import as_literal
from pgdoc.cli.doctor.finding import good, warn, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_watched_tables"]


def check_watched_tables(on: Examination) -> Iterator[Finding]:
    """Report watched tables whose changes are incomplete, or that the registry knows in another shape."""
    tables = on.rows("watched_tables")
    for table in tables:
        yield from _faults_of(table)
    if not tables:
        return
    count = f"{len(tables)} {'table is watched as it is' if len(tables) == 1 else 'tables are watched as they are'}"
    yield good("watched-tables", count, value=len(tables))
    inexact = [f"{table.name} ({', '.join(table.inexact)})" for table in tables if table.inexact]
    if inexact:
        text = f"wal2json would send NaN and infinities as null, so streams use pgoutput: {', '.join(inexact)}"
        yield good("table-inexact", text, value=len(inexact))


def _faults_of(table: Any) -> Iterator[Finding]:
    subject, name = f'table "{table.name}"', table.name
    arguments = ", ".join(as_literal(each) for each in (table.quoted, table.document) if each)
    add = [f"SELECT pgdoc.add_table({arguments})"]
    remove = [f"SELECT pgdoc.remove_table({as_literal(table.quoted)})"]
    if table.fault is not None:
        reason, cure = table.fault
        text = f"{subject} can't be watched any more: {reason}: {cure}; or end the watching of it"
        yield wrong("table-fault", text, name, reason, fix=remove)
    if table.conflict is not None:
        reason, cure = table.conflict
        fix = [cure.removeprefix("run ")] if cure.startswith("run ") else remove
        yield wrong("table-conflict", f"{subject}: {reason}: {cure}", name, reason, fix=fix)
    if not table.is_full:
        text = (
            f"{subject} lacks REPLICA IDENTITY FULL, so its changes have no before images: add it again, as its owner"
        )
        yield wrong("table-identity", text, name, fix=add)
    if not table.is_published:
        text = f"{subject} is not in the publication, so pgoutput does not see its changes: add it again, as its owner"
        yield wrong("table-unpublished", text, name, fix=add)
    if table.is_stale:
        text = f"{subject} has other columns than the registry says"
        yield warn("table-stale", text, name, fix=["SELECT pgdoc.follow_tables()"])
    if table.has_policies:
        yield warn(
            "table-policies", f"{subject} has row-level security, and streams ignore it: they show all rows", name
        )
    if table.unwatched_partition is not None:
        other = table.unwatched_partition
        text = f"{subject} is a partition, and {other} beside it is not watched"
        yield warn("partition-unwatched", text, name, other, fix=[f"SELECT pgdoc.add_table({as_literal(other)})"])
