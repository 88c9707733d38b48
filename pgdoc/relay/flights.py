"""The windows that a relay has sent, and the engine has not acknowledged yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.relay.log import LogEnd
    from pgdoc.relay.messages import Window

__all__ = ["Flight", "Flights"]

FutureT = TypeVar("FutureT")


class Flight(NamedTuple, Generic[FutureT]):
    """A window on its way.

    Attributes:
        last: the event after which it ends.
        sent: done when the engine has acknowledged it.
    """

    window: Window
    last: ChangeEvent
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

    def after(self, end: LogEnd) -> list[tuple[Window, ChangeEvent]] | None:
        """Return what has to be sent again to a log that ends there, and forget the rest.

        `None` if that can't be told: the log lacks entries that were acknowledged, or has others.
        """
        stored = end.sequence - self.acknowledged
        messages = [message for flight in self._flights for message in flight.window]
        if not 0 <= stored <= len(messages):
            return None
        if (
            stored
            and end.token is not None
            and (end.token, end.part)
            != (
                messages[stored - 1].token,
                messages[stored - 1].part,
            )
        ):
            return None
        left = []
        for window, last, _ in self._flights:
            if stored < len(window):
                left.append((window[stored:], last))
            stored = max(0, stored - len(window))
        self.acknowledged = end.sequence
        self._flights.clear()
        return left
