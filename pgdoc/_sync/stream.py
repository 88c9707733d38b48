# Written by .ci/twins.py from pgdoc/_async/stream.py: change that file, and run it.
"""Change streams."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Self

from pgdoc._waiting import Opening, wait
from pgdoc.changes.life import Life, is_message, just_before
from pgdoc.errors import PgdocError, StreamClosed, StreamError
from pgdoc.events import ChangeEvent, check_images
from pgdoc.mailbox import Mailbox
from pgdoc.streams import StreamStats, check_buffer, check_place, check_reach, read_token
from pgdoc.tokens import Lsn, Position, ResumeToken

if TYPE_CHECKING:
    from pgdoc._sync.streams import Streams
    from pgdoc.changes.assemble import Change, Place
    from pgdoc.changes.fanout import Subscription
    from pgdoc.mailbox import Batch
    from pgdoc.replication.slots import Origin

__all__ = ["ChangeStream"]


class ChangeStream(Opening):
    """The changes of one, several or all collections, in the order in which their transactions committed.

    Made by `watch()`. Iterate over it, or call `next`; one stream belongs to one task. A lost connection is mended
    behind it. No event is dropped: a stream that is slow goes on from the server's WAL, as far as history reaches.
    """

    def __init__(
        self,
        streams: Streams,
        collections: frozenset[str] | None,
        *,
        resume_after: ResumeToken | Lsn | str | None,
        buffer_size: int,
        buffer_bytes: int,
    ) -> None:
        check_buffer(buffer_size, buffer_bytes)
        self._streams = streams
        self._collections = collections
        self._resume_after = None if resume_after is None else read_token(resume_after)
        self._mailbox = Mailbox(buffer_size, buffer_bytes)
        self._life = Life(collections, resumed=self._resume_after is not None)
        self._ending: Change | None = None  # the invalidate that comes next, and last
        self._last: Place = (0, 0, 0, 0)
        self._delivered = 0
        self._subscription: Subscription | None = None

    def _open(self) -> Self:
        """Start, once; what `watch()` promises holds when this returns."""
        if self._subscription is not None or self.closed:
            return self
        try:
            self._streams.prepare(self._collections, create=self._resume_after is None)
            origin = wait(self._streams.hub.start())
            if self._resume_after is None:
                self._begin_now()
            else:
                self._begin_after(origin, self._resume_after)
        except BaseException:
            self.close()
            raise
        return self

    def _begin_now(self) -> None:
        """Begin with the transactions that commit at or after the WAL's present end.

        The subscription comes first, so that nothing is missed while the server is asked where that is. A place that
        is not flushed yet would be refused as a token, and lost in a crash.
        """
        subscription = self._streams.hub.subscribe(self._collections, self._mailbox)
        self._follow(subscription)
        inserted, flushed = self._streams.wal_end()
        self._streams.hub.begin_at(subscription, inserted)
        self._last = (inserted, 0, 0, 0)
        self._streams.flush(flushed, inserted)

    def _begin_after(self, origin: Origin, place: ResumeToken | Lsn) -> None:
        inserted, flushed = self._streams.wal_end()
        lsn = place.lsn if isinstance(place, ResumeToken) else place
        if flushed < lsn <= inserted:  # pg_current_wal_lsn() is ahead of what is flushed
            self._streams.flush(flushed, lsn)
            flushed = lsn
        position = check_place(place, origin, flushed)
        check_reach(position, self._streams.oldest())
        self._last = position
        after = just_before(position) if is_message(position) else position  # it may be the end of the last collection
        self._follow(self._streams.hub.resume(self._collections, after, self._mailbox))

    def _follow(self, subscription: Subscription) -> None:
        self._subscription = subscription
        weakref.finalize(self, self._streams.hub.abandon, subscription)  # for loops that are left without close()

    def __enter__(self) -> Self:
        return self._open()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChangeEvent:
        batch = self._mailbox.batch
        if batch.next < len(batch) and not self.closed:
            event = self._deliver(batch)  # the ordinary case, without another coroutine
            if event is not None:
                return event
        try:
            event = self.next()
        except StreamClosed:
            event = None
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout: float | None = None) -> ChangeEvent | None:  # noqa: ASYNC109 (the contract's)
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
            while True:
                if self._ending is not None:
                    return self._end(self._ending)
                batch = self._mailbox.batch
                if batch.next == len(batch) or self.closed:
                    self._open()
                    batch = self._mailbox.take(timeout)
                    if not batch and timeout is not None:
                        return None
                while batch.next < len(batch):
                    event = self._deliver(batch)
                    if event is not None:
                        return event
        except StreamClosed:
            raise
        except PgdocError:
            self.close()
            raise

    def try_next(self) -> ChangeEvent | None:
        """Give the next event if it is already here, else `None`."""
        return self.next(timeout=0)

    def _deliver(self, batch: Batch) -> ChangeEvent | None:
        """Give the event of the next change, or `None` for one that came before the stream's beginning.

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
            self._ending = ending
            batch.next = after
            return None
        if not change.row.complete:
            check_images(change)
        event = ChangeEvent._of(change, self._streams.hub.ids)  # noqa: SLF001 (not for users to make)
        self._ending = ending
        self._last = position
        self._delivered += 1
        batch.next = after
        return event

    def _end(self, invalidate: Change) -> ChangeEvent:
        """Give the last event, and leave the hub."""
        event = ChangeEvent._of(invalidate, self._streams.hub.ids)  # noqa: SLF001
        self._leave()
        self._ending = None
        self._last = invalidate.position
        self._delivered += 1
        return event

    @property
    def resume_token(self) -> ResumeToken:
        """The place up to which everything wanted has been given; it moves on without events, too.

        Raises:
            StreamError: an async stream is not open yet.
        """
        if self._subscription is None:
            raise StreamError("the stream is not open: it, or enter it, first")
        return ResumeToken(Position(*max(self._last, self._mailbox.reached)), *self._streams.hub.ids)

    def stats(self) -> StreamStats:
        """Tell how the stream is doing."""
        if self._subscription is None or self.closed:
            return StreamStats("closed", 0, self._delivered, 0)
        hub = self._streams.hub
        return StreamStats(
            mode=hub.mode(self._subscription),
            buffered=self._mailbox.buffered,
            delivered=self._delivered,
            lag_bytes=max(0, hub.wal_end - self.resume_token.lsn),
        )

    @property
    def closed(self) -> bool:
        """Whether it gives no more events."""
        return self._mailbox.closed

    def close(self) -> None:
        """End it and drop what is buffered; `resume_token` stays. Calling it again does nothing."""
        self._ending = None
        self._leave()

    def _leave(self) -> None:
        if self._subscription is not None:
            self._streams.hub.unsubscribe(self._subscription)
        self._mailbox.close()
