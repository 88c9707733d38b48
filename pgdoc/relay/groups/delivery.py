"""What a member of a group delivers: events of its partitions, and how far each is acknowledged."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from pgdoc.errors import ConsumerLost, PgdocError
from pgdoc.model.tokens import ResumeToken
from pgdoc.relay.delivery import RemoteDelivery
from pgdoc.relay.finding import LogPosition, order_of
from pgdoc.relay.groups.partition import OwnedPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.router import Condition
    from pgdoc.model.json_codec import JsonDecoder
    from pgdoc.relay.inbox import AsyncInbox, Inbox
    from pgdoc.relay.log import LogEntry

__all__ = ["GroupDelivery"]

CONFIRM_S: Final = 1.0
"""How often PostgreSQL is asked which checkpoints have committed, at most."""

_ORDINAL: Final = "_ordinal"
"""In the state of an event: its number among those that the stream has delivered."""


class GroupDelivery(RemoteDelivery):
    """Makes events of the entries of partitions.

    Args:
        valid_until: until when, by the monotonic clock, the partitions are this member's.
        needs_claim: whether a partition must be claimed in PostgreSQL before its events are delivered.
    """

    def __init__(  # noqa: PLR0913 (what a stream knows)
        self,
        inbox: Inbox | AsyncInbox,
        where: Condition | None,
        decode: JsonDecoder | None,
        *,
        valid_until: Callable[[], float],
        needs_claim: bool,
        covers: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__(inbox, where, decode, covers)
        self._valid_until, self._needs_claim = valid_until, needs_claim
        # What was passed and is not acknowledged, in the order of delivery; `_first` is the ordinal of the first.
        self._waiting: deque[tuple[OwnedPartition, LogEntry]] = deque()
        self._first = 0
        self._unconfirmed: set[OwnedPartition] = set()
        self._next_confirmation = 0.0
        self._checkpointed = -1  # the ordinal of the last checkpoint whose transaction may be open yet

    @property
    def is_suspended(self) -> bool:
        """Whether other members may have taken the partitions meanwhile."""
        return time.monotonic() >= self._valid_until()

    @property
    def unclaimed(self) -> OwnedPartition | None:
        """The partition of the current batch, if it must be claimed first."""
        source = self._inbox.batch.source
        is_due = self._needs_claim and isinstance(source, OwnedPartition) and not source.is_claimed
        return source if is_due and isinstance(source, OwnedPartition) and not source.is_dropped else None

    def next_event(self) -> ChangeEvent | None:
        """See `RemoteDelivery`; `None` also while it is suspended, or the partition is unclaimed."""
        batch = self._inbox.batch
        source = batch.source
        if not isinstance(source, OwnedPartition) or (self._needs_claim and not source.is_claimed):
            if source.is_dropped:
                batch.next = len(batch)
            return None
        while batch.next < len(batch) and not self._inbox.closed:
            if self.is_suspended:
                return None
            entry = batch[batch.next]
            if not self._begin(source, entry):
                batch.next = len(batch)
                return None
            event = None if source.skip_to is not None and self._is_stored(source, entry) else self._event_of(entry)
            self._note(source, entry, event)
            batch.next += 1
            if event is not None:
                return event
        return None

    def next_events(self, most: int) -> list[ChangeEvent]:
        """See `RemoteDelivery`."""
        found: list[ChangeEvent] = []
        batch, count, delivered = self._inbox.batch, len(self._waiting), self.delivered
        first, source = batch.next, batch.source
        before = source.progress if isinstance(source, OwnedPartition) else None
        try:
            while len(found) < most:
                event = self.next_event()
                if event is None:
                    break
                found.append(event)
        except BaseException as exc:
            if found and isinstance(exc, PgdocError):
                return found  # the next call raises it
            # Nothing was delivered: asking again must not acknowledge these events.
            while len(self._waiting) > count:
                self._waiting.pop()
            batch.next, self.delivered = first, delivered
            if isinstance(source, OwnedPartition) and before is not None:
                source.progress = before
            raise
        return found

    def _begin(self, source: OwnedPartition, entry: LogEntry) -> bool:
        """Return whether an entry may be delivered.

        Who gives a partition up sets `is_dropped` and then looks at `delivered`; here it is the other way round.
        """
        before = source.delivered
        source.delivered = entry.sequence
        if source.is_dropped:
            source.delivered = before
            return False
        return True

    def _is_stored(self, source: OwnedPartition, entry: LogEntry) -> bool:
        """Return whether the event's effect is in PostgreSQL already."""
        if source.skip_to is None or order_of(ResumeToken.parse(entry.token)) > order_of(source.skip_to):
            source.skip_to = None
            return False
        return True

    def _note(self, source: OwnedPartition, entry: LogEntry, event: ChangeEvent | None) -> None:
        source.passed = LogPosition(entry.sequence, entry.token, source.identity)
        if event is not None:
            event.__dict__[_ORDINAL] = self._first + len(self._waiting)
            self.delivered += 1
            source.last_event = entry.sequence
        elif not self._waiting:
            if source.last_event <= source.acknowledged.sequence:
                source.acknowledged = source.passed
            else:  # of the last event, only PostgreSQL knows what became of it
                self._unconfirmed.add(source)
            return
        self._waiting.append((source, entry._replace(body=b"")))

    @property
    def is_confirmation_due(self) -> bool:
        """Whether to ask PostgreSQL which checkpoints have committed."""
        return bool(self._unconfirmed) and self._needs_claim and time.monotonic() >= self._next_confirmation

    def unconfirmed(self) -> set[OwnedPartition]:
        """Return the partitions to ask about, and forget them."""
        self._next_confirmation = time.monotonic() + CONFIRM_S
        found, self._unconfirmed = self._unconfirmed, set()
        return found

    def _ordinal_of(self, event: ChangeEvent) -> int:
        """Return the event's number.

        Raises:
            ValueError: this stream has not delivered it.
        """
        ordinal = event.__dict__.get(_ORDINAL)
        index = -1 if ordinal is None else ordinal - self._first
        is_other = 0 <= index < len(self._waiting) and self._waiting[index][1].token != str(event.resume_token)
        if ordinal is None or index >= len(self._waiting) or is_other:
            raise ValueError("this stream has not delivered the event: pass one of its own")
        return int(ordinal)

    def acknowledge(self, event: ChangeEvent | None) -> None:
        """Acknowledge an event and all that were delivered before it; `None` for all.

        Raises:
            ConsumerLost: another member has the event's partition; the others' events are acknowledged.
            ValueError: this stream has not delivered the event.
        """
        last = self._first + len(self._waiting) - 1 if event is None else self._ordinal_of(event)
        source = None
        while self._waiting and self._first <= last:
            source, entry = self._waiting[0]
            if not source.is_lost:
                source.acknowledged = LogPosition(entry.sequence, entry.token, source.identity)
            self._waiting.popleft()
            self._first += 1
        if event is not None and source is not None and source.is_lost:
            raise lost_partition(source)

    def begin_checkpoint(self, event: ChangeEvent) -> dict[OwnedPartition, LogPosition]:
        """Return the positions that an event and all before it stand for, by partition.

        Raises:
            ConsumerLost: another member has the event's partition.
            ValueError: this stream has not delivered the event, or it is acknowledged already.
        """
        last = self._ordinal_of(event)
        if last < self._first:
            raise ValueError("the event is acknowledged already: checkpoint it before the next event is asked for")
        found: dict[OwnedPartition, LogPosition] = {}
        for index in range(last - self._first + 1):
            source, entry = self._waiting[index]
            found[source] = LogPosition(entry.sequence, entry.token, source.identity)
        own = self._waiting[last - self._first][0]
        if own.is_lost:
            raise lost_partition(own)
        self._checkpointed = last
        return {source: position for source, position in found.items() if not source.is_lost}

    def settle(self) -> None:
        """Let the last checkpoint be over: its transaction ended before the next event was asked for."""
        while self._waiting and self._first <= self._checkpointed:
            source, entry = self._waiting[0]
            source.checkpointed = entry.sequence
            self._unconfirmed.add(source)
            self._waiting.popleft()
            self._first += 1


def lost_partition(source: OwnedPartition) -> ConsumerLost:
    """Return the error for an event whose partition another member has."""
    return ConsumerLost(
        f"partition {source.number} of the group was taken over by another member, which gets the event again: roll "
        "its transaction back, and go on with the next event"
    )
