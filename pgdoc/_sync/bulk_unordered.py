# Written by .ci/twins.py from pgdoc/_async/bulk_unordered.py: change that file, and run it.
"""The writes of an unordered bulk: each that fails leaves the others alone."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, count, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc._sync.bulk_queue import ENDING, BulkQueue
from pgdoc.crud.bulk_results import parse_results
from pgdoc.database.errors import map_error
from pgdoc.errors import PgdocError
from pgdoc.errors.documents import BulkFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection
    from psycopg.pq.abc import PGresult

    from pgdoc._sync.transaction_session import TransactionSession
    from pgdoc.crud.bulk_results import Queued

    Write = list[Queued]  # the statements of one write

__all__ = ["UnorderedQueue"]

# The space keeps an application from using this name by chance.
_SAVE: Final = b'SAVEPOINT "pgdoc bulk"'
_KEEP: Final = b'RELEASE SAVEPOINT "pgdoc bulk"'
_UNDO: Final = b'ROLLBACK TO SAVEPOINT "pgdoc bulk"'

_numbers = count()


class KeepingCursor(psycopg.Cursor[Any]):
    """A cursor in a pipeline that keeps the server's error, which psycopg would raise from a later statement.

    Attributes:
        failure: the error; `None` if there is none.
    """

    failure: psycopg.Error | None = None

    def _check_results(self, results: list[PGresult]) -> None:
        try:
            super()._check_results(results)
        except psycopg.Error as exc:
            self.failure = self.failure or exc


class UnorderedQueue(BulkQueue):
    """Queues the statements of an unordered bulk, and sends many in one round trip.

    Most writes that fail change nothing, and their results say so. If the server raises an error instead, it undoes all
    writes of the round trip. They are sent once more, with a savepoint for each.

    Attributes:
        failures: the writes that failed so far.
    """

    def __init__(self, session: TransactionSession, *, auto_create: bool) -> None:
        super().__init__(session, auto_create=auto_create)
        self.is_ordered = False
        self.failures: list[BulkFailure] = []

    def _send_queue(self) -> None:
        before = len(self.failures)
        self._send_found(self._find_tables(self._take_queue()))
        self.failures[before:] = sorted(self.failures[before:], key=attrgetter("index"))

    def _send_found(self, writes: list[Write]) -> None:
        if not writes:
            return
        entries = list(chain.from_iterable(writes))
        self._learn_traits(entries)
        sent = self._send_writes(writes, apart=False)
        if self._session.is_aborted or any(cursor.failure for write in sent for cursors in write for cursor in cursors):
            sent = self._send_writes(writes, apart=True)
        if (outdated := self._find_outdated(entries, [cursors for each in sent for cursors in each])) is not None:
            raise outdated[1]
        for write, results in zip(writes, sent, strict=True):
            self._judge(write, results)

    def _find_tables(self, queue: list[Queued]) -> list[Write]:
        """Create the missing tables; return the writes that have a table to be sent to."""
        refused: dict[tuple[str, bool], PgdocError] = {}
        missing: set[str] = set()
        writes = []
        for _, entries in groupby(queue, key=attrgetter("number")):
            write = list(entries)
            statement = write[0].statement
            kind = statement.query.table, statement.creates
            try:
                if kind in refused:
                    self._fail(write[0], refused[kind])
                elif self._has_table_apart(write, missing):
                    writes.append(write)
            except ENDING:
                raise
            except PgdocError as error:
                refused[kind] = error
                self._fail(write[0], error)
        return writes

    def _has_table_apart(self, write: Write, missing: set[str]) -> bool:
        """Find or create the table inside a savepoint; without one, the write has the results of an empty table."""
        statement = write[0].statement
        if self._session.oids.get(statement.query.table) is not None:
            return True
        if not self._session.begun:
            self._session.begin()
        with self._session.connection.transaction():
            if self._has_table(statement, missing):
                return True
        for entry in write:
            try:
                entry.statement.parse([])
            except PgdocError as error:
                self._fail(entry, error)
                break
        return False

    def _send_writes(self, writes: list[Write], *, apart: bool) -> list[list[list[KeepingCursor]]]:
        """Send the writes in one round trip, `apart` with a savepoint for each; return the cursors of each statement.

        If a write succeeds, the savepoint is renewed, and undoing changes nothing. If it fails, the server skips
        everything up to the next synchronization, and undoing goes back to the savepoint before it.
        """
        sent = []
        try:
            with self._session.pipeline() as (connection, pipeline):
                # The server may have skipped preparing some statements. psycopg forgets which were prepared when a
                # ROLLBACK ends that it has not seen before.
                _send(connection, _UNDO + b" -- %d" % next(_numbers) if apart else _SAVE)
                for write in writes:
                    sent.append([self._send_statement(connection, entry, apart=apart) for entry in write])
                    if apart:
                        _send(connection, _KEEP)
                        _send(connection, _SAVE)
                        with suppress(psycopg.errors.PipelineAborted):
                            pipeline.sync()
                        _send(connection, _UNDO)
                _send(connection, _KEEP)
        except psycopg.errors.PipelineAborted:
            pass  # what psycopg sends for itself, to prepare statements, was skipped after an error
        except psycopg.Error as exc:
            if apart or self._session.connection.closed:
                raise map_error(exc, "the bulk", in_transaction=True) from exc
        return sent

    def _send_statement(self, connection: Connection[Any], entry: Queued, *, apart: bool) -> list[KeepingCursor]:
        return [
            _send(connection, query, params, prepare=False if apart else None)
            for query, params in self._with_look(entry.statement)
        ]

    def _judge(self, write: Write, sent: list[list[KeepingCursor]]) -> None:
        """Count what the write did, or record why it failed."""
        outcomes = []
        for entry, cursors in zip(write, sent, strict=True):
            try:
                for cursor in cursors:
                    if cursor.failure is not None:
                        raise self._mapped(cursor.failure, entry)
                outcomes.append(parse_results(entry.statement, [cursor.fetchall() for cursor in cursors]))
            except ENDING:
                raise
            except PgdocError as error:
                self._fail(entry, error)
                return
        for field, number in outcomes:
            self.counts[field] += number

    def _fail(self, entry: Queued, error: PgdocError) -> None:
        target = entry.target
        self.failures.append(BulkFailure(entry.number, target.operation, target.collection, target.key, error))


def _send(
    connection: Connection[Any], query: bytes, params: Sequence[Any] = (), *, prepare: bool | None = False
) -> KeepingCursor:
    cursor = KeepingCursor(connection)
    try:
        cursor.execute(query, params, prepare=prepare, binary=True)
    except psycopg.errors.PipelineAborted:
        pass  # of a statement before, which psycopg sent for itself
    except psycopg.Error as exc:
        if connection.closed:
            raise
        cursor.failure = exc
    return cursor
