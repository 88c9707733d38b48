"""One scrape at a time, however many ask: those that come meanwhile get the same answer."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, Protocol

from pgdoc.telemetry.database import LIMIT_S

if TYPE_CHECKING:
    from pgdoc.telemetry.server_samples import ServerSample

__all__ = ["Scraper"]

logger = logging.getLogger("pgdoc.metrics")

_WAIT_S: Final = LIMIT_S + 1
_CLOSE_S: Final = 2.0


class _Scraped(Protocol):
    """What `Scraper` needs of `DatabaseMetrics`."""

    def scrape(self) -> list[ServerSample]: ...
    def silence(self) -> list[ServerSample]: ...
    def begin_to_close(self) -> None: ...
    def close(self) -> None: ...


class Scraper:
    """Scrapes in a thread of its own: looking up a host name, for instance, can take longer than any limit of ours."""

    def __init__(self, metrics: _Scraped, wait_s: float = _WAIT_S) -> None:
        self._metrics = metrics
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answer: Future[list[ServerSample]] = Future()

    def samples(self) -> list[ServerSample]:
        """Return the result of the scrape that is running, or of a new one; without a result, that of a dead server."""
        try:
            return self._running().result(self._wait_s)
        except (TimeoutError, RuntimeError):  # no answer yet, or no thread: the process has too many
            return self._metrics.silence()

    def _running(self) -> Future[list[ServerSample]]:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._answer = Future()
                self._thread = threading.Thread(
                    target=self._scrape, args=[self._answer], name="pgdoc-metrics", daemon=True
                )
                self._thread.start()
            return self._answer

    def _scrape(self, answer: Future[list[ServerSample]]) -> None:
        try:
            found = self._metrics.scrape()
        except Exception:  # a bug must not look like a dead process: the next scrape may succeed
            logger.exception("a scrape failed")
            found = self._metrics.silence()
        answer.set_result(found)

    def close(self) -> None:
        """Wait for the scrape that is running, for a moment, and close the connection."""
        self._metrics.begin_to_close()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)
        if thread is None or not thread.is_alive():
            self._metrics.close()
