# Written by .ci/twins.py from pgdoc/_async/connections.py: change that file, and run it.
"""The connections of a store: looked at once, then pooled; and the calls that stand alone, each on one of them."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg import Connection
from psycopg_pool import PoolTimeout

from pgdoc.crud.copy_format import HEADER, TRAILER, CopyRows
from pgdoc.database.catalog import FIND_REVISION, check_revision, check_server
from pgdoc.database.conninfo import with_application_name, with_timeout
from pgdoc.database.errors import connection_error, map_error
from pgdoc.errors import StoreClosed
from pgdoc.model.metadata import current_metadata
from pgdoc.runtime.deadline import bounded, closing_on_deadline, deadline_scope, is_limited
from pgdoc.runtime.fork import FORKED, connecting, lead_nowhere, remember
from pgdoc.runtime.primitives import Lock, Pool, check_alive
from pgdoc.runtime.ttl_cache import TTLCache
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from psycopg.abc import PQGen, PQGenConn
    from psycopg.pq.abc import PGconn

    from pgdoc.query.indexes.plan import Indexes

    T = TypeVar("T")

__all__ = ["Connections"]

_CHUNK_ROWS = 100
_SOON_S = 2.0
_CLOSE_S = 0.3  # for each of four threads that have little to do


class Connections:
    """The pool of a store, opened on first use.

    A call outside a transaction takes a connection, sends one statement that commits by itself, and gives it back.

    Attributes:
        seen: the tables that a transaction found, or made, and need not look for again.
        indexes: of each table, as they were a moment ago.
        large_results: the statements whose rows were many a moment ago.
    """

    def __init__(self, conninfo: str, pool_size: int, *, schema: str, through_pooler: bool) -> None:
        self._conninfo = conninfo
        self._purpose = f"store {schema}"
        self._pool_size = pool_size
        self._closing = threading.Event()
        self._connection_class = _class_of(self._closing)
        self._settings: dict[str, Any] = {"autocommit": True}
        if through_pooler:
            self._settings["prepare_threshold"] = None  # the next statement may meet another session
        self._pool: Pool | None = None
        self._inherited: Pool | None = None
        self._opening = Lock()
        self.seen: set[str] = set()
        self.indexes: TTLCache[Indexes] = TTLCache()
        self.large_results: TTLCache[bool] = TTLCache()
        remember(self)

    def after_fork(self) -> None:
        """In a child: leave the pool to the parent; what was not open yet is the child's own."""
        self._inherited, self._pool = self._pool or self._inherited, None
        self._opening = Lock()

    def pool(self) -> Pool:
        """Return the open pool; the first call looks at the server and opens it.

        Raises:
            StoreClosed: `close` was called.
            ServerUnreachable: no connection could be made.
            DatabaseError: the server refused it: the password, the database, pg_hba.conf.
            UnsupportedServer: the server is too old, or the database is not in UTF-8.
            CatalogMissing: `pgdoc init` has not been run.
            CatalogVersionMismatch: the catalog is older, or newer, than this pgdoc.
        """
        if self._pool is not None:
            return self._pool
        with self._opening:
            self._check_usable()
            pool = self._pool or self._open()
            self._pool = pool
        if self._closing.is_set():  # meanwhile, by another
            self.close()
            self._check_usable()
        return pool

    def _check_usable(self) -> None:
        if self._closing.is_set():
            raise StoreClosed("the store was closed: open a new one")
        if self._inherited is not None:
            raise StoreClosed(FORKED)

    def _open(self) -> Pool:
        self._look_at_server()
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

    def _look_at_server(self) -> None:
        """Say at once what is wrong; the pool would try for half a minute and then not know why."""
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
        """Close the pool, also while it is being opened; every later call raises `StoreClosed`."""
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
        """Take a connection, and before waiting long for one see whether the server is there at all."""
        try:
            return pool.getconn(timeout=_SOON_S)
        except PoolTimeout:
            with self._opening:
                self._look_at_server()
        return pool.getconn()

    @property
    def in_transaction(self) -> bool:
        """Never: each statement commits by itself."""
        return False

    def carried(self) -> str | None:
        """Return the message that the next write has to carry: the caller's metadata."""
        metadata = current_metadata()
        return metadata.message if metadata else None

    def prepare(self, table: str, create: Sequence[Any] | None) -> None:
        """Do nothing: a statement that stands alone may fail and be sent again."""

    def fetch(self, query: bytes, params: Sequence[Any], *, prepare: bool | None = None) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        pool = self._pool or self.pool()
        connection = self._lend(pool)
        try:
            cursor = connection.execute(query, params, prepare=prepare, binary=True)
            return cursor.fetchall()
        finally:
            pool.putconn(connection)

    look = fetch

    def stream(self, query: bytes, params: Sequence[Any]) -> Generator[list[tuple[Any, ...]]]:
        """Execute one statement and give out its rows as they come; the connection is taken until the end."""
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

    def copy(self, query: bytes, rows: CopyRows) -> None:
        """Execute a COPY FROM STDIN, all or nothing."""
        with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            if message := self.carried():
                cursor.execute(statement("documents", "emit").encode(), [message])
            with cursor.copy(query) as copy:
                copy.write(HEADER)
                for block in rows:
                    copy.write(block)
                copy.write(TRAILER)


def _class_of(closing: threading.Event) -> type[Connection[Any]]:
    """Make the class of the connections of a store, whose making is given up when the store is closed."""

    class StoreConnection(Connection[Any]):
        def __init__(self, pgconn: PGconn) -> None:
            super().__init__(pgconn)
            remember(self)

        def after_fork(self) -> None:
            lead_nowhere(self)

        @classmethod
        def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
            with deadline_scope(float("inf"), closing=closing):
                return bounded(connecting(super()._connect_gen(conninfo)))

        def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
            """Wait for the server: as long as it takes for what a user asked, not so for what opens a stream."""
            steps = closing_on_deadline(self.pgconn, bounded(gen)) if is_limited() else gen
            return super().wait(steps, *args, **kwargs)

    return StoreConnection


def _revision(connection: Connection[Any]) -> str | None:
    try:
        row = (connection.execute(FIND_REVISION)).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.Error as exc:
        raise map_error(exc, "the pgdoc catalog") from exc
    return row[0] if row else None
