from __future__ import annotations

import re

import pytest

from pgdoc.telemetry.catalogue import BY_NAME, METRICS, Half, Metric, MetricKind


def test_every_metric_has_a_name_of_its_own():
    assert len(BY_NAME) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_has_the_form_that_prometheus_asks_for(metric: Metric):
    assert re.fullmatch(r"pgdoc(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
    assert metric.name.removesuffix("_total").endswith(metric.unit)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_labels_and_help(metric: Metric):
    assert metric.labels[0] == "database"
    assert "schema" in metric.labels[1:2] or metric.half is Half.SERVER  # much of which concerns all schemas
    assert len(set(metric.labels)) == len(metric.labels)
    assert metric.help.endswith(".")


def test_the_names_that_the_process_and_the_server_promise():
    assert {metric.name for metric in METRICS if metric.half is Half.PROCESS} == {
        "pgdoc_stream_lag_bytes",
        "pgdoc_stream_lag_seconds",
        "pgdoc_stream_buffered_events",
        "pgdoc_stream_buffered_bytes",
        "pgdoc_stream_mode",
        "pgdoc_events_delivered_total",
        "pgdoc_received_bytes_total",
        "pgdoc_reconnects_total",
        "pgdoc_stream_errors_total",
        "pgdoc_pool_used_connections",
        "pgdoc_pool_max_connections",
        "pgdoc_pool_waiting_calls",
        "pgdoc_pool_wait_seconds_total",
        "pgdoc_handler_events_total",
        "pgdoc_handler_calls_total",
        "pgdoc_handler_failures_total",
        "pgdoc_handler_dead_letters_total",
        "pgdoc_handler_parked_events_total",
        "pgdoc_handler_busy_seconds_total",
        "pgdoc_handler_running_seconds",
        "pgdoc_handler_waiting_events",
        "pgdoc_handler_state",
        "pgdoc_relay_messages_total",
        "pgdoc_relay_interruptions_total",
        "pgdoc_relay_waiting_messages",
        "pgdoc_relay_state",
    }
    assert {metric.name for metric in METRICS if metric.half is Half.SERVER} >= {
        "pgdoc_consumer_oldest_unacked_seconds",
        "pgdoc_consumer_owned",
        "pgdoc_consumer_recreated_total",
        "pgdoc_slot_retained_bytes",
        "pgdoc_slot_safe_wal_bytes",
        "pgdoc_slot_catalog_xmin_age",
        "pgdoc_slot_invalid",
        "pgdoc_history_retained_bytes",
        "pgdoc_history_oldest_seconds",
    }
