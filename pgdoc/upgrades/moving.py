"""Gives consumers new slots, and lets a database take writes again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.consumers.slots import find_cluster, find_slot, make_slot, slot_of
from pgdoc.database.errors import one_line
from pgdoc.errors import ReplicationUnavailable, SlotBlocked, UpgradeRefused
from pgdoc.model.positions import Lsn, before_commits_at
from pgdoc.replication.slots import make_first_bookmark
from pgdoc.replication.source import Source
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement
from pgdoc.upgrades.databases import PURPOSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.consumers.slots import ConsumerSlot
    from pgdoc.upgrades.databases import CatalogDatabase, Report

__all__ = ["LOCK_TIMEOUT", "MovedConsumer", "move_consumers", "run_under_lock", "thaw"]

LOCK_TIMEOUT = "2s"
"""How long a statement waits for a lock, so that others wait no longer behind it."""

_PAUSE_S = 0.5
_LIMIT_S = 600.0  # thousands of tables take minutes
_BLOCKED_BY = {"55P03", "40P01"}
_MAY_NOT = "42501"


class MovedConsumer(NamedTuple):
    """A consumer after an upgrade.

    Attributes:
        plugin: of its new slot.
        at: it goes on with the transactions that commit at this LSN or later.
    """

    name: str
    plugin: str
    at: Lsn


def move_consumers(
    database: CatalogDatabase, connection: psycopg.Connection[Any], plugin: str | None, report: Report
) -> list[MovedConsumer]:
    """Give each consumer a new slot, from now on.

    `plugin` is `None` for the one that the consumer had, and `auto` for that one if the server has it.

    Nothing was written since it had read everything, so its new position follows the old one. If this is interrupted,
    the next call makes the slot again of a consumer that has not been moved, or whose slot did not last until then.
    """
    moved = []
    for row in connection.execute(statement("upgrade", "to_move")).fetchall():
        slot = slot_of(connection, row.name)
        found = find_slot(connection, slot) if row.is_moved else None
        if found is None or found.wal_status == "lost":
            report(database.name, f"making the slot of consumer {row.name}")
            keeps = plugin is None or (plugin == "auto" and row.plugin == "pgoutput")
            source = Source(database.conninfo, row.schema_name, row.plugin if keeps else str(plugin))
            make_slot(source, slot, None, lock_claim=lambda _: None, purpose=f"{PURPOSE} {row.name}")
            found = _settle(connection, source, row.name, slot)
        moved.append(MovedConsumer(row.name, found.plugin, Lsn(found.confirmed)))
    return moved


def _settle(connection: psycopg.Connection[Any], source: Source, name: str, slot: str) -> ConsumerSlot:
    found = find_slot(connection, slot)
    if found is None:
        raise UpgradeRefused(f'slot "{slot}" was dropped meanwhile: run the command again')
    cluster = find_cluster(source, purpose=f"{PURPOSE} {name}")
    values = {
        "name": name,
        "place": list(before_commits_at(found.confirmed)),
        "system": str(cluster.system_id),
        "timeline": cluster.timeline,
        "database": cluster.database_oid,
    }
    with connection.transaction():
        connection.execute(statement("upgrade", "move").encode(), values)
    return found


def thaw(database: CatalogDatabase, connection: psycopg.Connection[Any], deadline: float, report: Report) -> None:
    """Let the database take writes again, and consumers be opened; history begins before that."""
    try:
        make_first_bookmark(database.conninfo, is_finishing=True)
    except (ReplicationUnavailable, SlotBlocked) as exc:
        report(database.name, f"history begins with the first stream: {exc}")
    run_under_lock(connection, ("thaw",), deadline, lambda text: report(database.name, text))


def run_under_lock(
    connection: psycopg.Connection[Any], names: tuple[str, ...], deadline: float, report: Callable[[str], None]
) -> None:
    """Run statements of `upgrade.sql` in a transaction, again and again while other sessions hold locks on tables.

    Raises:
        UpgradeRefused: they still do at `deadline`, a time of `time.monotonic()`.
    """
    has_said = False
    while True:
        try:
            with deadline_scope(_LIMIT_S), connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'".encode())
                for name in names:
                    connection.execute(statement("upgrade", name))
        except psycopg.Error as exc:
            if exc.sqlstate == _MAY_NOT:
                raise UpgradeRefused(
                    f"{one_line(exc)}: the catalog's owner, {connection.info.user}, has to be a member of the roles "
                    "that own collections and watched tables"
                ) from exc
            if exc.sqlstate not in _BLOCKED_BY:
                raise
            findings = _blockers(connection)
            if time.monotonic() > deadline:
                raise UpgradeRefused("sessions hold locks on collections", findings=findings) from exc
            if not has_said:
                report(f"waiting for locks: {'; '.join(findings) or 'of sessions that have just ended'}")
            has_said = True
            time.sleep(_PAUSE_S)
        else:
            return


def _blockers(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    rows = connection.execute(statement("upgrade", "lock_holders")).fetchall()
    return tuple(
        f'pid {row.pid} of role "{row.role}" has a lock on {row.relation}, in a transaction: end it, or let it end'
        for row in rows
    )
