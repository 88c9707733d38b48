"""The figures of a relay for metrics: an entry of the census."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.runtime.census import CENSUS, OTHER, Labels, Measured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.relay.figures import RelayFigures

__all__ = ["count_relay"]

_STATES: Final = ("standby", "opening", "relaying", "log_full", "waiting_for_log", "waiting_for_server")


def count_relay(owner: object, source: Labels, figures: RelayFigures) -> None:
    """Have metrics count a relay until its `owner` is freed; `source` labels the store."""
    CENSUS.enter(owner, _RelayEntry(source, figures))


class _RelayEntry:
    """What one relay counts; it outlives the relay until its counts are added up."""

    def __init__(self, source: Labels, figures: RelayFigures) -> None:
        labels = (*source, figures.consumer, figures.log)
        self._labels = CENSUS.bounded("relay", labels, (*source, OTHER, OTHER))
        self._figures = figures

    def counts(self) -> Iterable[Measured]:
        """See `Entry`."""
        status, labels = self._figures.status(), self._labels
        yield ("pgdoc_relay_messages_total", labels), status.stored
        yield ("pgdoc_relay_interruptions_total", labels), status.interruptions

    def gauges(self) -> Iterable[Measured]:
        """See `Entry`."""
        status, labels = self._figures.status(), self._labels
        if status.state == "closed":
            return
        yield ("pgdoc_relay_waiting_messages", labels), status.waiting
        for state in _STATES:
            yield ("pgdoc_relay_state", (*labels, state)), int(state == status.state)

    def goes_on_in_child(self) -> bool:
        """See `Entry`: the threads of a relay stay in the parent."""
        return False
