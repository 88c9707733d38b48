"""The windows that a relay has sent, and the engine has not acknowledged yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.model.tokens import Mark
    from pgdoc.relay.log import LogEnd
    from pgdoc.relay.messages import Window

__all__ = ["Flight", "Flights"]

FutureT = TypeVar("FutureT")


class Flight(NamedTuple, Generic[FutureT]):
    """A window on its way.

    Attributes:
        mark: how far the consumer has come with it; `None` if it ends inside an event.
        sent: done when the engine has acknowledged it.
    """

    window: Window
    mark: Mark | None
    sent: FutureT


class Flights(Generic[FutureT]):
    """The windows in the order in which they were sent.

    Attributes:
        acknowledged: the sequence of the last entry that the engine has acknowledged.
    """

    def __init__(self, acknowledged: int) -> None:
        self.acknowledged = acknowledged
        self._flights: deque[Flight[FutureT]] = deque()

    def __len__(self) -> int:
        return len(self._flights)

    def __iter__(self) -> Iterator[Flight[FutureT]]:
        return iter(self._flights)

    @property
    def first(self) -> Flight[FutureT]:
        """The one that is acknowledged next."""
        return self._flights[0]

    def add(self, flight: Flight[FutureT]) -> None:
        """Add one that was sent."""
        self._flights.append(flight)

    def land(self) -> Flight[FutureT]:
        """Remove the first, which was acknowledged."""
        flight = self._flights.popleft()
        self.acknowledged += len(flight.window)
        return flight

    def has_within(self, end: LogEnd) -> bool:
        """Return whether a log that ends there has all that was acknowledged, and of what is on its way a beginning."""
        stored = end.sequence - self.acknowledged
        messages = [message for flight in self._flights for message in flight.window]
        if not 0 <= stored <= len(messages):
            return False
        if not stored or end.token is None:
            return True
        last = messages[stored - 1]
        return (end.token, end.part) == (last.token, last.part)

    def rest(self, end: LogEnd) -> list[tuple[Window, Mark | None]]:
        """Return what a log that ends there lacks of the windows on their way, after removing what it has."""
        left: list[tuple[Window, Mark | None]] = []
        stored = end.sequence - self.acknowledged
        for window, mark, _ in self._flights:
            if stored < len(window):
                left.append((window[stored:], mark))
            stored = max(0, stored - len(window))
        self.acknowledged = end.sequence
        self._flights.clear()
        return left
