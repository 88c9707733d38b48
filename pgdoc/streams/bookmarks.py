"""History: the bookmarks that let a stream resume without a slot of its own, and how far they reach.

A bookmark is a permanent logical slot that nobody streams from. The keeper, a thread beside the hub, copies the hub's
slot into a new one from time to time, and drops those that are no longer needed; in a process that has a hub but reads
nothing with it, it copies the newest bookmark and moves the copy on. Two advisory locks of the database
keep several hubs from fighting: whoever gets `pgdoc history` does what is due, and `pgdoc hubs` is shared by all that
run, so that the last one knows that it is.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.errors import PgdocError, ReplicationUnavailable, ServerUnreachable, SlotBlocked, UnsupportedServer
from pgdoc.replication import slots
from pgdoc.replication.connection import connect, quote_literal
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement
from pgdoc.streams.retention import RetentionState, plan_retention

if TYPE_CHECKING:
    from pgdoc.streams.hub import Hub


logger = logging.getLogger("pgdoc.history")

_INTERVAL_S = 5.0
_NUDGE_WAIT_S = 5.0
_LAST_MOMENT_S = 0.5
_LEAVE_S = 1.0


def begin_history(conninfo: str) -> None:
    """Make the first bookmark, or say in the log why that has to wait for the first stream."""
    try:
        slots.make_first_bookmark(conninfo)
    except (ReplicationUnavailable, SlotBlocked, ServerUnreachable, UnsupportedServer) as exc:
        logger.warning("history does not begin yet: %s", exc)


class BookmarkKeeper:
    """Keeps the history of a database.

    Args:
        hub: whose slot is copied; while it reads nothing, the newest bookmark is.
    """

    def __init__(self, hub: Hub) -> None:
        self.thread: threading.Thread | None = None
        self._hub = hub
        self._closing = threading.Event()
        self._leave_by = float("inf")

    def start(self) -> None:
        """Begin, unless that has been done."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="pgdoc-history", daemon=True)
            self.thread.start()

    def stop(self, by: float) -> None:
        """Let it end; where no limit protects the server's disk and nobody else streams, it leaves no bookmark.

        Args:
            by: a time of `time.monotonic`; what is not done a little before is left undone.
        """
        self._leave_by = min(self._leave_by, by - _LAST_MOMENT_S)
        self._closing.set()

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        with deadline_scope(closing=self._closing):
            while not self._closing.is_set():
                connection = self._keep_on(connection)
                self._closing.wait(_INTERVAL_S)
        soon = time.monotonic() + _LEAVE_S  # where the server is silent, perhaps
        with deadline_scope(until=self._leave_by if connection is not None else min(soon, self._leave_by)):
            self._leave(connection)

    def _keep_on(self, connection: psycopg.Connection[Any] | None) -> psycopg.Connection[Any] | None:
        """Do what is due, and give the connection while it is good."""
        try:
            connection = connection or self._connect()
            self.keep(connection)
        except (psycopg.Error, PgdocError) as exc:
            if not self._closing.is_set():
                logger.warning("history is not kept at the moment: %s", exc)
        except Exception:  # a fault of ours must not end the keeping
            logger.exception("history is not kept at the moment")
        return None if connection is None or connection.closed else connection

    def _connect(self) -> psycopg.Connection[Any]:
        connection = connect(
            self._hub.source.conninfo, replication=False, purpose=f"bookmarks {self._hub.source.schema}"
        )
        try:
            connection.execute(statement("replication", "share"))
        except BaseException:
            connection.close()
            raise
        return connection

    def keep(self, connection: psycopg.Connection[Any]) -> None:
        """Do once what is due."""
        if not _ask(connection, "begin_keeping"):
            return
        try:
            if self._do_what_is_due(connection):
                self._do_what_is_due(connection)  # what was made may let others go
        finally:
            if not connection.closed:
                connection.execute(statement("replication", "end_keeping"))

    def _do_what_is_due(self, connection: psycopg.Connection[Any]) -> bool:
        """Give whether a bookmark was made."""
        slot = self._hub.slot
        if slot is None and self._hub.is_started:
            return False  # it will have one soon
        situation = _situation(connection, slot, self._hub.reached)
        if situation is None:
            return False
        if slot is not None and situation.wal_end - situation.needed_from > situation.size / situation.steps:
            self._move_on(connection, slot, wait_s=0)
        due = plan_retention(slots.bookmarks(connection, lost=True), situation)
        for bookmark in due.drop:
            drop_bookmark(connection, bookmark.name)
        if due.make and slot is not None:
            self._make(connection, slot)
        elif due.make:
            _make_alone(connection)
        return due.make

    def _make(self, connection: psycopg.Connection[Any], slot: str) -> None:
        self._move_on(connection, slot, wait_s=_NUDGE_WAIT_S)
        name = slots.bookmark_name(connection)
        slots.copy_slot(connection, slot, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)

    def _move_on(self, connection: psycopg.Connection[Any], slot: str, *, wait_s: float) -> None:
        """Have the WAL released that the hub's slot no longer needs, and wait until that has happened."""
        before = _restart_lsn(connection, slot)
        _nudge(connection)
        self._hub.report_soon()
        deadline = time.monotonic() + wait_s
        while _restart_lsn(connection, slot) == before and time.monotonic() < deadline and not self._closing.is_set():
            self._hub.report_soon()
            self._closing.wait(0.05)

    def _leave(self, connection: psycopg.Connection[Any] | None) -> None:
        """Be gone; the last hub leaves no bookmark where nobody limits what they hold back."""
        try:
            with connection or self._connect() as leaving:
                leaving.execute(statement("replication", "unshare"))
                if _ask(leaving, "nobody_limits") and _ask(leaving, "be_last"):
                    for bookmark in slots.bookmarks(leaving, lost=True):
                        drop_bookmark(leaving, bookmark.name)
        except (psycopg.Error, PgdocError) as exc:
            logger.warning("bookmarks were not looked after at the end: %s", exc)


