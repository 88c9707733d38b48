from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pgdoc.changes.diff import diff
from pgdoc.changes.events import ChangeEvent, EventType
from pgdoc.cli.replica import Replica
from pgdoc.model.documents import Document
from pgdoc.model.positions import Position
from pgdoc.model.tokens import ResumeToken

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def document(image: Any) -> Any:
    return image and Document("b-1", image[1], image[0], NOON, NOON)


def event(place: int, kind: str, before: Any = None, after: Any = None) -> ChangeEvent:
    return ChangeEvent(
        event_type=EventType(kind),
        collection="books",
        document_id="b-1" if kind in {"insert", "update", "replace", "delete"} else None,
        full_document=document(after),
        full_document_before_change=document(before),
        update_description=diff(before[1], after[1]) if kind == "update" else None,
        resume_token=ResumeToken(Position(place), 1, 1),
        timestamp=NOON,
        transaction_id=7,
        metadata={},
    )


ONE, TWO, THREE = (1, {"n": 1, "tags": ["a"]}), (2, {"n": 2, "tags": ["a", "b"]}), (3, {"n": True})
HISTORY = [
    event(1, "insert", None, ONE),
    event(2, "update", ONE, TWO),
    event(3, "replace", TWO, THREE),
    event(4, "delete", THREE),
]


@pytest.mark.parametrize(("length", "last"), [(1, ONE), (2, TWO), (3, THREE), (4, None)])
def test_the_events_give_the_document(length, last):
    replica = Replica()
    for each in HISTORY[:length]:
        replica.take(each)
    table = [document(last)] if last else []
    assert not replica.differences("books", table)
    assert (replica.lost, replica.repeated, len(replica)) == (0, 0, len(table))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_an_event_that_is_missing_is_noticed(missing):
    replica = Replica()
    for each in HISTORY[:missing] + HISTORY[missing + 1 :]:
        replica.take(each)
    assert replica.lost == 1


@pytest.mark.parametrize("again", [0, 1, 2, 3])
def test_an_event_that_comes_again_is_noticed(again):
    replica = Replica()
    for each in [*HISTORY, HISTORY[again]]:
        replica.take(each)
    assert (replica.repeated, replica.lost) == (1, 0)
    assert not replica.differences("books", [])


def test_truncate_empties_the_collection():
    replica = Replica()
    replica.take(HISTORY[0])
    replica.take(event(2, "truncate"))
    assert len(replica) == 0


def test_documents_go_with_their_collection_and_move_with_its_name():
    replica = Replica()
    for each in [event(1, "create"), event(2, "insert", None, ONE)]:
        replica.take(each)
    replica.take(replace(event(3, "rename"), renamed_to="sold"))
    assert not replica.differences("books", [])
    assert not replica.differences("sold", [document(ONE)])
    replica.take(replace(event(4, "drop"), collection="sold"))
    replica.take(replace(event(5, "invalidate"), collection="sold"))
    assert (len(replica), replica.lost, replica.repeated) == (0, 0, 0)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ([], {"surplus": 1}),
        ([document((1, {"n": True, "tags": ["a"]}))], {"different": 1}),
        ([document((2, ONE[1]))], {"different": 1}),
        ([document(ONE), Document("b-2", {}, 1, NOON, NOON)], {"missing": 1}),
    ],
)
def test_every_difference_is_counted(table, found):
    replica = Replica()
    replica.take(HISTORY[0])
    assert replica.differences("books", table) == found
