"""`Wakeup`, `AsyncWakeup` and `TaskWaiter`: let a thread or a task wait for another thread.

`wake_together` wakes many at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

__all__ = ["AsyncWakeup", "TaskWaiter", "Wakeup", "wake", "wake_together"]


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


class TaskWaiter:
    """What one task waits for, again and again. It may wake without a reason.

    A task takes any object with `_asyncio_future_blocking` for a future: see `asyncio.isfuture`. For a future's result,
    the loop would make a handle and run it in its next turn, for each task. This one runs the task in the callback that
    wakes all tasks of the loop, which takes a third less time for each. All of it is for the thread of the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_step", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self.loop = loop
        self._step: Callable[[TaskWaiter], object] | None = None  # of the task that waits
        self._context: Context

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task, which asks for it so."""
        return self.loop

    def __await__(self) -> Generator[TaskWaiter]:
        self._asyncio_future_blocking = True
        yield self

    def add_done_callback(self, step: Callable[[TaskWaiter], object], *, context: Context) -> None:
        """Note how to run the task, which calls this once it waits."""
        self._context = context
        self._step = step

    def wake(self) -> None:
        """Run the task, if it waits."""
        step, self._step = self._step, None
        if step is not None:
            self._context.run(step, self)

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 (the task keeps it)
        """Run the task soon; it raises the error by itself, since this returns that nothing else will."""
        self.loop.call_soon(self.wake)
        return False

    def result(self) -> None:
        """Return what waiting returns; the task calls this as it goes on."""


class AsyncWakeup:
    """See `Wakeup`: what one task waits for, and any thread may set."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: TaskWaiter | None = None  # bound to the task's loop

    def set(self) -> None:
        """See `Wakeup.set`."""
        self._is_set = True
        waiter = self._waiter
        if waiter is not None:
            wake(waiter)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """See `Wakeup.wait`; a cancelled call resets nothing. Without any time, it lets other tasks run."""
        loop = asyncio.get_running_loop()
        if self._waiter is None or self._waiter.loop is not loop:
            self._waiter = TaskWaiter(loop)
        if timeout_s is not None and timeout_s <= 0:
            await asyncio.sleep(0)
        elif timeout_s is None:
            while not self._is_set:
                await self._waiter
        else:
            await self._wait_until(loop, loop.time() + timeout_s, self._waiter)
        found, self._is_set = self._is_set, False
        return found

    async def _wait_until(self, loop: asyncio.AbstractEventLoop, deadline: float, waiter: TaskWaiter) -> None:
        timer = loop.call_at(deadline, waiter.wake)
        try:
            while not self._is_set and loop.time() < deadline:
                await waiter
        finally:
            timer.cancel()


class _HeldWakeups(threading.local):
    """What the present thread wakes at the end of `wake_together`; `None` outside it."""

    waiters: list[Wakeup | TaskWaiter] | None = None


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
        loops: dict[asyncio.AbstractEventLoop, list[TaskWaiter]] = {}
        threads: list[Wakeup] = []
        last: asyncio.AbstractEventLoop | None = None
        of_last: list[TaskWaiter] = []
        for waiter in held:
            if isinstance(waiter, Wakeup):
                threads.append(waiter)
                continue
            loop = waiter.loop
            if loop is not last:  # mostly there is only one
                last, of_last = loop, loops.setdefault(loop, [])
            of_last.append(waiter)
        for loop, waiters in loops.items():
            _run_in(loop, waiters)
        for wakeup in threads:  # last, since each takes the interpreter from this thread
            wakeup.set()


def wake(waiter: Wakeup | AsyncWakeup | TaskWaiter) -> None:
    """Set a wakeup, or run a task in its loop; see `wake_together`."""
    held = _held.waiters
    if isinstance(waiter, AsyncWakeup):
        waiter.set()
    elif held is not None:
        held.append(waiter)
    elif isinstance(waiter, Wakeup):
        waiter.set()
    else:
        _run_in(waiter.loop, [waiter])


def _run_in(loop: asyncio.AbstractEventLoop, waiters: list[TaskWaiter]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits any more
        loop.call_soon_threadsafe(_run_all, waiters)


def _run_all(waiters: list[TaskWaiter]) -> None:
    left = iter(waiters)
    try:
        for waiter in left:
            waiter.wake()
    finally:  # a task that ends with SystemExit or KeyboardInterrupt raises it here
        others = list(left)
        if others:
            asyncio.get_running_loop().call_soon(_run_all, others)
