"""The hub: reads the WAL and feeds all streams of a store in one process.

The hub thread reads the live end (`live_reader`) and dispatches it to the open streams (`subscriptions`). Catch-up
readers (`catchup`) feed the streams that are behind, and a fourth thread keeps bookmarks (`bookmarks`).

1. An error that a retry can't repair ends every stream and the hub thread; the next `watch()` starts another.
2. A process that ends closes its hubs. The next hub that closes removes what a killed process left on the server.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from pgdoc.errors import PgdocError, StreamError
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.faults import internal_error
from pgdoc.runtime.fork import FORKED, remember
from pgdoc.streams.bookmarks import BookmarkKeeper
from pgdoc.streams.catchup import CatchUp
from pgdoc.streams.live_reader import LiveReader
from pgdoc.streams.subscriptions import Subscriptions, store_closed

if TYPE_CHECKING:
    from pgdoc.changes.fanout import Subscription
    from pgdoc.changes.router import Selection
    from pgdoc.model.positions import Ids, RawPosition
    from pgdoc.replication.reading import Reading
    from pgdoc.replication.source import Cluster, Source
    from pgdoc.streams.mailbox import AsyncMailbox, Mailbox

logger = logging.getLogger("pgdoc.hub")

_CLOSE_S = 3.5
CLOSE_LIMIT_S = 4.0
"""`close` returns within this time, unless the garbage collector called it on a thread that holds the hub's lock."""


