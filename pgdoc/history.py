"""History: the bookmarks that let a stream resume without a slot of its own, and how far they reach.

A bookmark is a permanent logical slot that nobody streams from. The keeper, a thread beside the hub, copies the hub's
slot into a new one from time to time, and drops those that are no longer needed. Whichever process holds the advisory
lock does it, so that two hubs do not fight.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.errors import PgdocError, ReplicationUnavailable, ServerUnreachable, SlotBlocked, UnsupportedServer
from pgdoc.replication import slots
from pgdoc.replication.connection import connect, literal
from pgdoc.sql import statement

if TYPE_CHECKING:
    from datetime import timedelta

    from pgdoc.hub import Hub
    from pgdoc.tokens import Lsn

logger = logging.getLogger("pgdoc.history")

_INTERVAL_S = 5.0
_NUDGE_WAIT_S = 5.0
_FREE_SLOTS = 2  # never the last ones


@dataclass(frozen=True, slots=True)
class History:
    """How far back streams can resume.

    Attributes:
        time: how long history is kept at least, while `size` allows.
        size: bytes of WAL that bookmarks may hold back.
        oldest: the oldest LSN that a stream can resume at; `None` where no history is kept.
        retained_bytes: WAL that is held back now.
        bookmarks: how many slots keep it.
        pinned_by: open write transactions of any database, oldest first, as `(pid, age in seconds)`; while one is
            open no slot's WAL can be released. The pid of a prepared transaction is `None`.
    """

    time: timedelta
    size: int
    oldest: Lsn | None
    retained_bytes: int
    bookmarks: int
    pinned_by: tuple[tuple[int | None, float], ...]


class Plan(NamedTuple):
    """What has to be done to the bookmarks."""

    drop: list[slots.Bookmark]
    make: bool


def plan(kept: list[slots.Bookmark], settings: Any, now: float) -> Plan:
    """Decide which bookmarks to drop and whether to make one.

    The oldest can go when the next one alone reaches back far enough in time, and has to when it holds back too much
    WAL; there is always one. New ones come in steps of a fraction of the limits, so that their number has a limit too.
    """
    alive = [bookmark for bookmark in kept if bookmark.wal_status != "lost" and bookmark.restart is not None]
    drop = [bookmark for bookmark in kept if bookmark not in alive]
    while len(alive) > 1 and (
        len(alive) > settings.bookmarks
        or alive[1].made_at <= now - settings.time_s
        or settings.wal_end - (alive[0].restart or 0) > settings.size
    ):
        drop.append(alive.pop(0))
    if not alive:
        return Plan(drop, make=True)
    newest, steps = alive[-1], max(1, settings.bookmarks - 1)
    due = newest.made_at <= now - settings.time_s / steps or settings.wal_end - newest.confirmed > settings.size / steps
    too_much = len(alive) == 1 and settings.wal_end - (newest.restart or 0) > settings.size
    has_place = len(alive) < settings.bookmarks and settings.free_slots > _FREE_SLOTS
    return Plan(drop, make=(due and has_place) or too_much)


def begin_history(conninfo: str) -> None:
    """Make the first bookmark, or say in the log why that has to wait for the first stream."""
    try:
        slots.make_first_bookmark(conninfo)
    except (ReplicationUnavailable, SlotBlocked, ServerUnreachable, UnsupportedServer) as exc:
        logger.warning("history does not begin yet: %s", exc)


class Keeper:
    """Keeps the history of the hub's database.

    Args:
        hub: whose slot is copied.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless that has been done."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pgdoc-history", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop; where no limit protects the server's disk and nobody else streams, leave no bookmark."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._closing.wait(_INTERVAL_S):
            try:
                connection = connection or connect(self._hub.source.conninfo, replication=False)
                self.keep(connection)
            except (psycopg.Error, PgdocError) as exc:
                logger.warning("history is not kept at the moment: %s", exc)
                if connection is not None:
                    connection.close()
                connection = None
        self._last_one_out(connection)

    def keep(self, connection: psycopg.Connection[Any]) -> None:
        """Do once what is due."""
        if not _lock(connection):
            return
        try:
            settings = connection.execute(statement("replication", "settings")).fetchone()
            due = plan(slots.bookmarks(connection, lost=True), settings, time.time())
            if due.make:
                self._make(connection)
            for bookmark in due.drop:
                drop_slot(connection, bookmark.name)
        finally:
            connection.execute("SELECT pg_advisory_unlock(hashtext('pgdoc history'))")

    def _make(self, connection: psycopg.Connection[Any]) -> None:
        slot = self._hub.slot
        if slot is None:
            return
        before = _restart_lsn(connection, slot)
        _nudge(connection)
        deadline = time.monotonic() + _NUDGE_WAIT_S
        while _restart_lsn(connection, slot) == before and time.monotonic() < deadline and not self._closing.is_set():
            self._hub.report_soon()
            self._closing.wait(0.05)
        name = slots.bookmark_name(connection)
        slots.copy_slot(connection, slot, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)

    def _last_one_out(self, connection: psycopg.Connection[Any] | None) -> None:
        try:
            connection = connection or connect(self._hub.source.conninfo, replication=False)
            with connection:
                settings = connection.execute(statement("replication", "settings")).fetchone()
                others = connection.execute(statement("replication", "other_hubs")).fetchone()
                own = 1 if self._hub.slot else 0
                if (
                    slots.is_unlimited(connection)
                    and settings
                    and not settings.chosen
                    and others
                    and others.hubs <= own
                ):
                    for bookmark in slots.bookmarks(connection, lost=True):
                        drop_slot(connection, bookmark.name)
        except (psycopg.Error, PgdocError) as exc:
            logger.warning("bookmarks were not looked after at the end: %s", exc)


def drop_slot(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a slot; fine where it is gone or another session is at it."""
    try:
        connection.execute(f"SELECT pg_drop_replication_slot({literal(name)})")
    except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectInUse) as exc:
        logger.info("bookmark not dropped: %s", exc)


def _lock(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(hashtext('pgdoc history'))").fetchone()
    return bool(row and row[0])


def _restart_lsn(connection: psycopg.Connection[Any], slot: str) -> str | None:
    row = connection.execute(
        f"SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = {literal(slot)}"
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
            f"SELECT pg_create_logical_replication_slot({literal(name)}, {literal(slots.BOOKMARK_PLUGIN)}, true)"
        )
        drop_slot(connection, name)
    except psycopg.errors.LockNotAvailable:
        return
    finally:
        connection.execute("SET lock_timeout = 0")
