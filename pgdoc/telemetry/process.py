"""The metrics of this process, as they are when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.runtime.census import CENSUS
from pgdoc.telemetry.catalogue import METRICS, Half, MetricKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.runtime.census import Labelled, Labels
    from pgdoc.telemetry.catalogue import Metric

Values = dict["Labels", float]
"""The values of one metric, by those of its labels."""

_HIGHEST = ("pgdoc_stream_lag_bytes", "pgdoc_stream_lag_seconds")
"""The metrics of which the highest counts where several streams have the same labels. Others are added up."""

PROCESS_METRICS: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.half is Half.PROCESS)


def values_now() -> Iterator[tuple[Metric, Values]]:
    """Yield each metric of the process with its values."""
    found = _by_labels()
    for metric in PROCESS_METRICS:
        yield metric, {labels: value for (name, labels), value in found.items() if name == metric.name}


def values_of(metric: Metric) -> Values:
    """Return the values of one metric."""
    samples = _counts() if metric.kind is MetricKind.COUNTER else _gauges()
    return {labels: value for (name, labels), value in samples.items() if name == metric.name}


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
