"""Runs the blocking calls of a Kafka client, in a daemon thread: a broker that is silent must not hold up the exit."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KafkaCalls"]


class KafkaCalls:
    """A thread that runs calls in their order, until `end`."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="pgdoc-kafka", daemon=True).start()

    def _run(self) -> None:
        while (next_call := self._calls.get()) is not None:
            call, future = next_call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as exc:  # noqa: BLE001 (it is the caller's)
                future.set_exception(exc)

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run a call after those before it."""
        future: Future[Any] = Future()
        self._calls.put((call, future))
        return future

    def end(self) -> None:
        """End the thread after the calls that it has."""
        self._calls.put(None)
