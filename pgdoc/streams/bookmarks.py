"""The bookmark keeper: a thread that keeps the history from which streams can resume without a slot of their own.

A bookmark is a permanent logical slot that nobody streams from. The keeper periodically copies the hub's slot into a
new bookmark, and drops bookmarks that are no longer needed (`retention` decides). While the hub reads nothing, or its
slot stands still because the reader is quiet, the keeper copies the newest bookmark and advances the copy.

The table `pgdoc.sessions` coordinates the keepers: only roles that may replicate can enter it. The keeper whose session
entered first does what is due. The last one to leave finds no other.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from pgdoc.database.errors import one_line
from pgdoc.errors import PgdocError, ReplicationUnavailable, ServerUnreachable, SlotBlocked, UnsupportedServer
from pgdoc.replication import slots
from pgdoc.replication.connection import connect, quote_literal
from pgdoc.replication.registry import follow_tables
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement
from pgdoc.streams.failover import flag_bookmarks
from pgdoc.streams.retention import RetentionState, plan_retention

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

logger = logging.getLogger("pgdoc.history")

_INTERVAL_S = 5.0
_SILENT_FOR_S = 60  # the server ends a keeper's session that is idle for longer, so that another one keeps history
_NUDGE_WAIT_S = 5.0
_NUDGE_POLL_S = 0.05
_LAST_MOMENT_S = 0.5
_LEAVE_S = 1.0


def begin_history(conninfo: str) -> None:
    """Create the first bookmark, or log why that has to wait for the first stream."""
    try:
        slots.make_first_bookmark(conninfo)
    except (ReplicationUnavailable, SlotBlocked, ServerUnreachable, UnsupportedServer) as exc:
        logger.warning("history is not kept yet: %s", _one_line(exc))


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
        connection: psycopg.Connection[Any] | None = None
        with deadline_scope(closing=self._closing):
            while not self._closing.is_set():
                connection = self._try_to_keep(connection)
                self._closing.wait(_INTERVAL_S)
        soon = time.monotonic() + _LEAVE_S  # without a connection the server may be silent
        with deadline_scope(until=self._leave_by if connection is not None else min(soon, self._leave_by)):
            self._leave(connection)

    def _try_to_keep(self, connection: psycopg.Connection[Any] | None) -> psycopg.Connection[Any] | None:
        """Do what is due and log failures; return the connection while it works.

        After a failure, the next pass enters again, behind the keepers that work.
        """
        try:
            connection = connection or self._connect()
            follow_tables(connection)
            self.keep(connection)
        except (psycopg.Error, PgdocError) as exc:
            if not self._closing.is_set():
                logger.warning("history is not kept at the moment: %s", _one_line(exc))
        except Exception:  # a bug must not end the thread: the next pass may succeed
            logger.exception("history is not kept at the moment")
        else:
            return connection
        if connection is not None:
            connection.close()
        return None

    def _connect(self) -> psycopg.Connection[Any]:
        purpose = f"bookmarks {self._source.schema}"
        connection = connect(self._source.conninfo, replication=False, purpose=purpose)
        try:
            connection.execute(f"SET idle_session_timeout = '{_SILENT_FOR_S}s'")
            connection.execute(statement("replication", "enter_hub"))
        except BaseException:
            connection.close()
            raise
        return connection

    def keep(self, connection: psycopg.Connection[Any]) -> None:
        """Do what is due once, unless another keeper does it."""
        if not _ask(connection, "keeps_history"):
            return
        has_made = self._do_what_is_due(connection)
        if has_made:
            has_made = self._do_what_is_due(connection)  # the new bookmark may make others superfluous
        if has_made is not None:
            self._keep_for_standbys(connection)
        if has_made is None:  # the hub has no slot at present, but another may have one
            connection.execute(statement("replication", "enter_hub"))

    def _do_what_is_due(self, connection: psycopg.Connection[Any]) -> bool | None:
        """Carry out the plan; return whether it created a bookmark, or `None` without a slot of the hub."""
        slot = self._hub.slot
        if slot is None and self._hub.is_started:
            return None
        if self._hub.is_quiet:
            slot = None  # it stands still: the bookmarks do without it
        state = _fetch_state(connection, slot, self._hub.watermark)
        if state is None:
            return None
        if slot is not None and state.wal_end - state.needed_from > state.size / state.steps:
            self._advance_hub_slot(connection, slot, wait_s=0)
        plan = plan_retention(slots.bookmarks(connection, lost=True), state)
        for bookmark in plan.drop:
            drop_bookmark(connection, bookmark.name)
        if plan.make and slot is not None:
            self._copy_hub_slot(connection, slot)
        elif plan.make:
            _copy_newest_bookmark(connection)
        return plan.make

    def _keep_for_standbys(self, connection: psycopg.Connection[Any]) -> None:
        """Let standbys synchronize the bookmarks, and create one that they can synchronize if they have none yet."""
        slot = None if self._hub.is_quiet else self._hub.slot
        plan = flag_bookmarks(self._source, connection, slot)
        if plan.is_late and slot is not None:
            self._advance_hub_slot(connection, slot, wait_s=0)
        if not plan.is_due:
            return
        if slot is not None:
            self._copy_hub_slot(connection, slot)
        else:
            _copy_newest_bookmark(connection)
        flag_bookmarks(self._source, connection, slot)

    def _copy_hub_slot(self, connection: psycopg.Connection[Any], slot: str) -> None:
        self._advance_hub_slot(connection, slot, wait_s=_NUDGE_WAIT_S)
        name = slots.bookmark_name(connection)
        slots.copy_slot(connection, slot, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)

    def _advance_hub_slot(self, connection: psycopg.Connection[Any], slot: str, *, wait_s: float) -> None:
        """Let the server release WAL that the hub's slot no longer needs."""
        before = _fetch_restart_lsn(connection, slot)
        _log_running_transactions(connection)
        self._hub.report_soon()
        deadline = time.monotonic() + wait_s
        while (
            _fetch_restart_lsn(connection, slot) == before
            and time.monotonic() < deadline
            and not self._closing.is_set()
        ):
            self._hub.report_soon()
            self._closing.wait(_NUDGE_POLL_S)

    def _leave(self, connection: psycopg.Connection[Any] | None) -> None:
        """Leave the table; the last hub drops all bookmarks if nothing limits the WAL that they keep."""
        try:
            with connection or self._connect() as leaving:
                leaving.execute(statement("replication", "leave_hub"))
                if _ask(leaving, "nobody_limits") and _ask(leaving, "keeps_history"):
                    for bookmark in slots.bookmarks(leaving, lost=True):
                        drop_bookmark(leaving, bookmark.name)
        except (psycopg.Error, PgdocError) as exc:
            logger.warning("the last hub could not check whether to drop its bookmarks: %s", _one_line(exc))


