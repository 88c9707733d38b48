"""Every metric of pgdoc: of a process that uses it, and of a server.

The names, units and labels are a promise to dashboards and alerts. `docs/reference/metrics.md` is this table in prose,
and a test compares the two.
"""

from __future__ import annotations

from pgdoc.telemetry.metric import Half, Metric, MetricKind
from pgdoc.telemetry.server_metrics import SERVER_METRICS

__all__ = ["BY_NAME", "METRICS", "Half", "Metric", "MetricKind"]

_STORE = ("database", "schema")
_STREAM = ("database", "schema", "stream", "consumer")  # its collections; its consumer's name, or empty
_HANDLER = ("database", "schema", "consumer", "handler")
_RELAY = ("database", "schema", "consumer", "log")
_READER = ("database", "schema", "reader")

_GAUGE, _COUNTER = MetricKind.GAUGE, MetricKind.COUNTER
_PROCESS = Half.PROCESS

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
        "pgdoc_handler_events_total",
        _COUNTER,
        "",
        _HANDLER,
        "Events that the handler of a worker has handled, those that were tried again after they failed included.",
        _PROCESS,
    ),
    Metric("pgdoc_handler_calls_total", _COUNTER, "", _HANDLER, "How often the handler was called.", _PROCESS),
    Metric(
        "pgdoc_handler_failures_total",
        _COUNTER,
        "",
        _HANDLER,
        "Attempts that failed, and counted against the events: an exception, but no conflict, and no server that is "
        "away.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_handler_dead_letters_total",
        _COUNTER,
        "",
        _HANDLER,
        "Events on which the handler gave up, so that they became dead letters.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_handler_parked_events_total",
        _COUNTER,
        "",
        _HANDLER,
        "Events that were parked behind a dead letter of their document.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_handler_busy_seconds_total",
        _COUNTER,
        "seconds",
        _HANDLER,
        "How long the calls of the handler took, failed ones included. A rate near 1 means that it can't do more.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_handler_running_seconds",
        _GAUGE,
        "seconds",
        _HANDLER,
        "How long the current call of the handler has been running; 0 while there is none. The highest of the handlers "
        "with these labels.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_handler_waiting_events",
        _GAUGE,
        "",
        _HANDLER,
        "Events that wait for the handler in the memory of the process.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_handler_state",
        _GAUGE,
        "",
        (*_HANDLER, "state"),
        "Handlers in this state: standby, idle, running, backing_off or waiting_for_server.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_relay_messages_total",
        _COUNTER,
        "",
        _RELAY,
        "Messages that the relay has sent, and the engine of its log has acknowledged. A large event has several.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_relay_interruptions_total",
        _COUNTER,
        "",
        _RELAY,
        "How often the relay had to open its log again.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_relay_waiting_messages",
        _GAUGE,
        "",
        _RELAY,
        "Messages that the relay has sent, and the engine has not acknowledged yet.",
        _PROCESS,
    ),
    Metric(
        "pgdoc_relay_state",
        _GAUGE,
        "",
        (*_RELAY, "state"),
        "Relays in this state: standby, opening, relaying, log_full, waiting_for_log or waiting_for_server.",
        _PROCESS,
    ),
    *SERVER_METRICS,
)
"""All metrics, those of the process first."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
