"""`Wakeup`: lets one thread wait for another, even if either is a user's thread. `wake_together`: many at once."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["Wakeup", "finish", "wake", "wake_together"]


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


class _HeldWakeups(threading.local):
    """What the present thread wakes at the end of `wake_together`; `None` outside it."""

    waiters: list[Wakeup | asyncio.Future[None]] | None = None


_held = _HeldWakeups()


class wake_together:  # noqa: N801 (a context manager, whose callers read better so; a generator takes twice the time)
    """Hold what this thread would wake in the block until its end; then call each event loop once.

    So that waking a hundred tasks writes to a loop's socket once, and no woken thread waits for a lock of the block.
    """

    def __enter__(self) -> None:
        _held.waiters = []

    def __exit__(self, *exc_info: object) -> None:
        held, _held.waiters = _held.waiters, None
        if not held:
            return
        loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        threads: list[Wakeup] = []
        last: asyncio.AbstractEventLoop | None = None
        of_last: list[asyncio.Future[None]] = []
        for waiter in held:
            if isinstance(waiter, Wakeup):
                threads.append(waiter)
                continue
            loop = waiter.get_loop()
            if loop is not last:  # mostly there is only one
                last, of_last = loop, loops.setdefault(loop, [])
            of_last.append(waiter)
        for loop, waiters in loops.items():
            _finish_in(loop, waiters)
        for wakeup in threads:  # last, since each takes the interpreter from this thread
            wakeup.set()


def wake(waiter: Wakeup | asyncio.Future[None]) -> None:
    """Set a wakeup, or give a future its result in its loop, unless it is done; see `wake_together`."""
    held = _held.waiters
    if held is not None:
        held.append(waiter)
    elif isinstance(waiter, Wakeup):
        waiter.set()
    else:
        _finish_in(waiter.get_loop(), [waiter])


def _finish_in(loop: asyncio.AbstractEventLoop, waiters: list[asyncio.Future[None]]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits any more
        loop.call_soon_threadsafe(_finish_all, waiters)


def _finish_all(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():  # `finish`, inline
            waiter.set_result(None)


def finish(waiter: asyncio.Future[None]) -> None:
    """Give a future its result, in its loop, unless it is done."""
    if not waiter.done():
        waiter.set_result(None)
