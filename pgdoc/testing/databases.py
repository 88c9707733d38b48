"""Databases for tests on a server that others may use, too.

Each run has an id, and its databases are called `pgdoc_test_<id>_<number>`. While the run lasts, it has a session whose
application_name contains the id. A database without that session is what a run left behind that was killed, unless
anyone is connected to a database of that run: a server that restarts, or a test, may have ended the session.
"""

from __future__ import annotations

import inspect
import itertools
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc.database.conninfo import PlainConnection, with_timeout
from pgdoc.database.errors import connection_error
from pgdoc.database.migrate import migrate
from pgdoc.errors import DatabaseError, DirectRouteNeeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

__all__ = ["Databases"]

_EMPTY: Final = "template0"  # nobody can be connected to it, which would keep it from being copied
_ATTEMPTS: Final = 5  # to drop a database; a session that began in between may have created a slot

_MAY_CREATE: Final = b"""
SELECT r.rolname, r.rolcreatedb OR r.rolsuper, pg_catalog.pg_backend_pid()
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""
_END_SESSIONS: Final = b"""
SELECT pg_catalog.pg_terminate_backend(a.pid, 5000) FROM pg_catalog.pg_stat_activity a
WHERE a.datname = %s AND a.backend_type IN ('client backend', 'walsender')
  AND pg_catalog.pg_has_role(a.usesysid, 'MEMBER')
"""
_DROP_SLOTS: Final = b"""
SELECT pg_catalog.pg_drop_replication_slot(s.slot_name) FROM pg_catalog.pg_replication_slots s
WHERE s.database = %s AND NOT s.active
"""
_LEFTOVERS: Final = rb"""
SELECT d.datname FROM pg_catalog.pg_database d
WHERE d.datname ~ '^pgdoc_test_[0-9a-f]{12}_(template|[0-9]+)$' AND pg_catalog.pg_has_role(d.datdba, 'MEMBER')
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_stat_activity a
    WHERE a.application_name = 'pgdoc test run ' || substr(d.datname, 12, 12)
      OR (left(a.datname, 24) = left(d.datname, 24) AND a.usesysid IS NOT NULL) -- autovacuum has none
  )
