"""`Bell`: how one thread waits for another, where the one that waits, or rings, is a user's."""

from __future__ import annotations

import contextlib
import threading

__all__ = ["Bell"]


class Bell:
    """Ends one wait a ring, or the next one that begins.

    A KeyboardInterrupt may come anywhere in it, unlike in a Condition, whose lock it can leave taken. And its time-outs
    hold: `SimpleQueue.get` waits for ever, up to Python 3.12, where a signal's handler takes longer than was left.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake whoever waits; rung twice is rung once."""
        with contextlib.suppress(RuntimeError):  # it has been rung
            self._silent.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is rung; give `False` where the time is over."""
        timeout_s = -1 if timeout_s is None else min(max(0.0, timeout_s), threading.TIMEOUT_MAX)
        return self._silent.acquire(timeout=timeout_s)
