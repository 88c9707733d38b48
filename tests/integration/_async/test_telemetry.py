"""Metrics and traces of a process, as Prometheus and OpenTelemetry see them."""

from __future__ import annotations

import gc
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.parser import text_string_to_metric_families

import pgdoc
from pgdoc import AsyncStore, telemetry
from pgdoc.errors import HistoryLost
from pgdoc.model.positions import Lsn
from pgdoc.runtime.census import CENSUS
from pgdoc.runtime.primitives import async_sleep
from pgdoc.telemetry.catalogue import BY_NAME
from tests.integration._async.streams import take

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from pgdoc.telemetry.prometheus import MetricsEndpoint

Scrape = dict[str, list[tuple[dict[str, str], float]]]
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def few_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests before have used more schemas than have labels of their own."""
    monkeypatch.setattr(CENSUS, "_known", {})


@pytest.fixture
def endpoint() -> Iterator[MetricsEndpoint]:
    with telemetry.serve(0) as endpoint:
        yield endpoint


def scrape(endpoint: MetricsEndpoint, schema: str) -> Scrape:
    """Return what Prometheus reads, of one schema, by metric."""
    with urllib.request.urlopen(endpoint.url, timeout=PATIENCE_S) as answer:  # noqa: S310 (it is ours)
        text = answer.read().decode()
    found: Scrape = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("schema") == schema:
                assert set(sample.labels) == set(BY_NAME[sample.name].labels)
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(found: Scrape, name: str, **labels: str) -> float:
    """Return the only value with these labels."""
    (only,) = [value for every, value in found.get(name, []) if labels.items() <= every.items()]
    return only


async def until_buffered(stream: Any, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while stream.stats().buffered < count:
        assert time.monotonic() < deadline
        await async_sleep(0.01)


async def test_a_scrape_shows_the_streams_and_the_pool(
    shared_dsn: str, schema: str, sql: psycopg.Connection, endpoint: MetricsEndpoint
) -> None:
    async with AsyncStore(shared_dsn, schema=schema, pool_size=3) as store:
        async with store["orders"].watch() as stream, store["orders"].watch() as other, store.watch() as everything:
            await store["orders"].insert("1", {})
            await store["orders"].insert("2", {})
            await take(stream, 2)
            await take(other)
            for each, count in ((other, 1), (everything, 2)):
                await until_buffered(each, count)
            found = scrape(endpoint, schema)
        assert value(found, "pgdoc_events_delivered_total", stream="orders", consumer="") == 3
        assert value(found, "pgdoc_events_delivered_total", stream="*") == 0
        assert value(found, "pgdoc_stream_buffered_events", stream="orders") == 1
        assert value(found, "pgdoc_stream_buffered_events", stream="*") == 2
        assert value(found, "pgdoc_stream_buffered_bytes", stream="*") > 100
        assert value(found, "pgdoc_stream_lag_seconds", stream="orders") > 0
        assert value(found, "pgdoc_stream_lag_bytes", stream="*") > 0
        assert value(found, "pgdoc_stream_mode", stream="orders", mode="live") == 2
        assert value(found, "pgdoc_stream_mode", stream="orders", mode="standby") == 0
        assert value(found, "pgdoc_received_bytes_total", reader="live") > 100
        assert value(found, "pgdoc_pool_max_connections") == 3
        assert value(found, "pgdoc_pool_used_connections") == 0
        assert value(found, "pgdoc_pool_waiting_calls") == 0
        assert value(found, "pgdoc_pool_wait_seconds_total") >= 0
        async with store.transaction():
            assert value(scrape(endpoint, schema), "pgdoc_pool_used_connections") == 1
        database = sql.info.dbname
        assert {labels["database"] for samples in found.values() for labels, _ in samples} == {database}


async def test_what_was_closed_vanishes_and_its_counts_stay(
    shared_dsn: str, schema: str, endpoint: MetricsEndpoint
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        for number in range(3):
            async with store["orders"].watch() as stream:
                await store["orders"].insert(str(number), {})
                await take(stream)
            found = scrape(endpoint, schema)
            assert value(found, "pgdoc_events_delivered_total", stream="orders") == number + 1
            assert "pgdoc_stream_lag_seconds" not in found
    received = value(scrape(endpoint, schema), "pgdoc_received_bytes_total", reader="live")
    del store, stream
    gc.collect()
    found = scrape(endpoint, schema)
    assert value(found, "pgdoc_received_bytes_total", reader="live") >= received > 0
    assert value(found, "pgdoc_events_delivered_total", stream="orders") == 3
    assert "pgdoc_pool_max_connections" not in found


async def test_an_error_that_ends_a_stream_is_counted_once(
    shared_dsn: str, schema: str, endpoint: MetricsEndpoint
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        with pytest.raises(HistoryLost):
            async with store["orders"].watch(resume_after=Lsn(1)):
                pass
        found = scrape(endpoint, schema)
        assert found["pgdoc_stream_errors_total"] == [
            (
                {
                    "database": found["pgdoc_stream_errors_total"][0][0]["database"],
                    "schema": schema,
                    "stream": "orders",
                    "consumer": "",
                    "class": "HistoryLost",
                },
                1.0,
            )
        ]


async def test_streams_on_ids_of_their_own_share_their_labels(
    shared_dsn: str, schema: str, endpoint: MetricsEndpoint
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        streams = [await store["orders"].watch(where={"document_id": f"user-{number}"}) for number in range(50)]
        found = scrape(endpoint, schema)
        assert value(found, "pgdoc_stream_mode", stream="orders", mode="live") == 50
        assert "user-" not in str(found)
        for stream in streams:
            await stream.close()


async def test_a_consumer_has_its_name_as_a_label(shared_dsn: str, schema: str, endpoint: MetricsEndpoint) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=f"c_{schema}") as stream:
            await store["orders"].insert("1", {})
            await take(stream)
            found = scrape(endpoint, schema)
        assert value(found, "pgdoc_events_delivered_total", stream="orders", consumer=f"c_{schema}") == 1
        assert value(found, "pgdoc_received_bytes_total", reader="consumer") > 0
        await store.drop_consumer(f"c_{schema}")


async def test_opentelemetry_reads_the_same_values(shared_dsn: str, schema: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    async with AsyncStore(shared_dsn, schema=schema) as store:
        with telemetry.instrument(meter_provider=provider):
            async with store["orders"].watch() as stream:
                await store["orders"].insert("1", {})
                await store["orders"].insert("2", {})
                await take(stream)
                await until_buffered(stream, 1)
                found = observed(reader, schema)
        assert found["pgdoc_events_delivered", "orders"] == 1
        assert found["pgdoc_stream_buffered_events", "orders"] == 1
        assert found["pgdoc_stream_lag_seconds", "orders"] > 0
        assert observed(reader, schema) == {}
    provider.shutdown()


def observed(reader: InMemoryMetricReader, schema: str) -> dict[tuple[str, str], float]:
    data = reader.get_metrics_data()
    found: dict[tuple[str, str], float] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    assert isinstance(point, NumberDataPoint)
                    labels = point.attributes or {}
                    if labels.get("schema") == schema:
                        found[metric.name, str(labels.get("stream"))] = point.value
    return found


async def test_the_event_of_each_write_links_to_the_span_of_its_writer(shared_dsn: str, schema: str) -> None:
    tracer = TracerProvider().get_tracer("test")
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        with telemetry.instrument():
            with tracer.start_as_current_span("call") as call:
                await store["orders"].insert("1", {})
            with tracer.start_as_current_span("transaction") as transaction, pgdoc.metadata(user="alice"):
                async with store.transaction({"reason": "test"}) as tx:
                    with tracer.start_as_current_span("inside"):
                        await tx["orders"].insert("2", {})
                    with pgdoc.metadata(step=2):
                        await tx["orders"].insert("3", {})
            with tracer.start_as_current_span("bulk") as bulk:
                async with store.bulk() as b:
                    await b["orders"].insert("4", {})
            with tracer.start_as_current_span("many") as many:
                await store["orders"].insert_many([("5", {})])
        with tracer.start_as_current_span("no longer instrumented"):
            await store["orders"].insert("6", {})
        events = await take(stream, 6)
    writers = [call, transaction, transaction, bulk, many]
    links = telemetry.links(events)
    assert [telemetry.link(event).context.span_id for event in events[:5]] == [  # type: ignore[union-attr]
        writer.get_span_context().span_id for writer in writers
    ]
    assert len(links) == 4
    assert {name: events[2].metadata[name] for name in ("user", "reason", "step")} == {
        "user": "alice",
        "reason": "test",
        "step": 2,
    }
    assert events[5].metadata == {}
    assert telemetry.link(events[5]) is None
