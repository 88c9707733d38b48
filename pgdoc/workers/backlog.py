"""The events that wait for a handler."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent

__all__ = ["LaneBacklog"]

_EVENTS = 10_000
_BYTES = 64 << 20
_OF_DECODED = 1000  # what is assumed for a document whose text is gone


class LaneBacklog:
    """The events that wait for one handler, in order.

    One thread puts and another takes. Each writes its own counts, in one assignment, and reads those of the other, so
    there is no lock.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[ChangeEvent, int]] = deque()
        # Written by the thread that puts.
        self.put_count = 0
        self._put_bytes = 0
        # Written by the thread that takes.
        self.done_count = 0
        self._taken_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether one more event may be put: one always fits."""
        return self.waiting < _EVENTS and self._put_bytes - self._taken_bytes < _BYTES

    @property
    def waiting(self) -> int:
        """How many events were put, and not taken."""
        return len(self._events)

    @property
    def is_done(self) -> bool:
        """Whether every event that was put has been processed."""
        return self.put_count == self.done_count

    def put(self, event: ChangeEvent) -> None:
        """Append an event."""
        size = _size_of(event)
        self.put_count += 1  # first: an event that is in the queue counts
        self._put_bytes += size
        self._events.append((event, size))

    def take(self, most: int) -> list[ChangeEvent]:
        """Return the next events, and remove them; perhaps none."""
        queue = self._events
        taken = [queue.popleft() for _ in range(min(most, len(queue)))]
        self._taken_bytes += sum(size for _, size in taken)
        return [event for event, _ in taken]


def _size_of(event: ChangeEvent) -> int:
    """Return how long its text is: as the server sent a change, or as a snapshot read a document."""
    state = event.__dict__
    if "_change" in state:
        return len(state["_change"].row.message)
    _, row = state.get("_numbered_row", (0, None))
    text = (
        row if isinstance(row, bytes) else getattr(row, "__dict__", state).get("_data")
    )  # else a change put a document
    return _OF_DECODED if text is None else len(text)
