"""The documents of a typed collection's events are models, and the events are what they are without."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field
from decimal import Decimal
from struct import pack
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pgdoc import ChangeEvent
from pgdoc.changes import events
from pgdoc.changes.event_filter import parse_where
from pgdoc.changes.router import Selection
from pgdoc.changes.snapshot import PgSnapshot, Place, Snapshot, SnapshotChunk
from pgdoc.errors import InvalidInput, InvalidModel
from pgdoc.model.typed.reader import reader_of
from tests.unit.changes.test_events import NEXT, ROW, change
from tests.unit.changes.test_snapshot_event import IDS, NOW, POSITION, START, event_of

if TYPE_CHECKING:
    from pgdoc.model.json_codec import JsonDecoder


@dataclass
class Numbers:
    n: Decimal
    big: int = 0
    more: list[str] = field(default_factory=list)


class Other(msgspec.Struct):
    name: str


TYPED = reader_of(Numbers)
BIG = 123456789012345678901234567890
KINDS = {"insert": ("I", {"new": ROW}), "update": ("U", {"new": NEXT, "old": ROW}), "delete": ("D", {"old": ROW})}


def event(kind: str, decode_text: JsonDecoder | None = TYPED) -> ChangeEvent[Any]:
    row_kind, images = KINDS[kind]
    return events.from_change(change(row_kind, **images, message='{"metadata": {"by": "me"}}'), IDS, None, decode_text)


def of_snapshot(decode_text: JsonDecoder | None = TYPED) -> ChangeEvent[Any]:
    snapshot = Snapshot(START, Selection())
    rows: dict[str, Any] = {"b": pack(">qqq", 1, 0, 0) + b'{"n": 1.10, "old": 1}'}
    assert snapshot.accept(SnapshotChunk("orders", "a", rows, None, PgSnapshot(5, 5, frozenset()), 100, NOW))
    snapshot.release(Place(POSITION, IDS, decode_text))
    return event_of(snapshot, 1)


MAKERS = [*(lambda decode_text, kind=kind: event(kind, decode_text) for kind in KINDS), of_snapshot]


def test_the_documents_of_an_event_are_models() -> None:
    update = event("update")
    assert update.full_document is not None
    assert update.full_document_before_change is not None
    assert update.full_document.data == Numbers(Decimal(2), BIG)
    assert update.full_document_before_change.data == Numbers(Decimal("1.10"), BIG)
    assert update.full_document["n"] == 2
    assert update.update_description is not None
    assert update.update_description.updated_fields == {"n": 2}
    assert update.metadata == {"by": "me"}
    found = of_snapshot().full_document
    assert found is not None
    assert (found.data, found["old"]) == (Numbers(Decimal("1.10")), 1)


def read_all(found: ChangeEvent[Any]) -> None:
    for image in (found.full_document, found.full_document_before_change):
        if image is not None:
            assert isinstance(image.data, Numbers)
    assert found.update_description is None or found.update_description.updated_fields


@pytest.mark.parametrize("is_accessed", [False, True])
@pytest.mark.parametrize("make", MAKERS)
def test_the_json_of_an_event_is_that_of_an_untyped_one(make: Any, is_accessed: bool) -> None:
    found = make(TYPED)
    if is_accessed:
        read_all(found)
    assert found.to_json() == make(None).to_json()
    assert found.to_dict() == make(None).to_dict()


@pytest.mark.parametrize("is_accessed", [False, True])
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda found: pickle.loads(pickle.dumps(found))])  # noqa: S301
def test_a_copy_of_an_event_has_the_same_models(again: Any, make: Any, is_accessed: bool) -> None:
    found = make(TYPED)
    if is_accessed:
        read_all(found)
    other = again(found)
    assert other == found
    assert other.to_json() == found.to_json()
    read_all(other)


@pytest.mark.parametrize("make", MAKERS)
def test_an_event_is_read_back_with_its_models(make: Any) -> None:
    text = make(TYPED).to_json()
    found = ChangeEvent.from_json(text, model=Numbers)
    assert found == make(TYPED)
    read_all(found)
    assert found.to_json() == text


def test_an_event_is_read_back_with_decimals_in_its_fields() -> None:
    found = ChangeEvent.from_json(event("insert").to_json(), model=Numbers, decimals=True).full_document
    assert found is not None
    assert found["n"] == Decimal("1.10")


def test_what_is_not_a_model_is_refused() -> None:
    with pytest.raises(InvalidInput, match="model must be"):
        ChangeEvent.from_json(event("insert").to_json(), model=dict)


def test_only_the_data_of_an_event_that_is_not_valid_can_not_be_read() -> None:
    found = event("update", reader_of(Other))
    assert found.full_document is not None
    with pytest.raises(InvalidModel) as caught:
        _ = found.full_document.data
    assert (caught.value.collection, caught.value.document_id, caught.value.path) == ("orders", "o-1", "name")
    assert found.full_document["n"] == 2
    assert found.to_json() == event("update", None).to_json()
    assert found == ChangeEvent.from_json(found.to_json(), model=Other)
    assert "Document[Other](id='o-1', data={'n': 2" in repr(found)


@pytest.mark.parametrize(
    ("path", "value"), [("full_document.data.old", 1), ("full_document.data.n", Decimal("1.1")), ("document_id", "b")]
)
def test_a_filter_sees_the_stored_fields(path: str, value: Any) -> None:
    found = of_snapshot()
    read_all(found)
    for each in (found, events.to_be_compared(found), events.to_be_compared(of_snapshot(reader_of(Other)))):
        assert parse_where({path: value}).matches(each)
        assert not parse_where({path: 5}).matches(each)


def test_a_row_without_a_known_layout_has_a_model() -> None:
    row = {**ROW, "more": None}
    found = events.from_change(change("I", new=dict(reversed(row.items()))), IDS, None, TYPED).full_document
    assert found is not None
    assert found.data == Numbers(Decimal("1.10"), BIG)


def test_json_in_another_layout_has_a_model() -> None:
    text = event("insert").to_json().replace(b'"version"', b' "version"')
    found = ChangeEvent.from_json(text, model=Numbers).full_document
    assert found is not None
    assert found.data.n == Decimal("1.1")
