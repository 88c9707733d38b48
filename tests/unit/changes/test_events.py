from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from bench.counted import changes_of
from pgdoc.changes import events
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.diff import UpdateDescription
from pgdoc.changes.events import EventType
from pgdoc.changes.registry import Registry
from pgdoc.changes.whole_changes import check_images
from pgdoc.decoding.records import Span
from pgdoc.decoding.wal2json import Wal2Json
from pgdoc.errors import ReplicaIdentityChanged, UnreadableDocument
from pgdoc.model.documents import Document
from pgdoc.model.positions import Position
from pgdoc.model.tokens import ResumeToken
from tests.unit import wire

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.changes.events import ChangeEvent

ROW = {
    "id": "o-1",
    "data": '{"n": 1.10, "big": 123456789012345678901234567890}',
    "version": 3,
    "replaced_version": 1,
    "created_at": "2026-11-23 03:41:13.40301+00",
    "updated_at": "2026-11-23 03:41:14+00",
}
DOCUMENT = Document(
    "o-1",
    {"n": 1.1, "big": 123456789012345678901234567890},
    3,
    datetime(2026, 11, 23, 3, 41, 13, 403010, tzinfo=UTC),
    datetime(2026, 11, 23, 3, 41, 14, tzinfo=UTC),
)
NEXT = {**ROW, "version": 4, "data": '{"n": 2, "big": 123456789012345678901234567890}'}
DEEP = '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}"


def assembler() -> Assembler:
    return Assembler(0, Registry("docs", [Span(7, "docs", "orders", 0, None)]))


def change(kind: str, *, new: Any = None, old: Any = None, message: str | None = None) -> Change:
    """Decode and assemble the change of a row, as a stream does."""
    messages = [] if message is None else [wire.message(90, message)]
    frames = [
        wire.begin(90, 100, 108),
        *messages,
        wire.row(90, kind, "orders", new=new, old=old),
        wire.commit(100, 108),
    ]
    (found,) = (
        Assembler(0, Registry("docs", [Span(7, "docs", "orders", 0, None)])).feed(Wal2Json().decode(frames)).changes
    )
    return found


def event(kind: str, **images: Any) -> ChangeEvent:
    return events.from_change(change(kind, **images), (7421, 1, None))


def test_an_insert():
    inserted = event("I", new=ROW)
    assert inserted.event_type is EventType.INSERT
    assert (inserted.collection, inserted.document_id) == ("orders", "o-1")
    assert inserted.full_document == DOCUMENT
    assert inserted.full_document_before_change is None
    assert inserted.update_description is None
    assert inserted.resume_token == ResumeToken(Position(100, 90, 1, 0), 7421, 1)
    assert inserted.timestamp == DOCUMENT.updated_at  # later than the transaction's time, which must be wrong
    assert inserted.timestamp.tzinfo is UTC
    assert inserted.transaction_id == 700
    assert inserted.metadata == {}


def test_an_update_has_both_images_and_the_difference():
    updated = event("U", new=NEXT, old=ROW)
    assert updated.event_type is EventType.UPDATE
    assert updated.full_document_before_change == DOCUMENT
    assert updated.full_document == replace(DOCUMENT, version=4, data={**DOCUMENT.data, "n": 2})
    assert updated.update_description == UpdateDescription({"n": 2}, [], [], {})


def test_an_update_that_wrote_the_whole_document_is_a_replace():
    replaced = event("U", new={**NEXT, "replaced_version": 4}, old=ROW)
    assert replaced.event_type is EventType.REPLACE
    assert replaced.full_document_before_change == DOCUMENT
    assert replaced.full_document is not None
    assert replaced.update_description is None


def test_an_update_that_left_toast_data_unchanged_takes_it_from_the_old_row():
    untouched = {name: value for name, value in NEXT.items() if name != "data"}
    updated = event("U", new=untouched, old=ROW)
    assert updated.full_document == replace(DOCUMENT, version=4)
    assert updated.update_description == UpdateDescription({}, [], [], {})


def test_a_delete_has_the_document_before_it():
    deleted = event("D", old=ROW)
    assert (deleted.event_type, deleted.document_id) == (EventType.DELETE, "o-1")
    assert deleted.full_document_before_change == DOCUMENT
    assert deleted.full_document is None
    assert deleted.update_description is None


def test_a_truncation_concerns_the_whole_collection():
    truncated = event("T")
    assert (truncated.event_type, truncated.collection, truncated.document_id) == (EventType.TRUNCATE, "orders", None)
    assert truncated.full_document is truncated.full_document_before_change is None
    assert truncated.update_description is None


