"""`Backoff`: the growing delay between two attempts to reach a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

__all__ = ["Backoff"]

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0


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
