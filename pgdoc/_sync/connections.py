# Written by .ci/twins.py from pgdoc/_async/connections.py: change that file, and run it.
"""The pool of a store, and the statements outside a transaction."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import PoolTimeout

from pgdoc._sync.server_checks import find_revision, has_work, settings_of
from pgdoc._sync.store_connection import connection_class
from pgdoc.crud.copy_format import HEADER, TRAILER, CopyRows
from pgdoc.database.catalog import check_revision, check_server
from pgdoc.database.conninfo import with_application_name, with_timeout
from pgdoc.database.errors import connection_error
from pgdoc.database.expiry import Sweeper
from pgdoc.database.outage import PoolName, quieten_pool
from pgdoc.database.pooling import leads_directly, needs_session
from pgdoc.database.rights import Caller
from pgdoc.database.session_settings import (
    check_encoding,
    effective_role,
    local_statements,
    missing_settings,
    still_accepted,
    wanted_settings,
    with_settings,
)
from pgdoc.errors import PgdocError, StoreClosed
from pgdoc.model.metadata import current_metadata, with_trace
from pgdoc.model.value_codec import USUAL_VALUES
from pgdoc.runtime.fork import FORKED, remember
from pgdoc.runtime.holders import Holders
from pgdoc.runtime.primitives import Lock, Pool, call, check_alive
from pgdoc.runtime.ttl_cache import TTLCache
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from psycopg import Connection

    from pgdoc.crud.guard import TableTraits
    from pgdoc.crud.sizes import SizeLimit
    from pgdoc.model.value_codec import ValueCodec
    from pgdoc.query.indexes.plan import Indexes

__all__ = ["Connections"]

_CHUNK_ROWS = 100
_CHECK_SERVER_AFTER_S = 2.0
_WAIT_S = 30.0
_CLOSE_S = 0.3  # for each of the pool's four threads


class Connections:
    """The pools of a store, opened on first use; the `Session` of calls outside a transaction.

    Such a call takes a connection, executes one statement in autocommit mode, and returns the connection. A call that
    keeps its connection while the caller's own code runs takes it from a pool of as many others, so that the calls of
    that code always find one.

    Attributes:
        codec: how the store converts values.
        caller: the role of the connections.
        oids: a cache of the collections' tables, by their quoted names.
    """

    def __init__(
        self,
        conninfo: str,
        pool_size: int,
        *,
        schema: str,
        direct_conninfo: str | None,
        codec: ValueCodec = USUAL_VALUES,
    ) -> None:
        self.codec = codec
        self._conninfo, self._schema = conninfo, schema
        self._direct_conninfo = direct_conninfo  # perhaps of a standby; None if `conninfo` is all there is
        self._purpose, self._pool_size = f"store {schema}", pool_size
        self._closing = threading.Event()
        self._connection_class = connection_class(self._closing)
        self._accepted: dict[str, str] | None = None  # settings that the server, or a pooler, takes on connecting
        self.begin_with: list[bytes] = []  # sets the others in a transaction
        self._opening = Lock()  # held while a pool is opened, or the server is checked
        # How many checks have ended, and what the last one found.
        self._checks = 0
        self._refusal: PgdocError | None = None
        self._pool: Pool | None = None  # None until it is open, and again once the store is closed
        self._keeping: Pool | None = None  # the pool of the calls that keep their connection
        self._holders = Holders(pool_size)
        self._inherited: list[Pool] = []  # in a forked child: the parent's pools, kept so that nothing closes them
        self.oids: TTLCache[int] = TTLCache()
        self.indexes: TTLCache[Indexes] = TTLCache()
        self.large_results: TTLCache[bool] = TTLCache()
        self.traits: TTLCache[TableTraits] = TTLCache()
        self.limits: TTLCache[SizeLimit] = TTLCache()
        self.schemas: TTLCache[str] = TTLCache()
        self.caller = Caller("", schema)
        self.sweeper = Sweeper(conninfo, schema)
        weakref.finalize(self, self.sweeper.stop)
        remember(self)

    def after_fork(self) -> None:
        """Leave open pools to the parent; a child whose parent had none opens its own."""
        self._inherited += self.open_pools()
        self._pool = self._keeping = None
        self._opening = Lock()
        self._holders = Holders(self._pool_size)

    def pool(self) -> Pool:
        """Return the open pool; the first call checks the server and opens it.

        Raises:
            StoreClosed: `close` was called, or the process is a forked child.
            PgdocError: see `connection_error`, `check_server` and `check_revision`.
        """
        if self._pool is not None:
            return self._pool
        checks = self._checks
        with self._opening:
            self._check_usable()
            pool = self._pool
            if pool is None:
                self._check_server_after(checks)
                pool = self._open(min_size=1)
            self._pool = pool
        self._check_still_open()
        return pool

    def open_pools(self) -> list[Pool]:
        """Return the pools that are open."""
        return [pool for pool in (self._pool, self._keeping) if pool is not None]

    def _keeping_pool(self) -> Pool:
        """Return the pool of the calls that keep their connection; it is opened for the first of them."""
        self.pool()
        with self._opening:
            self._check_usable()
            pool = self._keeping = self._keeping or self._open(min_size=0)
        self._check_still_open()
        return pool

    def _check_still_open(self) -> None:
        if self._closing.is_set():  # another thread or task closed the store before the pool was assigned
            self.close()
            self._check_usable()

    def _check_usable(self) -> None:
        if self._closing.is_set():
            raise StoreClosed("the store is closed: open a new one")
        if self._inherited:
            raise StoreClosed(FORKED)

    def _open(self, *, min_size: int) -> Pool:
        quieten_pool()
        pool = Pool(
            with_settings(with_application_name(with_timeout(self._conninfo), self._purpose), self._accepted or {}),
            connection_class=self._connection_class,
            kwargs={"autocommit": True},
            min_size=min_size,
            max_size=self._pool_size,
            open=False,
            # The pool tries again when a call needs a connection. By itself it would pause for longer and longer, and
            # keep calls waiting when the server is back.
            reconnect_timeout=0.0,
            name=PoolName("pgdoc"),
        )
        pool.open()
        return pool

    def _check_server_after(self, checks: int) -> None:
        """Check the server, unless a check has ended since there were so many. The lock `_opening` is held.

        So the calls that wait for one check share it. At a server that says nothing, each takes ten seconds.
        """
        if self._checks == checks:
            self._refusal = None
            try:
                self._check_server()
            except PgdocError as exc:
                self._refusal = exc
            self._checks += 1
        if self._refusal is not None:
            raise self._refusal from self._refusal.__cause__

    def _check_server(self) -> None:
        """Raise at once what is wrong. The pool would try for half a minute, and not know the cause."""
        connection = self._try_to_connect()
        with connection:
            check_server(connection.info.server_version, connection.info.parameter_status("server_encoding"))
            check_encoding(connection)
            check_revision(find_revision(connection))
            if not self.sweeper.is_running and has_work(connection, self._schema):
                self.sweeper.start()
            found = settings_of(connection)
            self.caller = self.caller._replace(role=effective_role(connection, found))
            missing = missing_settings(wanted_settings(self._conninfo), found)
            self.begin_with = local_statements(missing)

    def _try_to_connect(self) -> Connection[Any]:
        """Open a connection with as many settings as the server, or a pooler before it, accepts."""
        conninfo = with_application_name(with_timeout(self._conninfo), self._purpose)
        accepted = wanted_settings(conninfo) if self._accepted is None else self._accepted
        while True:
            try:
                connection = self._connection_class.connect(with_settings(conninfo, accepted), autocommit=True)
            except psycopg.Error as exc:
                self._check_usable()
                rest = still_accepted(accepted, str(exc))
                if rest is None:
                    raise connection_error(exc) from exc
            else:
                self._accepted = accepted
                return connection
            accepted = rest

    def close(self) -> None:
        """Close the pools, also while one is being opened."""
        self._closing.set()
        pools, self._pool, self._keeping = self.open_pools(), None, None
        for pool in pools:
            pool.close(_CLOSE_S)
        self.sweeper.begin_to_stop()  # at once: it must not start any more
        if self.sweeper.is_running:
            call(self.sweeper.stop)

    def begin(self) -> tuple[Pool, Connection[Any]]:
        """Take a connection for a transaction; `end` takes both."""
        pool = self._pool or self.pool()
        connection = self._lend(pool)
        self._holders.transaction_begins()
        return pool, connection

    def end(self, pool: Pool, connection: Connection[Any]) -> None:
        """Return the connection of a transaction that has ended."""
        self._holders.transaction_ends()
        pool.putconn(connection)

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """Lend a connection in autocommit mode for one call."""
        pool = self._pool or self.pool()
        connection = self._lend(pool)
        try:
            yield connection
        finally:
            pool.putconn(connection)

    @contextmanager
    def keep(self, holder: str) -> Iterator[Connection[Any]]:
        """Lend a connection to a call during which the caller's own code runs; `holder` names it in errors.

        Raises:
            PoolExhausted: as many such calls are running as the pool has connections. Waiting could take forever: each
                may be inside a loop that makes this call.
        """
        pool = self._keeping or self._keeping_pool()
        with self._holders.keeping(holder):
            connection = self._lend(pool)
            try:
                yield connection
            finally:
                pool.putconn(connection)

    def _lend(self, pool: Pool) -> Connection[Any]:
        """Take a connection; if none is free soon, check the server before waiting longer."""
        try:
            return _take(pool, _CHECK_SERVER_AFTER_S)
        except PoolTimeout:
            checks = self._checks
            with self._opening:
                self._check_server_after(checks)
        try:
            return _take(pool, _WAIT_S)
        except PoolTimeout as exc:
            raise self._holders.waited_in_vain(_CHECK_SERVER_AFTER_S + _WAIT_S) from exc

    @property
    def in_transaction(self) -> bool:
        """Always false: each statement commits by itself."""
        return False

    def check_open(self) -> None:
        """Do nothing: the pool opens itself."""

    def metadata_message(self) -> str | None:
        """Return the caller's metadata, if any."""
        metadata = with_trace(current_metadata())
        return metadata.message if metadata else None

    def fetch(
        self,
        query: bytes,
        params: Sequence[Any] | Mapping[str, Any],
        *,
        prepare: bool | None = None,
        apart: bool = False,
    ) -> list[tuple[Any, ...]]:
        """See `Session`; every statement runs apart from others."""
        del apart
        pool = self._pool or self.pool()
        connection = self._lend(pool)
        try:
            cursor = connection.execute(query, params, prepare=prepare, binary=True)
            return cursor.fetchall()
        finally:
            pool.putconn(connection)

    look_up = fetch

    @contextmanager
    def lend(self, holder: str) -> Iterator[Connection[Any]]:
        """See `Session`; never by way of a pooler, where each statement may run in another session.

        Raises:
            DirectRouteNeeded: `conninfo` leads through a pooler, and nothing else leads to the primary.
        """
        with self.keep(holder) as connection:
            if leads_directly(connection):
                yield connection
                return
        with self._keep_direct(holder) as connection:
            yield connection

    @contextmanager
    def _keep_direct(self, holder: str) -> Iterator[Connection[Any]]:
        if self._direct_conninfo is None:
            raise needs_session(holder)
        named = with_application_name(with_timeout(self._direct_conninfo), self._purpose)
        with self._holders.keeping(holder):
            self._check_usable()
            try:
                connection = self._connection_class.connect(named, autocommit=True)
            except psycopg.Error as exc:
                self._check_usable()
                raise connection_error(exc) from exc
            with connection:
                if connection.info.parameter_status("in_hot_standby") == "on":
                    raise needs_session(holder, is_standby=True)
                yield connection

    def stream(self, query: bytes, params: Sequence[Any], holder: str) -> Generator[list[tuple[Any, ...]]]:
        """Execute one statement and yield its rows in chunks; keep a connection until the end."""
        with (
            self.keep(holder) as connection,
            connection.cursor() as cursor,
            closing(cursor.stream(query, params, binary=True, size=_CHUNK_ROWS)) as rows,  # type: ignore[type-var]
        ):
            chunk: list[tuple[Any, ...]] = []
            for row in rows:
                chunk.append(row)
                if len(chunk) == _CHUNK_ROWS:
                    yield chunk
                    chunk = []
            if chunk:
                yield chunk

    def copy(self, hold: bytes, query: bytes, rows: CopyRows) -> None:
        """See `Session`."""
        with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            check_encoding(connection)
            cursor.execute(hold)
            if message := self.metadata_message():
                cursor.execute(statement("documents", "emit").encode(), [message])
            with cursor.copy(query) as copy:
                copy.write(HEADER)
                for block in rows:
                    copy.write(block)
                copy.write(TRAILER)
            rows.check_stored(cursor.rowcount)


def _take(pool: Pool, timeout_s: float) -> Connection[Any]:
    """Take a connection that is alive.

    The dead ones go at once. As the pool's own check, this would pause after each, for longer and longer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        connection = pool.getconn(timeout=deadline - time.monotonic())
        try:
            check_alive(connection)
        except psycopg.OperationalError:
            pool.putconn(connection)  # which opens another one
        else:
            return connection
