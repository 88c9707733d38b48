"""The bookmark keeper: a thread that keeps the history from which streams can resume without a slot of their own.

A bookmark is a permanent logical slot that nobody streams from. The keeper periodically copies the hub's slot into a
new bookmark, and drops bookmarks that are no longer needed (`retention` decides). While the hub reads nothing, or its
slot stands still because the reader is quiet, the keeper copies the newest bookmark and advances the copy.

One keeper does what is due on a server: on a primary the one whose session entered the table `pgdoc.sessions` first
(only roles that may replicate can enter it). The last one to leave finds no other. See `keeper_session`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from pgdoc.database.errors import is_connection_loss, one_line
from pgdoc.errors import PgdocError, ReplicationUnavailable, ServerUnreachable, SlotBlocked, UnsupportedServer
from pgdoc.replication import slots
from pgdoc.replication.connection import quote_literal
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement
from pgdoc.streams.consistency import ConsistentCopy
from pgdoc.streams.failover import flag_bookmarks
from pgdoc.streams.keeper_session import KeeperSession
from pgdoc.streams.retention import RetentionState, plan_retention

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

logger = logging.getLogger("pgdoc.history")

_INTERVAL_S = 5.0
_NUDGE_WAIT_S = 5.0
_NUDGE_POLL_S = 0.05
_LAST_MOMENT_S = 0.5
_LEAVE_S = 1.0


def begin_history(source: Source) -> None:
    """Create the first bookmark, or log why that has to wait for the first stream; on a standby it does."""
    try:
        slots.make_first_bookmark(source.conninfo, allows_standby=source.primary is not None)
    except (ReplicationUnavailable, SlotBlocked, ServerUnreachable, UnsupportedServer) as exc:
        logger.warning("history is not kept yet: %s", one_line(exc))


class LiveSlot(Protocol):
    """What the keeper reads from a hub, on the keeper's thread."""

    @property
    def is_started(self) -> bool:
        """See `Hub`."""

    @property
    def slot(self) -> str | None:
        """See `LiveReader`."""

    @property
    def is_quiet(self) -> bool:
        """Whether that slot stands still: see `Reader`."""

    @property
    def watermark(self) -> int:
        """A new bookmark starts at this LSN."""

    def report_soon(self) -> None:
        """Report at once how far the hub has read, so that its slot releases WAL."""


