"""The loop of the hub thread: reads the live end of the WAL and dispatches every burst."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from pgdoc.changes.registry import TableAdded
from pgdoc.errors import PgdocError
from pgdoc.model.positions import Lsn
from pgdoc.replication.detours import open_detour
from pgdoc.replication.reading import UNKNOWN, Reading, reading_of
from pgdoc.replication.recovery import check_same_database
from pgdoc.replication.routes import STRAIGHT, Route, UnsentChange
from pgdoc.replication.session import ReplicationSession, open_reader, read_burst
from pgdoc.replication.traffic import note_reconnect
from pgdoc.runtime.retry import Backoff
from pgdoc.streams.renewal import Renewal

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from pgdoc.replication.source import Source
    from pgdoc.streams.catchup import CatchUp
    from pgdoc.streams.subscriptions import Subscriptions

logger = logging.getLogger("pgdoc.hub")

_READ_S = 1.0
_SLOT_PREFIX = "pgdoch"


class LiveReader:
    """Reads the live end of the WAL; reconnects at the watermark after a lost connection.

    What is then read twice is dropped by position. The hub thread runs no user code and never waits for a user: a
    subscription with a full mailbox goes to a catch-up reader. A transaction that no detour gets past is left to the
    catch-up readers, which read it for each stream's own collections.

    Attributes:
        plugin: the output plugin that is read; `None` before the first session.
        is_reconnecting: whether the connection is lost.
    """

    def __init__(self, source: Source, subscriptions: Subscriptions, closing: threading.Event) -> None:
        self._source = source
        self._subscriptions = subscriptions
        self._closing = closing
        self._renewal = Renewal(source, self._purpose, _SLOT_PREFIX, subscriptions.check_cluster)
        # Used by the hub thread only: the delays between attempts, which grow until the watermark moves on.
        self._backoff, self._lost_at = Backoff(), 0
        # Written by the hub thread; any thread reads them, each of them on its own.
        self.plugin: str | None = None
        self.is_reconnecting = False
        self._session: ReplicationSession | None = None
        self._reported = 0  # the highest LSN that the server had reported when the last session was closed
        self._last_reading = UNKNOWN

    @property
    def wal_end(self) -> int:
        """The highest LSN that the server has reported; that of the last session while the connection is lost."""
        session = self._session
        return max(self._subscriptions.watermark, self._reported, session.reader.wal_end if session else 0)

    @property
    def reading(self) -> Reading:
        """How far the session has come in time; what it had come to while the connection is lost."""
        session = self._session
        return self._last_reading if session is None or self.is_reconnecting else reading_of(session)

    @property
    def slot(self) -> str | None:
        """The slot that is read; `None` before the first session and after the last."""
        session = self._session
        return session.reader.slot if session else None

    @property
    def is_quiet(self) -> bool:
        """See `Reader`."""
        session = self._session
        return session is not None and session.reader.is_quiet

    def wake(self) -> None:
        """Let the hub thread loop at once; any thread may call this, even one interrupted anywhere."""
        session = self._session
        if session is not None:
            session.reader.wake()

    def ask(self) -> None:
        """Have the hub thread ask the server at once how far its WAL goes; for any thread."""
        session = self._session
        if session is not None:
            session.reader.ask()
            session.reader.wake()

    def report_soon(self) -> None:
        """Have the hub thread report at once how far it has read."""
        session = self._session
        if session is not None:
            session.reader.report_soon()

    def open(self) -> ReplicationSession:
        """Open the first session, at the end of the WAL."""
        primary = self._source.primary
        check = None if primary is None else partial(check_same_database, primary)
        return open_reader(self._source, None, purpose=self._purpose, prefix=_SLOT_PREFIX, check=check)

    def begin(self, session: ReplicationSession) -> None:
        """Accept subscriptions, and feed them from this session's start."""
        self._subscriptions.begin(session.cluster, session.assembler.watermark)
        self._reported = 0
        self.plugin = session.slot_start.plugin
        self.is_reconnecting = False
        self._session = session

    def run(self, catchup: CatchUp) -> None:
        """Read until the store is closed; reconnect after each lost connection.

        Raises:
            PgdocError: reconnecting can't repair it, and every stream ends.
        """
        while self._session is not None:
            next_session = partial(self._open_next, self._open_at_watermark)
            try:
                self._read(self._session, catchup)  # may replace the session
            except UnsentChange as exc:
                next_session = partial(self._open_next, partial(self._go_around, self._session, exc, catchup))
            except TableAdded as exc:
                logger.info("reading again from %s: %s", Lsn(self._subscriptions.watermark), exc)
            except PgdocError as exc:
                if not exc.resumable:
                    raise
                logger.warning("reconnecting at %s: %s", Lsn(self._subscriptions.watermark), exc)
                next_session = partial(self._reopen, self._open_at_watermark)
            finally:
                self._reported, self._last_reading = self.wal_end, self._remembered(self._session)
                self._session.reader.close()
            self._session = None if self._closing.is_set() else next_session()

    @staticmethod
    def _remembered(session: ReplicationSession) -> Reading:
        """Return what is still known of a session that ends: not when it last had nothing to read."""
        return reading_of(session)._replace(waited_at=None)

    def end(self) -> None:
        """Forget the session that `run` has closed."""
        self._session = None

    def _read(self, session: ReplicationSession, catchup: CatchUp) -> None:
        while not self._closing.is_set() and not session.is_used_up:
            burst, has_frames = read_burst(session, _READ_S)
            self._subscriptions.forget_abandoned()
            catchup.queue_requests()
            if not has_frames:
                continue
            if burst.changes or burst.watermark != self._subscriptions.watermark:
                # Else only a part of a transaction came, of which nothing is to be delivered yet: the server sends a
                # short transaction in three steps. A stream that opens now still gets all of it.
                for subscription in self._subscriptions.dispatch(burst):
                    catchup.take_over(subscription)
                session.reader.confirm(burst.watermark)
            if session.route is STRAIGHT:  # a detour ends soon
                session = self._renew(session, burst.watermark)

    def _renew(self, session: ReplicationSession, watermark: int) -> ReplicationSession:
        renewed = self._renewal.renew_if_due(session, watermark)
        if renewed is not session:
            self._subscriptions.move_to(renewed.cluster)
            self._session = renewed
        return renewed

    def _go_around(self, session: ReplicationSession, unsent: UnsentChange, catchup: CatchUp) -> ReplicationSession:
        """Open a detour; if there is none, leave the transaction to the catch-up readers, and go on after it."""
        try:
            return open_detour(self._open_at_watermark, session, unsent)
        except UnsentChange:
            logger.warning("%s: each stream reads it for its own collections", unsent)
            for subscription in self._subscriptions.pass_over(unsent.until):
                catchup.take_over(subscription)
        return self._open_at_watermark()

    def _open_next(self, open_session: Callable[[], ReplicationSession]) -> ReplicationSession | None:
        """Open the session that follows one that has done its part."""
        try:
            return open_session()
        except PgdocError as exc:
            if not exc.resumable:
                raise
            logger.warning("reconnecting at %s: %s", Lsn(self._subscriptions.watermark), exc)
        return self._reopen(open_session)

    def _reopen(self, open_session: Callable[[], ReplicationSession]) -> ReplicationSession | None:
        """Reconnect at the watermark, retrying until the store is closed; then return `None`."""
        self.is_reconnecting = True
        note_reconnect(self._source, "live")
        if self._subscriptions.watermark > self._lost_at:  # else it is stuck at the same place
            self._backoff.reset()
        self._lost_at = self._subscriptions.watermark
        while self._backoff.wait(self._closing):
            try:
                session = open_session()
            except PgdocError as exc:
                if not exc.resumable:
                    raise
                logger.info("not reconnected yet: %s", exc)
                continue
            self.is_reconnecting = False
            logger.info("connected again, and goes on")
            return session
        return None

    def _open_at_watermark(self, route: Route = STRAIGHT) -> ReplicationSession:
        session = open_reader(
            self._source,
            self._subscriptions.watermark,
            purpose=self._purpose,
            prefix=_SLOT_PREFIX,
            check=self._subscriptions.check_cluster,
            route=route,
        )
        if session.cluster.ids != self._subscriptions.ids:  # another timeline: what was reported may not be part of it
            self._reported = 0
        self._subscriptions.move_to(session.cluster)
        if route is STRAIGHT:  # else it is the plugin of a detour
            self.plugin = session.slot_start.plugin
        return session

    @property
    def _purpose(self) -> str:
        return f"hub {self._source.schema}"