def _make_alone(connection: psycopg.Connection[Any]) -> None:
    """Make a bookmark of now where no hub's slot can be copied: a copy of the newest one, moved on.

    One that was left halfway keeps more than its name tells, which does no harm.
    """
    _nudge(connection)
    now = slots.flushed(connection)  # before the name is given: no bookmark claims to be older than it is
    name = slots.bookmark_name(connection)
    kept = slots.bookmarks(connection)
    if not kept:
        slots.create_bookmark(connection, name)
        return
    if kept[-1].confirmed > now:  # someone who opened a stream or a consumer has just made one
        return
    slots.copy_slot(connection, kept[-1].name, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
    slots.advance(connection, name, kept[-1].confirmed, now)
    slots.advance(connection, name, now - 1, now)  # restart_lsn follows to what the first pass could only note


def drop_bookmark(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a slot; fine where it is gone or another session is at it."""
    try:
        connection.execute(f"SELECT pg_drop_replication_slot({quote_literal(name)})")
    except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectInUse) as exc:
        logger.info("bookmark not dropped: %s", exc)


def _ask(connection: psycopg.Connection[Any], question: str) -> bool:
    row = connection.execute(statement("replication", question)).fetchone()
    return bool(row and row[0])


def _situation(connection: psycopg.Connection[Any], slot: str | None, reached: int) -> RetentionState | None:
    """Give the situation, unless the hub has just lost its slot; without one nobody needs what is written."""
    row = connection.execute(statement("replication", "situation").format(slot=quote_literal(slot or ""))).fetchone()
    if row is None or (slot is not None and row.needed_from is None):
        return None
    found = row._asdict()
    if slot is None:
        found["needed_from"] = reached = row.wal_end
    return RetentionState(**found, reached=reached)


def _restart_lsn(connection: psycopg.Connection[Any], slot: str) -> str | None:
    row = connection.execute(
        f"SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = {quote_literal(slot)}"
    ).fetchone()
    return row[0] if row else None


def _nudge(connection: psycopg.Connection[Any]) -> None:
    """Make the server log its running transactions, without which no slot's restart_lsn moves.

    Creating a slot does so first of all, even if it then has to wait for others and gives up.
    """
    name = slots.slot_name(connection, "pgdocr")
    connection.execute("SET lock_timeout = '20ms'")
    try:
        connection.execute(
            f"SELECT pg_create_logical_replication_slot({quote_literal(name)},"
            f" {quote_literal(slots.BOOKMARK_PLUGIN)}, true)"
        )
        drop_bookmark(connection, name)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.ConfigurationLimitExceeded):
        return
    finally:
        connection.execute("SET lock_timeout = 0")
