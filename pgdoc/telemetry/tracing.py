"""The trace context of a writer, from its metadata to the span that processes its event.

The metadata is the writer's claim: any SQL writer can send any. So a context is only linked to, never taken as the
parent of a span, and text that is not of the W3C's form is ignored.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pgdoc.changes.events import ChangeEvent
from pgdoc.telemetry.missing import needing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.trace import Link, Span, Tracer

    from pgdoc.workers.registration import Registration

__all__ = ["current_trace", "link", "links", "process_span", "span_of_handler"]

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MEMBER = re.compile(
    r"([a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})="
    r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_LONGEST_STATE, _MOST_MEMBERS = 512, 32
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_MOST_LINKS = 128  # the SDK's limit, beyond which it drops the first


def current_trace() -> dict[str, str]:
    """Return the trace context of the current span as metadata; empty outside of spans."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 (optional)

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def link(event: ChangeEvent) -> Link | None:
    """Return a link to the span that wrote an event; `None` if its metadata has no valid `traceparent`.

    Raises:
        MissingExtra: opentelemetry-api is not installed.
    """
    with needing("opentelemetry-api"):
        from opentelemetry import trace  # noqa: PLC0415 (optional)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415
    parent, state = event.metadata.get("traceparent"), event.metadata.get("tracestate")
    if not isinstance(parent, str) or _TRACEPARENT.fullmatch(parent) is None:
        return None
    carrier = {"traceparent": parent}
    if isinstance(state, str) and _is_state(state):
        carrier["tracestate"] = state
    context = TraceContextTextMapPropagator().extract(carrier, trace.set_span_in_context(trace.INVALID_SPAN))
    found = trace.get_current_span(context).get_span_context()
    return trace.Link(found) if found.is_valid else None


def _is_state(text: str) -> bool:
    """Return whether a `tracestate` is valid: OpenTelemetry logs what is not, line feeds and all."""
    if len(text) > _LONGEST_STATE:
        return False
    found = [_MEMBER.fullmatch(each) for each in (part.strip(" \t") for part in text.split(",")) if each]
    return len({each[1] for each in found if each}) == len(found) <= _MOST_MEMBERS


def links(events: Iterable[ChangeEvent]) -> list[Link]:
    """Return the links of a batch, each span once, and 128 at most."""
    found: dict[Any, Link] = {}
    for event in events:
        made = link(event)
        if made is not None:
            found.setdefault((made.context.trace_id, made.context.span_id), made)
            if len(found) == _MOST_LINKS:
                break
    return list(found.values())


@contextmanager
def process_span(
    events: ChangeEvent | Iterable[ChangeEvent], *, consumer: str | None = None, tracer: Tracer | None = None
) -> Iterator[Span]:
    """Run the block inside a span that processes an event, or a batch, and links to the spans that wrote it.

    The span has the attributes of OpenTelemetry's conventions for messaging. An exception that leaves the block is
    recorded in it.

    Args:
        events: one event, or those of a batch.
        consumer: the name of the durable consumer, if there is one.
        tracer: makes the span; `None` for the global provider's.

    Raises:
        MissingExtra: opentelemetry-api is not installed.
    """
    with _span(events, consumer, tracer) as span:
        yield span


def span_of_handler(registration: Registration, events: list[ChangeEvent]) -> AbstractContextManager[Span]:
    """Return the span of a call of a worker's handler; in a transaction that several calls share, that of all."""
    given = events[0] if registration.takes_one and len(events) == 1 else events
    return _span(given, registration.consumer, None, {"pgdoc.handler": registration.name})


@contextmanager
def _span(
    events: ChangeEvent | Iterable[ChangeEvent],
    consumer: str | None,
    tracer: Tracer | None,
    more: Mapping[str, str] = _NOTHING,
) -> Iterator[Span]:
    with needing("opentelemetry-api"):
        from opentelemetry import trace  # noqa: PLC0415 (optional)
    batch = [events] if isinstance(events, ChangeEvent) else list(events)
    names = sorted({event.collection for event in batch})
    attributes: dict[str, str | int] = {
        **more,
        "messaging.system": "pgdoc",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    if len(names) == 1:
        attributes["messaging.destination.name"] = names[0]
    if consumer is not None:
        attributes["messaging.consumer.group.name"] = consumer
    if not isinstance(events, ChangeEvent):
        attributes["messaging.batch.message_count"] = len(batch)
    with (tracer or trace.get_tracer("pgdoc")).start_as_current_span(
        f"process {names[0]}" if len(names) == 1 else "process",
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        links=links(batch),
    ) as span:
        yield span
