"""The queue of a handler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pgdoc import Document
from pgdoc.changes.events import from_snapshot
from pgdoc.model.stored_rows import WIDTH
from pgdoc.workers import backlog
from pgdoc.workers.backlog import LaneBacklog


def event(size: int = 1) -> Any:
    made = SimpleNamespace()
    made._change = SimpleNamespace(row=SimpleNamespace(message=b"x" * size))
    return made


def test_events_leave_in_their_order_and_count_until_they_are_processed() -> None:
    queue, events = LaneBacklog(), [event() for _ in range(5)]
    assert queue.is_done
    for each in events:
        queue.put(each)
    assert queue.take(3) == events[:3]
    assert (queue.waiting, queue.is_done) == (2, False)
    queue.done_count += 3
    assert queue.take(9) == events[3:]
    queue.done_count += 2
    assert queue.is_done
    assert queue.take(1) == []


def test_there_is_room_until_the_limit_of_events_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_EVENTS", 2)
    monkeypatch.setattr(backlog, "_BYTES", 100)
    queue = LaneBacklog()
    has_room = [queue.has_room]
    for size in (1, 1000):
        queue.put(event(size))
        has_room.append(queue.has_room)
    for _ in range(2):
        queue.take(1)
        has_room.append(queue.has_room)
    assert has_room == [True, True, False, False, True]


@pytest.mark.parametrize("of_change", [False, True])
def test_a_document_of_a_snapshot_counts_with_its_size(monkeypatch: pytest.MonkeyPatch, *, of_change: bool) -> None:
    monkeypatch.setattr(backlog, "_BYTES", 100_000)
    queue, text = LaneBacklog(), b'{"a": "' + b"x" * 200_000 + b'"}'
    part: Any = SimpleNamespace()
    row: Any = Document.from_text("a", text, 1, 0, 0) if of_change else b"0" * WIDTH + text
    event = from_snapshot(part, 1, "a", row)
    has_room = [queue.has_room]
    queue.put(event)
    has_room.append(queue.has_room)
    assert queue.take(1) == [event]
    has_room.append(queue.has_room)
    assert has_room == [True, False, True]
    if of_change:
        assert row.data["a"]  # its text is gone
        queue.put(event)
        assert queue.take(1) == [event]
