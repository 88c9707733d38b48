"""Presents the metrics of a server as Prometheus reads them. Needs the package prometheus-client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pgdoc.telemetry.http import MetricsServer
from pgdoc.telemetry.metric import MetricKind
from pgdoc.telemetry.scraper import Scraper
from pgdoc.telemetry.server_metrics import SERVER_METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric as Family

    from pgdoc.telemetry.database import DatabaseMetrics
    from pgdoc.telemetry.server_samples import ServerSample

__all__ = ["Exposition"]

_FAMILIES: Final = {MetricKind.COUNTER: CounterMetricFamily, MetricKind.GAUGE: GaugeMetricFamily}


class Exposition(Collector):
    """The metrics of one database, scraped when Prometheus asks, and until `close`."""

    def __init__(self, metrics: DatabaseMetrics) -> None:
        self._metrics = metrics
        self._scraper = Scraper(metrics)
        # Nothing else: the metrics of this Python process concern no database.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that have a value, in the order of the table."""
        values: dict[str, list[ServerSample]] = {}
        for sample in self._scraper.samples():
            values.setdefault(sample.name, []).append(sample)
        database = self._metrics.database
        for metric in SERVER_METRICS:
            found = values.pop(metric.name, None)
            if found:
                family = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
                for sample in found:
                    family.add_metric((database, *sample.labels), sample.value)
                yield family

    def text(self) -> str:
        """Scrape, and return the metrics in the text format of Prometheus."""
        return generate_latest(self._registry).decode()

    def listen(self, host: str, port: int) -> MetricsServer:
        """Return a server that serves them; `serve_forever` makes it answer.

        Raises:
            OSError: this address can't be listened on.
        """
        return MetricsServer(host, port, self._registry)

    def close(self) -> None:
        """End the scrape that is running, and close the connection."""
        self._scraper.close()
