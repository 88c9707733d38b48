"""Runs a worker or a relay until a signal, with an end that comes whatever the handlers do."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol, cast

from pgdoc.cli.worker_loading import fail, one_line_of
from pgdoc.errors import PgdocError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["Service", "call_service", "run_service"]

logger = logging.getLogger("pgdoc.service")

_POLL_S: Final = 0.1
_GRACE_S: Final = 10.0  # beyond the handlers' time: to store positions, and to close streams and connections
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Service(Protocol):
    """A worker or a relay. The methods of an async one are coroutine functions, but for `stop`."""

    store: Any
    shutdown_timeout: float

    def run(self) -> Any:
        """Run until `stop`."""

    def stop(self) -> None:
        """Let `run` end."""

    @property
    def is_running(self) -> bool:
        """Whether `run` runs."""
        ...


def run_service(service: Service, title: str, ending: str) -> None:
    """Run a service until SIGTERM or SIGINT, and close its store; a second signal ends the process at once.

    `title` names it in messages, and `ending` says what it does after a signal. It runs in a thread, so that the main
    thread can act on signals while a handler blocks the event loop, or does not return.

    Raises:
        PgdocError: it can't run.
    """
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            call_service(service, service.run)
        except BaseException as exc:  # noqa: BLE001 (kept for the main thread)
            ended.append(exc)
        else:
            ended.append(None)

    with _signals() as received:
        thread = threading.Thread(target=run, name=f"pgdoc-{title}", daemon=True)
        thread.start()
        _wait(service, thread, received, title, ending)
    error = ended[0]
    if isinstance(error, PgdocError):
        raise error
    if isinstance(error, ValueError):
        fail(str(error))
    if error is not None:
        logger.error("the %s failed", title, exc_info=error)
        fail(f"the {title} failed: {one_line_of(error)}")


def call_service(service: Service, call: Callable[[], T | Coroutine[Any, Any, T]]) -> T:
    """Call one of its methods, and close its store; wait for the result of a coroutine function."""
    if inspect.iscoroutinefunction(call):
        found: T = asyncio.run(_call(service, call))
        return found
    with service.store:
        return cast("T", call())


async def _call(service: Service, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async with service.store:
        return await call()


def _wait(service: Service, thread: threading.Thread, received: list[int], title: str, ending: str) -> None:
    """Wait for the end of the thread; tell the service to stop when a signal has come.

    One that ends by itself does not wait long, either: the loop waits for a task that can't be cancelled.
    """
    deadline, has_run = None, False
    while thread.is_alive():
        thread.join(_POLL_S)
        is_running = service.is_running
        if deadline is None and received:
            logger.info("%s: %s", signal.Signals(received[0]).name, ending)
            service.stop()
            deadline = time.monotonic() + service.shutdown_timeout + _GRACE_S
        elif deadline is None and has_run and not is_running:
            deadline = time.monotonic() + _GRACE_S
        has_run = has_run or is_running
        if deadline is not None and time.monotonic() > deadline:
            logger.error("the %s did not end in time: the process ends, and the server rolls back what is open", title)
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
