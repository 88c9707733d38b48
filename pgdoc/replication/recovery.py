"""Reading the WAL on a standby (PostgreSQL 16 and newer), while the primary has the rows.

1. A standby decodes what it has replayed. A commit is visible there before its LSN counts as replayed, so what a reader
   asks the standby about the catalog is as new as the WAL that it reads. What writes is asked of the primary.
2. A slot is created at the next record of the running transactions. Only the primary writes those, and not while it is
   idle. So pgdoc has it write one meanwhile (`nudge`).
3. Positions are labelled with the timeline. When the standby is promoted, or follows a promoted one, its walsenders go
   on without a word. So a reader asks for the timeline after each burst, before it is delivered (`TimelineGuard`): what
   was replayed before the answer lies on that timeline or an older one.
4. When the primary removes rows of its catalog, all slots of a standby can end (`hot_standby_feedback` prevents that).
   Then `HistoryLost` is raised; nothing is skipped.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import namedtuple_row

from pgdoc.database.catalog import FIND_REVISION, REVISION, check_revision
from pgdoc.database.conninfo import with_application_name, with_timeout
from pgdoc.database.errors import connection_error, one_line
from pgdoc.errors import PgdocError, ServerUnreachable, UnsupportedServer
from pgdoc.replication.connection import connect, map_replication_error, quote_literal
from pgdoc.replication.slots import (
    blockers_at,
    create_temporary_slot,
    log_running_transactions,
    slot_blocked,
)
from pgdoc.runtime.deadline import BoundedConnection, DeadlineExceeded, deadline_scope, is_closing
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.replication.source import Cluster, Source

__all__ = [
    "TimelineGuard",
    "check_same_database",
    "check_same_server",
    "connect_primary",
    "create_slot_on_standby",
    "fetch_of_reader",
    "is_in_recovery",
    "nudge",
    "source_of_consumers",
    "wait_for_catalog",
    "writing",
]

logger = logging.getLogger("pgdoc.stream")

_PATIENCE_S: Final = 0.2
"""How long a slot may take before the primary is asked for a record, and the pause between two."""

_CREATE_LIMIT_S: Final = 30.0
"""How long a slot may take: the standby waits for the write transactions of the primary, without `lock_timeout`."""

_ASK_S: Final = 10.0
_CATALOG_S: Final = 10.0
_CATALOG_POLL_S: Final = 0.05
_NUDGE_S: Final = 5.0


def is_in_recovery(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the server is a standby."""
    row = connection.execute(statement("replication", "in_recovery")).fetchone()
    return bool(row and row[0])


def source_of_consumers(source: Source) -> Source:
    """Return what durable consumers read: where `source` is a standby, its primary.

    The claim of a consumer and its slot have to be on one server. The hub feeds it from the standby once both are near.
    """
    if source.primary is None:
        return source
    with contextlib.closing(connect(source.conninfo, replication=False)) as connection:
        try:
            if not is_in_recovery(connection):
                return source
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    return replace(source, conninfo=source.primary, primary=None, keeps_history=False)


def connect_primary(conninfo: str, purpose: str = "") -> psycopg.Connection[Any]:
    """Open a connection on which no setting is made, as it may lead through a pooler."""
    try:
        return BoundedConnection.connect(
            with_application_name(with_timeout(conninfo), purpose),
            autocommit=True,
            row_factory=namedtuple_row,
            prepare_threshold=None,
        )
    except psycopg.Error as exc:
        raise connection_error(exc) from exc


def wait_for_catalog(plain: psycopg.Connection[Any]) -> None:
    """Return when the standby has the catalog of this version; it may have been made a moment ago.

    Raises:
        CatalogMissing, CatalogVersionMismatch: it does not come.
    """
    deadline = time.monotonic() + _CATALOG_S
    while True:
        try:
            row = plain.execute(FIND_REVISION).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            row = None
        except psycopg.Error as exc:
            raise map_replication_error(exc, plain) from exc
        found = row[0] if row else None
        if found == REVISION:
            return
        if time.monotonic() > deadline or is_closing():
            check_revision(found)
        time.sleep(_CATALOG_POLL_S)


@contextlib.contextmanager
def writing(connection: psycopg.Connection[Any], source: Source) -> Iterator[psycopg.Connection[Any]]:
    """Lend a connection that can write to the catalog: this one, or one to the primary of the standby that it reads."""
    if source.primary is None or not is_in_recovery(connection):
        yield connection
        return
    with contextlib.closing(connect_primary(source.primary)) as primary:
        yield primary


