"""The hub: the one thread of a store that reads changes as they are committed, for all of the store's streams.

Its way through the house: `replication` gives frames, `decoding` records, `changes.assemble` changes in their places,
`changes.fanout` puts them into the mailboxes. Rules:

1. Nothing a user writes runs on this thread, and it never waits for a user: a mailbox that is full sends its
   subscription to `catchup`, which reads on from the WAL.
2. The fan-out belongs to whoever holds `_lock`; it is held for one burst at a time, and never while waiting.
3. A lost connection is opened again at the fan-out's R. What is then read twice is dropped by position.
4. A process that ends closes its hubs; what a killed one leaves, the next one that closes takes away.
5. Errors that a retry can't mend end every stream, and the hub with them; the next `watch()` starts another.
"""

from __future__ import annotations

import atexit
import copy
import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

from pgdoc.changes import events
from pgdoc.changes.fanout import Fanout, State, Subscription
from pgdoc.errors import InvalidResumeToken, PgdocError, StoreClosed, StreamError
from pgdoc.model.positions import before_commits_at
from pgdoc.replication.session import ReplicationSession, open_reader, read_burst
from pgdoc.replication.source import Cluster, Source
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.faults import internal_error
from pgdoc.runtime.fork import FORKED, remember
from pgdoc.runtime.retry import Backoff
from pgdoc.streams.bookmarks import BookmarkKeeper
from pgdoc.streams.catchup import CatchUp

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.router import Selection
    from pgdoc.model.positions import RawPosition
    from pgdoc.streams.mailbox import AsyncMailbox, Mailbox

logger = logging.getLogger("pgdoc.hub")

_READ_S = 1.0
_CLOSE_S = 3.5
CLOSE_LIMIT_S = 4.0
"""Within which a hub is closed; only what holds the lock itself, and was interrupted by the collector, waits longer."""
_NEAR_BYTES = 1 << 20
"""How far behind the hub a catch-up reader may be when it begins to hand a subscription over."""


