"""The blocking and the awaiting version of everything in which the two kinds of store differ."""

from __future__ import annotations

import asyncio
import inspect
import os
import select
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeAlias, TypeVar

from psycopg import Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from psycopg import AsyncConnection

__all__ = [
    "Act",
    "AsyncAct",
    "AsyncBody",
    "AsyncLending",
    "AsyncLock",
    "AsyncOpening",
    "AsyncPool",
    "AsyncTurns",
    "Body",
    "Lending",
    "Lock",
    "Opening",
    "Pool",
    "Turns",
    "async_call",
    "async_check_body",
    "async_execute_watched",
    "async_later",
    "async_open_made",
    "async_opening",
    "async_sleep",
    "async_wait",
    "async_wait_for",
    "call",
    "check_alive",
    "check_body",
    "execute_watched",
    "later",
    "open_made",
    "opening",
    "sleep",
    "wait",
    "wait_for",
]

P = ParamSpec("P")
T = TypeVar("T")
TransactionT = TypeVar("TransactionT")
OpeningT = TypeVar("OpeningT", bound="Opening")
AsyncOpeningT = TypeVar("AsyncOpeningT", bound="AsyncOpening")

Lock = threading.Lock
AsyncLock = asyncio.Lock

# The turns of a transaction's calls. The documents of an `insert_many` may come from a `find` of the same thread.
Turns = threading.RLock
AsyncTurns = asyncio.Lock

# A function of a transaction.
Body: TypeAlias = "Callable[[TransactionT], T]"
AsyncBody: TypeAlias = "Callable[[TransactionT], Awaitable[T]]"

# A function without arguments.
Act: TypeAlias = "Callable[[], T]"
AsyncAct: TypeAlias = "Callable[[], Awaitable[T]]"

Lending: TypeAlias = "AbstractContextManager[Connection[Any]]"
AsyncLending: TypeAlias = "AbstractAsyncContextManager[AsyncConnection[Any]]"

sleep = time.sleep
async_sleep = asyncio.sleep


def check_body(fn: object) -> None:
    """Refuse what is no function of a transaction: a coroutine function would never run."""
    if not callable(fn) or inspect.iscoroutinefunction(fn):
        raise TypeError(f"fn must be a function of a transaction, got {fn!r}; AsyncStore takes coroutine functions")


def async_check_body(fn: object) -> None:
    """Refuse what can't be called."""
    if not callable(fn):
        raise TypeError(f"fn must be a coroutine function of a transaction, got {fn!r}")


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that blocks."""
    return function(*args, **kwargs)


async def async_call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


def wait(future: Future[T]) -> T:
    """Wait for the result of one of pgdoc's threads."""
    return future.result()


async def async_wait(future: Future[T]) -> T:
    """See `wait`; cancelling the call does not cancel the future for others."""
    waiting = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        waiting.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # retrieves the error, which asyncio would log otherwise
        raise


def wait_for(future: Future[Any], timeout_s: float) -> None:
    """Wait at most `timeout_s` for one of pgdoc's threads."""
    futures.wait([future], timeout_s)


async def async_wait_for(future: Future[Any], timeout_s: float) -> None:
    """See `wait_for`; cancelling does not stop the thread."""
    waiting = asyncio.shield(asyncio.wrap_future(future))
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # asyncio would log an error
    await asyncio.wait([waiting], timeout=timeout_s)


def execute_watched(connection: Connection[Any], query: bytes, look: Callable[[], object], every_s: float) -> None:
    """Execute a long statement in a thread, and call `look` every `every_s` seconds; its errors cancel it."""
    with futures.ThreadPoolExecutor(1, "pgdoc-watched") as pool:
        executed = pool.submit(connection.execute, query)
        try:
            while not futures.wait([executed], every_s).done:
                look()
        except BaseException:
            connection.cancel_safe()
            raise
        executed.result()


async def async_execute_watched(
    connection: AsyncConnection[Any], query: bytes, look: Callable[[], Awaitable[object]], every_s: float
) -> None:
    """See `execute_watched`; runs in a task."""
    executing = asyncio.ensure_future(connection.execute(query))
    try:
        while not (await asyncio.wait([executing], timeout=every_s))[0]:
            await look()
    except BaseException:
        executing.cancel()
        await asyncio.wait([executing])
        raise
    await executing


def later(act: Act[object]) -> None:
    """Run a function that has to wait in a thread of its own."""
    threading.Thread(target=act, name="pgdoc-later", daemon=True).start()


_later: set[asyncio.Future[object]] = set()  # a loop has only weak references to its tasks


def async_later(act: AsyncAct[object]) -> None:
    """Run it in a task of its own."""
    task = asyncio.ensure_future(_await(act))
    _later.add(task)
    task.add_done_callback(_later.discard)


async def _await(act: AsyncAct[object]) -> object:
    return await act()


class Pool(ConnectionPool[Connection[Any]]):
    """A pool that does not wait in a forked child for the parent's threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._process = os.getpid()
        super().__init__(*args, **kwargs)

    def __del__(self) -> None:
        if os.getpid() == self._process:
            super().__del__()


AsyncPool = AsyncConnectionPool
"""Bound to the event loop that opened it."""


def check_alive(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    """Raise `psycopg.OperationalError` if the server has closed an idle connection; needs no round trip.

    An idle connection has nothing to read but the server's last message and the end.
    """
    pgconn = connection.pgconn
    while _readable(pgconn.socket):
        pgconn.consume_input()


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class Opening:
    """An object that a call returns already open."""

    def _open(self) -> Self:
        raise NotImplementedError


class AsyncOpening:
    """An object that opens when it is awaited, or entered as a context manager."""

    async def _open(self) -> Self:
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._open().__await__()


def opening(made: OpeningT) -> OpeningT:
    """Open the object."""
    return made._open()  # noqa: SLF001 (declared above)


def async_opening(made: AsyncOpeningT) -> AsyncOpeningT:
    """Return the object, which the user awaits or enters."""
    return made


def open_made(made: Opening) -> None:
    """Open an object in its constructor."""
    made._open()  # noqa: SLF001 (declared above)


def async_open_made(made: AsyncOpening) -> None:
    """Do nothing: the user awaits or enters the object."""
