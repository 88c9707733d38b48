"""The events of a snapshot compute their fields on first access, and keep nothing of other documents."""

from __future__ import annotations

import pickle
import weakref
from datetime import UTC, datetime
from struct import pack
from typing import TYPE_CHECKING, Any
from unittest import mock

import orjson
import pytest

from pgdoc.changes import event_json, events
from pgdoc.changes.events import ChangeEvent
from pgdoc.changes.router import Selection
from pgdoc.changes.snapshot import PgSnapshot, Place, Snapshot, SnapshotChunk
from pgdoc.changes.snapshot_event import mark_of
from pgdoc.model.documents import Document
from pgdoc.model.tokens import Mark, SnapshotProgress, token_at

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_a_document_that_a_change_has_put_in_a_rows_place_is_that_of_the_event() -> None:
    document = Document("b", {}, 2, EPOCH, EPOCH)

    event = event_of(snapshot_of({"b": document}, "b"), 1)

    assert event.full_document is document
    assert event.to_dict()["full_document"]["version"] == 2


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


ROWS: list[bytes | Document] = [
    pack(">qqq", 3, 0, 817_000_000_123_456) + b'{"n": 1.50, "s": "\xc3\xb6\\u2028"}',
    pack(">qqq", 1, -(10**15), 0) + b'{"n": 12345678901234567890123}',
    pack(">qqq", 1, 0, 0) + b'{"n": 1' + b"0" * 5_000 + b"}",
    pack(">qqq", 1, (1 << 63) - 1, 0) + b"{}",
    pack(">qqq", 1, 0, -(1 << 63)) + b"{}",
    pack(">qqq", 1, 0, 0),
    Document("b", {"n": 2}, 2, EPOCH, EPOCH),
]


def outcome(call: Callable[[ChangeEvent], Any], event: ChangeEvent) -> Any:
    try:
        return call(event)
    except Exception as exc:  # noqa: BLE001 (compared)
        return type(exc), str(exc)


@pytest.mark.parametrize("stored", ROWS, ids=range(len(ROWS)))
@pytest.mark.parametrize("call", [ChangeEvent.to_json, ChangeEvent.to_dict])
def test_json_and_dict_are_the_same_from_the_row_and_from_the_fields(
    stored: bytes | Document, call: Callable[[ChangeEvent], Any]
) -> None:
    snapshot = snapshot_of({"b": stored, "c": row(1)}, "c")
    direct = outcome(call, event_of(snapshot, 1))
    with mock.patch.object(event_json, "_read_directly", return_value=None):
        assert repr(direct) == repr(outcome(call, event_of(snapshot, 1)))


def test_json_has_what_the_user_made_of_the_document() -> None:
    event = event_of(snapshot_of({"b": row(1)}, "b"), 1)
    assert event.full_document is not None
    event.full_document.data["n"] = 2
    event.metadata["by"] = "me"
    values = orjson.loads(event.to_json())
    assert values["full_document"]["data"] == {"n": 2}
    assert values["metadata"] == {"by": "me"}


def test_a_kept_event_keeps_no_other_document() -> None:
    other = Document("c", {}, 1, EPOCH, EPOCH)
    watched = weakref.ref(other)
    snapshot = snapshot_of({"b": row(1), "c": other}, "c")
    event = event_of(snapshot, 1)
    del snapshot, other

    assert watched() is None
    assert event.full_document is not None
    assert event.full_document.data == {"n": 1}
