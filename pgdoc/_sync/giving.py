# Written by .ci/twins.py from pgdoc/_async/giving.py: change that file, and run it.
"""What a stream gives next: changes, the documents of a snapshot between them, and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.changes import events
from pgdoc.changes.life import Life
from pgdoc.model.positions import Position, before_commits_at, is_collection_event, just_after
from pgdoc.model.tokens import Mark, ResumeToken
from pgdoc.streams.mailbox import Mailbox

if TYPE_CHECKING:
    from pgdoc._sync.snapshot_reader import SnapshotReader
    from pgdoc.changes.change import Change
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.snapshot import DueChunk
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.model.positions import RawPosition
    from pgdoc.model.tokens import SnapshotProgress
    from pgdoc.streams.feed import Feed
    from pgdoc.streams.mailbox import Batch
    from pgdoc.streams.options import StreamOptions

__all__ = ["Giving"]


class Giving:
    """What `ChangeStream` inherits: all that needs no waiting.

    An interrupt comes between calls, never between plain assignments: what a method changes of the stream stands at its
    end, and what was done halfway is done again by the next call.
    """

    def __init__(self, collections: frozenset[str] | None, options: StreamOptions) -> None:
        self._options = options
        self._mailbox = Mailbox(options.buffer_size, options.buffer_bytes)
        resumed = options.resume_after is not None or options.consumer is not None
        self._life = Life(collections, resumed=resumed)
        self._ending: Change | None = None  # the invalidate that comes next, and last
        self._ended = False
        self._last: RawPosition = (0, 0, 0, 0)  # of the last event, or what came after it and was not for the user
        self._last_given = Mark()
        self._delivered = 0
        self._feed: Feed | None = None
        self._consumer: Consumer | None = None
        self._parts: SnapshotReader | None = None
        self._snapshots_begun = 0

    @property
    def closed(self) -> bool:
        """Whether it gives no more events."""
        return self._mailbox.closed

    def _here(self) -> ChangeEvent | None:
        """Give the next event of those that were taken already."""
        batch = self._mailbox.batch
        if self._is_due:
            return None
        while True:
            event = None if self._parts is None else self._from_snapshot(self._parts)
            if event is not None:
                return event
            if self._ending is not None:
                event = self._end(self._ending)
            elif batch.next < len(batch) and not self.closed:
                event = self._deliver(batch)
            else:
                return None
            if event is not None:
                return event

    @property
    def _is_due(self) -> bool:
        """Whether a consumer's snapshot has to be looked for before anything is given."""
        return self._consumer is not None and self._snapshots_begun <= self._consumer.recreated

    @property
    def _is_settled(self) -> bool:
        """Whether there is nothing to give but what comes."""
        return self._parts is None and not self._is_due

    def _from_snapshot(self, parts: SnapshotReader) -> ChangeEvent | None:
        """Give the next document of the snapshot, if the stream has come to where it stands."""
        snapshot = parts.snapshot
        due_at, ready = snapshot.due_at, snapshot.due
        if (ready is None or snapshot.next == len(ready.documents)) and due_at is not None:
            if self._has_come_to(due_at):
                snapshot.release()
            ready = snapshot.due
        while ready is not None and snapshot.next < len(ready.documents) and not self.closed:
            event = self._give_document(parts, ready)
            if event is not None:
                return event
        if ready is not None and snapshot.next == len(ready.documents):
            self._end_of_part(parts, ready)
        return None

    def _give_document(self, parts: SnapshotReader, ready: DueChunk) -> ChangeEvent | None:
        """Give the next document that is ready, or `None` where the filter does not match it."""
        snapshot = parts.snapshot
        document, progress = ready.documents[snapshot.next]
        place = max(self._last, before_commits_at(ready.end_lsn))
        system_id, timeline = self._feed.ids  # type: ignore[union-attr]
        token = ResumeToken(Position(*place), system_id, timeline, progress)
        event = events.from_snapshot(ready.collection, document, token, ready.read_at)
        given = Mark.at(place, progress) if self._matches(event) else None
        parts.progress = progress
        self._last = place
        if given is None:
            snapshot.next += 1
            self._pass_over(place)
            return None
        self._last_given = given
        self._delivered += 1
        snapshot.next += 1
        return event

    def _end_of_part(self, parts: SnapshotReader, ready: DueChunk) -> None:
        """Note how far the snapshot has come with a part that is given: no document tells of one that was empty."""
        parts.progress = parts.snapshot.progress
        if not parts.progress.remaining:
            self._pass_over(max(self._last, before_commits_at(ready.end_lsn)))
            self._parts = None

    def _has_come_to(self, lsn: int) -> bool:
        batch, feed = self._mailbox.batch, self._feed
        if feed is None:
            return False
        if batch.next < len(batch):
            return batch[batch.next].position[0] >= lsn
        return self._reached(feed)[0] >= lsn

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
                # It did not end the stream, and was given before.
                self._consumer.acknowledge(Mark(just_after(position)))
            self._ending = ending
            batch.next = after
            return None
        if not change.row.complete:
            events.check_images(change)
        parts = self._parts
        event = events.from_change(change, self._feed.ids, self._progress)  # type: ignore[union-attr]
        if parts is not None and parts.snapshot.absorb(change, event):
            self._last = position
            batch.next = after
            return None
        if position[2] == 0 and not self._matches(event):
            self._pass_over(just_after(position) if ending is None else position)
            self._ending = ending
            self._last = position
            batch.next = after
            return None
        given = Mark.at(position, self._progress)
        self._ending = ending
        self._last = position
        self._last_given = given
        self._delivered += 1
        batch.next = after
        return event

    def _end(self, invalidate: Change) -> ChangeEvent | None:
        """Give the last event, if the filter matches it; a consumer is left when that is acknowledged."""
        event = events.from_change(invalidate, self._feed.ids)  # type: ignore[union-attr]
        if not self._matches(event):
            self._pass_over(invalidate.position)
            self._ending = None
            self._ended = True
            self._last = invalidate.position
            return None
        if self._consumer is None:
            self._leave()
        given = Mark(invalidate.position)
        self._ending = None
        self._ended = True
        self._last = invalidate.position
        self._last_given = given
        self._delivered += 1
        return event

    def _leave(self) -> None:
        if self._feed is not None:
            self._feed.leave()
        self._mailbox.close()

    def _matches(self, event: ChangeEvent) -> bool:
        where = self._options.where
        return where is None or where.matches(event)

    def _pass_over(self, place: RawPosition) -> None:
        """Acknowledge what is not given, unless that would acknowledge something before it, too."""
        if self._consumer is not None:
            self._consumer.pass_over(self._last_given, Mark.at(place, self._progress))

    def _mark(self, event: ChangeEvent | None) -> Mark:
        """Give what is acknowledged with an event, `None` for the last."""
        if event is None or self._is_last(event):
            return Mark((*self._behind(event), *self._last_given.position[4:]), self._last_given.snapshot)
        return Mark.at(self._behind(event), event.resume_token.progress)

    def _is_last(self, event: ChangeEvent) -> bool:
        token = event.resume_token
        return Mark.at(token.position, token.progress).position == self._last_given.position

    def _behind(self, event: ChangeEvent | None) -> RawPosition:
        """Give the place behind an event; where it might have ended the stream and did not, behind that end."""
        place: RawPosition = self._last
        if event is not None and not self._is_last(event):  # else what was passed over, too
            place = event.resume_token.position
            if place > self._last:
                raise ValueError(f"{event.resume_token} was not given by this stream yet")
        ends = self._ending is not None or self._ended or self._feed is None or place <= self._feed.begun_at
        return just_after(place) if is_collection_event(place) and not ends else place

    @property
    def _progress(self) -> SnapshotProgress | None:
        return None if self._parts is None else self._parts.progress

    def _reached(self, feed: Feed) -> RawPosition:
        live = feed.live_place  # asked first: what is put later lies beyond it
        return max(self._last, self._mailbox.reached(live), feed.begun_at)
