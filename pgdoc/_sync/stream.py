# Written by .ci/twins.py from pgdoc/_async/stream.py: change that file, and run it.
"""Change streams."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from pgdoc._sync.checkpoint import checkpoint
from pgdoc._sync.snapshot_reader import SnapshotReader, settle
from pgdoc._sync.waiting import StreamWaiting
from pgdoc.changes.fanout import Subscription
from pgdoc.changes.snapshot import Snapshot, check_progress, first_progress
from pgdoc.consumers.declaration import unfinished_snapshot
from pgdoc.errors import NotAConsumer, PgdocError, StreamClosed, StreamError
from pgdoc.model.positions import BEFORE_ALL, resume_point
from pgdoc.model.tokens import Mark, ResumeToken, SnapshotProgress, SnapshotStage, token_at
from pgdoc.model.type_variables import M_co
from pgdoc.replication.checks import check_position
from pgdoc.runtime.primitives import Opening, call, sleep, wait
from pgdoc.streams.batch import BATCH
from pgdoc.streams.delivery import Delivery
from pgdoc.streams.feed import HubFeed
from pgdoc.streams.mailbox import Mailbox, stream_closed
from pgdoc.streams.options import check_most, check_timeout

if TYPE_CHECKING:
    from collections.abc import Generator, Callable

    from pgdoc._sync.checkpoint import OpenTransaction
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.router import Selection
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.model.positions import Lsn
    from pgdoc.streams.feed import Feed
    from pgdoc.streams.options import StreamOptions
    from pgdoc.streams.status import StreamStats

    T = TypeVar("T")

__all__ = ["ChangeStream"]

_POLL_S, _STANDBY_POLL_S = 0.001, 0.1


class ChangeStream(StreamWaiting, Opening, Generic[M_co]):
    """The changes of one, several or all collections, in the order in which their transactions committed.

    Returned by `watch()`. Iterate over it, or call `next` or `next_batch`. Only one task may read a stream.

    The stream reconnects automatically and drops no event: when it falls behind, it reads the missing events from the
    server's WAL, as far as history reaches.
    """

    def __init__(self, backend: StreamBackend, selection: Selection, options: StreamOptions) -> None:
        self._backend, self._selection, self._options = backend, selection, options
        self._mailbox = Mailbox(options.buffer_size, options.buffer_bytes)
        self._delivery = Delivery(self._mailbox, selection.vital, options)
        self._consumer: Consumer | None = None
        self._snapshot_reader: SnapshotReader | None = None  # reads for `_delivery.snapshot`
        self._acknowledges = False  # whether asking for the next event acknowledges the last

    def _open(self) -> Self:
        """Start, once; what `watch()` promises holds when this returns."""
        if self._delivery.feed is not None or self.closed:
            return self
        self._backend.count_stream(self, self._selection, self._delivery, self._options.consumer)
        start, consumer = self._options.resume_after, self._options.consumer
        try:
            self._backend.prepare_start(self._selection, self._options)
            if consumer is not None:
                self._begin_consumer()
            elif start is None:
                self._begin_now()
            else:
                self._begin_after(start)
            if consumer is None and self._options.snapshot:
                self._begin_snapshot(start.progress if isinstance(start, ResumeToken) else None, start is None)
        except BaseException as exc:
            self._end_with(exc)
            raise
        if self._mailbox.closed:  # by another task, when there was nothing to leave yet
            self.close()
        return self

    def _begin_now(self) -> None:
        """Begin with the transactions that commit at or after the present end of the WAL.

        Subscribing comes first, so that no transaction falls between the two. The end must be flushed before this
        returns: a position beyond the flushed WAL would be refused as a token, and lost in a crash.
        """
        hub = self._backend.hub
        wait(hub.start())
        feed = HubFeed(hub, hub.subscribe(self._selection, self._mailbox))
        self._follow(feed)
        inserted, flushed = self._backend.begin(feed)
        self._delivery.start_from(feed.begun_at)
        self._backend.flush(flushed, inserted)

    def _begin_after(self, start: ResumeToken | Lsn) -> None:
        hub = self._backend.hub
        wait(hub.start())
        cluster = self._backend.cluster()
        inserted, flushed = self._backend.wal_end()
        lsn = start.lsn if isinstance(start, ResumeToken) else start
        if flushed < lsn <= inserted:  # pg_current_wal_lsn() is ahead of what is flushed
            self._backend.flush(flushed, lsn)
            flushed = lsn
        position = check_position(start, cluster, flushed)
        self._backend.check_history(position)
        self._backend.check_published(position, self._selection)
        existence = self._backend.existence(position, self._selection)
        if existence is not None:
            self._delivery.resume_life(existence)
        subscription = hub.resume(self._selection, resume_point(position), self._mailbox, cluster.ids)
        self._follow(HubFeed(hub, subscription, position))

    def _begin_consumer(self) -> None:
        subscription = Subscription(self._selection, BEFORE_ALL, self._mailbox)
        consumer = self._backend.open_consumer(subscription, self._options)
        self._consumer = self._delivery.consumer = consumer
        self._acknowledges = self._options.auto_ack
        self._follow(consumer)

    def _follow(self, feed: Feed) -> None:
        self._delivery.feed = feed
        self._delivery.start_from(feed.begun_at)
        weakref.finalize(self, feed.abandon)  # for streams that are dropped without close()

    def _begin_snapshot(self, progress: SnapshotProgress | None, is_first: bool) -> None:
        """Begin the snapshot, or resume it at `progress`; do nothing for a token from after a snapshot."""
        if progress is None and not is_first:
            return
        if progress is not None:
            check_progress(progress, self._selection)
        settle(self._backend)
        if progress is None:
            names = self._selection.collections or self._backend.names(self._selection)
            progress = first_progress(names, self._selection)
        if progress.remaining:
            reader = SnapshotReader(self._backend)
            if self._snapshot_reader is not None:
                self._snapshot_reader.close()
            self._snapshot_reader = reader
            order = self._backend.order_of(progress, self._delivery.feed)
            self._delivery.begin_snapshot(Snapshot(progress, self._selection, order), reader.read_ahead)
        elif self._consumer is not None:
            self._consumer.acknowledge(Mark.at(self._consumer.begun_at, progress))

    def _begin_snapshot_of(self, consumer: Consumer) -> None:
        """Begin where a consumer stands that this stream now owns, and begin or resume its snapshot.

        `snapshots_begun` moves last, so that the snapshot stays due if this is interrupted or the server is away.
        """
        begun, stored = consumer.recreated + 1, consumer.snapshot
        self._delivery.start_from(consumer.begun_at)
        if consumer.existence is not None:
            self._delivery.resume_life(consumer.existence)
        if stored is not SnapshotStage.NONE:
            if not self._options.snapshot:
                raise unfinished_snapshot(consumer.name)
            try:
                self._begin_snapshot(None if stored is SnapshotStage.START else stored, is_first=True)
            except PgdocError as exc:
                if not exc.resumable:
                    raise
                return
        self._delivery.snapshots_begun = begun

    def __enter__(self) -> Self:
        return self._open()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChangeEvent[M_co]:
        if self._acknowledges:
            self.ack()
        delivery, mailbox = self._delivery, self._mailbox
        try:
            while True:
                event = delivery.next_row_event()
                if event is not None:
                    return event
                if not delivery.awaits_changes:
                    event = self._next(None, delivery.next_event)
                    break
                if not mailbox.refill():  # the usual wait: here, as each further coroutine costs every event
                    mailbox.arrival()
        except StreamClosed:
            event = None
        except PgdocError as exc:
            self._end_with(exc)
            raise
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout: float | None = None) -> ChangeEvent[M_co] | None:  # noqa: ASYNC109 (the contract's)
        """Return the next event, waiting for it where necessary.

        A call that is interrupted or cancelled consumes no event.

        Args:
            timeout: seconds to wait; `None` waits as long as the stream is open.

        Returns:
            The event, or `None` after `timeout`.

        Raises:
            StreamClosed: the stream was closed.
            PgdocError: the error that ended the stream. Every event before it is returned first.
        """
        if self._acknowledges and not self.closed:
            self.ack()
        event = self._delivery.next_row_event()
        return event if event is not None else self._next(timeout, self._delivery.next_event)

    def next_batch(
        self,
        max: int = BATCH,  # noqa: A002 (the name in the contract)
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[ChangeEvent[M_co]]:
        """Return the next events: the first as soon as it is there, and with it those that are buffered already.

        To acknowledge a batch, acknowledge its last event, or pass that to `checkpoint`. With `auto_ack`, the next call
        acknowledges the batch. A call that is interrupted or cancelled consumes no event.

        Args:
            max: the most events to return.
            timeout: seconds to wait for the first event; `None` waits as long as the stream is open.

        Returns:
            The events in their order; an empty list after `timeout`.

        Raises:
            InvalidInput: `max` is not a positive integer.
            StreamClosed: the stream was closed.
            PgdocError: the error that ended the stream. Every event before it is returned first.
        """
        check_most(max)
        if self._acknowledges and not self.closed:
            self.ack()
        # Not a partial: after a call in C, a KeyboardInterrupt would lose what it returned.
        return self._next(timeout, lambda: self._delivery.next_events(max), most=max) or []

    def batches(self, max: int = BATCH) -> Generator[list[ChangeEvent[M_co]]]:  # noqa: A002
        """Iterate over the events in batches, as `next_batch` returns them, until the stream ends.

        Args:
            max: the most events in one batch.

        Raises:
            InvalidInput: raised by the first step, if `max` is not a positive integer.
            PgdocError: the error that ended the stream. Every event before it is returned first.
        """
        while True:
            try:
                batch = self.next_batch(max)
            except StreamClosed:
                return
            yield batch

    def _next(
        self,
        timeout: float | None,  # noqa: ASYNC109
        deliver: Callable[[], T | None],
        *,
        most: int = BATCH,
    ) -> T | None:
        """Return what `deliver` has, waiting for changes until it has something."""
        check_timeout(timeout)
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            is_over = False
            while True:
                if self._delivery.begin_turn():
                    sleep(0)
                found = deliver()
                if found or is_over:
                    return found
                if self._delivery.feed is None or self._delivery.has_ended or self.closed:
                    self._open_feed()
                wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._delivery.has_only_changes:
                    wait_s = self._read_snapshot(wait_s)
                batch = self._mailbox.take(wait_s, max(most, BATCH))
                has_nothing = not batch or self._delivery.awaits_documents
                is_over = has_nothing and deadline is not None and time.monotonic() >= deadline
        except StreamClosed:
            raise
        except PgdocError as exc:
            self._end_with(exc)
            raise

    def _end_with(self, error: BaseException) -> None:
        self._delivery.note_error(error)
        self.close()

    def _read_snapshot(self, wait_s: float | None) -> float:
        """Read the next chunk of the snapshot if it is time for that; return how long to wait for changes.

        That is at most `wait_s`: the snapshot can go on without changes, so it must be polled.
        """
        delivery, consumer = self._delivery, self._consumer
        if consumer is not None and consumer.claim is not None and delivery.is_snapshot_due:
            self._begin_snapshot_of(consumer)
        reader, snapshot = self._snapshot_reader, delivery.snapshot
        if snapshot is not None and reader is not None and reader.read_on(snapshot, wait_s):
            return 0.0
        poll_s = _STANDBY_POLL_S if delivery.is_snapshot_due else _POLL_S
        return poll_s if wait_s is None else min(wait_s, poll_s)

    def _open_feed(self) -> None:
        """Open the stream if it is not open yet; close it after its last event."""
        if self._delivery.has_ended:
            self.close()
        self._open()
        if self._delivery.feed is None or self.closed:
            raise stream_closed()

    def try_next(self) -> ChangeEvent[M_co] | None:
        """Return the next event if it is buffered already, else `None`."""
        return self.next(timeout=0)

    def ack(self, event: ChangeEvent[Any] | None = None) -> None:
        """Acknowledge an event and all before it: the consumer resumes after it when it is opened again.

        The server learns of it within a second, and at `close`.

        Args:
            event: an event of this stream; `None` for the last one.

        Raises:
            NotAConsumer: the stream has no consumer.
            ValueError: this stream has not delivered the event.
        """
        consumer = self._durable("ack")
        if event is not None or self._delivery.delivered:
            consumer.acknowledge(self._delivery.mark_of(event))

    def checkpoint(self, event: ChangeEvent[Any], tx: OpenTransaction) -> None:
        """Record inside a transaction that the event was processed, so that its effect and the record commit together.

        From then on the stream no longer acknowledges by itself: what checkpoints have committed counts.

        Args:
            event: an event of this stream.
            tx: an open transaction of the same database, from `transaction()`.

        Raises:
            ConsumerLost: another process has taken the consumer over, or the event's checkpoint is stored already. The
                transaction must not commit; it rolls back when this error leaves its block.
            NotAConsumer: the stream has no consumer.
            ValueError: this stream has not delivered the event.
        """
        consumer = self._durable("checkpoint")
        self._acknowledges = False
        checkpoint(tx, consumer, self._delivery.mark_of(event))

    def _durable(self, call: str) -> Consumer:
        if self._consumer is None:
            raise NotAConsumer(f"{call} needs a consumer: open the stream with watch(consumer=...)")
        return self._consumer

    @property
    def resume_token(self) -> ResumeToken:
        """The position up to which everything has been delivered. It also advances without events.

        Raises:
            StreamError: an async stream is not open yet, or the stream is a standby.
        """
        feed = self._delivery.feed
        if feed is None:
            raise StreamError("the stream is not open: it, or enter it, first")
        if self._consumer is not None and self._consumer.claim is None:
            raise StreamError("the stream is a standby: it has no position until it owns its consumer")
        return token_at(self._delivery.position(feed), feed.ids, self._delivery.progress)

    def stats(self) -> StreamStats:
        """Return the stream's mode, its counts of events, and how far it lags behind the server."""
        return self._delivery.stats()

    def close(self) -> None:
        """Close the stream and drop what is buffered; `resume_token` stays. A second call does nothing."""
        self._delivery.close()
        if self._snapshot_reader is not None:
            self._snapshot_reader.close()
        if self._consumer is not None:
            call(self._consumer.close)
