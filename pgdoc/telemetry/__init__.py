"""Metrics and traces of the streams and stores of this process, and metrics of a server."""

from pgdoc.telemetry.opentelemetry import Instrumentation, instrument
from pgdoc.telemetry.prometheus import MetricsEndpoint, ProcessCollector, serve
from pgdoc.telemetry.tracing import link, links, process_span

__all__ = [
    "Instrumentation",
    "MetricsEndpoint",
    "ProcessCollector",
    "instrument",
    "link",
    "links",
    "process_span",
    "serve",
]
