# Written by .ci/twins.py from pgdoc/_async/bulk.py: change that file, and run it.
"""Many writes in few round trips, as one transaction."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._sync.bulk_collection import BulkCollection
from pgdoc.crud.bulk_results import CHUNK_BYTES, CHUNK_STATEMENTS, BulkResult, size_of
from pgdoc.database.errors import map_error
from pgdoc.errors import BulkError, CollectionNotFound, PgdocError, ServerUnreachable, StoreClosed, TransactionClosed
from pgdoc.runtime.primitives import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from psycopg import Connection, Cursor

    from pgdoc._sync.transaction import Transaction
    from pgdoc.crud.bulk_results import Statement, Target

    Queued = tuple[int, Target, Statement]
    Failed = tuple[Queued, PgdocError]

__all__ = ["Bulk"]


class Bulk:
    """Many writes, all or nothing; `store.bulk()` makes it, `with` sends and commits it.

    The writes wait here until they are 1,000, or a MiB, or the block ends. Then they are sent, in the order of their
    calls and in one round trip; the transaction begins with the first of these. The end of the block commits.

    A write that fails raises `BulkError`, from the call that sent it or at the end of the block; nothing is stored.
    """

    def __init__(self, transaction: Transaction, schema: str, *, auto_create: bool) -> None:
        self._transaction = transaction
        self._schema = schema
        self._auto_create = auto_create
        self._entered = self._open = False
        self._failure: BaseException | None = None
        self._sending = Lock()
        self._queue: list[Queued] = []
        self._queued_bytes = 0
        self._writes = 0
        self._done: Counter[str] = Counter()
        self._result = BulkResult()

    @property
    def result(self) -> BulkResult:
        """What was written: all zeros until the bulk has been committed."""
        return self._result

    def collection(self, name: str) -> BulkCollection:
        """Return a handle whose writes are part of this bulk.

        Raises:
            InvalidName: not the name of a collection.
        """
        return BulkCollection(self, self._transaction, self._schema, name, auto_create=self._auto_create)

    __getitem__ = collection

    def add(self, target: Target, *statements: Statement) -> None:
        """Queue one write, and send all that waits when that has become much."""
        with self._sending:
            self._check_usable()
            self._queue += [(self._writes, target, statement) for statement in statements]
            self._queued_bytes += sum(size_of(statement.params) for statement in statements)
            self._writes += 1
            if len(self._queue) >= CHUNK_STATEMENTS or self._queued_bytes >= CHUNK_BYTES:
                self._send()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Keep the bulk from being sent meanwhile."""
        with self._sending:
            self._check_usable()
            yield

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise TransactionClosed(f"the bulk has failed, leave its block: {self._failure}")
        if not self._open:
            raise TransactionClosed("the bulk is not open: use it inside `with store.bulk() as b`")

    def __enter__(self) -> Self:
        if self._entered:
            raise TransactionClosed("the bulk was used before: make another with store.bulk()")
        self._transaction.note_metadata()
        self._entered = self._open = True
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            if exc is None:
                self._finish()
        except BaseException as error:
            self._end(type(error), error, error.__traceback__)
            raise
        swallowed = self._end(exc_type, exc, traceback)
        if exc is None:
            self._result = BulkResult(**self._done)
        return swallowed

    def _finish(self) -> None:
        with self._sending:
            if self._failure is not None:
                raise self._failure
            self._send()

    def _end(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._open = False
        self._queue.clear()
        if not self._transaction.begun:
            return isinstance(exc, psycopg.Rollback)
        return self._transaction.__exit__(exc_type, exc, traceback)

    def _send(self) -> None:
        try:
            self._send_queue()
        except BaseException as error:
            self._failure = error
            raise

    def _send_queue(self) -> None:
        queue, self._queue, self._queued_bytes = self._queue, [], 0
        writes, refused = self._ready(queue)
        failed = (self._send_all(writes) if writes else None) or refused
        if failed is not None:
            raise _named(*failed)

    def _ready(self, queue: list[Queued]) -> tuple[list[Queued], Failed | None]:
        """Return what can be sent now that its table is there, up to the first write that this shows to fail."""
        if all(self._transaction.knows(statement.table) for _, _, statement in queue):
            return queue, None
        if not self._transaction.begun:
            self._transaction.begin()
        writes: list[Queued] = []
        missing: set[str] = set()
        for write in queue:
            try:
                if self._is_there(write[2], missing):
                    writes.append(write)
                else:
                    write[2].parse([])
            except psycopg.Error as exc:
                return [], (write, _translated(exc, write))
            except PgdocError as error:
                return writes, (write, error)
        return writes, None

    def _is_there(self, statement: Statement, missing: set[str]) -> bool:
        """Look for the table of a statement, and create it where the statement does."""
        table, create = statement.table, statement.create
        if create is None and table in missing:
            return False
        try:
            self._transaction.prepare(table, create)
        except CollectionNotFound:
            if not self._auto_create:
                raise
            missing.add(table)
            return False
        missing.discard(table)
        return True

    def _send_all(self, writes: list[Queued]) -> Failed | None:
        """Send the writes in one round trip, and find the first one that failed.

        Results come in the order of the statements, and from an error of the server on there are none. psycopg raises
        that error when it comes, which is from a later statement, or the end of the pipeline.
        """
        cursors: list[Cursor[Any]] = []
        error: psycopg.Error | None = None
        try:
            with self._transaction.pipeline() as connection:
                error = _execute(connection, writes, cursors)
        except psycopg.Error as exc:
            error = error or exc
        for write, cursor in zip(writes, cursors, strict=False):
            if error is not None and cursor.statusmessage is None:
                return write, _translated(error, write)
            try:
                field, count = write[2].parse(cursor.fetchall())
            except PgdocError as failure:
                return write, failure
            self._done[field] += count
        return None if error is None else (writes[-1], _translated(error, writes[-1]))


def _execute(connection: Connection[Any], writes: list[Queued], cursors: list[Cursor[Any]]) -> psycopg.Error | None:
    """Fill the pipeline; an error is returned, so that the pipeline ends as it does without one."""
    try:
        for _, _, statement in writes:
            cursor = connection.cursor()
            cursors.append(cursor)
            cursor.execute(statement.query, statement.params, binary=True)
    except psycopg.Error as exc:
        return exc
    return None


def _translated(exc: psycopg.Error, write: Queued) -> PgdocError:
    error = map_error(exc, write[1].subject)
    error.__cause__ = exc
    return error


def _named(write: Queued, error: PgdocError) -> PgdocError:
    """Say which write an error is of; that the connection is lost is none's."""
    index, target, _ = write
    if isinstance(error, ServerUnreachable | StoreClosed):
        return error
    call = target.operation if target.key is None else f"{target.operation} of {target.key!r}"
    named = BulkError(
        f"write {index} of the bulk, {call}: {error}. Nothing of the bulk was stored",
        index=index,
        collection=target.collection,
        document_id=target.key,
    )
    named.__cause__ = error
    return named