"""


class _Conninfo(str):
    """A conninfo without secrets in its `repr`, which pytest prints for the arguments of a failed test."""

    __slots__ = ()

    def __repr__(self) -> str:
        settings = conninfo_to_dict(self)
        shown: dict[str, Any] = {name: settings.get(name) for name in ("host", "port", "user", "dbname")}
        return repr(make_conninfo(**shown))


class Databases:
    """Creates and drops the databases of one run.

    Attributes:
        prefix: how their names begin.
    """

    def __init__(self, conninfo: str, prepare: Callable[[str], object] | None, *, copies_files: bool) -> None:
        self._run = secrets.token_hex(6)
        self.prefix = f"pgdoc_test_{self._run}_"
        self._conninfo = conninfo
        self._prepare = prepare
        # In memory, copying files is faster than writing all to the WAL; on a disk it waits for checkpoints.
        self._strategy = sql.SQL(" STRATEGY file_copy" if copies_files else "")
        self._numbers = itertools.count(1)
        self._session: psycopg.Connection[Any] | None = None
        self._template: str | None = None

    @classmethod
    @contextmanager
    def opened(
        cls, conninfo: str, prepare: Callable[[str], object] | None = None, *, copies_files: bool = False
    ) -> Iterator[Self]:
        """Open the session of a run; drop the template at the end."""
        databases = cls(conninfo, prepare, copies_files=copies_files)
        databases._check_session()
        try:
            yield databases
        finally:
            databases._close()

    @contextmanager
    def database(self, *, catalog: bool) -> Iterator[str]:
        """Create a database, and drop it at the end of the block."""
        source = self._make_template() if catalog else _EMPTY
        name = f"{self.prefix}{next(self._numbers)}"
        try:
            self._create(name, source)
            conninfo = self._conninfo_for(name)
            if catalog and self._prepare is not None:  # its collections are registered for the template
                with PlainConnection.connect(conninfo, autocommit=True) as connection:
                    connection.execute("SELECT pgdoc.rebind()")
            yield conninfo
        finally:
            self._drop(name)

    def drop_leftovers(self) -> None:
        """Drop the databases of this role that runs left behind because they were killed.

        Runs that begin at the same time may meet each other here, so an error leaves a database to a later run.
        """
        for (name,) in self._execute(_LEFTOVERS):
            with suppress(psycopg.Error):
                self._drop(name)

    def _make_template(self) -> str:
        """Return the template; the first call creates it."""
        if self._template is None:
            name = f"{self.prefix}template"
            try:
                self._create(name, _EMPTY)
                self._fill(self._conninfo_for(name))
                self._disconnect(name)
            except BaseException:
                self._drop(name)
                raise
            self._template = name
        return self._template

    def _fill(self, conninfo: str) -> None:
        migrate(conninfo)
        result = None if self._prepare is None else self._prepare(conninfo)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("prepare is a coroutine function: use a plain one, with a Store")

    def _create(self, name: str, source: str) -> None:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}{}")
        self._execute(create.format(sql.Identifier(name), sql.Identifier(source), self._strategy))

    def _drop(self, name: str) -> None:
        # FORCE would refuse a role that is no superuser if autovacuum runs there. DROP alone lets autovacuum end.
        for left in range(_ATTEMPTS - 1, -1, -1):
            try:
                self._disconnect(name)
                self._execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            except psycopg.errors.ObjectInUse:
                if not left:
                    raise
            else:
                return

    def _disconnect(self, name: str) -> None:
        """End the sessions of a database, keep others from beginning, and drop its slots."""
        try:
            self._execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        except psycopg.errors.InvalidCatalogName:  # the test has dropped it
            return
        self._execute(_END_SESSIONS, [name])
        self._execute(_DROP_SLOTS, [name])

    def _conninfo_for(self, name: str) -> str:
        return _Conninfo(make_conninfo(self._conninfo, dbname=name))

    def _check_session(self) -> None:
        ((role, may_create, pid),) = self._execute(_MAY_CREATE)
        if pid != self._connection().info.backend_pid:  # a pooler sends its clients pids of its own
            self._close()
            raise DirectRouteNeeded(
                "PGDOC_TEST_DSN leads to a connection pooler, which may end the session by which other runs know that "
                "this one is alive: use the host and port of the server itself"
            )
        if not may_create:
            self._close()
            raise DatabaseError(
                f'the role "{role}" of PGDOC_TEST_DSN may not create databases: '
                f"run ALTER ROLE {sql.Identifier(role).as_string()} CREATEDB REPLICATION",
                sqlstate="42501",
            )

    def _execute(self, query: bytes | sql.Composed, params: list[Any] | None = None) -> list[tuple[Any, ...]]:
        try:
            cursor = self._connection().execute(query, params)
        except psycopg.OperationalError:
            if not self._connection_is_lost():
                raise
            cursor = self._connection().execute(query, params)
        return cursor.fetchall() if cursor.description else []

    def _connection_is_lost(self) -> bool:
        """Return whether the session has ended: a test may have restarted the server, or ended all sessions."""
        return self._session is not None and self._session.closed

    def _connection(self) -> psycopg.Connection[Any]:
        """Return the session of the run, which must not end before the run does."""
        if self._session is None or self._session.closed:
            name = f"pgdoc test run {self._run}"
            conninfo = make_conninfo(with_timeout(self._conninfo), application_name=name)
            try:
                self._session = PlainConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
            except psycopg.Error as exc:
                raise connection_error(exc) from exc
            self._session.execute("SET idle_session_timeout = 0; SET search_path = pg_catalog")
        return self._session

    def _close(self) -> None:
        try:
            if self._template is not None:
                self._drop(self._template)
        finally:
            if self._session is not None:
                self._session.close()
