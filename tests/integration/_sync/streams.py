# Written by .ci/twins.py from tests/integration/_async/streams.py: change that file, and run it.
"""How streams are read in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgdoc import ChangeStream, ChangeEvent

PATIENCE_S = 20.0


def take(stream: ChangeStream, count: int = 1) -> list[ChangeEvent]:
    """Take this many events."""
    events: list[ChangeEvent] = []
    while len(events) < count:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, f"{len(events)} of {count} events came"
        events.append(event)
    return events


def take_to(stream: ChangeStream, document_id: str) -> list[ChangeEvent]:
    """Take the events up to the one of this document, and leave that one out."""
    events: list[ChangeEvent] = []
    while (event := (take(stream))[0]).document_id != document_id:
        events.append(event)
    return events


def brief(events: list[ChangeEvent]) -> list[tuple[str, str, str | None]]:
    return [(event.event_type.value, event.collection, event.document_id) for event in events]
