from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import pgdoc
from pgdoc import telemetry
from pgdoc.model.metadata import Metadata, checked, current_metadata, with_trace

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(collection: str = "orders", **metadata: Any) -> pgdoc.ChangeEvent:
    made = object.__new__(pgdoc.ChangeEvent)
    made.__dict__.update(collection=collection, metadata=metadata)
    return made


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter


@pytest.fixture
def instrumented():
    with telemetry.instrument() as made:
        yield made


def test_the_trace_of_a_span_is_in_the_metadata_while_the_instrumentation_is_on(spans):
    tracer, _ = spans
    with tracer.start_as_current_span("write") as span:
        assert with_trace(current_metadata()).values == {}
        with telemetry.instrument():
            found = with_trace(checked({"user": "alice"})).values
        assert with_trace(current_metadata()).values == {}
    assert found["user"] == "alice"
    made = telemetry.link(event(**found))
    assert made is not None
    assert made.context.trace_id == span.get_span_context().trace_id
    assert made.context.span_id == span.get_span_context().span_id


def test_outside_of_spans_nothing_is_added(instrumented):
    given = Metadata({"user": "alice"})
    assert with_trace(given) is given


@pytest.mark.parametrize("own", [{"traceparent": PARENT}, {"tracestate": "vendor=1"}])
def test_what_the_user_has_set_stays(own, spans, instrumented):
    with spans[0].start_as_current_span("write"):
        assert with_trace(checked(own)).values == own


def test_instrumenting_twice_is_instrumenting_once():
    with telemetry.instrument() as first:
        assert telemetry.instrument() is first
    first.close()
    with telemetry.instrument() as second:
        assert second is not first
        first.close()
        assert second.is_on


@pytest.mark.parametrize(
    "parent",
    [
        None,
        5,
        ["00"],
        {},
        "",
        PARENT.upper(),
        PARENT + "\n",
        PARENT + "-extra",
        PARENT.replace("00-4", "ff-4"),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        PARENT * 10_000,
    ],
)
def test_a_malformed_traceparent_is_ignored(parent):
    assert telemetry.link(event(traceparent=parent)) is None


@given(
    parent=st.one_of(st.just(PARENT), st.text(), st.integers(), st.none(), st.from_regex(r"00-[0-9a-f]{32}-.*")),
    state=st.one_of(st.text(), st.none(), st.lists(st.integers()), st.just("x" * 10_000)),
)
def test_no_metadata_is_an_error(parent, state):
    made = telemetry.link(event(traceparent=parent, tracestate=state))
    assert made is None or made.context.is_valid


def test_a_link_carries_the_state_of_the_trace():
    made = telemetry.link(event(traceparent=PARENT, tracestate="vendor=1"))
    assert made is not None
    assert made.context.trace_state.get("vendor") == "1"
    assert made.context.is_remote


@pytest.mark.parametrize(
    "state",
    ["a\nERROR all is lost", "no member", "a=1,a=2", "A=1", "a==1", "é=1", ",".join(f"k{n}=v" for n in range(33))],
)
def test_a_malformed_state_is_ignored_and_not_logged(state, caplog):
    found: Any = telemetry.link(event(traceparent=PARENT, tracestate=state))
    assert dict(found.context.trace_state) == {}
    assert not caplog.records


@pytest.mark.parametrize("state", ["a=1", "a=1 , b=x y\t,,", "1@v=!~", f"{'k' * 256}={'v' * 200}"])
def test_a_valid_state_is_carried(state):
    found: Any = telemetry.link(event(traceparent=PARENT, tracestate=state))
    assert len(found.context.trace_state) >= 1


def test_a_batch_links_to_each_span_once_and_not_to_too_many():
    parents = [f"00-{'a' * 32}-{number:016x}-01" for number in range(1, 300)]
    assert len(telemetry.links(event(traceparent=each) for each in parents[:5] * 3)) == 5
    assert len(telemetry.links(event(traceparent=each) for each in parents)) == 128


def test_a_span_processes_an_event_and_links_to_its_writer(spans):
    tracer, exporter = spans
    with telemetry.process_span(event(traceparent=PARENT), consumer="billing", tracer=tracer) as span:
        assert trace.get_current_span() is span
    (found,) = exporter.get_finished_spans()
    assert (found.name, found.kind) == ("process orders", trace.SpanKind.CONSUMER)
    assert found.parent is None, "a writer does not choose the parent of a consumer's span"
    assert [f"{each.context.trace_id:032x}" for each in found.links] == [PARENT[3:35]]
    assert dict(found.attributes or {}) == {
        "messaging.system": "pgdoc",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.consumer.group.name": "billing",
    }


def test_a_span_of_a_batch_of_several_collections_counts_and_records_an_error(spans):
    tracer, exporter = spans
    batch = [event("orders", traceparent=PARENT), event("users")]
    with pytest.raises(ZeroDivisionError), telemetry.process_span(batch, tracer=tracer):
        _ = 1 / 0
    (found,) = exporter.get_finished_spans()
    assert found.name == "process"
    assert dict(found.attributes or {})["messaging.batch.message_count"] == 2
    assert "messaging.destination.name" not in (found.attributes or {})
    assert [each.name for each in found.events] == ["exception"]