class BookmarkKeeper:
    """The keeper of one hub."""

    def __init__(self, source: Source, hub: LiveSlot) -> None:
        self.thread: threading.Thread | None = None  # written under the hub's lock
        self._source = source
        self._hub = hub
        self._told: set[type[Exception]] = set()  # why history is not kept; only the thread uses it
        self._copy = ConsistentCopy()  # only the thread uses it
        self._closing = threading.Event()
        self._leave_by = float("inf")  # of `time.monotonic`; written before `_closing` is set, read after that

    def start(self) -> None:
        """Start the thread once."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="pgdoc-history", daemon=True)
            self.thread.start()

    def stop(self, by: float) -> None:
        """Let the thread end; it gives up unfinished work half a second before `by`, a time of `time.monotonic`."""
        self._leave_by = min(self._leave_by, by - _LAST_MOMENT_S)
        self._closing.set()

    def _run(self) -> None:
        session: KeeperSession | None = None
        with deadline_scope(closing=self._closing):
            while not self._closing.is_set():
                session = self._try_to_keep(session)
                self._closing.wait(_INTERVAL_S)
        soon = time.monotonic() + _LEAVE_S  # without a connection the server may be silent
        with deadline_scope(until=self._leave_by if session is not None else min(soon, self._leave_by)):
            self._leave(session)

    def _try_to_keep(self, session: KeeperSession | None) -> KeeperSession | None:
        """Do what is due and log failures; return the session while it works.

        After a failure, the next pass enters again, behind the keepers that work.
        """
        try:
            if session is None:
                session, self._copy = KeeperSession(self._source), ConsistentCopy()  # perhaps on another server
            session.follow_tables()
            self.keep(session)
        except (psycopg.Error, PgdocError) as exc:
            if not self._closing.is_set():
                self._tell(exc)
        except Exception:  # a bug must not end the thread: the next pass may succeed
            logger.exception("keeping history failed")
        else:
            if self._told:
                logger.info("history is kept again")
            self._told.clear()
            return session
        if session is not None:
            session.close()
        return None

    def _tell(self, exc: psycopg.Error | PgdocError) -> None:
        """Log why history is not kept: each reason once, until it is kept again."""
        is_away = isinstance(exc, ServerUnreachable) or (isinstance(exc, psycopg.Error) and is_connection_loss(exc))
        reason = ServerUnreachable if is_away else type(exc)
        if reason in self._told:
            logger.info("history is still not kept: %s", one_line(exc))
        else:
            logger.warning("history is not kept at the moment: %s", one_line(exc))
        self._told.add(reason)

    def keep(self, session: KeeperSession) -> None:
        """Do what is due once, unless another keeper does it."""
        if not session.keeps_history(self._hub.slot):
            return
        has_made = self._do_what_is_due(session)
        if has_made:
            has_made = self._do_what_is_due(session)  # the new bookmark may make others superfluous
        if has_made is not None and not session.on_standby:  # whose slots are not synchronized any further
            self._keep_for_standbys(session)
        if has_made is None:  # the hub has no slot at present, but another may have one
            session.enter()

    def _do_what_is_due(self, session: KeeperSession) -> bool | None:
        """Carry out the plan; return whether it created a bookmark, or `None` without a slot of the hub."""
        slot = self._hub.slot
        if slot is None and self._hub.is_started:
            return None
        if self._hub.is_quiet:
            slot = None  # it stands still: the bookmarks do without it
        connection = session.connection
        state = _fetch_state(connection, slot, self._hub.watermark)
        if state is None:
            return None
        if slot is not None and state.wal_end - state.needed_from > state.size / state.steps:
            self._advance_hub_slot(session, slot, wait_s=0)
        plan = plan_retention(slots.bookmarks(connection, lost=True), state)
        for bookmark in plan.drop:
            slots.drop_slot_if_free(connection, bookmark.name)
        if plan.make and slot is not None:
            self._copy_hub_slot(session, slot)
        elif plan.make:
            _copy_newest_bookmark(session)
        return plan.make

    def _keep_for_standbys(self, session: KeeperSession) -> None:
        """Let standbys synchronize the bookmarks, and create one that they can synchronize if they have none yet."""
        slot = None if self._hub.is_quiet else self._hub.slot
        plan = flag_bookmarks(self._source, session.connection, slot)
        has_new = plan.is_due or (plan.is_near and slot is not None and self._copy_if_it_fits(session, slot))
        if plan.is_due and slot is not None:
            self._copy_hub_slot(session, slot)
        elif plan.is_due:
            _copy_newest_bookmark(session)
        elif plan.is_late and slot is not None:
            self._advance_hub_slot(session, slot, wait_s=0)
        if has_new:
            plan = flag_bookmarks(self._source, session.connection, slot)
        if self._copy.make(session.connection, plan.inconsistent):
            flag_bookmarks(self._source, session.connection, slot)

    def _copy_hub_slot(self, session: KeeperSession, slot: str) -> None:
        self._advance_hub_slot(session, slot, wait_s=_NUDGE_WAIT_S)
        connection = session.connection
        name = slots.bookmark_name(connection)
        slots.copy_slot(connection, slot, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)

    def _copy_if_it_fits(self, session: KeeperSession, slot: str) -> bool:
        """Advance a copy of the hub's slot, and make a bookmark of it if standbys have the rows that it still needs."""
        connection = session.connection
        session.log_running_transactions()  # its error would drop the temporary slot
        copy = slots.slot_name(connection, "pgdocr")
        slots.copy_slot(connection, slot, copy, temporary=True, plugin=slots.BOOKMARK_PLUGIN)
        now = slots.flushed(connection)  # read before the name is made
        slots.advance(connection, copy, now - 1, now)
        has_made = flag_bookmarks(self._source, connection, copy).is_due
        if has_made:
            name = slots.bookmark_name(connection)
            slots.copy_slot(connection, copy, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
        slots.drop_slot_if_free(connection, copy)
        return has_made

    def _advance_hub_slot(self, session: KeeperSession, slot: str, *, wait_s: float) -> None:
        """Let the server release WAL that the hub's slot no longer needs."""
        connection = session.connection
        before = _fetch_restart_lsn(connection, slot)
        session.log_running_transactions()
        self._hub.report_soon()
        deadline = time.monotonic() + wait_s
        while (
            _fetch_restart_lsn(connection, slot) == before
            and time.monotonic() < deadline
            and not self._closing.is_set()
        ):
            self._hub.report_soon()
            self._closing.wait(_NUDGE_POLL_S)

    def _leave(self, session: KeeperSession | None) -> None:
        """Leave the others; the last hub drops all bookmarks if nothing limits the WAL that they keep."""
        try:
            with contextlib.closing(session or KeeperSession(self._source)) as leaving:
                if leaving.leave(self._hub.slot) and leaving.ask("nobody_limits"):
                    for bookmark in slots.bookmarks(leaving.connection, lost=True):
                        slots.drop_slot_if_free(leaving.connection, bookmark.name)
        except (psycopg.Error, PgdocError) as exc:
            logger.warning("the last hub could not check whether to drop its bookmarks: %s", one_line(exc))


def _copy_newest_bookmark(session: KeeperSession) -> None:
    """Copy the newest bookmark, and advance the copy to now.

    A copy that a crash left where it was keeps more than its name says, which does no harm.
    """
    connection = session.connection
    session.log_running_transactions()
    now = slots.flushed(connection)  # read before the name is made: no bookmark may be younger than its name says
    name = slots.bookmark_name(connection)
    kept = slots.bookmarks(connection)
    if not kept:
        if not session.on_standby:  # there, the next hub makes one of its own slot
            slots.create_bookmark(connection, name)
        return
    if kept[-1].confirmed > now:  # a stream or consumer that was opened meanwhile has created one
        return
    slots.copy_slot(connection, kept[-1].name, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
    slots.advance(connection, name, kept[-1].confirmed, now)
    slots.advance(connection, name, now - 1, now)  # restart_lsn moves now to the point that the first pass only noted


def _fetch_state(connection: psycopg.Connection[Any], slot: str | None, watermark: int) -> RetentionState | None:
    """Return what a plan depends on; `None` if the hub has just lost its slot.

    Without a hub slot, only the bookmarks need the WAL.
    """
    row = connection.execute(statement("replication", "situation").format(slot=quote_literal(slot or ""))).fetchone()
    if row is None or (slot is not None and row.needed_from is None):
        return None
    found = row._asdict()
    if slot is None:
        found["needed_from"] = watermark = row.wal_end
    return RetentionState(**found, watermark=watermark)


def _fetch_restart_lsn(connection: psycopg.Connection[Any], slot: str) -> str | None:
    row = connection.execute(statement("replication", "restart").format(slot=quote_literal(slot))).fetchone()
    return row[0] if row else None
