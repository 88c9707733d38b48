"""Decides what a stream delivers next: a change, a document of its snapshot, or the invalidate that ends it.

Nothing here waits, so the async and the sync stream share it.

A KeyboardInterrupt loses no event. CPython raises it at calls and backward jumps, never between plain assignments, so
each method computes first and changes its state in one run of plain assignments before it returns. The next call
repeats interrupted work: `Life.follow` and `Snapshot.absorb` may see a change twice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pgdoc.changes import events
from pgdoc.changes.life import Life
from pgdoc.changes.snapshot import Place
from pgdoc.changes.whole_changes import check_images
from pgdoc.errors import PgdocError
from pgdoc.model.positions import MESSAGE, before_commits_at, commit_lsn_of, just_after
from pgdoc.model.tokens import Mark
from pgdoc.streams.batch import BATCH
from pgdoc.streams.delivered import Delivered
from pgdoc.streams.lag import NO_LAG, LagMeter
from pgdoc.streams.status import StreamStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.change import Change
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.life import Existence
    from pgdoc.changes.snapshot import DueChunk, Snapshot
    from pgdoc.model.positions import RawPosition
    from pgdoc.streams.batch import Batch
    from pgdoc.streams.feed import Feed
    from pgdoc.streams.mailbox import AsyncMailbox, Mailbox
    from pgdoc.streams.options import StreamOptions

__all__ = ["Delivery"]


class Delivery(Delivered):
    """Decides what one stream delivers next.

    Owned by the task or thread that reads the stream. The threads that fill the mailbox share only that, and it has a
    lock. Any thread may read figures, and close.

    Args:
        collections: their names; `None` for the whole schema.

    Attributes:
        mailbox: holds the changes that come next.
        snapshots_begun: how often the consumer's stored snapshot was read; see `is_snapshot_due`.
        error_class: the name of the class of the error that ended the stream.
    """

    def __init__(
        self, mailbox: Mailbox | AsyncMailbox, collections: frozenset[str] | None, options: StreamOptions
    ) -> None:
        super().__init__()
        self.mailbox = mailbox
        self._where = options.where
        self._decode = options.decode
        self._life = Life(collections)
        self.snapshots_begun = 0
        self._read_ahead: Callable[[Snapshot], object]  # set with the snapshot
        self._turn_ends = 0  # at this number of events; see `begin_turn`
        self._lag = LagMeter(time.time())
        self.error_class: str | None = None

    @property
    def closed(self) -> bool:
        """Whether the stream delivers no more events."""
        return self.mailbox.closed

    @property
    def is_snapshot_due(self) -> bool:
        """Whether the consumer's stored snapshot must be read before anything else is delivered.

        It is due when the stream first owns the consumer, and each time the consumer is recreated.
        """
        return self.consumer is not None and self.snapshots_begun <= self.consumer.recreated

    @property
    def has_only_changes(self) -> bool:
        """Whether the next event is a change: no snapshot is being delivered or due."""
        return self.snapshot is None and not self.is_snapshot_due

    @property
    def awaits_documents(self) -> bool:
        """Whether the next event is a document of a chunk that is being read: see `Snapshot`."""
        snapshot = self.snapshot
        return snapshot is not None and snapshot.is_being_read and snapshot.is_delivered

    def begin_snapshot(self, snapshot: Snapshot, read_ahead: Callable[[Snapshot], object]) -> None:
        """Deliver the documents of `snapshot` between the changes.

        `read_ahead` begins to read the next chunk when one begins to be delivered.
        """
        self._read_ahead = read_ahead
        self.snapshot = snapshot

    def resume_life(self, existence: Existence) -> None:
        """See `Life.resume`."""
        self._life.resume(existence)

    @property
    def awaits_changes(self) -> bool:
        """Whether the next event is one of a change that is not in the mailbox's `batch`, unless the stream ends."""
        batch, consumer = self.mailbox.batch, self.consumer
        is_usual = self.feed is not None and self.snapshot is None and self._ending is None and not self.has_ended
        is_due = consumer is not None and self.snapshots_begun <= consumer.recreated  # `is_snapshot_due`
        return is_usual and not is_due and batch.next == len(batch)

    def begin_turn(self) -> bool:
        """Return whether other threads or tasks must run now: a snapshot has delivered `BATCH` events since they did.

        Without that, a loop over a snapshot that never waits would keep the event loop, or the GIL, from what reads the
        next chunk: a thread waits 5 ms for the GIL, and needs it for each 200 kB that arrive.
        """
        if self.snapshot is None or self.delivered < self._turn_ends:
            return False
        self._turn_ends = self.delivered + BATCH
        return True

    def next_row_event(self) -> ChangeEvent[Any] | None:
        """Return the next event if it is that of a row and needs neither waiting nor a decision; else `None`.

        This is the usual case, and most of what an event costs besides its fields: `next_event` takes twice the time.
        """
        mailbox, consumer = self.mailbox, self.consumer
        if consumer is not None and self.snapshots_begun <= consumer.recreated:  # `is_snapshot_due`
            return None
        if self.snapshot is not None:
            return self._next_row_of(self.snapshot)
        batch = mailbox.batch
        index = batch.next
        if index == len(batch) or mailbox.closed or self._ending is not None:
            return None
        change = batch[index]
        position = change.position
        if position[2] == MESSAGE or position <= self._last or not change.row.complete:
            return None
        event = events.from_change(change, self.feed.ids, None, self._decode)  # type: ignore[union-attr]
        self._last = self._delivered_at = position
        self._delivered_progress = None
        self.delivered += 1
        batch.next = index + 1
        return event

    def _next_row_of(self, snapshot: Snapshot) -> ChangeEvent[Any] | None:
        """See `next_row_event`; it also returns `None` at the end of a turn."""
        due, index = snapshot.due, snapshot.next
        if due is None or self._where is not None or self.mailbox.closed or self.delivered >= self._turn_ends:
            return None
        part, keys, rows = due
        if index == part.count:
            return None
        event = events.from_snapshot(part, index + 1, keys[index], rows[index])
        self._last = self._delivered_at = part.place.position
        self._delivered_progress = event
        self.delivered += 1
        snapshot.next = index + 1
        return event

    def next_event(self) -> ChangeEvent[Any] | None:
        """Return the next event that needs no waiting, or `None`."""
        batch = self.mailbox.batch
        if self.is_snapshot_due:
            return None
        while True:
            event = None if self.snapshot is None else self._next_document(self.snapshot)
            if event is not None:
                return event
            if self._ending is not None:
                event = self._end(self._ending)
            elif batch.next < len(batch) and not self.closed and not self.awaits_documents:
                event = self.deliver(batch)
            else:
                return None
            if event is not None:
                return event

    def next_events(self, most: int) -> list[ChangeEvent[Any]]:
        """Return the next events that need no waiting, at most this many; perhaps none.

        Many come at once only if they are changes of rows, or rows of a snapshot that no filter looks at, since only
        these need no decision of their own.
        """
        batch = self.mailbox.batch
        if self.snapshot is not None and self._where is None and not self.is_snapshot_due and not self.closed:
            chunk = self._due_chunk(self.snapshot)
            documents = [] if chunk is None else _documents_in(chunk, self.snapshot.next, most)
            if chunk is not None and documents:
                number, delivered = self.snapshot.next + len(documents), self.delivered + len(documents)
                last, position = documents[-1], chunk.part.place.position
                self._last = position
                self._delivered_at, self._delivered_progress = position, last
                self.delivered = delivered
                self.snapshot.next = number
                return documents
        if self.has_only_changes and self._ending is None and not self.closed:
            found, end = self._rows_in(batch, most)
            if found:
                position, delivered = batch[end - 1].position, self.delivered + len(found)
                self._batch = batch[batch.next].position, position
                self._last = self._delivered_at = position
                self._delivered_progress = None
                self.delivered = delivered
                batch.next = end
                return found
        event = self.next_event()
        return [] if event is None else [event]

    def _rows_in(self, batch: Batch, most: int) -> tuple[list[ChangeEvent], int]:
        """Return the events of the next changes in `batch` that `deliver` would not skip, and the index after them."""
        found, end = [], batch.next
        ids, decode = self.feed.ids, self._decode  # type: ignore[union-attr]
        for change in batch[end : end + most]:
            if change.position[2] == MESSAGE or change.position <= self._last or not change.row.complete:
                break
            found.append(events.from_change(change, ids, None, decode))
            end += 1
        return found, end

    def deliver(self, batch: Batch) -> ChangeEvent[Any] | None:
        """Return the event of the next change in `batch`, or `None` if the change is skipped.

        It skips changes from before the stream's start, changes that the snapshot absorbs, and events of a whole
        collection that do not match the filter. Row changes were matched before they entered the mailbox.
        """
        index = batch.next
        change = batch[index]
        position = change.position
        of_collection = position[2] == MESSAGE  # is_collection_event(), inline: a call costs 5% of an event here
        ending, after = None, index + 1
        if of_collection and position >= self._last:
            ending = self._life.follow(change)
            after = after if ending is None else len(batch)
        if position <= self._last:
            if of_collection and self.consumer is not None and ending is None:
                # It was delivered before the stream resumed, and did not end it: resume after it from now on.
                self.consumer.acknowledge(Mark(just_after(position)))
            self._ending = ending
            batch.next = after
            return None
        if not change.row.complete:
            check_images(change)
        snapshot, progress = self.snapshot, self.progress
        event = events.from_change(change, self.feed.ids, progress, self._decode)  # type: ignore[union-attr]
        if snapshot is not None and snapshot.absorb(change, event):
            self._last = position
            batch.next = after
            return None
        if of_collection and not self._matches(event):
            self._pass_over(just_after(position) if ending is None else position)
            self._ending = ending
            self._last = position
            batch.next = after
            return None
        self._ending = ending
        self._last = self._delivered_at = position
        self._delivered_progress = progress
        self.delivered += 1
        batch.next = after
        return event

    def note_error(self, error: BaseException) -> None:
        """Note which error ended the stream, if it is one of pgdoc's; only its name, since it holds frames."""
        if isinstance(error, PgdocError) and self.error_class is None:
            self.error_class = type(error).__name__

    def close(self) -> None:
        """Take no more changes, and drop the buffered ones."""
        self._ending = None
        self._leave_feed()

    def position(self, feed: Feed) -> RawPosition:
        """Return the position up to which the stream has delivered everything that it wants."""
        live = feed.live_position  # read first: what is put later lies beyond it
        return max(self._last, self.mailbox.reached(live), feed.begun_at)

    def stats(self) -> StreamStats:
        """Return the current figures."""
        feed = self.feed
        if feed is None or self.closed:
            return StreamStats("closed", 0, self.delivered, 0, feed.recreated if feed else 0)
        mode, wal_end = feed.mode, feed.wal_end  # first: what is reported meanwhile counts the next time
        live, passed = feed.live_position, max(self._last, feed.begun_at)
        waiting = self.mailbox.waiting(passed, live)
        lag = NO_LAG
        if not self.has_ended and mode != "standby":
            lag = self._lag.measure(waiting, passed=passed, ending=self._ending, wal_end=wal_end, reading=feed.reading)
        return StreamStats(
            mode="snapshot" if self.snapshot is not None and mode == "live" else mode,
            buffered=waiting.number,
            delivered=self.delivered,
            lag_bytes=lag.size_bytes,
            recreated=feed.recreated,
            lag=lag.time,
            buffered_bytes=waiting.size_bytes,
        )

    def _next_document(self, snapshot: Snapshot) -> ChangeEvent[Any] | None:
        chunk = self._due_chunk(snapshot)
        if chunk is None:
            return None
        part = chunk.part
        while snapshot.next < part.count and not self.mailbox.closed:
            number, position = snapshot.next + 1, part.place.position
            event = events.from_snapshot(part, number, chunk.keys[number - 1], chunk.rows[number - 1])
            is_wanted = self._where is None or self._matches(event)
            self._last = position
            if is_wanted:
                self._delivered_at, self._delivered_progress = position, event
                self.delivered += 1
                snapshot.next = number
                return event
            snapshot.next = number
            self._pass_over(position)
        if snapshot.next == part.count and not snapshot.progress.remaining:
            self._pass_over(max(self._last, part.place.position))  # an empty chunk has no document to record the end
            self.snapshot = None
        return None

    def _due_chunk(self, snapshot: Snapshot) -> DueChunk | None:
        """Return the chunk that is being delivered, or was delivered last if no other is due."""
        chunk, due_at = snapshot.due, snapshot.due_at
        if due_at is None or not snapshot.is_delivered:
            return chunk
        if self.feed is not None and self._has_come_to(due_at):
            position = max(self._last, before_commits_at(due_at))
            snapshot.release(Place(position, self.feed.ids, self._decode))
            self._read_ahead(snapshot)
        return snapshot.due

    def _has_come_to(self, lsn: int) -> bool:
        """Return whether every change that commits before `lsn` was delivered or skipped."""
        batch, feed = self.mailbox.batch, self.feed
        if feed is None:
            return False
        if batch.next < len(batch):
            return commit_lsn_of(batch[batch.next].position) >= lsn
        return commit_lsn_of(self.position(feed)) >= lsn

    def _end(self, invalidate: Change) -> ChangeEvent[Any] | None:
        """Return the last event, or `None` if it does not match the filter.

        The hub's feed ends here; a consumer stays open, so that this event can be acknowledged.
        """
        event = events.from_change(invalidate, self.feed.ids)  # type: ignore[union-attr]
        if not self._matches(event):
            self._pass_over(invalidate.position)
            self._ending = None
            self.has_ended = True
            self._last = invalidate.position
            return None
        if self.consumer is None:
            self._leave_feed()
        self._ending = None
        self.has_ended = True
        self._last = self._delivered_at = invalidate.position
        self._delivered_progress = None
        self.delivered += 1
        return event

    def _leave_feed(self) -> None:
        if self.feed is not None:
            self.feed.leave()
        self.mailbox.close()

    def _matches(self, event: ChangeEvent) -> bool:
        return self._where is None or self._where.matches(events.to_be_compared(event))


def _documents_in(chunk: DueChunk, begin: int, most: int) -> list[ChangeEvent[Any]]:
    """Return the events of the next documents of a chunk, at most this many."""
    part, end = chunk.part, begin + most
    documents = zip(chunk.keys[begin:end], chunk.rows[begin:end], strict=True)
    return [events.from_snapshot(part, number, key, row) for number, (key, row) in enumerate(documents, begin + 1)]
