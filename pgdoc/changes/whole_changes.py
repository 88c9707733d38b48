"""Checks that a change is whole before it becomes an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.decoding.records import ROW_KINDS
from pgdoc.errors import HistoryLost, ReplicaIdentityChanged
from pgdoc.model.table_names import titled

if TYPE_CHECKING:
    from pgdoc.changes.change import Change

__all__ = ["check_images"]


def check_images(change: Change) -> None:
    """Raise an error for a change that is not whole.

    Raises:
        HistoryLost: the change of a collection was found late, and rows before it may be missing.
        ReplicaIdentityChanged: a row lacks the before image that its kind needs.
    """
    row = change.row
    if row.complete:
        return
    if row.kind not in ROW_KINDS:
        if row.kind == "schema":
            raise HistoryLost(
                f"{titled(row.table)} got other columns in SQL, which no event trigger followed, so some of its events "
                "may lack columns: rebuild from the table. Only a catalog that a superuser owns has event triggers"
            )
        raise HistoryLost(
            f"{titled(row.table)} was renamed, moved or dropped in SQL, which no event trigger followed, and "
            "wal2json tells tables apart by name only, so changes may be missing: rebuild from the tables, and "
            "stream from now through pgoutput. Only a catalog that a superuser owns has event triggers"
        )
    raise ReplicaIdentityChanged(
        f"{titled(row.table)}: a change of transaction {change.transaction.xid} has no before image, because the "
        "table's replica identity was changed: run ALTER TABLE ... REPLICA IDENTITY FULL on it, rebuild your copy from "
        "the table, and start a new stream"
    )
