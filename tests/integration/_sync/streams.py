# Written by .ci/twins.py from tests/integration/_async/streams.py: change that file, and run it.
"""Helpers that read streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgdoc import ChangeStream, ChangeEvent
    from pgdoc.model.type_variables import M

PATIENCE_S = 20.0


def take(stream: ChangeStream[M], count: int = 1) -> list[ChangeEvent[M]]:
    """Read `count` events."""
    events: list[ChangeEvent[M]] = []
    while len(events) < count:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, f"only {len(events)} of {count} events within {PATIENCE_S:.0f} s each"
        events.append(event)
    return events


def take_to(stream: ChangeStream, document_id: str) -> list[ChangeEvent]:
    """Read up to the event of a document; return the events before it."""
    events: list[ChangeEvent] = []
    while (event := (take(stream))[0]).document_id != document_id:
        events.append(event)
    return events


def brief(events: list[ChangeEvent]) -> list[tuple[str, str, str | None]]:
    return [(event.event_type.value, event.collection, event.document_id) for event in events]
