"""What a stream has delivered last, and how far acknowledging an event acknowledges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pgdoc.changes import events
from pgdoc.changes.snapshot_event import mark_of
from pgdoc.model.positions import BEFORE_ALL, is_collection_event, just_after
from pgdoc.model.tokens import Mark
from pgdoc.streams.feed import Feed
from pgdoc.streams.options import check_event

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.snapshot import Snapshot
    from pgdoc.model.positions import RawPosition
    from pgdoc.model.tokens import SnapshotProgress

__all__ = ["Delivered", "DurableFeed"]


class DurableFeed(Feed, Protocol):
    """A durable consumer: a feed that stores how far its stream has come."""

    def acknowledge(self, mark: Mark, /) -> None:
        """Acknowledge everything up to `mark`."""

    def pass_over(self, delivered: Mark, mark: Mark, /) -> None:
        """Acknowledge up to `mark` once everything up to `delivered` is acknowledged."""


class Delivered:
    """How far one stream has come.

    Attributes:
        feed: fills the mailbox; `None` until the stream is open.
        consumer: the feed, if it is a durable consumer.
        snapshot: the snapshot that is being delivered.
        delivered: the number of events.
        has_ended: whether the last event was delivered, or skipped by the filter.
    """

    def __init__(self) -> None:
        # Set while the stream opens.
        self.feed: Feed | None = None
        self.consumer: DurableFeed | None = None
        self.snapshot: Snapshot | None = None
        # Moves with each event.
        self.delivered = 0
        self.has_ended = False
        self._ending: Change | None = None  # the invalidate: the next event, and the last
        self._last: RawPosition = BEFORE_ALL  # of the last change that was delivered or skipped
        self._delivered_at: RawPosition = BEFORE_ALL  # of the last event
        self._batch = (BEFORE_ALL, BEFORE_ALL)  # of the first and the last change of the last batch; set before `_last`
        # How far a snapshot had come with it; an event of the snapshot stands for that.
        self._delivered_progress: SnapshotProgress | ChangeEvent | None = None

    @property
    def progress(self) -> SnapshotProgress | None:
        """How far the snapshot that is being delivered has come."""
        return None if self.snapshot is None else self.snapshot.delivered

    @property
    def processed(self) -> RawPosition:
        """A position before which the stream's reader has processed every event; any thread may ask.

        The reader comes back for an event after it has processed those before; of a batch, all at once.
        """
        last = self._last  # read first
        first, end = self._batch
        return first if end == last else last

    def start_from(self, position: RawPosition) -> None:
        """Deliver nothing at or before `position`."""
        self._last = max(self._last, position)

    def mark_of(self, event: ChangeEvent | None) -> Mark:
        """Return how far acknowledging `event` acknowledges; `None` stands for the last event.

        Raises:
            InvalidInput: `event` is not an event.
            ValueError: this stream has not delivered the event.
        """
        check_event(event)
        if event is None or self._is_last(event):
            last = self._last_mark
            return Mark((*self._position_after(event), *last.position[4:]), last.snapshot)
        return Mark.at(self._position_after(event), event.resume_token.progress)

    def _pass_over(self, position: RawPosition) -> None:
        if self.consumer is not None:
            self.consumer.pass_over(self._last_mark, Mark.at(position, self.progress))

    @property
    def _last_mark(self) -> Mark:
        progress = self._delivered_progress
        if isinstance(progress, events.ChangeEvent):
            return mark_of(progress)
        return Mark.at(self._delivered_at, progress)

    def _is_last(self, event: ChangeEvent) -> bool:
        token = event.resume_token
        return Mark.at(token.position, token.progress).position == self._last_mark.position

    def _position_after(self, event: ChangeEvent | None) -> RawPosition:
        """Return the position to resume after, once an event is acknowledged.

        For an event of a whole collection that did not end the stream, that is where its `invalidate` would be, so that
        a resumed stream skips the event.
        """
        position: RawPosition = self._last
        if event is not None and not self._is_last(event):  # the last event also acknowledges what was skipped after it
            position = event.resume_token.position
            if position > self._last:
                raise ValueError(f"{event.resume_token} was not delivered by this stream: pass one of its own events")
        ends = self._ending is not None or self.has_ended or self.feed is None or position <= self.feed.begun_at
        return just_after(position) if is_collection_event(position) and not ends else position
