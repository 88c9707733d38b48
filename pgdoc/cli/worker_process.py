"""Runs a worker until a signal, with an end that comes whatever the handlers do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

import pgdoc
from pgdoc.cli.worker_loading import AnyWorker, fail, one_line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["call_worker", "run_worker"]

logger = logging.getLogger("pgdoc.worker")

_POLL_S: Final = 0.1
_GRACE_S: Final = 10.0  # beyond the handlers' time: to store positions, and to close streams and connections
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run_worker(worker: AnyWorker) -> None:
    """Run the worker until SIGTERM or SIGINT, and close its store; a second signal ends the process at once.

    The worker runs in a thread, so that the main thread can act on signals while a handler blocks the event loop, or
    does not return.

    Raises:
        PgdocError: the worker can't run.
    """
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            call_worker(worker, worker.run)
        except BaseException as exc:  # noqa: BLE001 (kept for the main thread)
            ended.append(exc)
        else:
            ended.append(None)

    with _signals() as received:
        thread = threading.Thread(target=run, name="pgdoc-worker", daemon=True)
        thread.start()
        _wait(worker, thread, received)
    error = ended[0]
    if isinstance(error, pgdoc.PgdocError):
        raise error
    if isinstance(error, ValueError):
        fail(str(error))
    if error is not None:
        logger.error("the worker failed", exc_info=error)
        fail(f"the worker failed: {one_line_of(error)}")


def call_worker(worker: AnyWorker, call: Callable[[], T | Coroutine[Any, Any, T]]) -> T:
    """Call one of its methods, and close its store; wait for the result if it is an `AsyncWorker`."""
    if isinstance(worker, pgdoc.AsyncWorker):
        return asyncio.run(_call(worker, call))  # type: ignore[arg-type]  # its methods are coroutine functions
    with worker.store:
        return call()  # type: ignore[return-value]


async def _call(worker: pgdoc.AsyncWorker, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async with worker.store:
        return await call()


def _wait(worker: AnyWorker, thread: threading.Thread, received: list[int]) -> None:
    """Wait for the end of the thread; tell the worker to stop when a signal has come.

    A worker that ends by itself does not wait long, either: the loop waits for a task that can't be cancelled.
    """
    deadline, has_run = None, False
    while thread.is_alive():
        thread.join(_POLL_S)
        is_running = worker.is_running
        if deadline is None and received:
            logger.info("%s: the handlers end their batches", signal.Signals(received[0]).name)
            worker.stop()
            deadline = time.monotonic() + worker.shutdown_timeout + _GRACE_S
        elif deadline is None and has_run and not is_running:
            deadline = time.monotonic() + _GRACE_S
        has_run = has_run or is_running
        if deadline is not None and time.monotonic() > deadline:
            logger.error("the worker did not end in time: the process ends, and the server rolls back what is open")
            _exit(1)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals of the block; the second one ends the process."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            _exit(128 + number)

    former = {each: signal.signal(each, note) for each in _SIGNALS}
    try:
        yield received
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


def _exit(code: int) -> None:
    """End the process without waiting for any thread; the server sees its connections close, and rolls back."""
    with contextlib.suppress(Exception):
        for handler in logging.getLogger().handlers:
            handler.flush()
    os._exit(code)
