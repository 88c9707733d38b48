"""What a metric is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Half", "Metric", "MetricKind"]


class MetricKind(StrEnum):
    """How a metric's value moves."""

    GAUGE = "gauge"  # up and down
    COUNTER = "counter"  # up only, until the process that reports it restarts


class Half(StrEnum):
    """Which part of pgdoc reports a metric."""

    PROCESS = "process"  # `pgdoc.telemetry`, in the process that has the streams and stores open
    SERVER = "server"  # `pgdoc metrics`, which asks the server


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as Prometheus and OpenTelemetry present it.

    Attributes:
        name: as Prometheus has it: with the unit, and `_total` for a counter.
        unit: `bytes`, `seconds`, or empty for a number of things.
        labels: the names of its labels, in order.
        help: what the value is.
    """

    name: str
    kind: MetricKind
    unit: str
    labels: tuple[str, ...]
    help: str
    half: Half
