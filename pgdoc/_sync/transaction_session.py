# Written by .ci/twins.py from pgdoc/_async/transaction_session.py: change that file, and run it.
"""The session of a transaction: one connection, for all statements."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.transaction import OutOfOrderTransactionNesting

from pgdoc.crud.copy_format import HEADER, TRAILER
from pgdoc.database.errors import commit_error, map_error
from pgdoc.database.session_settings import check_encoding
from pgdoc.errors import DatabaseError, TransactionClosed, TransactionLost
from pgdoc.model.metadata import checked, current_metadata, with_trace
from pgdoc.model.positions import Lsn
from pgdoc.runtime.primitives import Turns, later
from pgdoc.runtime.ttl_cache import TransactionCache
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from types import TracebackType

    from psycopg import Connection, ServerCursor

    from pgdoc._sync.connections import Connections
    from pgdoc.crud.copy_format import CopyRows
    from pgdoc.database.rights import Caller

__all__ = ["TransactionSession"]

_ISOLATION = ("read committed", "repeatable read", "serializable")
_CHUNK_ROWS = 100


@dataclass(frozen=True, slots=True)
class Mark:
    """The cursors and the tables that a transaction knew at a savepoint."""

    cursors: set[ServerCursor[Any]]
    known: dict[object, int]


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A savepoint of a transaction, and what was known then."""

    block: psycopg.Transaction
    mark: Mark


