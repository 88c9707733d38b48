"""Whether a connection leads to a session of its own, or to a pooler that may run each transaction in another one.

A server that is asked for its pid answers with the one that it sent when the session began, next to the key for
canceling. PgBouncer and Odyssey send each client a random pid and key of their own, by which they find its session to
cancel. A pooler that counts its clients instead could hit upon the pid of the session that answers; and one that passes
on the key of a session that it has would send its pid. Neither session is as young as the connection, unless the pooler
has opened it for this client.

A role that may not see the age of its own session, and a server whose clock is set meanwhile, look like a pooler. There
statements are not prepared, which costs time and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.database.outage import OfStore
from pgdoc.errors import DirectRouteNeeded, UnsupportedServer
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

__all__ = [
    "FIND_SESSION",
    "PREPARE_AFTER",
    "is_own_session",
    "leads_directly",
    "needs_session",
    "note_direct",
    "statement_mode",
]

FIND_SESSION: Final = statement("catalog", "session").encode()
"""Finds the row for `is_own_session`."""

PREPARE_AFTER: Final = 5
"""How often a statement runs before psycopg prepares it: its default."""

_CLOCKS_APART_S: Final = 0.1


def is_own_session(pid: int, connected_for_s: float, found: Sequence[Any] | None) -> bool:
    """Return whether the session that answers is surely the one that this connection has begun.

    Args:
        pid: what the other side said when the connection was made.
        connected_for_s: the time since before it was made.
        found: the pid and the age of the session that runs a statement of this connection.
    """
    if found is None:
        return False
    session_pid, age_s = found
    return bool(session_pid == pid and age_s is not None and age_s <= connected_for_s + _CLOCKS_APART_S)


def note_direct(connection: object) -> None:
    """Note that a connection of a store leads to a session of its own."""
    if isinstance(connection, OfStore):
        connection.leads_directly = True


def leads_directly(connection: object) -> bool:
    """Return whether a connection of a store leads to a session of its own."""
    return isinstance(connection, OfStore) and connection.leads_directly


def needs_session(holder: str, *, is_standby: bool = False) -> DirectRouteNeeded:
    """Make the error for a call that takes several statements in one session; `holder` names the call."""
    found = ", and replication_conninfo to a standby" if is_standby else ""
    return DirectRouteNeeded(
        f"conninfo leads to a pooler{found}: {holder} needs a session of its own on the primary. Make the call with a "
        "store whose conninfo has the server's own host and port, or give them as replication_conninfo (the pooler's "
        "own, if its pool_mode is session)"
    )


def statement_mode(exc: psycopg.Error) -> UnsupportedServer | None:
    """Return the error for a pooler that refuses transactions, if that is what it said."""
    if "statement pooling mode" not in str(exc):
        return None
    return UnsupportedServer(
        "the pooler of conninfo has pool_mode = statement, which allows no transactions: set pool_mode = transaction "
        "for this database, or connect to the server itself"
    )
