"""Finds out what an upgrade of PostgreSQL would take from a database."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.database.slot_losses import describe_loss
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.errors import HistoryLost, InvalidResumeToken
from pgdoc.model.positions import Position
from pgdoc.replication.checks import check_exact, check_published
from pgdoc.sql import statement
from pgdoc.upgrades.databases import PURPOSE
from pgdoc.upgrades.unread import ReadFrom, find_unread

if TYPE_CHECKING:
    import psycopg

    from pgdoc.replication.source import Cluster
    from pgdoc.upgrades.databases import CatalogDatabase

__all__ = ["Obstacle", "Survey", "find_obstacles", "foreign_slots", "list_consumers"]


class Obstacle(NamedTuple):
    """What is in the way.

    Attributes:
        is_final: whether waiting does not help.
    """

    text: str
    is_final: bool = False


def list_consumers(connection: psycopg.Connection[Any]) -> list[Any]:
    """List the consumers with their slots, positions and owners."""
    connection.execute(statement("upgrade", "ask_for_leases"))
    return connection.execute(statement("upgrade", "consumers").encode(), []).fetchall()


def foreign_slots(connection: psycopg.Connection[Any], prepared: list[str] | None) -> tuple[list[str], list[str]]:
    """Return which slots of others pg_upgrade refuses, and what to know about the rest.

    A slot of pgdoc counts among them if its database has no catalog any more: `prepared` are those that have one,
    `None` if that is not known.

    From version 17 on, it takes logical slots along if they have sent everything, and else refuses.
    """
    refused, notes = [], []
    for slot in connection.execute(statement("upgrade", "foreign_slots").encode(), {"prepared": prepared}).fetchall():
        whose = "which has no pgdoc catalog" if slot.is_left else "which is not pgdoc's"
        subject = f'slot "{slot.name}" of database "{slot.database}", {whose},'
        drop = f"SELECT pg_drop_replication_slot('{slot.name}')"
        if not slot.is_checked:
            notes.append(f"{subject} is lost: before PostgreSQL 17, pg_upgrade takes no logical slot along")
        elif slot.wal_status == "lost":
            refused.append(f"{subject} is invalid, and pg_upgrade refuses it: drop it with {drop}")
        elif not slot.active:
            refused.append(
                f"{subject} has no reader, and pg_upgrade refuses it unless it has consumed all WAL: start its reader, "
                f"or drop it with {drop}"
            )
        else:
            notes.append(f"{subject} has to be read until the server has stopped, or pg_upgrade refuses it")
    return refused, notes


def find_obstacles(connection: psycopg.Connection[Any], database: str) -> list[str]:
    """Return what waiting does not mend in a database, apart from its consumers."""
    found = []
    row = connection.execute(statement("upgrade", "is_bound")).fetchone()
    if row is not None and not row[0]:
        found.append(
            f'database "{database}" was upgraded, is a copy, or was restored, and its registry is another one\'s: run '
            "`pgdoc init`"
        )
    found += [
        f'prepared transaction "{transaction.gid}" of database "{database}" is open, and pg_upgrade refuses it: commit '
        "it or roll it back"
        for transaction in connection.execute(statement("upgrade", "prepared_transactions")).fetchall()
        if transaction.database == database
    ]
    found += [
        f'slot "{slot.name}" belongs to no consumer of database "{database}", and may have unread events: drop it '
        f"with SELECT pg_drop_replication_slot('{slot.name}')"
        for slot in connection.execute(statement("upgrade", "slots_of_nobody").encode(), []).fetchall()
    ]
    return found


class Survey:
    """Looks at the consumers of a database, again and again; remembers what can't have changed."""

    def __init__(self, database: CatalogDatabase, connection: psycopg.Connection[Any], cluster: Cluster) -> None:
        self._database = database
        self._connection = connection
        self._cluster = cluster
        self._known: dict[str, tuple[ReadFrom, str | None, int]] = {}

    def look(self, row: Any, until: int) -> Obstacle | None:
        """Return what keeps a consumer from being ready; `None` if it is closed and has read up to the LSN `until`."""
        subject = f'consumer "{row.name}" of database "{self._database.name}"'
        drop = f"`pgdoc consumers drop {shlex.quote(row.name)}`"
        fault = self._fault(row)
        if fault is not None:
            return Obstacle(
                f"{subject} {fault}: open it once, and rebuild what it feeds if that fails; or drop it with {drop}",
                True,
            )
        session = None if row.owner_pid is None else f"its session has pid {row.owner_pid}"
        if row.snapshot is not None:
            cure = session or f"nobody has it open: open it, or drop it with {drop}"
            return Obstacle(f"{subject} has yet to read its snapshot ({cure})")
        position = Position(*row.place[:4])
        start = ReadFrom(row.slot, row.plugin, position, max(position.commit_lsn, row.confirmed))
        unread = self._unread(row, start, until, is_open=session is not None)
        if unread is not None and session is not None:
            return Obstacle(
                f"{subject} may have to read {unread}, or its filter drops it: let it read on, then stop its program "
                f"({session})"
            )
        if unread is not None:
            return Obstacle(
                f"{subject} has yet to read {unread}, and nobody has it open: let its program read to the end, and "
                f"stop it cleanly, so that it stores how far it came; or drop the consumer with {drop}"
            )
        return None if session is None else Obstacle(f"{subject} has read everything: stop its program ({session})")

    def _fault(self, row: Any) -> str | None:
        if not row.place:
            return "was never made completely"
        if row.slot is None or row.wal_status == "lost":
            return "has lost its slot" if row.slot is None else f"has a slot that {describe_loss(row.reason)}"
        if row.plugin not in PLUGINS:
            return f"has a slot with the plugin {row.plugin}"
        ids = (int(row.system_id), row.timeline, row.database_oid)
        position = Position(*row.place[:4])
        read_from = max(position.commit_lsn, row.confirmed)
        try:
            self._cluster.check(position, ids)
            if row.plugin == "pgoutput":
                check_published(read_from, self._lsn("published_since", row.schema_name, []), row.schema_name)
            else:
                check_exact(read_from, self._lsn("exact_since", row.schema_name, None), row.schema_name)
        except (InvalidResumeToken, HistoryLost) as exc:
            return f"can't go on where it is ({exc})"
        return None

    def _lsn(self, name: str, *params: Any) -> int:
        row = self._connection.execute(statement("consumers", name).encode(), params).fetchone()
        assert row is not None  # noqa: S101 (an aggregate)
        return int(row.since)

    def _unread(self, row: Any, start: ReadFrom, until: int, *, is_open: bool) -> str | None:
        """Decode what follows, unless the last answer still holds, or the consumer may go on anyway."""
        known = self._known.get(row.name)
        if known is not None and known[0] == start and (known[1] is not None or is_open or known[2] >= until):
            return known[1]
        unread = find_unread(self._database.conninfo, row.schema_name, start, until, f"{PURPOSE} {row.name}")
        self._known[row.name] = (start, unread, until)
        return unread