class TransactionSession:
    """Runs the statements of one transaction, or of one bulk; see `Session`."""

    def __init__(self, connections: Connections, *, metadata: Mapping[str, Any] | None, isolation: str | None) -> None:
        if isolation is not None and isolation not in _ISOLATION:
            raise ValueError(f"isolation must be one of {', '.join(_ISOLATION)}, got {isolation!r}")
        self._connections = connections
        self.oids = TransactionCache(connections.oids)
        self.indexes, self.large_results = connections.indexes, connections.large_results
        self.traits = connections.traits
        self.limits = TransactionCache(connections.limits)
        self.codec = connections.codec
        self.schemas = TransactionCache(connections.schemas)
        self.sweeper = connections.sweeper
        self._isolation = isolation
        self._connection: Connection[Any] | None = None  # while the transaction is open
        # Held during each statement, or the statements of one savepoint or change of the table: those of other tasks
        # must not get into a savepoint, and be undone. Also held while the transaction begins and ends: a call that
        # waited for its turn until after the end must not use the connection, which has gone back to the pool.
        self._turn = Turns()
        self._has_ended = False
        # Cursors in the server. Those in `_cursors_gone` were closed by the server, with the savepoint of a COPY.
        self._cursors: set[ServerCursor[Any]] = set()
        self._cursors_gone: set[ServerCursor[Any]] = set()
        self._cursors_made = 0
        # Metadata: the transaction's own, and that of the blocks around it. `_diverged` is set once a write was made
        # inside a further block.
        self._given = checked(metadata)
        self._outside = current_metadata()
        self._diverged = False
        self._has_committed = False

    @property
    def connection(self) -> Connection[Any]:
        """The psycopg connection of the open transaction."""
        if self._connection is None or self._has_ended:
            raise TransactionClosed("the transaction is not open: use it inside `with store.transaction() as tx`")
        return self._connection

    @property
    def caller(self) -> Caller:
        """See `Session`."""
        return self._connections.caller

    def note_metadata(self) -> None:
        """Note the caller's metadata blocks, and its trace context, as those around the whole transaction."""
        self._outside = current_metadata()
        self._given = with_trace(self._given.over(self._outside))
        self._has_ended = False

    def begin(self) -> None:
        """Begin, in a round trip of its own."""
        connection, has_begun = self._take(), False
        try:
            with self._turn:
                self._check_not_ended()
                if self._given or self._outside or self._isolation or self._connections.begin_with:
                    with connection.pipeline():  # one round trip for all of it
                        self._begin(connection)
                else:
                    self._begin(connection)
            has_begun = True
        except psycopg.Error as exc:
            raise map_error(exc, "the begin of the transaction", in_transaction=True) from exc
        finally:
            if not has_begun:
                self._give_back()

    @property
    def begun(self) -> bool:
        """Whether the transaction has begun, and not ended."""
        return self._connection is not None

    @property
    def is_aborted(self) -> bool:
        """Whether an error of the server has aborted the transaction."""
        return self.connection.info.transaction_status == TransactionStatus.INERROR

    def check_open(self) -> None:
        """See `Session`."""
        _ = self.connection

    @contextmanager
    def pipeline(self) -> Iterator[tuple[Connection[Any], psycopg.Pipeline]]:
        """Lend the connection for statements that share one round trip, with the begin if necessary."""
        begun = self.begun
        connection = self.connection if begun else self._take()
        with self._turn:
            self._check_not_ended()
            with connection.pipeline() as pipeline:
                if not begun:
                    self._begin(connection)
                yield connection, pipeline

    def _take(self) -> Connection[Any]:
        """Take a connection, unless the block has been left, also while waiting for the connection."""
        self._check_not_ended()
        try:
            pool, connection = self._connections.begin()
        except psycopg.Error as exc:
            raise map_error(exc, "the transaction") from exc
        self._pool, self._connection = pool, connection
        if self._has_ended:
            self._give_back()
        self._check_not_ended()
        self._block = psycopg.Transaction(connection)
        return connection

    def _check_not_ended(self) -> None:
        if self._has_ended:
            raise TransactionClosed("the transaction has ended: wait for its calls before the end of its block")

    def _give_back(self) -> None:
        """Return the connection to the pool, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.end(self._pool, connection)

    def _begin(self, connection: Connection[Any]) -> None:
        self._block.__enter__()
        if self._isolation:
            connection.execute(f"SET TRANSACTION ISOLATION LEVEL {self._isolation}".encode())
        for setting in self._connections.begin_with:
            connection.execute(setting)
        if metadata := self._given.over(self._outside):
            connection.execute(statement("documents", "emit").encode(), [metadata.message])

    def end(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Commit, or roll back for an exception; return whether that was a rollback to be swallowed.

        A call of another task or thread that is being executed ends first. Those that wait for their turn are refused.
        """
        self._has_ended, has_turn = True, False
        try:
            with self._turn:
                has_turn = True
                return self._end(exc_type, exc, traceback)
        finally:
            if has_turn:
                self._give_back()
            else:  # cancelled, and the call of another task still uses the connection
                later(self._discard)

    def _discard(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()
            self._give_back()

    def _end(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        connection, is_rollback = self._connection, isinstance(exc, psycopg.Rollback)
        if connection is None:  # a bulk that has sent nothing
            return is_rollback
        aborted = connection.info.transaction_status == TransactionStatus.INERROR
        try:
            swallowed = self._block.__exit__(exc_type, exc, traceback)
        except OutOfOrderTransactionNesting as error:
            connection.close()
            if exc is None:
                raise DatabaseError(
                    "the transaction was rolled back, because one of its bulks has not ended: leave the block of each "
                    "before that of the transaction",
                    sqlstate="25P02",
                ) from error
            return is_rollback
        except psycopg.Error as error:
            raise (
                map_error(error, "the rollback of the transaction", in_transaction=True) if exc else commit_error(error)
            ) from error
        finally:
            for cursor in tuple(self._cursors):  # an abandoned iterator must not read in the next transaction
                cursor.close()
        if exc is None:
            self._check_committed(aborted)
        return swallowed

    def _check_committed(self, aborted: bool) -> None:
        """Raise where psycopg ends the block without an error although nothing was committed."""
        if self._block.status != psycopg.Transaction.Status.COMMITTED:
            raise TransactionLost(
                "the transaction was lost, because its connection is closed: run it again (store.run does)"
            )
        if aborted:
            raise DatabaseError("the transaction was rolled back: an error inside it had aborted it", sqlstate="25P02")
        self._has_committed = True
        for cache in (self.oids, self.limits, self.schemas):
            cache.share()

    def fetch_lsn(self) -> Lsn:
        """Return an LSN behind the transaction, which has committed."""
        if not self._has_committed:
            raise TransactionClosed("the transaction has not committed: ask for its LSN after its block")
        try:
            ((lsn, _),) = self._connections.fetch(statement("streams", "now").encode(), [])
        except psycopg.Error as exc:
            raise map_error(exc, "the LSN of the transaction") from exc
        return Lsn(lsn)

    def open_savepoint(self) -> Savepoint:
        """Begin a part of the transaction that can be undone."""
        try:
            with self._turn:
                block = psycopg.Transaction(self.connection)
                block.__enter__()
        except psycopg.Error as exc:
            raise map_error(exc, "the savepoint", in_transaction=True) from exc
        return Savepoint(block, self.mark())

    def close_savepoint(
        self,
        savepoint: Savepoint,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Keep what was done since, or undo it for an exception; return whether that was a rollback to be swallowed."""
        if exc is not None:
            self.go_back(savepoint.mark)
        try:
            with self._turn:
                if savepoint.block.connection is not self._connection or self._has_ended:
                    if exc is None:
                        raise TransactionClosed("the transaction ended before this bulk, of which nothing was stored")
                    return isinstance(exc, psycopg.Rollback)
                try:
                    return savepoint.block.__exit__(exc_type, exc, traceback)
                except OutOfOrderTransactionNesting:
                    self._abort()
                    raise
        except OutOfOrderTransactionNesting as error:
            raise DatabaseError(
                "bulks of one transaction overlapped, so it can only be rolled back: end each before those that began "
                "earlier, or queue the writes of all threads and tasks in one bulk",
                sqlstate="25P02",
            ) from error
        except psycopg.Error as error:
            raise map_error(error, "the savepoint", in_transaction=True) from error

    def _abort(self) -> None:
        """Keep the transaction from being committed: a part that failed can't be undone alone any more."""
        with suppress(psycopg.Error):
            self.connection.execute(b'ROLLBACK TO SAVEPOINT "pgdoc: bulks overlapped"')  # there is none

    def mark(self) -> Mark:
        """Return what is known now, before a savepoint."""
        return Mark(self._cursors.copy(), self.oids.known())

    def go_back(self, mark: Mark) -> None:
        """Forget what was learnt since a savepoint, which is rolled back."""
        self._cursors_gone |= self._cursors - mark.cursors  # the server closes them
        self.oids.restore(mark.known)

    @property
    def in_transaction(self) -> bool:
        """Always true."""
        return True

    def metadata_message(self) -> str | None:
        """Return the message with the metadata that the next write must emit, or `None`.

        The begin has emitted the transaction's metadata. Once a write was made inside a further metadata block, every
        later write emits its own.
        """
        inner = current_metadata().since(self._outside)
        self._diverged = self._diverged or bool(inner)
        return inner.over(self._given.over(self._outside)).message if self._diverged else None

    def fetch(
        self, query: bytes, params: Sequence[Any], *, prepare: bool | None = None, apart: bool = False
    ) -> list[tuple[Any, ...]]:
        """See `Session`."""
        with self._turn, self.connection.transaction() if apart else nullcontext():  # a savepoint
            connection = self.connection
            cursor = connection.execute(query, params, prepare=prepare, binary=True)
            return cursor.fetchall()

    def look_up(self, query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Fetch rows, from the pool if the transaction has no connection yet: a bulk that has not begun."""
        return self.fetch(query, params) if self.begun else self._connections.fetch(query, params)

    def stream(
        self,
        query: bytes,
        params: Sequence[Any],
        holder: str,  # noqa: ARG002 (of the protocol)
    ) -> Generator[list[tuple[Any, ...]]]:
        """Yield the rows of a cursor in the server, so that other calls can run meanwhile."""
        self._cursors_made += 1
        cursor = self.connection.cursor(f"pgdoc_{self._cursors_made}")
        self._cursors.add(cursor)
        try:
            with self._turn:
                self.check_open()
                cursor.execute(query, params, binary=True)
            while rows := self._next_rows(cursor):
                yield rows
        finally:
            if cursor not in self._cursors_gone:
                self._cursors.discard(cursor)
                with self._turn:
                    cursor.close()

    def _next_rows(self, cursor: ServerCursor[Any]) -> list[tuple[Any, ...]]:
        with self._turn:
            self.check_open()
            return cursor.fetchmany(_CHUNK_ROWS)

    @contextmanager
    def lend(self, holder: str) -> Iterator[Connection[Any]]:  # noqa: ARG002 (of the protocol)
        """Lend the connection of this transaction for one turn."""
        with self._turn:
            yield self.connection

    def copy(self, hold: bytes, query: bytes, rows: CopyRows) -> None:
        """Execute one COPY per block of rows, inside a savepoint.

        Between blocks the connection is free, so that `rows` may itself read from this transaction. Other threads and
        tasks wait for their turn.
        """
        with self._turn:
            before = self._cursors.copy()
            try:
                self._copy(hold, query, rows)
            except BaseException:  # the server has closed the savepoint's cursors; closing one again would be an error
                self._cursors_gone |= self._cursors - before
                raise

    def _copy(self, hold: bytes, query: bytes, rows: CopyRows) -> None:
        connection = self.connection
        stored = 0
        with connection.transaction(), connection.cursor() as cursor:
            check_encoding(connection)
            cursor.execute(hold)
            for block in rows:
                if message := self.metadata_message():
                    cursor.execute(statement("documents", "emit").encode(), [message])
                with cursor.copy(query) as copy:
                    copy.write(HEADER + block + TRAILER)
                stored += cursor.rowcount
            rows.check_stored(stored)
