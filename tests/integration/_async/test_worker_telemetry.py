"""Metrics and spans of workers, as Prometheus and OpenTelemetry see them."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pgdoc import AsyncWorker, telemetry
from pgdoc._async import lane
from pgdoc.runtime.activities import AsyncFlag
from pgdoc.runtime.census import CENSUS
from pgdoc.telemetry.process import values_now
from tests.integration._async.workers import count, fresh_name, opened, recorder, running, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import ReadableSpan

    from pgdoc import AsyncTransaction, ChangeEvent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(lane, "LONGEST_DELAY_S", 0.05)
    monkeypatch.setattr(CENSUS, "_known", {})  # earlier tests have used more names than have labels of their own


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans that are made, with the instrumentation on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    with telemetry.instrument():
        yield exporter


def of(span: ReadableSpan) -> Mapping[str, Any]:
    """Return the attributes of a span."""
    assert span.attributes is not None
    return span.attributes


def figures(consumer: str, handler: str) -> dict[str, float]:
    """Return the metrics of one handler; those of states have the state behind a colon."""
    return {
        ":".join((metric.name.removeprefix("pgdoc_handler_"), *labels[4:])): value
        for metric, values in values_now()
        for labels, value in values.items()
        if metric.name.startswith("pgdoc_handler_") and labels[2:4] == (consumer, handler)
    }


async def test_metrics_show_what_handlers_do(shared_dsn: str, schema: str) -> None:
    begun, go = AsyncFlag(), AsyncFlag()
    name = fresh_name()

    async def slow(events: list[ChangeEvent]) -> None:
        if events[0].document_id == "slow":
            begun.set()
            await go.wait(60)

    async with opened(shared_dsn, schema) as store:
        worker = AsyncWorker(store)
        worker.on("orders", consumer=name, name="one", retries=1, on_dead="park", batch=1)(recorder(bad={"bad"}))
        worker.on("orders", consumer=name, name="two", batch=1)(slow)
        await worker.declare()
        assert figures(name, "one") == {}
        async with running(worker):
            for document in ("good", "bad"):
                await store["orders"].insert(document, {})
            await store["orders"].update("bad", {"$set": {"n": 1}})
            await store["orders"].insert("slow", {})
            await store["orders"].insert("last", {})
            await count(store, "effects", 3)
            assert await begun.wait(60)

            async def waits() -> bool:
                return figures(name, "two")["waiting_events"] == 1

            await until(waits)
            found = figures(name, "two")
            assert found["running_seconds"] > 0
            assert (found["state:running"], found["state:idle"], found["calls_total"]) == (1, 0, 4)
            go.set()
        found = figures(name, "one")
        assert found.pop("busy_seconds_total") > 0
        assert found == {  # no gauge: the worker has ended
            "events_total": 3,
            "calls_total": 5,
            "failures_total": 2,
            "dead_letters_total": 1,
            "parked_events_total": 1,
        }
        del worker
    gc.collect()
    assert figures(name, "one")["events_total"] == 3  # it stays


async def test_a_standby_is_shown_as_one(shared_dsn: str, schema: str) -> None:
    name = fresh_name()
    async with opened(shared_dsn, schema) as store, opened(shared_dsn, schema) as other:
        first, second = AsyncWorker(store), AsyncWorker(other)
        for worker, handler in ((first, "first"), (second, "second")):
            worker.on("orders", consumer=name, name=handler)(recorder())

        async def states(handler: str, state: str) -> bool:
            return figures(name, handler).get(f"state:{state}") == 1

        async def owned() -> bool:
            return await states("first", "idle")

        async def stood_by() -> bool:
            return await states("second", "standby")

        async with running(first):
            await until(owned)
            async with running(second):
                await until(stood_by)
            assert "state:standby" not in figures(name, "second")


async def test_a_call_has_a_span_that_links_to_the_writers_and_its_writes_carry_it(
    shared_dsn: str, schema: str, spans: InMemorySpanExporter
) -> None:
    name = fresh_name()
    async with opened(shared_dsn, schema) as store:
        worker = AsyncWorker(store)
        worker.on("orders", consumer=name, name="effect")(recorder())
        worker.on("effects", consumer=f"{name}_2", name="next")(recorder("others"))
        await worker.declare()
        with trace.get_tracer("writer").start_as_current_span("place order") as placed:
            await store["orders"].insert("o-1", {})
        async with running(worker):
            await count(store, "others", 1)
        made = {of(span)["pgdoc.handler"]: span for span in spans.get_finished_spans() if span.name != "place order"}
        effect, following = made["effect"], made["next"]
        assert effect.name == "process orders"
        assert effect.kind is trace.SpanKind.CONSUMER
        assert effect.parent is None
        assert of(effect)["messaging.consumer.group.name"] == name
        assert of(effect)["messaging.batch.message_count"] == 1
        assert [link.context.span_id for link in effect.links] == [placed.get_span_context().span_id]
        assert [link.context.span_id for link in following.links] == [effect.context.span_id]


async def test_a_call_without_a_transaction_has_a_span_for_each_event_and_its_error(
    shared_dsn: str, schema: str, spans: InMemorySpanExporter
) -> None:
    name, seen = fresh_name(), []

    async def call(event: ChangeEvent) -> None:
        seen.append(event.document_id)
        if len(seen) == 2:
            raise RuntimeError("no")

    async with opened(shared_dsn, schema) as store:
        worker = AsyncWorker(store)
        worker.on("orders", consumer=name, name="call")(call)
        await worker.declare()
        await store["orders"].insert_many([("1", {}), ("2", {})])

        async def is_done() -> bool:
            return len(seen) == 3

        async with running(worker):
            await until(is_done)
        assert seen == ["1", "2", "2"]
        made = spans.get_finished_spans()
        assert [span.status.is_ok for span in made] == [True, False, True]
        assert "messaging.batch.message_count" not in of(made[0])


async def test_without_the_instrumentation_there_is_no_span(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker = AsyncWorker(store)
        current = []

        async def handle(tx: AsyncTransaction, events: list[ChangeEvent]) -> None:
            current.append(trace.get_current_span().get_span_context().is_valid)
            await tx["effects"].insert(str(events[0].document_id), {})

        worker.on("orders", consumer=fresh_name())(handle)
        await worker.declare()
        await store["orders"].insert("1", {})
        async with running(worker):
            await count(store, "effects", 1)
        assert current == [False]
