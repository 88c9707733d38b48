"""The growing delays between attempts: to reach a server, to run a transaction, and to find that something is done."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

__all__ = ["Backoff", "growing_pause_s", "random_delays"]

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
FIRST_CONFLICT_S = 0.02
LONGEST_CONFLICT_S = 1.0
SHORTEST_PAUSE_S = 0.001


class Backoff:
    """Delays between attempts: each one is twice as long as the last, up to a limit.

    Used by one thread. Typical use::

        while backoff.wait(closing):
            try: ...
    """

    def __init__(self, first_s: float = FIRST_DELAY_S, longest_s: float = LONGEST_DELAY_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def wait(self, closing: threading.Event) -> bool:
        """Wait before the next attempt; return `False` at once when `closing` is set."""
        delay_s = self._next_s
        self._next_s = min(delay_s * 2, self._longest_s)
        return not closing.wait(delay_s)

    def reset(self) -> None:
        """Begin again with the first delay, after a success."""
        self._next_s = self._first_s


def random_delays(count: int) -> Iterator[float]:
    """Yield the seconds to wait before each repetition of a transaction that met another one.

    Each is random, up to a limit that doubles: transactions that met would meet again after the same delay.
    """
    limit_s = FIRST_CONFLICT_S
    for _ in range(count):
        yield random.uniform(0, limit_s)  # noqa: S311 (nothing secret)
        limit_s = min(limit_s * 2, LONGEST_CONFLICT_S)


def growing_pause_s(waited_s: float, longest_s: float) -> float:
    """Return the pause before the next look: a quarter of the wait so far, so a wait ends at most a quarter late."""
    return min(max(SHORTEST_PAUSE_S, waited_s / 4), longest_s)
