"""The events of a snapshot compute their fields on first access, and keep nothing of other documents."""

from __future__ import annotations

import pickle
import weakref
from datetime import UTC, datetime
from struct import pack
from typing import Any

import orjson
import pytest

from pgdoc.changes import events
from pgdoc.changes.events import ChangeEvent
from pgdoc.changes.router import Selection
from pgdoc.changes.snapshot import PgSnapshot, Place, Snapshot, SnapshotChunk
from pgdoc.changes.snapshot_event import mark_of
from pgdoc.model.documents import Document
from pgdoc.model.tokens import Mark, SnapshotProgress, token_at

NOW = datetime(2026, 11, 29, 14, tzinfo=UTC)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
IDS = (7421, 1, 16384)
POSITION = (100, 0, 0, 0)
START = SnapshotProgress(("orders", "users"), "a", "*", 5)


def snapshot_of(documents: dict[str, Any], up_to: str | None) -> Snapshot:
    """Return a snapshot whose chunk with these documents is due."""
    snapshot = Snapshot(START, Selection())
    seen = PgSnapshot(5, 5, frozenset())
    assert snapshot.accept(SnapshotChunk("orders", "a", documents, up_to, seen, 100, NOW))
    snapshot.release(Place(POSITION, IDS, None))
    return snapshot


def row(number: int) -> bytes:
    return pack(">qqq", number, 0, 0) + b'{"n": %d}' % number


def event_of(snapshot: Snapshot, number: int) -> ChangeEvent:
    assert snapshot.due is not None
    part, keys, rows = snapshot.due
    return events.from_snapshot(part, number, keys[number - 1], rows[number - 1])


def test_an_event_has_the_fields_that_it_would_be_made_with() -> None:
    progress = SnapshotProgress(("orders", "users"), "b", "*", 6)

    event = event_of(snapshot_of({"b": row(1), "c": row(2)}, "c"), 1)

    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301
    assert event == ChangeEvent(
        event_type=events.EventType.SNAPSHOT,
        collection="orders",
        document_id="b",
        full_document=Document("b", {"n": 1}, 1, EPOCH, EPOCH),
        full_document_before_change=None,
        update_description=None,
        resume_token=token_at(POSITION, IDS, progress),
        timestamp=NOW,
        transaction_id=0,
        metadata={},
    )
    assert event.resume_token.progress == progress
    assert orjson.loads(event.to_json()) == event.to_dict()
    assert mark_of(event) == Mark.at(POSITION, progress)
    with pytest.raises(AttributeError, match="has no attribute '_images'"):
        _ = event._images


@pytest.mark.parametrize(
    ("up_to", "last"),
    [
        ("d", SnapshotProgress(("orders", "users"), "d", "*", 7)),
        (None, SnapshotProgress(("users",), "", "*", 7)),
    ],
)
def test_the_last_document_of_a_chunk_completes_it(up_to: str | None, last: SnapshotProgress) -> None:
    snapshot = snapshot_of({"c": row(2), "b": row(1)}, up_to)

    assert snapshot.delivered == START
    snapshot.next = 1
    assert snapshot.delivered == event_of(snapshot, 1).resume_token.progress
    snapshot.next = 2
    assert snapshot.delivered == snapshot.progress == last == event_of(snapshot, 2).resume_token.progress


def test_a_kept_event_keeps_no_other_document() -> None:
    other = Document("c", {}, 1, EPOCH, EPOCH)
    watched = weakref.ref(other)
    snapshot = snapshot_of({"b": row(1), "c": other}, "c")
    event = event_of(snapshot, 1)
    del snapshot, other

    assert watched() is None
    assert event.full_document is not None
    assert event.full_document.data == {"n": 1}