class Hub:
    """Reads the WAL for all streams of a store."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.subscriptions = Subscriptions()
        self._closing = threading.Event()
        self._live = LiveReader(source, self.subscriptions, self._closing)
        self._catchup = CatchUp(
            source, self.subscriptions, wake=self._live.wake, is_reconnecting=lambda: self._live.is_reconnecting
        )
        self._keeper = BookmarkKeeper(source, self)

        # Guards what follows, and that no thread starts once `_close` stops them. Taken before the lock of
        # `subscriptions`, never after it, and not held while waiting.
        self._lock = threading.Lock()
        self._started: Future[Cluster] | None = None  # not None while the hub thread runs
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        remember(self)

    def start(self) -> Future[Cluster]:
        """Start the hub thread unless it runs; the future is done when changes are being read."""
        with self._lock:
            self.check_usable()
            if self._started is None:
                self._started = Future()
                atexit.register(self.close)
                self._thread = threading.Thread(target=self._run, args=(self._started,), name="pgdoc-hub", daemon=True)
                self._thread.start()
            return self._started

    def keep_history(self) -> None:
        """Keep bookmarks, even while the hub thread does not run."""
        with self._lock:
            self.check_usable()
            atexit.register(self.close)
            self._keeper.start()

    def subscribe(self, selection: Selection, mailbox: Mailbox | AsyncMailbox) -> Subscription:
        """See `Subscriptions.subscribe`."""
        self.check_usable()
        return self.subscriptions.subscribe(selection, mailbox)

    def resume(
        self, selection: Selection, after: RawPosition, mailbox: Mailbox | AsyncMailbox, ids: Ids
    ) -> Subscription:
        """Feed `mailbox` with everything beyond `after`, a position of the cluster with these `ids`."""
        self.check_usable()
        subscription, is_live = self.subscriptions.resume(selection, after, mailbox, ids)
        if not is_live:
            self._catchup.take_over(subscription)
        return subscription

    def check_usable(self) -> None:
        """Raise `StoreClosed` if the store was closed, `StreamError` if the process forked since it was made."""
        if self._closing.is_set():
            raise store_closed()
        if os.getpid() != self._process:
            raise StreamError(FORKED)

    @property
    def plugin(self) -> str | None:
        """See `LiveReader`."""
        return self._live.plugin

    @property
    def is_started(self) -> bool:
        """Whether the hub thread reads, or is about to."""
        return self._started is not None

    @property
    def is_reconnecting(self) -> bool:
        """See `LiveReader`."""
        return self._live.is_reconnecting

    @property
    def watermark(self) -> int:
        """See `Subscriptions`."""
        return self.subscriptions.watermark

    @property
    def wal_end(self) -> int:
        """See `LiveReader`."""
        return self._live.wal_end

    @property
    def reading(self) -> Reading:
        """See `LiveReader`."""
        return self._live.reading

    @property
    def slot(self) -> str | None:
        """See `LiveReader`."""
        return self._live.slot

    @property
    def is_quiet(self) -> bool:
        """See `Reader`."""
        return self._live.is_quiet

    def ask(self) -> None:
        """See `LiveReader`."""
        self._live.ask()

    def report_soon(self) -> None:
        """See `LiveReader`."""
        self._live.report_soon()

    def close(self) -> None:
        """End every stream and thread; returns within `CLOSE_LIMIT_S`."""
        try:
            self.begin_to_close().result(CLOSE_LIMIT_S)
        except TimeoutError:
            logger.warning("the store is still closing: %s", ", ".join(thread.name for thread in self._threads()))

    def begin_to_close(self) -> Future[None]:
        """Begin to end every stream and thread; the future is done when they have ended.

        A thread of its own does the work. The garbage collector may call this on a pgdoc thread that holds the lock,
        where waiting would be a deadlock; there the returned future is done at once.
        """
        atexit.unregister(self.close)
        closed: Future[None] = Future()
        if os.getpid() != self._process:  # the threads and connections are the parent's
            closed.set_result(None)
            return closed
        closing = threading.Thread(target=self._close, args=(closed,), name="pgdoc-closing", daemon=True)
        try:
            closing.start()
        except RuntimeError:  # the interpreter is shutting down, and starts no more threads
            self._close(closed)
        if threading.current_thread().name.startswith("pgdoc-"):
            closed = Future()
            closed.set_result(None)
        return closed

    def _close(self, closed: Future[None]) -> None:
        deadline = time.monotonic() + _CLOSE_S
        self._closing.set()
        with self._lock:  # whoever is inside may still start a thread; later callers see `_closing`
            pass
        self.subscriptions.close()
        self._live.report_soon()
        self._catchup.stop()
        self._keeper.stop(deadline)
        for thread in self._threads():
            thread.join(max(0.0, deadline - time.monotonic()))
        closed.set_result(None)

    def after_fork(self) -> None:
        """Make a hub that has started no thread usable in a child process; any other stays unusable there."""
        atexit.unregister(self.close)
        self._lock = threading.Lock()  # the thread that may have held it does not exist here
        self.subscriptions.after_fork()
        if self._thread is None and self._keeper.thread is None:
            self._process = os.getpid()

    def _threads(self) -> list[threading.Thread]:
        threads = [self._thread, *self._catchup.threads, self._keeper.thread]
        return [thread for thread in threads if thread is not None and thread.is_alive()]

    def _run(self, started: Future[Cluster]) -> None:
        with deadline_scope(closing=self._closing):
            try:
                self._open()
            except BaseException as exc:  # noqa: BLE001 (the callers of `start` get it)
                error = store_closed(exc) if self._closing.is_set() else exc
                self._end(error)  # a stream that a former `start` let in may have subscribed by now
                started.set_exception(error)
                return
            started.set_result(self.subscriptions.cluster)
            try:
                self._live.run(self._catchup)
            except PgdocError as exc:
                self._end(exc)
            except Exception as exc:  # noqa: BLE001 (a bug must reach the streams, not vanish with the thread)
                self._end(internal_error("the hub failed", exc, logger))

    def _open(self) -> None:
        session = self._live.open()
        try:
            with self._lock:
                self.check_usable()
                self._live.begin(session)
                self._keeper.start()  # now, for its first pass copies the session's slot
        except BaseException:
            session.reader.close()
            raise

    def _end(self, error: BaseException) -> None:
        for subscription in self._stop():
            self.subscriptions.fail(subscription, error)

    def _stop(self) -> list[Subscription]:
        """Let the next `start` start another hub thread; return the subscriptions that end with this one."""
        with self._lock:  # as one step: `start` in between would begin a fan-out that `subscriptions.end` then ends
            self._started = None
            self._live.end()
            return self.subscriptions.end()
