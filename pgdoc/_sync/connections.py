# Written by .ci/twins.py from pgdoc/_async/connections.py: change that file, and run it.
"""The pool of a store, and the statements outside a transaction."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg import Connection
from psycopg_pool import PoolTimeout

from pgdoc.crud.copy_format import HEADER, TRAILER, CopyRows
from pgdoc.database.catalog import FIND_FOREIGN_OWNER, FIND_REVISION, check_owner, check_revision, check_server
from pgdoc.database.conninfo import with_application_name, with_timeout
from pgdoc.database.errors import connection_error, map_error
from pgdoc.errors import StoreClosed
from pgdoc.model.metadata import current_metadata
from pgdoc.runtime.deadline import bounded, closing_on_deadline, deadline_scope, is_limited
from pgdoc.runtime.fork import FORKED, connecting, detach, remember
from pgdoc.runtime.primitives import Lock, Pool, check_alive
from pgdoc.runtime.secrets import without_secrets
from pgdoc.runtime.ttl_cache import TTLCache
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from psycopg.abc import PQGen, PQGenConn
    from psycopg.pq.abc import PGconn

    from pgdoc.crud.sizes import SizeLimit
    from pgdoc.query.indexes.plan import Indexes

    T = TypeVar("T")

__all__ = ["Connections"]

_CHUNK_ROWS = 100
_CHECK_SERVER_AFTER_S = 2.0
_CLOSE_S = 0.3  # for each of the pool's four threads


class Connections:
    """The pool of a store, opened on first use; the `Session` of calls outside a transaction.

    Such a call takes a connection, executes one statement in autocommit mode, and returns the connection.

    Attributes:
        oids: a cache of the collections' tables, by their quoted names.
    """

    def __init__(self, conninfo: str, pool_size: int, *, schema: str, through_pooler: bool) -> None:
        self._conninfo = conninfo
        self._purpose = f"store {schema}"
        self._pool_size = pool_size
        self._closing = threading.Event()
        self._connection_class = _class_of(self._closing)
        self._settings: dict[str, Any] = {"autocommit": True}
        if through_pooler:
            self._settings["prepare_threshold"] = None  # the next statement may run in another session
        self._opening = Lock()  # held while the pool is opened, or the server is checked
        self._pool: Pool | None = None  # None until it is open, and again once the store is closed
        self._inherited: Pool | None = None  # in a forked child: the parent's pool, kept so that nothing closes it
        self.oids: TTLCache[int] = TTLCache()
        self.indexes: TTLCache[Indexes] = TTLCache()
        self.large_results: TTLCache[bool] = TTLCache()
        self.limits: TTLCache[SizeLimit] = TTLCache()
        remember(self)

    def after_fork(self) -> None:
        """Leave an open pool to the parent; a child whose parent had none opens its own."""
        self._inherited, self._pool = self._pool or self._inherited, None
        self._opening = Lock()

    def pool(self) -> Pool:
        """Return the open pool; the first call checks the server and opens it.

        Raises:
            StoreClosed: `close` was called, or the process is a forked child.
            PgdocError: see `connection_error`, `check_server` and `check_revision`.
        """
        if self._pool is not None:
            return self._pool
        with self._opening:
            self._check_usable()
            pool = self._pool or self._open()
            self._pool = pool
        if self._closing.is_set():  # another thread or task closed the store before the pool was assigned
            self.close()
            self._check_usable()
        return pool

    def _check_usable(self) -> None:
        if self._closing.is_set():
            raise StoreClosed("the store is closed: open a new one")
        if self._inherited is not None:
            raise StoreClosed(FORKED)

    def _open(self) -> Pool:
        self._check_server()
        pool = Pool(
            with_application_name(self._conninfo, self._purpose),
            connection_class=self._connection_class,
            kwargs=self._settings,
            min_size=1,
            max_size=self._pool_size,
            open=False,
            check=check_alive,
            name="pgdoc",
        )
        pool.open()
        return pool

    def _check_server(self) -> None:
        """Raise at once what is wrong. The pool would try for half a minute, and not know the cause."""
        try:
            conninfo = with_application_name(with_timeout(self._conninfo), self._purpose)
            connection = self._connection_class.connect(conninfo, autocommit=True)
        except psycopg.Error as exc:
            self._check_usable()
            raise connection_error(exc) from exc
        with connection:
            check_server(connection.info.server_version, connection.info.parameter_status("server_encoding"))
            check_revision(_revision(connection))

    def close(self) -> None:
        """Close the pool, also while it is being opened."""
        self._closing.set()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(_CLOSE_S)

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """Lend a connection in autocommit mode."""
        pool = self._pool or self.pool()
        connection = self._lend(pool)
        try:
            yield connection
        finally:
            pool.putconn(connection)

    lend = connection

    def _lend(self, pool: Pool) -> Connection[Any]:
        """Take a connection; if none is free soon, check the server before waiting longer."""
        try:
            return pool.getconn(timeout=_CHECK_SERVER_AFTER_S)
        except PoolTimeout:
            with self._opening:
                self._check_server()
        return pool.getconn()

    @property
    def in_transaction(self) -> bool:
        """Always false: each statement commits by itself."""
        return False

    def check_open(self) -> None:
        """Do nothing: the pool opens itself."""

    def metadata_message(self) -> str | None:
        """Return the caller's metadata, if any."""
        metadata = current_metadata()
        return metadata.message if metadata else None

    def fetch(self, query: bytes, params: Sequence[Any], *, prepare: bool | None = None) -> list[tuple[Any, ...]]:
        """See `Session`."""
        pool = self._pool or self.pool()
        connection = self._lend(pool)
        try:
            cursor = connection.execute(query, params, prepare=prepare, binary=True)
            return cursor.fetchall()
        finally:
            pool.putconn(connection)

    look_up = fetch

    def stream(self, query: bytes, params: Sequence[Any]) -> Generator[list[tuple[Any, ...]]]:
        """Execute one statement and yield its rows in chunks; hold a connection until the end."""
        with (
            self.connection() as connection,
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
            cursor.execute(hold)
            if message := self.metadata_message():
                cursor.execute(statement("documents", "emit").encode(), [message])
            with cursor.copy(query) as copy:
                copy.write(HEADER)
                for block in rows:
                    copy.write(block)
                copy.write(TRAILER)
            rows.check_stored(cursor.rowcount)


def _class_of(closing: threading.Event) -> type[Connection[Any]]:
    """Return the connection class of one store; setting `closing` cancels connecting."""

    class StoreConnection(Connection[Any]):
        def __init__(self, pgconn: PGconn) -> None:
            super().__init__(pgconn)
            remember(self)

        def after_fork(self) -> None:
            detach(self)

        @classmethod
        def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
            with deadline_scope(float("inf"), closing=closing):
                return without_secrets(bounded(connecting(super()._connect_gen(conninfo))), conninfo)

        def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
            """Wait for the server: without a limit for a user's call, within `deadline_scope` for opening a stream."""
            steps = closing_on_deadline(self.pgconn, bounded(gen)) if is_limited() else gen
            return super().wait(steps, *args, **kwargs)

    return StoreConnection


def _revision(connection: Connection[Any]) -> str | None:
    try:
        check_owner((connection.execute(FIND_FOREIGN_OWNER)).fetchone())
        row = (connection.execute(FIND_REVISION)).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.Error as exc:
        raise map_error(exc, "the pgdoc catalog") from exc
    return row[0] if row else None