class Hub:
    """Reads the live end of the WAL and feeds subscriptions.

    Args:
        source: what to read.

    Attributes:
        origin: the cluster that is read.
        ids: its system identifier and timeline, which every token carries.
        plugin: the output plugin that is read; `None` before anything was.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.origin = Cluster(0, 0)
        self.ids = (0, 0)
        self.plugin: str | None = None
        self._lock = threading.Lock()
        self._started: Future[Cluster] | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._reconnecting = False
        self._opened: ReplicationSession | None = None
        self._fanout = Fanout(0, self.view)
        self._subscriptions: set[Subscription] = set()
        self._abandoned: deque[Subscription] = deque()
        self._with_room: deque[Subscription] = deque()
        self._catchup = CatchUp(self)
        self._keeper = BookmarkKeeper(self)
        self._process = os.getpid()
        remember(self)

    def start(self) -> Future[Cluster]:
        """Start reading, where that has not been done; the result comes when changes are being read."""
        with self._lock:
            self.check_usable()
            if self._started is None:
                self._started = Future()
                atexit.register(self.close)
                self._thread = threading.Thread(target=self._run, args=(self._started,), name="pgdoc-hub", daemon=True)
                self._thread.start()
            return self._started

    def keep_history(self) -> None:
        """Keep the history of the database, also while nothing is read here; fine where that is done."""
        with self._lock:
            self.check_usable()
            atexit.register(self.close)
            self._keeper.start()

    def subscribe(self, selection: Selection, mailbox: Mailbox | AsyncMailbox) -> Subscription:
        """Feed `mailbox` from now on; `begin_at` then says where exactly."""
        with self._lock:
            self._check_running()
            subscription = Subscription(selection, (0, 0, 0, 0), mailbox)
            self._subscriptions.add(subscription)
            self._fanout.add(subscription)
            return subscription

    def begin_at(self, subscription: Subscription, lsn: int) -> None:
        """Let a new subscription begin with the first transaction that commits at or after `lsn`."""
        place = before_commits_at(lsn)
        with self._lock:
            subscription.after = max(subscription.after, place)
            subscription.mailbox.begin_at(place)

    def resume(self, selection: Selection, after: RawPosition, mailbox: Mailbox | AsyncMailbox) -> Subscription:
        """Feed `mailbox` with everything beyond `after`."""
        with self._lock:
            self._check_running()
            subscription = Subscription(selection, after, mailbox)
            self._subscriptions.add(subscription)
            mailbox.begin_at(after)
            if self._fanout.joinable_from <= after[0]:
                self._fanout.add(subscription)
                return subscription
        self._catchup.take_over(subscription)
        return subscription

    def join(self, subscription: Subscription, reader_reached: int) -> bool:
        """Take a subscription over from a catch-up reader, if it is time; give whether the reader is rid of it."""
        with self._lock:
            if subscription not in self._subscriptions:
                return True
            if subscription.state is State.DETACHED and reader_reached + _NEAR_BYTES < self._fanout.watermark:
                return False
            return self._fanout.join(subscription, reader_reached)

    def knows(self, subscription: Subscription) -> bool:
        """Tell whether its stream is still open."""
        with self._lock:
            return subscription in self._subscriptions

    def leave(self, subscription: Subscription) -> None:
        """Stop laying aside for a subscription whose catch-up reader is gone."""
        with self._lock:
            self._fanout.detach(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription and drop what its mailbox holds."""
        with self._lock:
            self._forget(subscription)
        subscription.mailbox.close()

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        self._fanout.forget(subscription)

    def abandon(self, subscription: Subscription) -> None:
        """Let the hub forget a subscription soon; for the garbage collector, which may run in the midst of any lock."""
        self._abandoned.append(subscription)

    def has_room(self, subscription: Subscription) -> None:
        """Have a subscription that is AWAY fed soon; for the user's thread, which may be interrupted anywhere."""
        self._with_room.append(subscription)
        opened = self._opened
        if opened is not None:
            opened.reader.wake()

    def fail(self, subscription: Subscription, error: BaseException) -> None:
        """End one stream with an error, after what was put before."""
        with self._lock:
            self._forget(subscription)
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        subscription.mailbox.fail(own)

    def view(self, change: Change) -> ChangeEvent:
        """Make the view of a change that filters are asked of; no user ever has it."""
        return events.from_change(change, self.ids)

    @property
    def is_started(self) -> bool:
        """Whether it reads, or is about to."""
        return self._started is not None

    @property
    def is_reconnecting(self) -> bool:
        """Whether its connection was lost, and there is no other yet."""
        return self._reconnecting

    @property
    def reached(self) -> int:
        """R: every transaction with a commit LSN below it is out."""
        return self._fanout.watermark

    @property
    def dispatched(self) -> RawPosition:
        """Up to where every subscription that is LIVE was given all that it wants."""
        return self._fanout.dispatched

    @property
    def wal_end(self) -> int:
        """The highest LSN heard of."""
        opened = self._opened
        return max(self._fanout.watermark, opened.reader.wal_end if opened else 0)

    @property
    def slot(self) -> str | None:
        """The slot that is read at present."""
        opened = self._opened
        return opened.reader.slot if opened else None

    def report_soon(self) -> None:
        """Let the server know at once how far the hub has come."""
        opened = self._opened
        if opened is not None:
            opened.reader.report_soon()

    def close(self) -> None:
        """End every stream and thread; returns within a few seconds, whatever the state."""
        try:
            self.begin_to_close().result(CLOSE_LIMIT_S)
        except TimeoutError:
            logger.warning("the store is still closing: %s", ", ".join(thread.name for thread in self._threads()))

    def begin_to_close(self) -> Future[None]:
        """Begin to end every stream and thread; the result comes when that is done.

        A thread does it. So `close` can be called where the garbage collector interrupted a thread of the library that
        holds the lock: it is not waited for there.
        """
        atexit.unregister(self.close)
        closed: Future[None] = Future()
        if os.getpid() != self._process:  # the threads and connections are the parent's
            closed.set_result(None)
            return closed
        closing = threading.Thread(target=self._close, args=(closed,), name="pgdoc-closing", daemon=True)
        try:
            closing.start()
        except RuntimeError:  # the interpreter ends, and makes no threads any more
            self._close(closed)
        if threading.current_thread().name.startswith("pgdoc-"):
            closed = Future()
            closed.set_result(None)
        return closed

    def _close(self, closed: Future[None]) -> None:
        deadline = time.monotonic() + _CLOSE_S
        self._closing.set()
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            self.unsubscribe(subscription)
        self.report_soon()
        self._catchup.stop()
        self._keeper.stop(deadline)
        for thread in self._threads():
            thread.join(max(0.0, deadline - time.monotonic()))
        closed.set_result(None)

    def after_fork(self) -> None:
        """In a child: a hub that did nothing yet is the child's own."""
        atexit.unregister(self.close)
        self._lock = threading.Lock()  # whoever held it does not exist here
        if self._thread is None and self._keeper.thread is None:
            self._process = os.getpid()

    def _threads(self) -> list[threading.Thread]:
        threads = [self._thread, *self._catchup.threads, self._keeper.thread]
        return [thread for thread in threads if thread is not None and thread.is_alive()]

    def check_usable(self) -> None:
        """Refuse to open a stream in a store that was closed, or forked.

        Raises:
            StoreClosed, StreamError: it was.
        """
        if self._closing.is_set():
            raise _closed()
        if os.getpid() != self._process:
            raise StreamError(FORKED)

    def _check_running(self) -> None:
        self.check_usable()
        if self._started is None or not self._started.done():
            raise StreamError("the reader of all streams ended while this one was opened: open it again")

    def _run(self, started: Future[Cluster]) -> None:
        with deadline_scope(closing=self._closing):
            self._start(started)

    def _start(self, started: Future[Cluster]) -> None:
        try:
            self._open()
        except BaseException as exc:  # noqa: BLE001 (whoever waits for the start gets it)
            with self._lock:
                self._started = self._opened = None
            started.set_exception(_closed(exc) if self._closing.is_set() else exc)
            return
        started.set_result(self.origin)
        try:
            self._read_until_closed()
        except PgdocError as exc:
            self._end(exc)
        except Exception as exc:  # noqa: BLE001 (a bug must reach the streams, not vanish with the thread)
            self._end(internal_error("the hub failed", exc, logger))

    def _open(self) -> None:
        opened = open_reader(self.source, None, purpose=f"hub {self.source.schema}", prefix="pgdoch")
        try:
            with self._lock:
                self.check_usable()
                self._adopt(opened)
                self._fanout = Fanout(opened.assembler.watermark, self.view)
                self._reconnecting = False
                self._opened = opened
                self._keeper.start()
        except BaseException:
            opened.reader.close()
            raise

    def _read_until_closed(self) -> None:
        while self._opened is not None:
            try:
                self._pump(self._opened)
            except PgdocError as exc:
                if not exc.resumable:
                    raise
                logger.warning("reconnecting at %X: %s", self._fanout.watermark, exc)
            finally:
                self._opened.reader.close()
            self._opened = None if self._closing.is_set() else self._reopen()

    def _pump(self, opened: ReplicationSession) -> None:
        while not self._closing.is_set():
            burst, has_frames = read_burst(opened, _READ_S)
            while self._abandoned:
                self.unsubscribe(self._abandoned.popleft())
            while self._with_room:
                self._catchup.queue(self._with_room.popleft())
            if not has_frames:
                continue
            with self._lock:
                sent_away = self._fanout.dispatch(burst)
            opened.reader.confirm(burst.watermark)
            for subscription in sent_away:
                self._catchup.take_over(subscription)

    def _reopen(self) -> ReplicationSession | None:
        self._reconnecting = True
        backoff = Backoff()
        while backoff.wait(self._closing):
            try:
                opened = open_reader(
                    self.source,
                    self._fanout.watermark,
                    purpose=f"hub {self.source.schema}",
                    prefix="pgdoch",
                    check=self.check_origin,
                )
            except PgdocError as exc:
                if not exc.resumable:
                    raise
                logger.info("not yet: %s", exc)
                continue
            self._part_ways(opened.cluster)
            with self._lock:
                self._fanout.restart()
                self._adopt(opened)
            self._reconnecting = False
            return opened
        return None

    def check_origin(self, origin: Cluster) -> None:
        """Refuse to go on at a server whose history does not hold all that was given to streams."""
        origin.check(before_commits_at(self._fanout.joinable_from), self.origin.system_id, self.origin.timeline)

    def _adopt(self, opened: ReplicationSession) -> None:
        self.origin, self.plugin = opened.cluster, opened.slot_start.plugin
        self.ids = (opened.cluster.system_id, opened.cluster.timeline)

    def _part_ways(self, origin: Cluster) -> None:
        """End the streams that were further than the hub, and further than the history of this server."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            try:
                origin.check(subscription.after, self.origin.system_id, self.origin.timeline)
            except InvalidResumeToken as exc:
                self.fail(subscription, exc)

    def _end(self, error: PgdocError) -> None:
        with self._lock:
            self._started = None
            self._opened = None
            subscriptions = list(self._subscriptions)
            for subscription in subscriptions:  # now: another `start` may make another fan-out, which is further
                self._forget(subscription)
        for subscription in subscriptions:
            self.fail(subscription, error)


def _closed(cause: BaseException | None = None) -> StoreClosed:
    error = StoreClosed("the store is closed: make another to open a stream")
    error.__cause__ = cause
    return error