def _copy_newest_bookmark(connection: psycopg.Connection[Any]) -> None:
    """Copy the newest bookmark, and advance the copy to now.

    A copy that a crash left where it was keeps more than its name says, which does no harm.
    """
    _log_running_transactions(connection)
    now = slots.flushed(connection)  # read before the name is made: no bookmark may be younger than its name says
    name = slots.bookmark_name(connection)
    kept = slots.bookmarks(connection)
    if not kept:
        slots.create_bookmark(connection, name)
        return
    if kept[-1].confirmed > now:  # a stream or consumer that was opened meanwhile has created one
        return
    slots.copy_slot(connection, kept[-1].name, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
    slots.advance(connection, name, kept[-1].confirmed, now)
    slots.advance(connection, name, now - 1, now)  # restart_lsn moves now to the point that the first pass only noted


def drop_bookmark(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a slot, unless it is gone or in use."""
    try:
        connection.execute(f"SELECT pg_catalog.pg_drop_replication_slot({quote_literal(name)})")
    except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectInUse) as exc:
        logger.info("bookmark not dropped: %s", _one_line(exc))


def _one_line(exc: Exception) -> str:
    return one_line(exc) if isinstance(exc, psycopg.Error) else " ".join(str(exc).split())


def _ask(connection: psycopg.Connection[Any], question: str) -> bool:
    row = connection.execute(statement("replication", question)).fetchone()
    return bool(row and row[0])


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


def _log_running_transactions(connection: psycopg.Connection[Any]) -> None:
    """Make the server log its running transactions: without that record, no slot's restart_lsn moves.

    Creating a slot writes one first, even if it then times out waiting for other transactions.
    """
    name = slots.slot_name(connection, "pgdocr")
    connection.execute("SET lock_timeout = '20ms'")
    try:
        connection.execute(
            f"SELECT pg_catalog.pg_create_logical_replication_slot({quote_literal(name)},"
            f" {quote_literal(slots.BOOKMARK_PLUGIN)}, true)"
        )
        drop_bookmark(connection, name)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.ConfigurationLimitExceeded):
        return
    finally:
        connection.execute("SET lock_timeout = 0")
