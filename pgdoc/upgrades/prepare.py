"""Before an upgrade of PostgreSQL: makes sure that no event can be lost, and drops the slots.

For each database with a catalog:

1. Wait until every consumer has read everything, and is closed. Writers are stopped, except consumers that write.
2. Freeze: triggers refuse writes to collections and watched tables (see `0011_upgrade.sql`). They get to the new
   cluster with the tables, so nothing can be written from here to the end of `finish`, however long that takes.
3. Look again. If something was written in between, thaw, and wait again.
4. Seal, in one transaction: record the consumers, end their claims, refuse new ones.
5. Drop the slots of consumers and bookmarks.

Slots are dropped, also where pg_upgrade could take them along (from 17 on): it refuses each one that has not consumed
all WAL up to the shutdown, which a bookmark never does, and a consumer's does only while its process runs. Nothing
follows what a consumer has read by then, so a new slot at the beginning of the new cluster is as good, from any version
to any.

Until 4, an error thaws. From 4 on, another run goes on with 5, and `cancel_upgrade` makes the slots again.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.consumers.slots import drop_slot, find_cluster
from pgdoc.database.catalog import FIND_REVISION, check_revision
from pgdoc.database.errors import one_line
from pgdoc.errors import PgdocError, ServerUnreachable, UpgradeRefused
from pgdoc.replication.connection import connect, map_replication_error, preflight
from pgdoc.replication.slots import fetch_lsn
from pgdoc.replication.source import Source
from pgdoc.sql import statement
from pgdoc.upgrades.databases import PURPOSE, fetch_state, find_databases
from pgdoc.upgrades.moving import LOCK_TIMEOUT, move_consumers, run_under_lock, thaw
from pgdoc.upgrades.survey import Survey, find_obstacles, foreign_slots, list_consumers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.upgrades.databases import CatalogDatabase, Report
    from pgdoc.upgrades.moving import MovedConsumer

__all__ = ["CanceledUpgrade", "PreparedDatabase", "cancel_upgrade", "prepare_upgrade"]

_POLL_S = 1.0
_DROP_LIMIT_S = 20.0
_DROP_POLL_S = 0.2
_THAW_LIMIT_S = 20.0
_CHANGED = "something was written meanwhile, or a consumer was opened"
_CANCEL = "`pgdoc upgrade prepare --cancel`"


class PreparedDatabase(NamedTuple):
    """A database that is ready for the upgrade.

    Attributes:
        tables: the number of collections and watched tables that take no writes.
        consumers: their names. Each has read everything.
        dropped_slots: of this run.
    """

    database: str
    tables: int
    consumers: tuple[str, ...]
    dropped_slots: tuple[str, ...]


class CanceledUpgrade(NamedTuple):
    """A database that takes writes again; `was_prepared` tells whether it took none before."""

    database: str
    was_prepared: bool
    consumers: tuple[MovedConsumer, ...]


def prepare_upgrade(
    conninfo: str, *, only: bool, timeout_s: float, ignore_slots: bool, report: Report
) -> tuple[list[PreparedDatabase], list[str]]:
    """Prepare the databases of a cluster; return them, and notes on what is not pgdoc's.

    Args:
        conninfo: of any database of the cluster.
        only: prepare just the database of the conninfo.
        timeout_s: how long to wait for consumers and locks.
        ignore_slots: go on although slots of others would make pg_upgrade refuse.
        report: is called with what is waited for.

    Raises:
        UpgradeRefused: something could be lost. Unless a database is prepared already, it takes writes as before.
    """
    deadline = time.monotonic() + timeout_s
    databases = find_databases(conninfo, only=only)
    findings: list[str] = []
    notes: list[str] = []
    for database in databases:
        with _connected(database) as connection:
            preflight(connection)
            _check_state(connection, database)
            findings += find_obstacles(connection, database.name)
            refused, notes = foreign_slots(connection, None if only else [each.name for each in databases])
    (notes if ignore_slots else findings).extend(refused)
    if findings:
        raise UpgradeRefused("the cluster can't be upgraded yet", findings=tuple(findings))
    return [_Preparation(database, deadline, report).run() for database in databases], notes


def cancel_upgrade(conninfo: str, *, only: bool, timeout_s: float, report: Report) -> list[CanceledUpgrade]:
    """Go on with the cluster as it is: make the slots of consumers again, and let the databases take writes.

    Raises:
        UpgradeRefused: the cluster is the upgraded one already.
    """
    deadline = time.monotonic() + timeout_s
    canceled = []
    for database in find_databases(conninfo, only=only):
        with _connected(database) as connection:
            state = fetch_state(connection)
            moved: list[MovedConsumer] = []
            if state is not None and state.is_prepared:
                if not state.is_here:
                    raise UpgradeRefused(
                        f'database "{database.name}" is on another cluster than the one that was prepared: run '
                        "`pgdoc upgrade finish`"
                    )
                moved = move_consumers(database, connection, None, report)
            if state is not None:
                thaw(database, connection, deadline, report)
            canceled.append(CanceledUpgrade(database.name, state is not None, tuple(moved)))
    return canceled


def _check_state(connection: psycopg.Connection[Any], database: CatalogDatabase) -> None:
    row = connection.execute(FIND_REVISION).fetchone()
    check_revision(None if row is None else row[0])
    state = fetch_state(connection)
    if state is not None and not state.is_here:
        cure = "run `pgdoc upgrade finish` first" if state.is_prepared else "run `pgdoc upgrade prepare --cancel` first"
        raise UpgradeRefused(f'database "{database.name}" was upgraded from PostgreSQL {state.server}: {cure}')


@contextlib.contextmanager
def _connected(database: CatalogDatabase) -> Iterator[psycopg.Connection[Any]]:
    with connect(database.conninfo, replication=False, purpose=PURPOSE) as connection:
        try:
            yield connection
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc


class _Preparation:
    """Prepares one database."""

    def __init__(self, database: CatalogDatabase, deadline: float, report: Report) -> None:
        self._database = database
        self._deadline = deadline
        self._report = report
        self._said: set[str] = set()

    def run(self) -> PreparedDatabase:
        with _connected(self._database) as connection:
            state = fetch_state(connection)
            if state is None or not state.is_prepared:
                if state is not None:  # a run was killed
                    self._thaw(self._deadline)
                self._wait_and_seal(connection)
            dropped = self._drop_slots(connection)
            row = connection.execute(statement("upgrade", "frozen")).fetchone()
            names = [each.name for each in connection.execute(statement("upgrade", "to_move")).fetchall()]
            return PreparedDatabase(self._database.name, row[0] if row else 0, tuple(names), tuple(dropped))

    def _wait_and_seal(self, connection: psycopg.Connection[Any]) -> None:
        cluster = find_cluster(Source(self._database.conninfo, "", "auto"), purpose=PURPOSE)
        survey = Survey(self._database, connection, cluster)
        while True:
            self._wait(connection, survey)
            try:
                run_under_lock(connection, ("freeze",), self._deadline, self._say)
                has_sealed = self._has_sealed(connection, survey)
            except psycopg.errors.UniqueViolation as exc:  # the row of pgdoc.upgrade is there, and not this run's
                raise UpgradeRefused(
                    f'another `pgdoc upgrade prepare` is at work in database "{self._database.name}": wait for its end'
                ) from exc
            except BaseException:
                self._try_to_thaw()
                raise
            if has_sealed:
                return
            self._thaw(max(self._deadline, time.monotonic() + _THAW_LIMIT_S))
            if time.monotonic() > self._deadline:
                raise UpgradeRefused(f'database "{self._database.name}" is not ready', findings=(_CHANGED,))
            self._say(f"{_CHANGED}: waiting again")

    def _wait(self, connection: psycopg.Connection[Any], survey: Survey) -> None:
        """Wait until every consumer is closed and has read everything."""
        while True:
            until = _flushed_end(connection)
            findings = [found for row in list_consumers(connection) if (found := survey.look(row, until))]
            texts = tuple(found.text for found in findings)
            if not findings:
                return
            if any(found.is_final for found in findings) or time.monotonic() > self._deadline:
                raise UpgradeRefused("consumers are not ready", findings=texts)
            for text in texts:
                self._say(text)
            time.sleep(_POLL_S)

    def _has_sealed(self, connection: psycopg.Connection[Any], survey: Survey) -> bool:
        """Look once more, now that nothing is written, and record that the database is prepared."""
        frozen = fetch_state(connection)
        until = _flushed_end(connection)
        before = {row.name: row for row in list_consumers(connection)}
        if frozen is None or any(survey.look(row, until) for row in before.values()):
            return False
        with contextlib.suppress(psycopg.errors.LockNotAvailable), connection.transaction() as transaction:
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'".encode())
            connection.execute(statement("upgrade", "lock_owners"))  # no consumer is opened or made from here on
            now = connection.execute(statement("upgrade", "consumers").encode(), []).fetchall()
            if not all(row.name in before and _is_as_before(row, before[row.name]) for row in now):
                raise psycopg.Rollback(transaction)
            connection.execute(statement("upgrade", "end_claims"))
            for row in now:
                connection.execute(statement("upgrade", "note_consumer").encode(), [row.name, row.plugin])
            if connection.execute(statement("upgrade", "note_prepared").encode(), [frozen.began_at]).fetchone() is None:
                raise psycopg.Rollback(transaction)
            connection.execute(statement("upgrade", "freeze_owners"))
        state = fetch_state(connection)
        return state is not None and state.is_prepared

    def _drop_slots(self, connection: psycopg.Connection[Any]) -> list[str]:
        """Drop the slots of consumers and bookmarks; a hub that is still open may just be making one."""
        dropped: list[str] = []
        deadline = time.monotonic() + _DROP_LIMIT_S
        while rows := connection.execute(statement("upgrade", "own_slots").encode(), []).fetchall():
            for row in rows:
                try:
                    if drop_slot(connection, row.name):
                        dropped.append(row.name)
                except ServerUnreachable:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(_DROP_POLL_S)
        return dropped

    def _thaw(self, deadline: float) -> None:
        """Undo a freeze, on a connection of its own: an interrupt may have broken the other one.

        Raises:
            UpgradeRefused: sessions hold locks on the tables, which even a reader does; they still take no writes.
        """
        with _connected(self._database) as connection:
            state = fetch_state(connection)
            if state is not None and not state.is_prepared:
                try:
                    run_under_lock(connection, ("undo_freeze",), deadline, self._say)
                except UpgradeRefused as exc:
                    raise UpgradeRefused(
                        f'database "{self._database.name}" takes no writes until {_CANCEL} succeeds',
                        findings=exc.findings or (str(exc),),
                    ) from exc

    def _try_to_thaw(self) -> None:
        """Undo a freeze after an error or an interrupt; report it if that fails, and let the error be raised."""
        try:
            self._thaw(time.monotonic() + _THAW_LIMIT_S)
        except UpgradeRefused as exc:
            self._say(str(exc))
        except (PgdocError, psycopg.Error) as exc:
            self._say(f"perhaps it takes no writes until {_CANCEL} succeeds: {one_line(exc)}")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._report(self._database.name, text)


def _is_as_before(now: Any, before: Any) -> bool:
    """Whether a consumer that was ready is still closed, and has not been made anew."""
    same = now.slot == before.slot and now.plugin == before.plugin and now.snapshot is None
    return same and now.owner_pid is None and now.place >= before.place


def _flushed_end(connection: psycopg.Connection[Any]) -> int:
    """Return the LSN below which everything committed, after it was flushed."""
    end = fetch_lsn(connection, "pg_catalog.pg_current_wal_insert_lsn()")
    connection.execute(statement("streams", "flush"))
    return end
