"""Threads and tasks that run beside their caller, in a blocking and an awaiting version."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import signal
import socket
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from psycopg import AsyncConnection, Connection

__all__ = [
    "Activity",
    "AsyncActivity",
    "AsyncFlag",
    "Caution",
    "Flag",
    "async_cancelled_inside",
    "async_catch_signals",
    "cancelled_inside",
    "catch_signals",
]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Flag: TypeAlias = threading.Event
"""Any thread may set it; `wait` returns whether it is set."""


class AsyncFlag(asyncio.Event):
    """Set by a task of the loop."""

    async def wait(self, timeout: float | None = None) -> bool:  # type: ignore[override]  # noqa: ASYNC109
        """Wait until the flag is set, at most `timeout` seconds; return whether it is set."""
        if not self.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await super().wait()
        return self.is_set()


class Activity:
    """A function that a daemon thread runs; its error is kept."""

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        self._done: Future[None] = Future()
        # The caller's context, as a task has it: `pgdoc.metadata` blocks go on inside.
        target = contextvars.copy_context().run
        self._thread = threading.Thread(target=target, args=(self._run, run), name=name, daemon=True)
        self._thread.start()

    def _run(self, run: Callable[[], object]) -> None:
        try:
            run()
        except BaseException as exc:  # noqa: BLE001 (kept for `error`)
            self._done.set_exception(exc)
        else:
            self._done.set_result(None)

    @property
    def is_over(self) -> bool:
        """Whether the function has ended."""
        return self._done.done()

    @property
    def error(self) -> BaseException | None:
        """What ended the function, if it was an exception."""
        return self._done.exception() if self.is_over else None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end, at most this long; return whether it has come."""
        wait([self._done], timeout_s)
        return self.is_over

    def call_off(self, connection: Connection[Any] | None) -> None:
        """Take the connection from the thread, which nothing can end: the server then rolls back.

        The socket is shut down, not closed, because libpq may be reading from it.
        """
        if connection is not None:
            with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as its_socket:
                its_socket.shutdown(socket.SHUT_RDWR)


class AsyncActivity:
    """A coroutine that a task runs."""

    def __init__(self, name: str, run: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._task = asyncio.get_running_loop().create_task(run(), name=name)

    @property
    def is_over(self) -> bool:
        """See `Activity`."""
        return self._task.done()

    @property
    def error(self) -> BaseException | None:
        """See `Activity`."""
        if not self._task.done():
            return None
        return asyncio.CancelledError() if self._task.cancelled() else self._task.exception()

    async def wait(self, timeout_s: float) -> bool:
        """See `Activity`."""
        await asyncio.wait([self._task], timeout=timeout_s)
        return self.is_over

    def call_off(self, connection: AsyncConnection[Any] | None) -> None:
        """Cancel the task; its transaction rolls back."""
        del connection
        self._task.cancel()


def cancelled_inside(exc: BaseException) -> Exception | None:
    """Return an error for a cancellation that nobody asked of this thread: something that it awaited was cancelled."""
    return RuntimeError("what it awaited was cancelled") if isinstance(exc, asyncio.CancelledError) else None


def async_cancelled_inside(exc: BaseException) -> Exception | None:
    """See `cancelled_inside`; a task that is being cancelled was asked."""
    task = asyncio.current_task()
    return None if task is None or task.cancelling() else cancelled_inside(exc)


class Caution:
    """Lets the handlers of one process try events in turn: if the process ends, one event is to blame.

    Attributes:
        is_on: whether processes have ended several times; never cleared.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._turn = threading.Lock()

    def take_turn(self) -> bool:
        """Begin a turn, unless another handler has it; does not wait."""
        return self._turn.acquire(blocking=False)

    def end_turn(self) -> None:
        """End the turn."""
        self._turn.release()


@contextlib.contextmanager
def catch_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` for SIGTERM and SIGINT while the block runs; only the main thread can do that.

    Python calls it between two instructions of the main thread, so `stop` may take no lock.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {each: signal.signal(each, lambda *_: stop()) for each in _SIGNALS}
    try:
        yield
    finally:
        _restore(former)


class _Caught(NamedTuple):
    """What the signals of a loop stop, and what handled those that were taken."""

    stops: list[Callable[[], None]]
    former: dict[signal.Signals, Any]


_caught_by_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Caught] = WeakKeyDictionary()


@contextlib.contextmanager
def async_catch_signals(stop: Callable[[], None]) -> Iterator[None]:
    """See `catch_signals`; the loop calls `stop`.

    A signal that the program handles itself is left to it: a server such as uvicorn, which runs on the same loop, would
    never end without it.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = _caught_by_loops.get(loop)  # a loop has one handler for a signal, and perhaps several workers
    if caught is None:
        former = {each: signal.getsignal(each) for each in _SIGNALS}
        caught = _Caught([], {each: handler for each, handler in former.items() if not _is_of_program(handler)})
        _caught_by_loops[loop] = caught
    stops = caught.stops
    stops.append(stop)
    if len(stops) == 1:
        for each in caught.former:
            loop.add_signal_handler(each, _call_all, stops)
    try:
        yield
    finally:
        stops.remove(stop)
        if not stops:
            for each in caught.former:
                loop.remove_signal_handler(each)
            del _caught_by_loops[loop]
            _restore(caught.former)


def _is_of_program(handler: Any) -> bool:
    """Return whether a handler is neither Python's own for Ctrl-C nor that of `asyncio.run`."""
    bound = handler.func if isinstance(handler, functools.partial) else handler
    is_of_runner = isinstance(getattr(bound, "__self__", None), asyncio.Runner)
    return callable(handler) and handler is not signal.default_int_handler and not is_of_runner


def _call_all(stops: list[Callable[[], None]]) -> None:
    for stop in stops:
        stop()


def _restore(former: dict[signal.Signals, Any]) -> None:
    for each, handler in former.items():
        signal.signal(each, signal.SIG_DFL if handler is None else handler)  # None: Python has not installed it
