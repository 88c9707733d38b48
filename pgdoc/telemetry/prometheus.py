"""The metrics of this process for Prometheus."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from pgdoc.runtime.fork import remember
from pgdoc.telemetry.metric import MetricKind
from pgdoc.telemetry.missing import needing
from pgdoc.telemetry.process import values_now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric as Family

    from pgdoc.telemetry.catalogue import Metric
    from pgdoc.telemetry.process import Values

__all__ = ["MetricsEndpoint", "ProcessCollector", "serve"]

_POLL_S = 0.1


class ProcessCollector:
    """Collects the metrics of this process for a registry of prometheus-client.

    `registry.register(ProcessCollector())` adds them to the metrics that your program serves already. They are worked
    out when they are collected. Nothing is noted while documents and events flow.
    """

    def __init__(self) -> None:
        with needing("prometheus-client"):
            import prometheus_client  # noqa: F401, PLC0415 (optional)

    def collect(self) -> Iterator[Family]:
        """Yield every metric of the process."""
        for metric, values in values_now():
            yield _family_of(metric, values)

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without values, so that registering one collects nothing."""
        for metric, _ in values_now():
            yield _family_of(metric, {})


def _family_of(metric: Metric, values: Values) -> Family:
    """Return a metric with its values as prometheus-client has it."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 (optional)

    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


class MetricsEndpoint:
    """Serves the metrics of this process over HTTP until it is closed; a context manager.

    Attributes:
        port: the port that it listens at.
        url: where Prometheus finds the metrics.
    """

    def __init__(self, port: int, host: str) -> None:
        with needing("prometheus-client"):
            from prometheus_client import CollectorRegistry  # noqa: PLC0415 (optional)

            from pgdoc.telemetry.http import MetricsServer  # noqa: PLC0415 (imports it, too)
        registry = CollectorRegistry()
        registry.register(ProcessCollector())
        self._server = MetricsServer(host, port, registry)
        self.port, self.url = self._server.server_port, self._server.url
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="pgdoc-metrics", daemon=True
        )
        self._thread.start()
        remember(self)

    def after_fork(self) -> None:
        """Close the child's copy of the socket: only the parent listens."""
        self._server.socket.close()

    def close(self) -> None:
        """Stop listening; a second call does nothing, nor does one in a forked child."""
        if os.getpid() == self._process:
            if self._thread.is_alive():
                self._server.shutdown()
                self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def serve(port: int, host: str = "127.0.0.1") -> MetricsEndpoint:
    """Serve the metrics of this process for Prometheus, at `http://HOST:PORT/metrics`.

    One thread serves them, however many streams there are. Whoever reaches the port can read the names of databases,
    schemas, collections and consumers: the default lets only this machine in.

    Args:
        port: where to listen; 0 for any free port, see `MetricsEndpoint.port`.
        host: the address to listen at.

    Returns:
        The endpoint; close it to stop.

    Raises:
        MissingExtra: prometheus-client is not installed.
        OSError: the port is in use.
    """
    return MetricsEndpoint(port, host)
