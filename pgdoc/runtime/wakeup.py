"""`Wakeup`: lets one thread wait for another, even if either is a user's thread."""

from __future__ import annotations

import contextlib
import threading

__all__ = ["Wakeup"]


class Wakeup:
    """An auto-reset event: one `set` ends one `wait`, the current one or the next.

    It stays usable after a KeyboardInterrupt at any point, which can leave a `Condition` with its lock held. A timeout
    holds even if a signal handler takes longer; up to Python 3.12 `SimpleQueue.get` then waits forever.
    """

    def __init__(self) -> None:
        self._unset = threading.Lock()  # held while not set
        self._unset.acquire()

    def set(self) -> None:
        """Wake the waiting thread, or let the next `wait` return at once; a second call has no effect."""
        with contextlib.suppress(RuntimeError):  # already set
            self._unset.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is set, then reset it; return `False` on timeout."""
        timeout_s = -1 if timeout_s is None else min(max(0.0, timeout_s), threading.TIMEOUT_MAX)
        return self._unset.acquire(timeout=timeout_s)
