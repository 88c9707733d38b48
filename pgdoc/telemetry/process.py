"""The metrics of this process, as they are when somebody asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgdoc.runtime.census import CENSUS
from pgdoc.telemetry.catalogue import METRICS, Half

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.runtime.census import Labelled, Labels
    from pgdoc.telemetry.catalogue import Metric

Values = dict["Labels", float]
"""The values of one metric, by those of its labels."""

_TOGETHER_S = 1.0

_HIGHEST = ("pgdoc_stream_lag_bytes", "pgdoc_stream_lag_seconds", "pgdoc_handler_running_seconds")
"""The metrics of which the highest counts where several have the same labels. Others are added up."""

PROCESS_METRICS: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.half is Half.PROCESS)


def values_now() -> Iterator[tuple[Metric, Values]]:
    """Yield each metric of the process with its values."""
    found = _by_labels()
    for metric in PROCESS_METRICS:
        yield metric, {labels: value for (name, labels), value in found.items() if name == metric.name}


class Gathering:
    """The values of all metrics at one moment, for a reader that asks for one metric after the other."""

    def __init__(self) -> None:
        self._began_at = float("-inf")
        self._left: dict[str, Values] = {}  # those that were not asked for yet

    def values_of(self, metric: Metric) -> Values:
        """Return the values of one metric: of a new moment, if it was asked for already, or some time ago."""
        left = self._left
        found = left.pop(metric.name, None) if time.monotonic() - self._began_at < _TOGETHER_S else None
        if found is None:
            left = {each.name: values for each, values in values_now()}
            found = left.pop(metric.name)
            self._left, self._began_at = left, time.monotonic()
        return found


def _by_labels() -> dict[Labelled, float]:
    return _counts() | _gauges()


def _counts() -> dict[Labelled, float]:
    return CENSUS.counts()


def _gauges() -> dict[Labelled, float]:
    found: dict[Labelled, float] = {}
    for labelled, value in CENSUS.gauges():
        before = found.get(labelled, 0)
        found[labelled] = max(before, value) if labelled[0] in _HIGHEST else before + value
    return found
