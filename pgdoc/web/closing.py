"""The end of the server: ends the open responses, for which the server waits before it tells the application.

uvicorn (also as a worker of gunicorn) notes a signal in its `Server`, stops listening, and then waits for open
connections. That `Server` runs in a task of the event loop, where it is found without patching anything. For other
servers that handle the signals in Python, such as granian, the signal's handler is chained while responses are open.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CoroutineType, FrameType

__all__ = ["watch_closing"]

_POLL_S: Final = 0.1  # as often as uvicorn looks itself
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Watch:
    """Watches the server of one event loop while responses are open. Used by the loop's thread only.

    Attributes:
        event: set when the server shuts down.
        open: the number of open responses.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.open = 0
        self._polling: asyncio.Task[None] | None = None
        self._chained: dict[int, tuple[Callable[..., Any], Any]] = {}  # by signal: our handler, and the one before

    def enter(self) -> None:
        self.open += 1
        if self.open > 1:
            return
        server = _uvicorn_server()
        if server is not None:
            self._polling = asyncio.create_task(self._poll(server))
        elif threading.current_thread() is threading.main_thread():
            self._chain(asyncio.get_running_loop())

    def leave(self) -> None:
        self.open -= 1
        if self.open:
            return
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
        for number, (ours, before) in self._chained.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, before)
        self._chained.clear()
        self.event = asyncio.Event()  # a later server may run on this loop

    async def _poll(self, server: Any) -> None:
        while not (server.should_exit or _has_stopped_listening(server)):  # noqa: ASYNC110 (an attribute of uvicorn)
            await asyncio.sleep(_POLL_S)
        self.event.set()

    def _chain(self, loop: asyncio.AbstractEventLoop) -> None:
        event = self.event
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if not callable(before) or before is signal.default_int_handler:
                continue  # the signal ends the process at once

            def handle(number: int, frame: FrameType | None, before: Callable[..., Any] = before) -> None:
                loop.call_soon_threadsafe(event.set)
                before(number, frame)

            signal.signal(number, handle)
            self._chained[number] = (handle, before)


_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = weakref.WeakKeyDictionary()


class watch_closing:  # noqa: N801 (used as a function)
    """Watch for the server's end inside the block, which gets the event that is set then."""

    def __enter__(self) -> asyncio.Event:
        self._watch = _watches.setdefault(asyncio.get_running_loop(), _Watch())
        self._watch.enter()
        return self._watch.event

    def __exit__(self, *exc_info: object) -> None:
        self._watch.leave()


def _has_stopped_listening(server: Any) -> bool:
    """Return whether uvicorn ends without a signal, as after `--limit-max-requests`."""
    listeners = getattr(server, "servers", ())
    return bool(listeners) and not any(each.is_serving() for each in listeners)


def _uvicorn_server() -> Any:
    """Return the uvicorn `Server` that runs on this event loop, if any does."""
    module = sys.modules.get("uvicorn.server")
    if module is None:
        return None
    frames = (frame for task in asyncio.all_tasks() for frame in _frames_of(task.get_coro()))
    owners = (frame.f_locals.get("self") for frame in frames if frame.f_code.co_varnames[:1] == ("self",))
    return next((owner for owner in owners if isinstance(owner, module.Server)), None)


def _frames_of(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of those that it awaits."""
    awaited: CoroutineType[Any, Any, Any] | Any = coroutine
    while inspect.iscoroutine(awaited):
        if awaited.cr_frame is not None:
            yield awaited.cr_frame
        awaited = awaited.cr_await
