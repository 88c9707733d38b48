"""Change streams."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Self

from pgdoc._async.checkpoint import checkpoint
from pgdoc._waiting import AsyncOpening, async_call, async_wait
from pgdoc.changes.fanout import Subscription
from pgdoc.changes.life import Life, is_message, just_before, just_behind
from pgdoc.changes.selection import Selection
from pgdoc.errors import NotAConsumer, PgdocError, StreamClosed, StreamError
from pgdoc.events import ChangeEvent, check_images
from pgdoc.feed import HubFeed
from pgdoc.mailbox import AsyncMailbox
from pgdoc.streams import StreamStats, check_place, check_reach
from pgdoc.tokens import Position, ResumeToken

if TYPE_CHECKING:
    from pgdoc._async.streams import AsyncStreams
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.changes.assemble import Change, Place
    from pgdoc.consumer import Consumer
    from pgdoc.feed import Feed
    from pgdoc.mailbox import Batch
    from pgdoc.streams import StreamOptions
    from pgdoc.tokens import Lsn

__all__ = ["AsyncChangeStream"]


class AsyncChangeStream(AsyncOpening):
    """The changes of one, several or all collections, in the order in which their transactions committed.

    Made by `watch()`. Iterate over it, or call `next`; one stream belongs to one task. A lost connection is mended
    behind it. No event is dropped: a stream that is slow goes on from the server's WAL, as far as history reaches.
    """

    def __init__(self, streams: AsyncStreams, collections: frozenset[str] | None, options: StreamOptions) -> None:
        self._streams = streams
        self._collections = collections
        self._options = options
        self._selection = Selection(collections, options.where)
        self._mailbox = AsyncMailbox(options.buffer_size, options.buffer_bytes)
        resumed = options.resume_after is not None or options.consumer is not None
        self._life = Life(collections, resumed=resumed)
        self._ending: Change | None = None  # the invalidate that comes next, and last
        self._ended = False
        self._last: Place = (0, 0, 0, 0)  # of the last event, or what came after it and was not for the user
        self._last_given: Place = (0, 0, 0, 0)
        self._delivered = 0
        self._feed: Feed | None = None
        self._consumer: Consumer | None = None
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
        position = check_place(place, origin, flushed)
        check_reach(position, await self._streams.oldest())
        after = just_before(position) if is_message(position) else position  # it may be the end of the last collection
        self._follow(HubFeed(hub, hub.resume(self._selection, after, self._mailbox), position))

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
        if batch.next < len(batch) and not self.closed:
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
            while True:
                event = self._here()
                if event is not None:
                    return event
                feed = await self._fed()
                batch = await self._mailbox.take(timeout)
                self._last = max(self._last, feed.begun_at)
                if not batch and timeout is not None:
                    return None
        except StreamClosed:
            raise
        except PgdocError:
            await self.close()
            raise

    def _here(self) -> ChangeEvent | None:
        """Give the next event of those that were taken already."""
        batch = self._mailbox.batch
        while True:
            if self._ending is not None:
                event = self._end(self._ending)
            elif batch.next < len(batch) and not self.closed:
                event = self._deliver(batch)
            else:
                return None
            if event is not None:
                return event

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

    def _deliver(self, batch: Batch) -> ChangeEvent | None:
        """Give the event of the next change, or `None` for one that is not for the user.

        That is one from before the stream's beginning, or what became of a collection where the filter does not match
        it. Rows were matched before they were put.

        An interrupt comes between calls, never between plain assignments: those at the end happen with the return.
        """
        index = batch.next
        change = batch[index]
        position = change.position
        ending, after = None, index + 1
        if position[2] == 0 and position >= self._last:  # of a whole collection
            ending = self._life.follow(change)
            after = after if ending is None else len(batch)
        if position <= self._last:
            if self._consumer is not None and ending is None and position[2] == 0:
                self._consumer.acknowledge(just_behind(position))  # it did not end the stream, and was given before
            self._ending = ending
            batch.next = after
            return None
        if not change.row.complete:
            check_images(change)
        event = ChangeEvent._of(change, self._feed.ids)  # type: ignore[union-attr]  # noqa: SLF001 (not for users to make)
        if position[2] == 0 and not self._matches(event):
            self._pass_over(just_behind(position) if ending is None else position)
            self._ending = ending
            self._last = position
            batch.next = after
            return None
        self._ending = ending
        self._last = self._last_given = position
        self._delivered += 1
        batch.next = after
        return event

    def _end(self, invalidate: Change) -> ChangeEvent | None:
        """Give the last event, if the filter matches it; a consumer is left when that is acknowledged."""
        event = ChangeEvent._of(invalidate, self._feed.ids)  # type: ignore[union-attr]  # noqa: SLF001
        if not self._matches(event):
            self._pass_over(invalidate.position)
            self._ending = None
            self._ended = True
            self._last = invalidate.position
            return None
        if self._consumer is None:
            self._leave()
        self._ending = None
        self._ended = True
        self._last = self._last_given = invalidate.position
        self._delivered += 1
        return event

    def _matches(self, event: ChangeEvent) -> bool:
        where = self._options.where
        return where is None or where.matches(event)

    def _pass_over(self, place: Place) -> None:
        """Acknowledge what is not given, unless that would acknowledge something before it, too."""
        if self._consumer is not None:
            self._consumer.pass_over(self._last_given, place)

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
            consumer.acknowledge(self._behind(event))

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
        await checkpoint(tx, consumer, self._behind(event))

    def _durable(self, call: str) -> Consumer:
        if self._consumer is None:
            raise NotAConsumer(f"{call} needs a consumer: open the stream with watch(consumer=...)")
        return self._consumer

    def _behind(self, event: ChangeEvent | None) -> Place:
        """Give the place behind an event; where it might have ended the stream and did not, behind that end."""
        place: Place = self._last
        if event is not None and event.resume_token.position != self._last_given:  # else what was passed over, too
            place = event.resume_token.position
            if place > self._last:
                raise ValueError(f"{event.resume_token} was not given by this stream yet")
        ends = self._ending is not None or self._ended or self._feed is None or place <= self._feed.begun_at
        return just_behind(place) if is_message(place) and not ends else place

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
        return ResumeToken(Position(*self._reached(feed)), *feed.ids)

    def _reached(self, feed: Feed) -> Place:
        live = feed.live_place  # asked first: what is put later lies beyond it
        return max(self._last, self._mailbox.reached(live), feed.begun_at)

    def stats(self) -> StreamStats:
        """Tell how the stream is doing."""
        feed = self._feed
        if feed is None or self.closed:
            return StreamStats("closed", 0, self._delivered, 0, feed.recreated if feed else 0)
        return StreamStats(
            mode=feed.mode,
            buffered=self._mailbox.buffered,
            delivered=self._delivered,
            lag_bytes=max(0, feed.wal_end - self._reached(feed)[0]),
            recreated=feed.recreated,
        )

    @property
    def closed(self) -> bool:
        """Whether it gives no more events."""
        return self._mailbox.closed

    async def close(self) -> None:
        """End it and drop what is buffered; `resume_token` stays. Calling it again does nothing."""
        self._ending = None
        self._leave()
        if self._consumer is not None:
            await async_call(self._consumer.close)

    def _leave(self) -> None:
        if self._feed is not None:
            self._feed.leave()
        self._mailbox.close()
