"""Change streams."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Self

from pgdoc._async.checkpoint import checkpoint
from pgdoc._async.giving import AsyncGiving
from pgdoc._async.snapshot_reader import AsyncSnapshotReader, settle
from pgdoc.changes.fanout import Subscription
from pgdoc.changes.router import Selection
from pgdoc.changes.snapshot import Snapshot, check_progress, first_progress
from pgdoc.errors import InvalidResumeToken, NotAConsumer, PgdocError, StreamClosed, StreamError
from pgdoc.model.positions import Position, resume_point
from pgdoc.model.tokens import Mark, ResumeToken, SnapshotProgress, SnapshotStage
from pgdoc.replication.checks import check_position, check_reach
from pgdoc.runtime.primitives import AsyncOpening, async_call, async_wait
from pgdoc.streams.feed import HubFeed
from pgdoc.streams.status import StreamStats

if TYPE_CHECKING:
    from pgdoc._async.stream_backend import AsyncStreams
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.model.positions import Lsn
    from pgdoc.streams.feed import Feed
    from pgdoc.streams.options import StreamOptions

__all__ = ["AsyncChangeStream"]

_POLL_S = 0.005
_STANDBY_POLL_S = 0.1


class AsyncChangeStream(AsyncGiving, AsyncOpening):
    """The changes of one, several or all collections, in the order in which their transactions committed.

    Made by `watch()`. Iterate over it, or call `next`; one stream belongs to one task. A lost connection is mended
    behind it. No event is dropped: a stream that is slow goes on from the server's WAL, as far as history reaches.
    """

    def __init__(self, streams: AsyncStreams, collections: frozenset[str] | None, options: StreamOptions) -> None:
        super().__init__(collections, options)
        self._streams = streams
        self._collections = collections
        self._selection = Selection(collections, options.where)
        self._acknowledges = False

    async def _open(self) -> Self:
        """Start, once; what `watch()` promises holds when this returns."""
        if self._feed is not None or self.closed:
            return self
        place, consumer = self._options.resume_after, self._options.consumer
        try:
            resumes = place is not None or (consumer is not None and await self._streams.knows(consumer))
            await self._streams.prepare(self._collections, create=not resumes)
            if consumer is not None:
                await self._begin_consumer()
            elif place is None:
                await self._begin_now()
            else:
                await self._begin_after(place)
            if consumer is None and self._options.snapshot:
                await self._begin_snapshot(place.progress if isinstance(place, ResumeToken) else None, place is None)
        except BaseException:
            await self.close()
            raise
        return self

    async def _begin_now(self) -> None:
        """Begin with the transactions that commit at or after the WAL's present end.

        The subscription comes first, so that nothing is missed while the server is asked where that is. A place that
        is not flushed yet would be refused as a token, and lost in a crash.
        """
        hub = self._streams.hub
        await async_wait(hub.start())
        feed = HubFeed(hub, hub.subscribe(self._selection, self._mailbox))
        self._follow(feed)
        inserted, flushed = await self._streams.wal_end()
        feed.begin_at(inserted)
        await self._streams.flush(flushed, inserted)

    async def _begin_after(self, place: ResumeToken | Lsn) -> None:
        hub = self._streams.hub
        origin = await async_wait(hub.start())
        inserted, flushed = await self._streams.wal_end()
        lsn = place.lsn if isinstance(place, ResumeToken) else place
        if flushed < lsn <= inserted:  # pg_current_wal_lsn() is ahead of what is flushed
            await self._streams.flush(flushed, lsn)
            flushed = lsn
        position = check_position(place, origin, flushed)
        check_reach(position, await self._streams.oldest())
        await self._streams.check_published(position, self._collections)
        self._follow(HubFeed(hub, hub.resume(self._selection, resume_point(position), self._mailbox), position))

    async def _begin_snapshot(self, progress: SnapshotProgress | None, is_first: bool) -> None:
        """Begin with what exists, or go on where it was; behind a snapshot nothing of it is left."""
        if progress is None and not is_first:
            return
        if progress is not None:
            check_progress(progress, self._collections)
        await settle(self._streams)
        if progress is None:
            progress = first_progress(self._collections or await self._streams.names(), self._collections)
        if progress.remaining:
            self._parts = AsyncSnapshotReader(self._streams, Snapshot(progress, self._collections))
        elif self._consumer is not None:
            self._consumer.acknowledge(Mark.at(self._consumer.begun_at, progress))

    async def _go_on_as(self, consumer: Consumer) -> None:
        """Begin the snapshot of a consumer that is owned now, or go on with it; interrupted, it is still due."""
        begun, stored = consumer.recreated + 1, consumer.snapshot
        if stored is not SnapshotStage.NONE:
            if not self._options.snapshot:
                raise InvalidResumeToken(
                    f'consumer "{consumer.name}" is inside its snapshot: open it with snapshot=True'
                )
            try:
                await self._begin_snapshot(None if stored is SnapshotStage.START else stored, is_first=True)
            except PgdocError as exc:
                if not exc.resumable:
                    raise
                return  # the server is away: it is still due
        self._snapshots_begun = begun

    async def _begin_consumer(self) -> None:
        subscription = Subscription(self._selection, (0, 0, 0, 0), self._mailbox)
        self._consumer = await self._streams.open_consumer(subscription, self._options)
        self._acknowledges = self._options.auto_ack
        self._follow(self._consumer)

    def _follow(self, feed: Feed) -> None:
        self._feed = feed
        weakref.finalize(self, feed.abandon)  # for loops that are left without close()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeEvent:
        if self._acknowledges:
            self.ack()
        batch = self._mailbox.batch
        if batch.next < len(batch) and self._is_settled and not self.closed:
            event = self._deliver(batch)  # the ordinary case, without another coroutine
            if event is not None:
                return event
        try:
            event = await self.next()
        except StreamClosed:
            event = None
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self, timeout: float | None = None) -> ChangeEvent | None:  # noqa: ASYNC109 (the contract's)
        """Give the next event.

        A call that is interrupted or cancelled has taken no event.

        Args:
            timeout: seconds to wait for it; `None` waits for as long as the stream is open.

        Returns:
            The event, or `None` when the time is over.

        Raises:
            StreamClosed: the stream was closed.
            PgdocError: what ended it, after every event before it was given.
        """
        try:
            if self._acknowledges and not self.closed:
                self.ack()
            deadline = None if timeout is None else time.monotonic() + timeout
            is_over = False
            while True:
                event = self._here()
                if event is not None or is_over:
                    return event
                feed = await self._fed()
                wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._is_settled:
                    wait_s = await self._look_after_snapshot(wait_s)
                batch = await self._mailbox.take(wait_s)
                self._last = max(self._last, feed.begun_at)
                is_over = not batch and deadline is not None and time.monotonic() >= deadline
        except StreamClosed:
            raise
        except PgdocError:
            await self.close()
            raise

    async def _look_after_snapshot(self, wait_s: float | None) -> float:
        """Read on, where it is time; give how long to wait for changes, for it moves on without them, too."""
        if self._is_due and self._consumer is not None and self._consumer.epoch is not None:
            await self._go_on_as(self._consumer)
        if self._parts is not None:
            await self._parts.read_on()
        poll_s = _STANDBY_POLL_S if self._is_due else _POLL_S
        return poll_s if wait_s is None else min(wait_s, poll_s)

    async def _fed(self) -> Feed:
        """Open where that has not been done, and close what has come to its end."""
        if self._ended:
            await self.close()
        await self._open()
        if self._feed is None or self.closed:
            raise StreamClosed("the stream is closed: open another with watch(resume_after=...)")
        return self._feed

    async def try_next(self) -> ChangeEvent | None:
        """Give the next event if it is already here, else `None`."""
        return await self.next(timeout=0)

    def ack(self, event: ChangeEvent | None = None) -> None:
        """Acknowledge an event and all before it: the consumer goes on behind it when it is opened again.

        The server is told within a second, and at `close`.

        Args:
            event: one that this stream gave; `None` for the last.

        Raises:
            NotAConsumer: the stream has no consumer.
            ValueError: this stream has not given that event.
        """
        consumer = self._durable("ack")
        if event is not None or self._delivered:
            consumer.acknowledge(self._mark(event))

    async def checkpoint(self, event: ChangeEvent, tx: AsyncTransaction) -> None:
        """Store inside a transaction that the event has had its effect: both commit, or neither does.

        From then on the stream acknowledges nothing by itself: what checkpoints have committed counts.

        Args:
            event: one that this stream gave.
            tx: an open transaction of the same database.

        Raises:
            ConsumerLost: another process has taken over, or the place of the event is stored already; the transaction
                must not commit, and does not where this leaves its block.
            NotAConsumer: the stream has no consumer.
            ValueError: this stream has not given that event.
        """
        consumer = self._durable("checkpoint")
        self._acknowledges = False
        await checkpoint(tx, consumer, self._mark(event))

    def _durable(self, call: str) -> Consumer:
        if self._consumer is None:
            raise NotAConsumer(f"{call} needs a consumer: open the stream with watch(consumer=...)")
        return self._consumer

    @property
    def resume_token(self) -> ResumeToken:
        """The place up to which everything wanted has been given; it moves on without events, too.

        Raises:
            StreamError: an async stream is not open yet, or the stream is the standby of another.
        """
        feed = self._feed
        if feed is None:
            raise StreamError("the stream is not open: await it, or enter it, first")
        if self._consumer is not None and self._consumer.epoch is None:
            raise StreamError("the stream is a standby: it has no place until it owns its consumer")
        return ResumeToken(Position(*self._reached(feed)), *feed.ids, self._progress)

    def stats(self) -> StreamStats:
        """Tell how the stream is doing."""
        feed = self._feed
        if feed is None or self.closed:
            return StreamStats("closed", 0, self._delivered, 0, feed.recreated if feed else 0)
        return StreamStats(
            mode="snapshot" if self._parts is not None and feed.mode == "live" else feed.mode,
            buffered=self._mailbox.buffered,
            delivered=self._delivered,
            lag_bytes=max(0, feed.wal_end - self._reached(feed)[0]),
            recreated=feed.recreated,
        )

    async def close(self) -> None:
        """End it and drop what is buffered; `resume_token` stays. Calling it again does nothing."""
        self._ending = None
        self._leave()
        if self._consumer is not None:
            await async_call(self._consumer.close)
