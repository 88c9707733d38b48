"""Keeps pgdoc's walsenders from counting as synchronous standbys.

PostgreSQL takes a walsender for a synchronous standby if `synchronous_standby_names` lists `*` or the walsender's
`application_name`, and if the flush position of its last status update is not 0. Such a walsender releases waiting
commits, although a client of pgdoc keeps no copy of the WAL. Therefore:

1. Every status update has a flush position of 0, except a confirmation, which is two updates in one send: the confirmed
   LSN, then 0. So no confirmed LSN can count later, after the setting has changed.
2. The setting is read after the LSN to be confirmed is fixed, and before it is sent. So a commit below that LSN that
   waits for a standby has begun to wait under the setting that was read. Only a change from one list to another, in the
   one round trip between the reading and the confirmation, can release such a commit.
3. While the setting matches, the reader is quiet: it confirms nothing. A consumer confirms by another session between
   two readers of its slot (`consumers.owned_slot`); the other readers move to a copy of their slot
   (`streams.renewal`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.database.standby_names import lists_standby
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement

if TYPE_CHECKING:
    import psycopg

__all__ = ["StandbyCheck"]

_ASK_S = 10.0


class StandbyCheck:
    """Asks the server whether a walsender could count as a synchronous standby.

    Args:
        plain: a connection for plain SQL. The server applies a reloaded setting before its next statement.
        closes: whether the connection serves nothing else, so that `close` closes it.
    """

    def __init__(self, plain: psycopg.Connection[Any], *, closes: bool) -> None:
        self._plain = plain
        self._closes = closes

    def could_count(self, application_name: str) -> bool:
        """Return whether the setting matches a walsender of this name at present."""
        with deadline_scope(_ASK_S):
            row = self._plain.execute(statement("replication", "standby_names")).fetchone()
        return row is None or lists_standby(row[0], application_name)

    def close(self) -> None:
        """Close the connection, unless it serves something else."""
        if self._closes:
            self._plain.close()
