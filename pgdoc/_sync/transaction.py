# Written by .ci/twins.py from pgdoc/_async/transaction.py: change that file, and run it.
"""A transaction over several collections, with the metadata that its events carry."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

from pgdoc._sync.collection import Collection
from pgdoc.crud.copy_format import HEADER, TRAILER
from pgdoc.database.errors import map_error
from pgdoc.errors import CollectionNotFound, DatabaseError, ServerUnreachable, TransactionClosed
from pgdoc.model.metadata import checked, current_metadata
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from psycopg import Connection, ServerCursor

    from pgdoc._sync.connections import Connections
    from pgdoc.crud.copy_format import CopyRows

__all__ = ["Transaction"]

_ISOLATION = ("read committed", "repeatable read", "serializable")
_CHUNK_ROWS = 100


class Transaction:
    """One transaction; `store.transaction()` makes it, `with` begins and ends it.

    It commits at the end of the block, and rolls back where an exception leaves the block.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        schema: str,
        auto_create: bool,
        metadata: Mapping[str, Any] | None,
        isolation: str | None,
    ) -> None:
        if isolation is not None and isolation not in _ISOLATION:
            raise ValueError(f"isolation is {isolation!r}: one of {', '.join(_ISOLATION)}")
        self._connections = connections
        self.indexes, self.large_results = connections.indexes, connections.large_results
        self._schema = schema
        self._auto_create = auto_create
        self._given = checked(metadata)
        self._isolation = isolation
        self._connection: Connection[Any] | None = None
        self._seen: set[str] = set()
        self._cursors: set[ServerCursor[Any]] = set()
        self._cursors_gone: set[ServerCursor[Any]] = set()
        self._cursors_made = 0
        self._outside = current_metadata()
        self._diverged = False

    @property
    def connection(self) -> Connection[Any]:
        """The psycopg connection of this transaction, for SQL of one's own; its errors are psycopg's."""
        if self._connection is None:
            raise TransactionClosed("the transaction is not open: use it inside `with store.transaction() as tx`")
        return self._connection

    def collection(self, name: str) -> Collection:
        """Return a handle whose calls are part of this transaction.

        Raises:
            InvalidName: not the name of a collection.
        """
        return Collection(self, self._schema, name, auto_create=self._auto_create)

    __getitem__ = collection

    def __enter__(self) -> Self:
        self.note_metadata()
        self.begin()
        return self

    def note_metadata(self) -> None:
        """Take the blocks of metadata that the caller is in for those around the whole transaction."""
        self._outside = current_metadata()

    def begin(self) -> None:
        """Begin, in a round trip of its own."""
        connection = self._take()
        try:
            if self._given or self._outside or self._isolation:
                with connection.pipeline():  # one round trip for all of it
                    self._begin(connection)
            else:
                self._begin(connection)
            self._connection = connection
        except psycopg.Error as exc:
            raise map_error(exc, "the begin of the transaction") from exc
        finally:
            if self._connection is None:
                self._pool.putconn(connection)

    @property
    def begun(self) -> bool:
        """Whether it has begun, and not ended."""
        return self._connection is not None

    @contextmanager
    def pipeline(self) -> Iterator[Connection[Any]]:
        """Lend the connection for statements that go out in one round trip, with the begin where it is not begun."""
        begun = self.begun
        connection = self._connection = self._connection or self._take()
        with connection.pipeline():
            if not begun:
                self._begin(connection)
            yield connection

    def _take(self) -> Connection[Any]:
        try:
            self._pool = self._connections.pool()
            connection = self._pool.getconn()
        except psycopg.Error as exc:
            raise map_error(exc, "the transaction") from exc
        self._block = psycopg.Transaction(connection)
        return connection

    def _begin(self, connection: Connection[Any]) -> None:
        self._block.__enter__()
        if self._isolation:
            connection.execute(f"SET TRANSACTION ISOLATION LEVEL {self._isolation}".encode())
        if metadata := self._given.over(self._outside):
            connection.execute(statement("documents", "emit").encode(), [metadata.message])

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        connection, self._connection = self.connection, None
        aborted = connection.info.transaction_status == TransactionStatus.INERROR
        if exc or aborted:
            self._connections.seen.clear()  # a table that is gone may be what went wrong
        try:
            swallowed = self._block.__exit__(exc_type, exc, traceback)
        except psycopg.Error as error:
            raise map_error(error, "the commit of the transaction") from error
        finally:
            for cursor in tuple(self._cursors):  # an iterator that was left must not speak to the next transaction
                cursor.close()
            self._pool.putconn(connection)
        if exc is None:
            self._check_committed(aborted)
        return swallowed

    def _check_committed(self, aborted: bool) -> None:
        """Raise where psycopg ends the block without a word, though nothing was committed."""
        if self._block.status != psycopg.Transaction.Status.COMMITTED:
            raise ServerUnreachable("the transaction was lost: its connection is closed. Run it again")
        if aborted:
            raise DatabaseError("the transaction was rolled back: an error inside it had aborted it", sqlstate="25P02")
        self._connections.seen |= self._seen

    @property
    def in_transaction(self) -> bool:
        """Always."""
        return True

    def carried(self) -> str | None:
        """Return the message that the next write has to carry.

        What holds at the begin stands in the WAL already. Once a write was made inside another block of metadata, every
        later one carries its own.
        """
        inner = current_metadata().since(self._outside)
        self._diverged = self._diverged or bool(inner)
        return inner.over(self._given.over(self._outside)).message if self._diverged else None

    def knows(self, table: str) -> bool:
        """Whether the table was seen before, so that `prepare` need not look for it."""
        return table in self._seen or table in self._connections.seen

    def prepare(self, table: str, create: Sequence[Any] | None) -> None:
        """Look for the table before the statement would fail and abort the transaction; create it where asked to.

        Args:
            table: the table as SQL.
            create: schema and name, to create it where it is missing.

        Raises:
            CollectionNotFound: it is missing, and `create` is `None`.
        """
        if self.knows(table):
            return
        ((exists,),) = self.fetch(statement("catalog", "table_exists").encode(), [table])
        if not exists:
            if create is None:
                raise CollectionNotFound(f"collection {table} does not exist: create it with store.create_collection")
            self.fetch(statement("catalog", "create_collection").encode(), create)
        self._seen.add(table)

    def fetch(self, query: bytes, params: Sequence[Any], *, prepare: bool | None = None) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        cursor = self.connection.execute(query, params, prepare=prepare, binary=True)
        return cursor.fetchall()

    def look(self, query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Fetch what is no part of the transaction; a bulk that has not begun has no connection yet."""
        return self.fetch(query, params) if self.begun else self._connections.fetch(query, params)

    def stream(self, query: bytes, params: Sequence[Any]) -> Generator[list[tuple[Any, ...]]]:
        """Give out the rows of a cursor in the server, so that other calls can come in between."""
        self._cursors_made += 1
        cursor = self.connection.cursor(f"pgdoc_{self._cursors_made}")
        self._cursors.add(cursor)
        try:
            cursor.execute(query, params, binary=True)
            while rows := cursor.fetchmany(_CHUNK_ROWS):
                yield rows
        finally:
            if cursor not in self._cursors_gone:
                self._cursors.discard(cursor)
                cursor.close()

    @contextmanager
    def lend(self) -> Iterator[Connection[Any]]:
        """Lend the connection of this transaction."""
        yield self.connection

    def copy(self, query: bytes, rows: CopyRows) -> None:
        """Execute a COPY for each block, in a savepoint; in between, the rows may come from this transaction."""
        before = self._cursors.copy()
        try:
            self._copy(query, rows)
        except BaseException:  # the server closed what was opened in the savepoint; to close it again would be an error
            self._cursors_gone |= self._cursors - before
            raise

    def _copy(self, query: bytes, rows: CopyRows) -> None:
        connection = self.connection
        with connection.transaction(), connection.cursor() as cursor:
            for block in rows:
                if message := self.carried():
                    cursor.execute(statement("documents", "emit").encode(), [message])
                with cursor.copy(query) as copy:
                    copy.write(HEADER + block + TRAILER)