def check_same_database(primary: str, cluster: Cluster) -> None:
    """Refuse to read the WAL of another database than the one that has the rows.

    Raises:
        UnsupportedServer: it is another cluster, or another database of this one.
    """
    with contextlib.closing(connect_primary(primary)) as connection:
        try:
            found = connection.execute(statement("replication", "same_database")).fetchone()
        except psycopg.errors.InsufficientPrivilege:  # an administrator has revoked it
            return
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    assert found is not None  # noqa: S101 (a session has a database)
    rows_at, wal_at = (found.system_id, found.oid), (cluster.system_id, cluster.database_oid)
    if rows_at != wal_at:
        raise UnsupportedServer(
            f'replication_conninfo leads to database "{cluster.database}" (oid {wal_at[1]}) of cluster {wal_at[0]}, '
            f'and conninfo to "{found.name}" (oid {rows_at[1]}) of cluster {rows_at[0]}: both must lead to the same '
            "database, on the same server or on a primary and its standby"
        )


def check_same_server(connection: psycopg.Connection[Any], slot: str) -> None:
    """Refuse a connection to another server than that of the slot, which was just created: it tells nothing about it.

    Raises:
        ServerUnreachable: it is another one.
    """
    if connection.execute(statement("replication", "plugin").format(slot=quote_literal(slot))).fetchone() is None:
        raise ServerUnreachable(
            "replication_conninfo leads to more than one server: name one, not an address that distributes connections"
        )


def fetch_of_reader(source: Source, name: str) -> list[tuple[Any, ...]]:
    """Fetch the rows of a block of `streams.sql` without parameters from the server whose WAL is read."""
    with contextlib.closing(connect(source.conninfo, replication=False)) as plain:
        try:
            return [tuple(row) for row in plain.execute(statement("streams", name).encode(), []).fetchall()]
        except psycopg.Error as exc:
            raise map_replication_error(exc, plain) from exc


class TimelineGuard:
    """Notices that a standby has gone over to another timeline.

    Args:
        connection: a replication connection to the standby that serves nothing else.
        timeline: the one that the reader's positions are labelled with.
    """

    def __init__(self, connection: psycopg.Connection[Any], timeline: int) -> None:
        self._connection = connection
        self._timeline = timeline

    def check(self) -> None:
        """Return if everything that was received before the call lies on the timeline, or on an older one.

        Raises:
            ServerUnreachable: it may not; the reader is to be opened again.
        """
        try:
            with deadline_scope(_ASK_S):
                row = self._connection.execute("IDENTIFY_SYSTEM").fetchone()
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc
        if row is None or int(row.timeline) != self._timeline:
            found = "" if row is None else f" {row.timeline}"
            raise ServerUnreachable(
                f"the standby has left timeline {self._timeline} for timeline{found}: a server was promoted"
            )


def nudge(primary: str) -> None:
    """Have the primary write a record of its running transactions.

    Without the right to do so, creating a slot there does it as well.
    """
    with contextlib.closing(connect_primary(primary)) as connection:
        row = connection.execute(statement("replication", "log_running")).fetchone()
        if row is not None and row.is_allowed:
            connection.execute("SELECT pg_catalog.pg_log_standby_snapshot()")
            return
    with contextlib.closing(connect(primary, replication=False)) as connection:
        log_running_transactions(connection)


def create_slot_on_standby(connection: psycopg.Connection[Any], primary: str, slot: str, plugin: str) -> int:
    """Create a temporary slot on a replication connection to a standby, and return its first LSN.

    Raises:
        SlotBlocked: write transactions of the primary are open for too long.
        ServerUnreachable: the primary writes no record of its running transactions.
    """
    try:
        with deadline_scope(_CREATE_LIMIT_S), _nudging(primary):
            return create_temporary_slot(connection, slot, plugin)
    except DeadlineExceeded as exc:
        if is_closing():
            raise
        with contextlib.closing(connect_primary(primary)) as plain:
            if open_now := blockers_at(plain):
                raise slot_blocked(open_now) from exc
        raise ServerUnreachable(
            "the standby waits for a record of the running transactions, which an idle primary does not write: check "
            "that it receives WAL, and run SELECT pg_log_standby_snapshot() on the primary, or GRANT EXECUTE ON "
            "FUNCTION pg_log_standby_snapshot() to the role of conninfo"
        ) from exc


@contextlib.contextmanager
def _nudging(primary: str) -> Iterator[None]:
    """Nudge the primary while the block waits."""
    done = threading.Event()
    thread = threading.Thread(target=_nudge_until, args=(primary, done), name="pgdoc-nudge", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _nudge_until(primary: str, done: threading.Event) -> None:
    with deadline_scope(_NUDGE_S, closing=done):
        wait_s = _PATIENCE_S
        while not done.wait(wait_s):
            try:
                nudge(primary)
            except (psycopg.Error, PgdocError) as exc:
                if not done.is_set():
                    logger.info(
                        "the primary can't be asked for a record of its running transactions: %s", one_line(exc)
                    )
            wait_s = min(wait_s * 2, _NUDGE_S)