def test_metadata_is_that_of_the_writer():
    assert event("I", new=ROW, message='{"metadata": {"user": "zoë", "n": 1.5}}').metadata == {"user": "zoë", "n": 1.5}


@pytest.mark.parametrize(
    "message", ["", "hello", "[1]", "7", "null", "{}", '{"metadata": 7}', '{"metadata": null}', "{", DEEP, "9" * 5000]
)
def test_a_message_of_another_form_is_not_metadata(message):
    assert event("I", new=ROW, message=message).metadata == {}


METADATA = '{"metadata": {"user": "alice"}}'
MADE_ONCE = (
    "full_document",
    "full_document_before_change",
    "update_description",
    "metadata",
    "timestamp",
    "event_type",
)


@pytest.mark.parametrize("order", list(permutations(MADE_ONCE, 3)))
def test_the_order_in_which_fields_are_read_changes_nothing_and_each_is_made_once(order):
    usual = [*changes_of("wal2json", 20), *changes_of("pgoutput", 20)]  # cut out of their messages
    decoded = [change("I", new=ROW), change("U", new=NEXT, old=ROW), change("D", old=ROW)]
    written = [each._replace(transaction=each.transaction._replace(metadata=METADATA)) for each in usual + decoded]
    for each in [*usual, *decoded, *written]:
        found, expected = events.from_change(each, (7421, 1, None)), events.from_change(each, (7421, 1, None))
        read = [getattr(found, name) for name in order]
        assert [getattr(found, name) for name in MADE_ONCE] == [getattr(expected, name) for name in MADE_ONCE]
        assert all(getattr(found, name) is value for name, value in zip(order, read, strict=True))


def test_events_share_no_mutable_value():
    one = change("U", new=NEXT, old=ROW, message='{"metadata": {"user": "alice"}}')
    first, second = events.from_change(one, (7421, 1, None)), events.from_change(one, (7421, 1, None))
    first.metadata["user"] = "mallory"
    for document in (first.full_document, first.full_document_before_change):
        assert document is not None
        document.data["n"] = "changed"
    assert second.metadata == {"user": "alice"}
    assert second.full_document is not None
    assert second.full_document.data["n"] == 2
    assert second.update_description == UpdateDescription({"n": 2}, [], [], {})


@pytest.mark.parametrize("data", [DEEP, '{"n": ' + "9" * 5000 + "}"], ids=["deep", "long"])
def test_unreadable_data_raises_when_it_is_accessed_and_not_before(data):
    updated = event("U", new={**NEXT, "data": data}, old=ROW)
    assert (updated.event_type, updated.document_id) == (EventType.UPDATE, "o-1")
    assert updated.resume_token.position == Position(100, 90, 1, 0)
    assert updated.full_document is not None
    assert updated.full_document.version == 4
    for _ in range(2):
        with pytest.raises(UnreadableDocument, match="o-1"):
            _ = updated.full_document.data
        with pytest.raises(UnreadableDocument):
            _ = updated.update_description
    assert updated.full_document_before_change == DOCUMENT


def test_a_row_without_a_column_that_a_document_needs_is_unreadable():
    lost = event("I", new={name: value for name, value in ROW.items() if name != "data"})
    for name in ("document_id", "full_document"):
        with pytest.raises(UnreadableDocument, match="lacks data"):
            getattr(lost, name)
    assert (lost.event_type, lost.collection) == (EventType.INSERT, "orders")


def of_collection(kind: str, renamed_to: str | None = None) -> ChangeEvent:
    frames = [
        wire.begin(80, 100, 108),
        wire.message(80, '{"metadata": {"user": "alice"}}'),
        wire.registry_row(90, renamed_to or "orders", kind=kind, former="orders" if renamed_to else None),
        wire.commit(100, 108),
    ]
    (found,) = (
        Assembler(0, Registry("docs", [Span(7, "docs", "orders", 0, None)])).feed(Wal2Json().decode(frames)).changes
    )
    check_images(found)
    return events.from_change(found, (7421, 1, None))


@pytest.mark.parametrize(("kind", "renamed_to"), [("create", None), ("rename", "sold"), ("drop", None)])
def test_an_event_of_a_whole_collection(kind, renamed_to):
    found = of_collection(kind, renamed_to)
    assert (found.event_type, found.collection, found.renamed_to) == (EventType(kind), "orders", renamed_to)
    assert [found.document_id, found.full_document, found.full_document_before_change] == [None] * 3
    assert found.update_description is None
    assert found.resume_token == ResumeToken(Position(100, 90, 0, 0), 7421, 1)
    assert found.metadata == {"user": "alice"}


