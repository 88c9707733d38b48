"""Metrics and trace context through OpenTelemetry."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Self

from pgdoc.model.metadata import carry_trace
from pgdoc.telemetry.catalogue import MetricKind
from pgdoc.telemetry.missing import needing
from pgdoc.telemetry.process import PROCESS_METRICS, Gathering
from pgdoc.telemetry.tracing import current_trace, span_of_handler
from pgdoc.workers.spans import trace_handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

    from pgdoc.telemetry.catalogue import Metric

__all__ = ["Instrumentation", "instrument"]

_UNITS = {"bytes": "By", "seconds": "s", "": ""}


class Instrumentation:
    """What `instrument` has turned on; a context manager."""

    def __init__(self) -> None:
        self.is_on = True

    def close(self) -> None:
        """Report no more metrics, make no more spans, and write no more trace context; a second call does nothing."""
        with _lock:
            if self.is_on:
                self.is_on = False
                carry_trace(None)
                trace_handlers(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


_lock = threading.Lock()  # guards the next, and `is_on`
_present: Instrumentation | None = None


def instrument(meter_provider: MeterProvider | None = None) -> Instrumentation:
    """Report the metrics of this process through OpenTelemetry, and write the trace context with every change.

    The metrics are observable instruments: they are worked out when a reader of the SDK collects them. From now on
    document calls and transactions that are made inside a span add its `traceparent` and `tracestate` to their
    metadata, and each call of a worker's handler runs inside a span. The instrumentation stays on until it is closed;
    while it is on, another call returns the same.

    Args:
        meter_provider: where to report metrics; `None` for the global one.

    Raises:
        MissingExtra: opentelemetry-api is not installed.
    """
    global _present  # noqa: PLW0603 (a process has one)
    with needing("opentelemetry-api"):
        from opentelemetry import metrics  # noqa: PLC0415 (optional)
    with _lock:
        if _present is not None and _present.is_on:
            return _present
        _present = made = Instrumentation()
        carry_trace(current_trace)
        trace_handlers(span_of_handler)
        meter = metrics.get_meter("pgdoc", meter_provider=meter_provider)
        gathering = Gathering()
        for metric in PROCESS_METRICS:
            _observe(meter, metric, partial(_values, metric, gathering, made))
        return made


def _observe(meter: Meter, metric: Metric, values: Callable[[CallbackOptions], Iterator[Observation]]) -> None:
    is_counter = metric.kind is MetricKind.COUNTER
    create = meter.create_observable_counter if is_counter else meter.create_observable_gauge
    # An exporter for Prometheus adds `_total` again.
    create(metric.name.removesuffix("_total"), [values], _UNITS[metric.unit], metric.help)


def _values(
    metric: Metric, gathering: Gathering, made: Instrumentation, _options: CallbackOptions
) -> Iterator[Observation]:
    from opentelemetry.metrics import Observation  # noqa: PLC0415 (optional)

    if made.is_on:
        for labels, value in gathering.values_of(metric).items():
            yield Observation(value, dict(zip(metric.labels, labels, strict=True)))
