"""Makes failover slots of the bookmarks that a standby can take over, so that history goes on after a failover.

A standby can only take over a slot that needs no older rows of the catalog than the standby still has. It has what its
own slots need, and reports that as the `catalog_xmin` of its physical slot. A bookmark never moves, so the bookmarks
that are older than the standby's first slot never fit: the standby would log every second that they do not. Nor does it
take one whose WAL holds no consistent point; of such a one, a copy is made that it takes (`consistency`). Therefore:

1. While no bookmark fits, one of them has the flag all the same. Its copy on the standby, which stays temporary, keeps
   what the standby has now, so that later bookmarks fit.
2. If none fits although the standby has such a copy, a new bookmark is due. If several had the flag in vain, it waits:
   a standby that has logical slots and synchronizes none leaves each bookmark behind.
3. Those that fit get the flag: the consistent ones, or all while none is surely consistent.
4. Once a consistent one fits and is old enough to have been synchronized, those that do not fit lose the flag.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.database.errors import one_line
from pgdoc.replication.connection import connect, quote_literal
from pgdoc.replication.slots import SYNCHRONIZABLE, made_at, set_failover
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

__all__ = ["FlagPlan", "flag_bookmarks", "plan_flags"]

logger = logging.getLogger("pgdoc.history")

_SURE_S = 60.0  # a standby asks for slots at least every 30 s
_FAR = 1 << 30  # bytes of WAL that are too many for the keeper to have the server decode
_NEAR = 64 << 20  # and those that it may have decoded in each pass


class FlagPlan(NamedTuple):
    """What to do for the standbys.

    Attributes:
        changes: the flags to change, by the names of the bookmarks.
        is_due: whether a new bookmark is due.
        is_late: whether one will be, once the hub's slot needs no older rows of the catalog than the standbys have.
        is_near: whether a copy of that slot may be advanced, which may need fewer rows. While some transaction is
            always open, a slot that is read keeps its `catalog_xmin` until a transaction changes the catalog.
        inconsistent: the bookmarks of any of which a consistent copy is due, oldest first. Those that do not fit are
            copies of a slot that kept its `catalog_xmin`: an advanced copy of them fits.
    """

    changes: dict[str, bool]
    is_due: bool = False
    is_late: bool = False
    is_near: bool = False
    inconsistent: tuple[str, ...] = ()


def flag_bookmarks(source: Source, plain: psycopg.Connection[Any], hub_slot: str | None) -> FlagPlan:
    """Flag the database's bookmarks for its standbys; return what has been done, and what is to be done.

    `plain` is a connection for plain SQL, and `hub_slot` the slot of which a bookmark would be a copy, if any.
    """
    if not source.wants_failover(plain.info.server_version):
        return FlagPlan({})
    query = statement("replication", "failover_bookmarks").format(slot=quote_literal(hub_slot or ""))
    plan = plan_flags(plain.execute(query).fetchall(), has_hub=hub_slot is not None)
    if plan.changes:
        with connect(source.conninfo, replication=True, purpose="bookmarks") as connection:
            for name, on in plan.changes.items():
                try:
                    set_failover(connection, name, on=on)
                except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectInUse) as exc:
                    logger.info('bookmark "%s" did not become a failover slot: %s', name, one_line(exc))
    return plan


def plan_flags(rows: list[Any], *, has_hub: bool) -> FlagPlan:
    """Plan for the bookmarks, and the slot of a hub if it has one; `rows` is empty without a standby."""
    kept = [row for row in rows if not row.is_hub]
    if not kept:
        return FlagPlan({})
    fitting = [row for row in kept if row.fits]
    flagged = [row for row in kept if row.is_failover]
    if not fitting and not flagged:
        return FlagPlan({kept[-1].name: True})
    if not fitting:
        hub = [row for row in rows if row.is_hub]
        is_in_vain = len(flagged) > 1 and made_at(kept[-1].name) > kept[-1].now - _SURE_S
        if not kept[0].has_feedback or is_in_vain:
            return FlagPlan({})
        if not has_hub or any(row.fits for row in hub):
            return FlagPlan({}, is_due=True)
        return FlagPlan({}, is_late=True, is_near=any(row.has_room and row.behind <= _NEAR for row in hub))
    consistent = [row for row in fitting if row.name.endswith(SYNCHRONIZABLE)]
    changes = {row.name: True for row in consistent or fitting if not row.is_failover}
    if any(row.is_failover and made_at(row.name) <= row.now - _SURE_S for row in consistent):
        changes |= {row.name: False for row in kept if row.is_failover and not row.fits}
    later = kept[kept.index(consistent[-1]) + 1 :] if consistent else kept[kept.index(fitting[0]) :]
    inconsistent = tuple(row.name for row in later if row.has_room and row.behind <= _FAR)
    return FlagPlan(changes, inconsistent=inconsistent)
