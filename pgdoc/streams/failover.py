"""Makes failover slots of the bookmarks that a standby can take over, so that history goes on after a failover.

A standby can only take over a slot that needs no older rows of the catalog than the standby still has. It has what its
own slots need, and reports that as the `catalog_xmin` of its physical slot. A bookmark never moves, so the bookmarks
that are older than the standby's first slot never fit: the standby would log every second that they do not. Therefore:

1. While no bookmark fits, one of them has the flag all the same. Its copy on the standby, which stays temporary, keeps
   what the standby has now, so that later bookmarks fit.
2. If none fits although the standby has such a copy, a new bookmark is due.
3. Once one fits and is old enough to have been synchronized, those that do not fit lose the flag.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.database.errors import one_line
from pgdoc.replication.connection import connect, quote_literal
from pgdoc.replication.slots import set_failover
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

__all__ = ["flag_bookmarks", "plan_flags"]

logger = logging.getLogger("pgdoc.history")

_SURE_S = 60.0  # a standby asks for slots at least every 30 s


def flag_bookmarks(source: Source, plain: psycopg.Connection[Any], hub_slot: str | None) -> bool:
    """Flag the database's bookmarks for its standbys; return whether a new bookmark is due.

    `plain` is a connection for plain SQL, and `hub_slot` the slot of which a bookmark would be a copy, if any.
    """
    if not source.wants_failover(plain.info.server_version):
        return False
    query = statement("replication", "failover_bookmarks").format(slot=quote_literal(hub_slot or ""))
    changes, is_due = plan_flags(plain.execute(query).fetchall(), has_hub=hub_slot is not None)
    if changes:
        with connect(source.conninfo, replication=True, purpose="bookmarks") as connection:
            for name, on in changes.items():
                try:
                    set_failover(connection, name, on=on)
                except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectInUse) as exc:
                    logger.info('bookmark "%s" did not become a failover slot: %s', name, one_line(exc))
    return is_due


def plan_flags(rows: list[Any], *, has_hub: bool) -> tuple[dict[str, bool], bool]:
    """Return the flags to change, by name, and whether a new bookmark is due; `rows` is empty without a standby."""
    kept = [row for row in rows if not row.is_hub]
    if not kept:
        return {}, False
    fitting = [row for row in kept if row.fits]
    if not fitting:
        changes = {} if any(row.is_failover for row in kept) else {kept[-1].name: True}
        hub_fits = not has_hub or any(row.fits for row in rows if row.is_hub)
        return changes, hub_fits and not changes and kept[0].has_feedback
    changes = {row.name: True for row in fitting if not row.is_failover}
    if any(row.is_failover and _made_at(row.name) <= row.now - _SURE_S for row in fitting):
        changes |= {row.name: False for row in kept if row.is_failover and not row.fits}
    return changes, False


def _made_at(name: str) -> int:
    return int(name.split("_")[2], 16)
