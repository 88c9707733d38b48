"""Every metric of pgdoc: of a process that uses it, and of a server.

The names, units and labels are a promise to dashboards and alerts. `docs/reference/metrics.md` is this table in prose,
and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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


_STORE = ("database", "schema")
_STREAM = ("database", "schema", "stream", "consumer")  # its collections; its consumer's name, or empty
_READER = ("database", "schema", "reader")
_CONSUMER = ("database", "schema", "consumer")
_SLOT = ("database", "schema", "consumer", "slot")

_GAUGE, _COUNTER = MetricKind.GAUGE, MetricKind.COUNTER
_PROCESS, _SERVER = Half.PROCESS, Half.SERVER

METRICS: tuple[Metric, ...] = (
    Metric(
        "pgdoc_stream_lag_bytes",
        _GAUGE,
        "bytes",
        _STREAM,
        "The WAL between the next event that the stream has not returned and the end that the server has reported; "
        "0 if everything reported was returned. The highest of the streams with these labels.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_stream_lag_seconds",
        _GAUGE,
        "seconds",
        _STREAM,
        "How long ago the oldest event that the stream has not returned committed; 0 if it has returned everything. "
        "The highest of the streams with these labels.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_stream_buffered_events",
        _GAUGE,
        "",
        _STREAM,
        "Events that wait in the memory of the process.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_stream_buffered_bytes",
        _GAUGE,
        "bytes",
        _STREAM,
        "The size of the messages of these events.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_stream_mode",
        _GAUGE,
        "",
        (*_STREAM, "mode"),
        "Open streams in this mode: live, catching_up, reconnecting, snapshot or standby. Alert on lag, not on this.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_events_delivered_total",
        _COUNTER,
        "",
        _STREAM,
        "Events that streams have returned.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_received_bytes_total",
        _COUNTER,
        "bytes",
        _READER,
        "The size of the replication messages that were received, by the reader that feeds streams (live, catch_up or "
        "consumer).",
        _PROCESS,
    ),
    Metric(
        "pgdoc_reconnects_total",
        _COUNTER,
        "",
        _READER,
        "How often a reader lost its connection and began to connect again.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_stream_errors_total",
        _COUNTER,
        "",
        (*_STREAM, "class"),
        "Streams that an error ended, by its class in pgdoc.errors.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_pool_used_connections",
        _GAUGE,
        "",
        _STORE,
        "Connections of the store's pool that calls are using.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_pool_max_connections",
        _GAUGE,
        "",
        _STORE,
        "The most connections that the store's pool may have.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_pool_waiting_calls",
        _GAUGE,
        "",
        _STORE,
        "Calls that wait for a connection of the store's pool.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_pool_wait_seconds_total",
        _COUNTER,
        "seconds",
        _STORE,
        "How long calls have waited for a connection of the store's pool.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_consumer_oldest_unacked_seconds",
        _GAUGE,
        "seconds",
        _CONSUMER,
        "How long the oldest event that was not acknowledged has been waiting.",
        _SERVER,
    ),
    Metric(
        "pgdoc_consumer_owned",
        _GAUGE,
        "",
        _CONSUMER,
        "1 if a process has the consumer open, else 0.",
        _SERVER,
    ),
    Metric(
        "pgdoc_consumer_recreated_total",
        _COUNTER,
        "",
        _CONSUMER,
        "How often the consumer's position was lost, and it was made again.",
        _SERVER,
    ),
    Metric(
        "pgdoc_slot_retained_bytes",
        _GAUGE,
        "bytes",
        _SLOT,
        "The WAL that the slot holds back.",
        _SERVER,
    ),
    Metric(
        "pgdoc_slot_safe_wal_bytes",
        _GAUGE,
        "bytes",
        _SLOT,
        "How much WAL can be written before the slot may be lost; absent without max_slot_wal_keep_size.",
        _SERVER,
    ),
    Metric(
        "pgdoc_slot_catalog_xmin_age",
        _GAUGE,
        "",
        _SLOT,
        "How many transactions old the rows of the system catalogs are that VACUUM must keep for the slot.",
        _SERVER,
    ),
    Metric(
        "pgdoc_slot_invalid",
        _GAUGE,
        "",
        (*_SLOT, "reason"),
        "1 for a slot that is lost, with the reason that the server gives.",
        _SERVER,
    ),
    Metric(
        "pgdoc_history_retained_bytes",
        _GAUGE,
        "bytes",
        _STORE,
        "The WAL that bookmarks hold back so that streams can resume.",
        _SERVER,
    ),
    Metric(
        "pgdoc_history_oldest_seconds",
        _GAUGE,
        "seconds",
        _STORE,
        "How long ago the oldest position was at which a stream can resume.",
        _SERVER,
    ),
)
"""All metrics, those of the process first."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