def all_kinds() -> list[ChangeEvent]:
    return [
        event("I", new=ROW, message='{"metadata": {"user": "alice"}}'),
        event("U", new=NEXT, old=ROW),
        event("U", new={**NEXT, "replaced_version": 4}, old=ROW),
        event("U", new={**NEXT, "data": '{"a.b": [1], "n": [1]}'}, old={**ROW, "data": '{"a.b": [1, 2], "n": [1, 2]}'}),
        event("D", old=ROW),
        event("T"),
        of_collection("create"),
        of_collection("rename", "sold"),
        of_collection("drop"),
    ]


@pytest.mark.parametrize("made", all_kinds(), ids=lambda made: str(made.event_type))
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])  # noqa: S301
def test_an_event_can_be_copied_and_pickled(made, again):
    other = again(made)
    assert other == made
    assert repr(other) == repr(made)
    assert other.to_dict() == made.to_dict()


def test_events_are_equal_when_all_their_fields_are():
    assert event("I", new=ROW) == event("I", new=ROW)
    assert event("I", new=ROW) != event("I", new=NEXT)
    assert event("I", new=ROW) != events.from_change(change("I", new=ROW), (7421, 2, None))


def test_the_repr_of_an_event_has_all_fields():
    shown = repr(event("U", new=NEXT, old=ROW))
    for part in (
        "ChangeEvent(event_type=<EventType.UPDATE",
        "collection='orders'",
        "Document(id='o-1'",
        "updated_fields=",
    ):
        assert part in shown


def test_an_event_has_no_other_attributes_and_is_frozen():
    with pytest.raises(AttributeError, match="no attribute 'data'"):
        _ = event("I", new=ROW).data
    with pytest.raises(AttributeError):
        event("I", new=ROW).collection = "users"  # type: ignore[misc]


def test_to_dict_returns_plain_values():
    assert event("U", new=NEXT, old=ROW, message='{"metadata": {"user": "alice"}}').to_dict() == {
        "event_type": "update",
        "collection": "orders",
        "document_id": "o-1",
        "full_document": {
            "id": "o-1",
            "data": {"n": 2, "big": 123456789012345678901234567890},
            "version": 4,
            "created_at": "2026-11-23T03:41:13.403010+00:00",
            "updated_at": "2026-11-23T03:41:14+00:00",
        },
        "full_document_before_change": {
            "id": "o-1",
            "data": {"n": 1.1, "big": 123456789012345678901234567890},
            "version": 3,
            "created_at": "2026-11-23T03:41:13.403010+00:00",
            "updated_at": "2026-11-23T03:41:14+00:00",
        },
        "update_description": {
            "updated_fields": {"n": 2},
            "removed_fields": [],
            "truncated_arrays": [],
            "disambiguated_paths": {},
        },
        "resume_token": "0/64.0/5A.1.0.7421.1",
        "timestamp": "2026-11-23T03:41:14+00:00",
        "transaction_id": 700,
        "metadata": {"user": "alice"},
        "renamed_to": None,
    }


@pytest.mark.parametrize("made", all_kinds(), ids=lambda made: str(made.event_type))
@pytest.mark.parametrize("read_before", [False, True])
def test_to_json_equals_to_dict_with_exact_numbers(made, read_before):
    if read_before:
        made.to_dict()
    assert json.loads(made.to_json()) == made.to_dict()


def test_to_json_of_unreadable_data_raises():
    with pytest.raises(UnreadableDocument):
        event("U", new={**NEXT, "data": DEEP}, old=ROW).to_json()


@pytest.mark.parametrize(
    ("kind", "images"), [("U", {"new": NEXT, "old": {"id": "o-1"}}), ("D", {"old": {"id": "o-1"}})]
)
def test_check_images_refuses_a_change_without_its_before_image(kind, images):
    with pytest.raises(ReplicaIdentityChanged, match="orders"):
        check_images(change(kind, **images))


def test_check_images_accepts_a_change_with_its_before_image():
    untouched = {name: value for name, value in NEXT.items() if name != "data"}
    for whole in (change("I", new=ROW), change("U", new=untouched, old=ROW), change("D", old=ROW), change("T")):
        check_images(whole)
