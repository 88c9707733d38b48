"""Connections that look at a server, change nothing, and wait for no answer for long: those of `pgdoc doctor`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import namedtuple_row

from pgdoc.database.conninfo import with_timeout
from pgdoc.database.errors import connection_error
from pgdoc.database.session_settings import still_accepted, wanted_settings, with_settings
from pgdoc.runtime.deadline import BoundedConnection, deadline_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["connect_examiner", "look_only"]

_STATEMENT_S: Final = 10
"""The server cancels a statement after this time."""

_LOCK_S: Final = 5
"""It gives up a lock after this time: sooner, so that its error says what was waited for."""

_SILENCE_S: Final = 15.0
"""The client gives up an answer after this time, if the server or the network is silent."""


def connect_examiner(conninfo: str) -> psycopg.Connection[Any]:
    """Connect as a store does: with as many settings as the server, or a pooler before it, accepts.

    Raises:
        ServerUnreachable: no connection could be made.
        DatabaseError: the conninfo is not valid, or the server refused it.
    """
    accepted: dict[str, str] | None = wanted_settings(conninfo)
    while True:
        try:
            with deadline_scope(_SILENCE_S):
                return BoundedConnection.connect(
                    with_timeout(with_settings(conninfo, accepted or {})),
                    autocommit=True,
                    row_factory=namedtuple_row,
                    prepare_threshold=None,
                )
        except psycopg.Error as exc:
            accepted = still_accepted(accepted or {}, str(exc))
            if accepted is None:
                raise connection_error(exc) from exc


@contextlib.contextmanager
def look_only(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Run the statements of the block in one transaction that can't write, each with a time limit.

    The limits are local to the transaction, because a pooler gives the session to another client afterwards.
    """
    with deadline_scope(_SILENCE_S), connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_S}s'".encode())
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_S}s'".encode())
        yield
