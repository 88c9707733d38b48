"""The connections of a store.

A prepared statement belongs to one session of the server, and a pooler may run the next statement in another one. So
each connection finds out where it leads, and prepares statements only where it leads to the server itself (see
`pgdoc.database.pooling`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg import AsyncConnection

from pgdoc.database.catalog import OLDEST_SERVER
from pgdoc.database.outage import OfStore, Outage
from pgdoc.database.pooling import FIND_SESSION, PREPARE_AFTER, is_own_session, note_direct
from pgdoc.database.standbys import OnStandby, is_standby
from pgdoc.runtime.deadline import bounded, closing_on_deadline, deadline_scope, is_limited
from pgdoc.runtime.encoding import in_utf8
from pgdoc.runtime.fork import connecting, detach, remember
from pgdoc.runtime.secrets import without_secrets

if TYPE_CHECKING:
    import threading

    from psycopg.abc import PQGen, PQGenConn
    from psycopg.pq.abc import PGconn

    T = TypeVar("T")

__all__ = ["connection_class", "find_route"]

_ROUTE_S = 10.0


def connection_class(closing: threading.Event) -> type[AsyncConnection[Any]]:
    """Return the connection class of one store; setting `closing` cancels connecting."""
    outage = Outage()

    class StoreConnection(AsyncConnection[Any], OfStore):
        def __init__(self, pgconn: PGconn) -> None:
            super().__init__(pgconn)
            remember(self)

        def after_fork(self) -> None:
            detach(self)

        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Self:
            began = time.monotonic()
            try:
                connection = await super().connect(*args, prepare_threshold=None, **kwargs)
                with deadline_scope(_ROUTE_S, closing=closing):
                    await find_route(connection, began)
            except psycopg.Error as exc:
                if not closing.is_set():
                    outage.failed(exc)
                raise
            outage.connected()
            return connection

        @classmethod
        def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
            with deadline_scope(float("inf"), closing=closing):
                return without_secrets(bounded(connecting(super()._connect_gen(in_utf8(conninfo)))), conninfo)

        async def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
            """Wait for the server: without a limit for a user's call, within `deadline_scope` for opening a stream.

            A connection to a standby counts as lost when it is to write: the next one may lead to the primary.
            """
            steps = closing_on_deadline(self.pgconn, bounded(gen)) if is_limited() else gen
            try:
                return await super().wait(steps, *args, **kwargs)
            except psycopg.errors.ReadOnlySqlTransaction as exc:
                if not is_standby(self):
                    raise
                self.pgconn.finish()
                raise OnStandby(str(exc)) from exc

    return StoreConnection


async def find_route(connection: AsyncConnection[Any], began: float) -> None:
    """Note whether a connection leads to a session of its own; the attempt to connect began at a `time.monotonic`."""
    if connection.info.server_version < OLDEST_SERVER:  # which is refused in any case
        return
    try:
        found = await (await connection.execute(FIND_SESSION)).fetchone()
    except BaseException:
        await connection.close()
        raise
    if is_own_session(connection.info.backend_pid, time.monotonic() - began, found):
        note_direct(connection)
        connection.prepare_threshold = PREPARE_AFTER
