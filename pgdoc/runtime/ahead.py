"""`Ahead` and `AsyncAhead`: a call that is made while the caller goes on."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Ahead", "AsyncAhead"]

T = TypeVar("T")

_STOP_S = 0.3  # a call that waits for the server ends within 0.1 s, unless it waits for a connection


class Ahead(Generic[T]):
    """A call that a thread makes, once; the thread ends with the call.

    It stays usable after a KeyboardInterrupt at any step of the caller: `wait` begins what `begin` could not.

    Attributes:
        result: what the call returned; `None` if it failed, or has not ended.
        error: what it raised, if it failed.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self.result: T | None = None
        self.error: Exception | None = None
        self._function = function
        self._thread: threading.Thread | None = None
        self._taken = threading.Lock()  # by the first thread: an interrupted `begin` may have started one already
        self._stopping = threading.Event()
        self._has_ended = False
        self._end = Wakeup()

    def begin(self) -> None:
        """Begin the call, unless it has begun."""
        if self._thread is None:
            thread = threading.Thread(target=self._call, name="pgdoc-ahead", daemon=True)
            thread.start()
            self._thread = thread

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._has_ended

    def wait(self, timeout_s: float) -> bool:
        """Return whether the call has ended, after waiting for that."""
        self.begin()
        return self._has_ended or self._end.wait(timeout_s)

    def stop(self) -> None:
        """Cancel the call; a thread that waits for a connection ends when it has it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _call(self) -> None:
        if not self._taken.acquire(blocking=False):
            return
        try:
            with deadline_scope(closing=self._stopping):
                self.result = self._function()
        except Exception as exc:  # noqa: BLE001 (for the caller)
            self.error = exc
        finally:
            self._has_ended = True
            self._end.set()


class AsyncAhead(Generic[T]):
    """See `Ahead`: a call that a task makes."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.result: T | None = None
        self.error: Exception | None = None
        self._function = function
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """See `Ahead.begin`."""
        self._task = self._task or asyncio.get_running_loop().create_task(self._call(), name="pgdoc-ahead")

    @property
    def is_over(self) -> bool:
        """See `Ahead.is_over`."""
        return self._task is not None and self._task.done()

    async def wait(self, timeout_s: float) -> bool:
        """See `Ahead.wait`; canceling it does not cancel the call."""
        self.begin()
        assert self._task is not None  # noqa: S101 (`begin` has made it)
        done, _ = await asyncio.wait([self._task], timeout=timeout_s)
        return bool(done)

    async def stop(self) -> None:
        """Cancel the call."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_STOP_S)

    async def _call(self) -> None:
        try:
            self.result = await self._function()
        except Exception as exc:  # noqa: BLE001 (see `Ahead`)
            self.error = exc
