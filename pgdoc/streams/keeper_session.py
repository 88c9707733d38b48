"""The session of a bookmark keeper: what it asks of the server that is read, and of the others that keep history there.

On a primary, the table `pgdoc.sessions` says which keeper does what is due. On a standby nothing can be written, nor
read from a table that is not logged. There the hubs' own slots decide, which only roles that may replicate can make:
the keeper of the first hub, by the name of its slot, does what is due. The slot of a hub that hangs goes with its
walsender, after `wal_sender_timeout`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc.database.errors import one_line
from pgdoc.errors import PgdocError, ServerUnreachable
from pgdoc.replication import slots
from pgdoc.replication.connection import connect
from pgdoc.replication.recovery import connect_primary, is_in_recovery, nudge
from pgdoc.replication.registry import follow_tables
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

__all__ = ["KeeperSession"]

logger = logging.getLogger("pgdoc.history")

_SILENT_FOR_S: Final = 60  # the server ends a session that is idle for longer, so that another keeper keeps history


class KeeperSession:
    """A keeper's connection to the server that is read, entered among those that keep history there.

    Attributes:
        connection: for plain SQL.
        on_standby: whether the server is a standby.
    """

    def __init__(self, source: Source) -> None:
        self._primary_conninfo = source.primary
        self._purpose = f"bookmarks {source.schema}"
        self._primary: psycopg.Connection[Any] | None = None
        self._misses_primary = False  # whether the last attempt to ask the primary failed
        self.connection = connect(source.conninfo, replication=False, purpose=self._purpose)
        try:
            self.on_standby = source.primary is not None and is_in_recovery(self.connection)
            self.connection.execute(f"SET idle_session_timeout = '{_SILENT_FOR_S}s'")
            self.enter()
        except BaseException:
            self.connection.close()
            raise

    def enter(self) -> None:
        """Get in line behind the keepers that work."""
        if not self.on_standby:
            self.connection.execute(statement("replication", "enter_hub"))

    def leave(self, own_slot: str | None) -> bool:
        """Leave the line; return whether nobody else is in it."""
        if self.on_standby:
            return not self._other_hubs(own_slot)
        self.connection.execute(statement("replication", "leave_hub"))
        return self.ask("keeps_history")

    def keeps_history(self, own_slot: str | None) -> bool:
        """Return whether this keeper does what is due.

        Raises:
            ServerUnreachable: the standby was promoted.
        """
        if not self.on_standby:
            return self.ask("keeps_history")
        if not is_in_recovery(self.connection):
            raise ServerUnreachable("the standby was promoted: entering among the keepers of the primary")
        others = self._other_hubs(own_slot)
        return not others if own_slot is None else all(own_slot < other for other in others)

    def _other_hubs(self, own_slot: str | None) -> list[str]:
        rows = self.connection.execute(statement("replication", "hub_slots")).fetchall()
        return [row.name for row in rows if row.name != own_slot]

    def ask(self, question: str) -> bool:
        """Return the server's answer to a question of `replication.sql`."""
        row = self.connection.execute(statement("replication", question)).fetchone()
        return bool(row and row[0])

    def follow_tables(self) -> None:
        """See `pgdoc.replication.registry.follow_tables`; on a standby, have the primary do it, if it can."""
        if not self.on_standby or self._primary_conninfo is None:
            follow_tables(self.connection)
            return
        try:
            self._primary = self._primary or connect_primary(self._primary_conninfo, self._purpose)
            follow_tables(self._primary)
        except (psycopg.Error, PgdocError) as exc:
            level = logging.DEBUG if self._misses_primary else logging.WARNING
            logger.log(level, "the primary can't be asked what SQL did to tables: %s", one_line(exc))
            self._misses_primary = True
            self._close_primary()
        else:
            self._misses_primary = False

    def log_running_transactions(self) -> None:
        """Have the WAL get a record of the running transactions, without which no slot releases WAL."""
        if not self.on_standby or self._primary_conninfo is None:
            slots.log_running_transactions(self.connection)
            return
        try:
            nudge(self._primary_conninfo)
        except (psycopg.Error, PgdocError) as exc:  # the WAL gets a record sooner or later, unless the primary is idle
            logger.info("the primary can't be asked for a record of its running transactions: %s", one_line(exc))

    def close(self) -> None:
        """Close the connections."""
        self._close_primary()
        self.connection.close()

    def _close_primary(self) -> None:
        if self._primary is not None:
            self._primary.close()
        self._primary = None
