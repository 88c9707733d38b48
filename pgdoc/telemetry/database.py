"""Asks one database for the metrics of `pgdoc metrics`, on one connection that is opened again when it is lost.

Each part of the answer is a statement, in a read-only transaction with its own time limits. A part that fails, because
the role lacks a right or somebody holds a lock, takes no other along.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import namedtuple_row

from pgdoc.database.catalog import FIND_FOREIGN_OWNER, FIND_REVISION, check_owner, check_revision
from pgdoc.database.conninfo import database_of, with_application_name, with_timeout
from pgdoc.database.errors import connection_error, is_connection_loss, one_line
from pgdoc.database.quoting import identifier
from pgdoc.errors import DatabaseError, PgdocError
from pgdoc.runtime.deadline import BoundedConnection, deadline_scope
from pgdoc.sql import statement
from pgdoc.telemetry.server_samples import (
    ServerSample,
    samples_of_consumers,
    samples_of_letters,
    samples_of_server,
    samples_of_slots,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LIMIT_S", "DatabaseMetrics"]

logger = logging.getLogger("pgdoc.metrics")

LIMIT_S: Final = 5.0
"""The limit for one scrape; Prometheus waits 10 s by default."""

_STATEMENT_S: Final = 3.0  # above the limits in `metrics.sql`: the server's error says more
_PARTS: Final = ("server", "slots", "consumers", "dead_letters")
_OF_THE_CATALOG: Final = ("consumers", "dead_letters")  # these run what a role has put into this database
_CONNECTION, _SESSIONS = "connection", "sessions"
# Stated in full: the role's defaults may be others, and a deferrable transaction can wait for those of other sessions.
_BEGIN: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE"
_NO_CATALOG: Final = (
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
)


class DatabaseMetrics:
    """The metrics of one database; one thread at a time scrapes.

    Args:
        conninfo: the database.
        schema: report only consumers of this schema, and slots without a known consumer; `None` for all.

    Attributes:
        database: its name.
        problems: what the last scrape could not read, by part, and why.
    """

    def __init__(self, conninfo: str, schema: str | None = None) -> None:
        self.database = database_of(conninfo)
        self._conninfo = with_timeout(with_application_name(conninfo, "metrics"))
        self._schema = schema
        self._closing = threading.Event()
        self._connection: BoundedConnection | None = None
        self._failures = Counter(dict.fromkeys((_CONNECTION, *_PARTS), 0))
        self.problems: dict[str, str] = {}

    def scrape(self) -> list[ServerSample]:
        """Ask for everything; that the database does not answer is an answer, too."""
        began = time.monotonic()
        with deadline_scope(_STATEMENT_S, until=began + LIMIT_S, closing=self._closing):
            found = self._ask()
        took = ServerSample("pgdoc_scrape_seconds", time.monotonic() - began)
        return [ServerSample("pgdoc_up", float(found is not None)), took, *(found or []), *self._errors()]

    def silence(self) -> list[ServerSample]:
        """Return what to report without a scrape; any thread may call it."""
        return [ServerSample("pgdoc_up", 0.0), *self._errors()]

    def begin_to_close(self) -> None:
        """Let a scrape that is running give up; any thread may call it."""
        self._closing.set()

    def close(self) -> None:
        """Close the connection, when no scrape is running."""
        self.begin_to_close()
        self._disconnect()

    def _errors(self) -> list[ServerSample]:
        return [ServerSample("pgdoc_scrape_errors_total", count, (part,)) for part, count in self._failures.items()]

    def _ask(self) -> list[ServerSample] | None:
        """Return the samples; `None` without a connection. One that was lost since the last scrape is made again."""
        while True:
            was_open = self._connection is not None
            try:
                found = list(self._read(self._connected()))
            except (psycopg.Error, PgdocError) as exc:
                self._disconnect()
                if not was_open or self._closing.is_set():
                    self._note(_CONNECTION, one_line(exc))
                    return None
            else:
                self._note(_CONNECTION, None)
                return found

    def _connected(self) -> BoundedConnection:
        if self._connection is None:
            try:
                self._connection = BoundedConnection.connect(
                    self._conninfo, autocommit=True, row_factory=namedtuple_row, prepare_threshold=None
                )
            except psycopg.Error as exc:
                raise connection_error(exc) from exc
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _read(self, connection: BoundedConnection) -> Iterator[ServerSample]:
        rows: dict[str, list[Any]] = {}
        for part in _PARTS:
            try:
                rows[part] = _fetch(connection, part)
            except (psycopg.Error, PgdocError) as exc:
                if connection.closed or (isinstance(exc, psycopg.Error) and is_connection_loss(exc)):
                    raise
                self._note(part, one_line(exc))
            else:
                self._note(part, None)
            yield ServerSample("pgdoc_scrape_ok", float(part in rows), (part,))
        for row in rows.get("server", ()):
            self.database = row.database
            self._note(_SESSIONS, None if row.sees_sessions else _hidden_sessions(row.role))
            yield from samples_of_server(row)
        consumers = rows.get("consumers", [])
        yield from samples_of_consumers(consumers, self._schema)
        yield from samples_of_slots(rows.get("slots"), consumers, self._schema)
        yield from samples_of_letters(rows.get("dead_letters", ()), self._schema)

    def _note(self, part: str, problem: str | None) -> None:
        """Count and log a problem; one that stays is logged once."""
        known = self.problems.pop(part, None)
        if problem is not None:
            self.problems[part] = problem
            if part in self._failures:
                self._failures[part] += 1
            if problem != known:
                logger.warning("the metrics of %s are missing: %s", part, problem)
        elif known is not None:
            logger.info("the metrics of %s are complete again", part)


@contextlib.contextmanager
def _reading(connection: BoundedConnection) -> Iterator[None]:
    """Begin a transaction with the limits of a scrape, and end it: behind a pooler, others use the session, too."""
    connection.execute(_BEGIN)
    try:
        connection.execute(statement("metrics", "limits").encode())
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")


def _fetch(connection: BoundedConnection, part: str) -> list[Any]:
    try:
        with _reading(connection):
            if part in _OF_THE_CATALOG:
                check_owner(
                    connection.cursor(row_factory=psycopg.rows.tuple_row).execute(FIND_FOREIGN_OWNER).fetchone()
                )
            return connection.execute(statement("metrics", part).encode()).fetchall()
    except _NO_CATALOG:
        check_revision(_find_revision(connection))
        raise
    except psycopg.errors.InsufficientPrivilege as exc:
        raise DatabaseError(f"{one_line(exc)}: {_advice(connection.info.user)}", sqlstate=exc.sqlstate) from exc


def _find_revision(connection: BoundedConnection) -> str | None:
    try:
        with _reading(connection):
            row = connection.execute(FIND_REVISION).fetchone()
    except _NO_CATALOG:
        return None
    return None if row is None else str(row[0])


def _hidden_sessions(role: str) -> str:
    return f"the role may not see the sessions of other roles: {_advice(role)}"


def _advice(role: str) -> str:
    return f"run GRANT pg_monitor TO {identifier(role)}"
