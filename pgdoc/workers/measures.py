"""The figures of handlers for metrics: entries of the census."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.runtime.census import CENSUS, OTHER, Labels, Measured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.workers.figures import HandlerFigures

__all__ = ["count_handlers"]

_STATES: Final = ("standby", "idle", "running", "backing_off", "waiting_for_server")


def count_handlers(owner: object, source: Labels, handlers: Iterable[HandlerFigures]) -> None:
    """Have metrics count the handlers of a consumer until its `owner` is freed; `source` labels the store."""
    for figures in handlers:
        CENSUS.enter(owner, _HandlerEntry(source, figures))


class _HandlerEntry:
    """What one handler counts; it outlives the worker until its counts are added up."""

    def __init__(self, source: Labels, figures: HandlerFigures) -> None:
        labels = (*source, figures.consumer, figures.handler)
        self._labels = CENSUS.bounded("handler", labels, (*source, OTHER, OTHER))
        self._figures = figures

    def counts(self) -> Iterable[Measured]:
        """See `Entry`."""
        status, labels = self._figures.status(), self._labels
        yield ("pgdoc_handler_events_total", labels), status.handled
        yield ("pgdoc_handler_calls_total", labels), status.calls
        yield ("pgdoc_handler_failures_total", labels), status.failures
        yield ("pgdoc_handler_dead_letters_total", labels), status.dead
        yield ("pgdoc_handler_parked_events_total", labels), status.parked
        yield ("pgdoc_handler_busy_seconds_total", labels), status.busy_s

    def gauges(self) -> Iterable[Measured]:
        """See `Entry`."""
        status, labels = self._figures.status(), self._labels
        if status.state == "closed":
            return
        yield ("pgdoc_handler_running_seconds", labels), status.running_s
        yield ("pgdoc_handler_waiting_events", labels), status.waiting
        for state in _STATES:
            yield ("pgdoc_handler_state", (*labels, state)), int(state == status.state)

    def goes_on_in_child(self) -> bool:
        """See `Entry`: the threads of a worker stay in the parent."""
        return False
