# Written by .ci/twins.py from pgdoc/_async/bulk_queue.py: change that file, and run it.
"""The writes that a bulk has queued, and how they are sent."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc.crud.bulk_results import CHUNK_BYTES, CHUNK_STATEMENTS, Queued, parse_results, size_of
from pgdoc.crud.guard import guarded, replaced
from pgdoc.crud.guard import missing as missing_collection
from pgdoc.crud.statements import check_params
from pgdoc.crud.write_errors import name_index, outdated
from pgdoc.database.errors import is_about_table, map_error
from pgdoc.errors import (
    BulkError,
    DuplicateDocument,
    PgdocError,
    SerializationFailure,
    ServerUnreachable,
    StoreClosed,
    TransactionClosed,
)
from pgdoc.runtime.primitives import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg import Connection, Cursor

    from pgdoc._sync.table import Table
    from pgdoc._sync.transaction_session import TransactionSession
    from pgdoc.crud.bulk_results import Statement, Target

    Failed = tuple[Queued, PgdocError]
    Sent = list[Cursor[Any]]  # a statement, and its look if there is one

__all__ = ["ENDING", "BulkQueue"]

ENDING: Final = (ServerUnreachable, StoreClosed, SerializationFailure)
"""Errors that are no fault of any one write: they end the bulk, and nothing of it is stored."""


class BulkQueue:
    """Queues the statements of a bulk and sends them in order, many in one round trip.

    Attributes:
        is_open: whether the bulk's block is being executed.
        is_ordered: whether a write that fails ends the bulk.
        counts: documents written so far, by the fields of `BulkResult`.
        tables: the tables of the collections that the bulk writes to, by their quoted names.
    """

    def __init__(self, session: TransactionSession, *, auto_create: bool) -> None:
        self._session = session
        self._auto_create = auto_create
        self.is_open = False
        self.is_ordered = True
        self.counts: Counter[str] = Counter()
        self.tables: dict[str, Table[Any]] = {}
        # Guards all that follows, and the connection: several tasks may write to one bulk.
        self._lock = Lock()
        self._queue: list[Queued] = []
        self._may_drop: dict[str, bool] = {}  # whether the table may drop rows, by its quoted name
        self._looked_again: set[str] = set()  # tables of which that is certain: their locks keep triggers away
        self._queued_bytes = 0
        self._writes = 0
        self._failure: BaseException | None = None  # ends the bulk: nothing is sent after it

    def add(self, target: Target, *statements: Statement) -> None:
        """Queue one write; send the queue when it reaches its limit."""
        for each in statements:
            check_params(each.params)
        with self._lock:
            self._check_usable()
            self._queue += [Queued(self._writes, target, statement) for statement in statements]
            self._queued_bytes += sum(size_of(statement.params) for statement in statements)
            self._writes += 1
            if len(self._queue) >= CHUNK_STATEMENTS or self._queued_bytes >= CHUNK_BYTES:
                self._send()

    @contextmanager
    def connection_free(self) -> Iterator[None]:
        """Send nothing inside the block, so that the caller can use the connection."""
        with self._lock:
            self._check_usable()
            yield

    def finish(self) -> None:
        """Send what is queued; raise the error of a write that failed, now or before."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._send()

    def close(self) -> None:
        """Drop what is queued, and take no more."""
        self.is_open = False
        self._queue.clear()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise TransactionClosed(f"the bulk has failed, leave its block: {self._failure}")
        if not self.is_open:
            raise TransactionClosed("the bulk is not open: use it inside `with store.bulk() as b`")

    def _send(self) -> None:
        try:
            self._send_queue()
        except BaseException as error:
            self._failure = error
            raise

    def _send_queue(self) -> None:
        queue = self._take_queue()
        writes, refused = self._prepare(queue)
        self._learn_traits(writes)
        failed = (self._send_all(writes) if writes else None) or refused
        if failed is not None:
            raise _bulk_error(*failed)

    def _take_queue(self) -> list[Queued]:
        queue, self._queue, self._queued_bytes = self._queue, [], 0
        return queue

    def _learn_traits(self, writes: list[Queued]) -> None:
        for table in {each.statement.query.table for each in writes if each.statement.look} - self._may_drop.keys():
            self._may_drop[table] = (self.tables[table].traits()).may_drop

    def _prepare(self, queue: list[Queued]) -> tuple[list[Queued], Failed | None]:
        """Create the missing tables; return the writes before the first whose table fails, and that one."""
        if all(self._session.oids.get(each.statement.query.table) for each in queue):
            return queue, None
        if not self._session.begun:
            self._session.begin()
        writes: list[Queued] = []
        missing: set[str] = set()
        for write in queue:
            try:
                if self._has_table(write.statement, missing):
                    writes.append(write)
                else:
                    write.statement.parse([])
            except PgdocError as error:
                return [] if self._session.is_aborted else writes, (write, error)
        return writes, None

    def _has_table(self, statement: Statement, missing: set[str]) -> bool:
        """Look for the table of a statement; create it if the statement creates its collection."""
        table = statement.query.table
        if table in missing and not statement.creates:
            return False
        if self.tables[table].oid(create=statement.creates) is not None:
            missing.discard(table)
            return True
        if not self._auto_create:
            raise missing_collection(self.tables[table].subject)
        missing.add(table)
        return False

    def _send_all(self, writes: list[Queued]) -> Failed | None:
        """Send the writes in one round trip; return the first that failed.

        Results come in the order of the statements. After a server's error there are none, and psycopg raises it late:
        from a later statement, or at the end of the pipeline.
        """
        sent: list[Sent] = []
        error: psycopg.Error | None = None
        try:
            with self._session.pipeline() as (connection, _):
                error = self._execute(connection, writes, sent)
        except psycopg.Error as exc:
            error = error or exc
        if error is None and (outdated := self._find_outdated(writes, sent)) is not None:
            return outdated
        for write, cursors in zip(writes, sent, strict=False):
            if error is not None and cursors[-1].statusmessage is None:
                return write, self._mapped(error, write)
            try:
                field, count = parse_results(write.statement, [cursor.fetchall() for cursor in cursors])
            except PgdocError as failure:
                return write, failure
            self.counts[field] += count
        return None if error is None else (writes[-1], self._mapped(error, writes[-1]))

    def _find_outdated(self, writes: list[Queued], sent: Sequence[Sequence[Cursor[Any]]]) -> Failed | None:
        """Return the first write without rows of a table that may drop them, as was not known when it was sent.

        What is known of a table is cached. The look would come too late: a later write may have changed the document.
        """
        for write, cursors in zip(writes, sent, strict=True):
            name = write.statement.query.table
            if write.statement.look is None or len(cursors) > 1 or cursors[0].rowcount or name in self._looked_again:
                continue
            self._looked_again.add(name)
            table = self.tables[name]
            table.forget_indexes()
            if (table.traits()).may_drop:
                return write, outdated(write.target.subject, write.number)
        return None

    def _execute(self, connection: Connection[Any], writes: list[Queued], sent: list[Sent]) -> psycopg.Error | None:
        """Fill the pipeline; return an error instead of raising it, so that the pipeline ends as usual."""
        try:
            for write in writes:
                cursors: Sent = []
                sent.append(cursors)
                for query, params in self._with_look(write.statement):
                    cursors.append(connection.cursor())
                    cursors[-1].execute(query, params, binary=True)
        except psycopg.Error as exc:
            return exc
        return None

    def _with_look(self, statement: Statement) -> list[tuple[bytes, Sequence[Any]]]:
        """Return the SQL and the parameters of a statement, and of its look if that is necessary."""
        oid = self._session.oids.get(statement.query.table)
        assert oid is not None  # noqa: S101 (`_prepare` has found it)
        safe = self.tables[statement.query.table].needs_safe_text(oid, can_repeat=False)
        look = statement.look
        if look is not None and not look.always and not self._may_drop.get(statement.query.table):
            look = None
        parts = (statement,) if look is None else (statement, look)
        return [(guarded(part.query, oid, safe=safe), part.params) for part in parts]

    def _mapped(self, exc: psycopg.Error, write: Queued) -> PgdocError:
        rights = self._session.caller.to_write()
        error = map_error(exc, write.target.subject, in_transaction=True, rights=rights)
        if is_about_table(exc):
            self._session.oids.forget(write.statement.query.table)
            error = replaced(write.target.subject, exc)
        if isinstance(error, DuplicateDocument) and (known := self._session.indexes.get(write.statement.query.table)):
            name_index(error, known.unique)
        error.__cause__ = exc
        return error


def _bulk_error(write: Queued, error: PgdocError) -> PgdocError:
    """Name the write in its error, if it is the write's."""
    if isinstance(error, ENDING):
        return error
    target = write.target
    call = target.operation if target.key is None else f"{target.operation} of {target.key!r}"
    named = BulkError(
        f"write {write.number} of the bulk, {call}: {error}. Nothing of the bulk was stored",
        index=write.number,
        collection=target.collection,
        document_id=target.key,
    )
    named.__cause__ = error
    return named
