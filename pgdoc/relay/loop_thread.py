"""The event loop in which an engine's client runs, in a thread of its own: the same for sync and async callers.

No code of a user runs there, so that a connection is served whatever the user's thread or loop does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    T = TypeVar("T")

__all__ = ["LoopThread", "finish"]

_END_S = 5.0


class LoopThread:
    """A daemon thread that runs an event loop until `close`.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    @property
    def is_alive(self) -> bool:
        """Whether it runs; not so in a child process that was forked."""
        return self._thread.is_alive()

    def abandon(self, last: Coroutine[Any, Any, object]) -> None:
        """Let it end after a last coroutine, without waiting: any thread may call it, also a finalizer's."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end_after(last), self._loop)
        else:
            last.close()

    async def _end_after(self, last: Coroutine[Any, Any, object]) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(last, _END_S)
        await self._end()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine there; coroutines begin in the order of the calls."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancel what runs, and end the thread."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(_END_S)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_END_S / 2) if tasks else None
        await self._loop.shutdown_asyncgens()
        self._loop.call_soon(self._loop.stop)


async def finish(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine to its end, also if the task is cancelled meanwhile: for closing what would be left open."""
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
