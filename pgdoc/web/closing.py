"""The end of the server: ends the open responses, for which the server waits before it tells the application.

uvicorn (also as a worker of gunicorn) notes a signal in its `Server`, stops listening, and then waits for open
connections. That `Server` runs in a task of the event loop, where it is found without patching anything. For other
servers that handle the signals in Python, such as granian, the signal's handler is chained while responses are open.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import weakref
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

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
        servers = _uvicorn_servers()
        if servers:
            self._polling = asyncio.create_task(self._poll(servers))
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

    async def _poll(self, servers: Sequence[Any]) -> None:
        while not any(map(_is_ending, servers)):  # noqa: ASYNC110 (attributes of uvicorn)
            await asyncio.sleep(_POLL_S)
        self.event.set()

    def _chain(self, loop: asyncio.AbstractEventLoop) -> None:
        event = self.event
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if not callable(before) or before is signal.default_int_handler:
                continue  # the signal ends the process at once

            def handle(number: int, frame: FrameType | None, before: Callable[..., Any] = before) -> None:
                with suppress(
                    RuntimeError
                ):  # the loop is closed: a handler that was installed later still calls this one
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


def _is_ending(server: Any) -> bool:
    """Return whether uvicorn ends: by a signal, or without one, as after `--limit-max-requests`."""
    listeners = getattr(server, "servers", ())
    return server.should_exit or (bool(listeners) and not any(each.is_serving() for each in listeners))


def _uvicorn_servers() -> list[Any]:
    """Return each uvicorn `Server` that runs on this event loop. Which of them has the response is not known."""
    module = sys.modules.get("uvicorn.server")
    if module is None:
        return []
    # Of its own code only: to look at the locals of any other frame would keep them alive.
    frames = [frame for task in asyncio.all_tasks() for frame in _frames_of(task.get_coro(), vars(module))]
    owners = {frame.f_locals.get("self") for frame in frames}
    return [owner for owner in owners if isinstance(owner, module.Server)]


def _frames_of(coroutine: Any, module: dict[str, Any]) -> list[FrameType]:
    """Return the frames of a module's code among those of a coroutine and of what it awaits."""
    found = []
    while isinstance(coroutine, CoroutineType):
        frame = coroutine.cr_frame
        if frame is not None and frame.f_globals is module:
            found.append(frame)
        coroutine = coroutine.cr_await
    return found
