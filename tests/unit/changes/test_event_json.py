"""The layout of an event is the same however its JSON is made, and whichever columns were read first."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgdoc.changes import event_json, events
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.decoding.records import Span
from pgdoc.decoding.wal2json import Wal2Json
from pgdoc.errors import UnreadableDocument
from pgdoc.model import json_codec
from tests.json_values import documents
from tests.unit import wire

if TYPE_CHECKING:
    from pgdoc.changes.change import Change

IDS = (7421, 1, 16384)
TIME = "2026-11-23 03:41:13.403010+00"
FIRST = datetime(2026, 11, 23, 3, 41, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
moments = st.sampled_from([0, 1, 1_000, 500_000, 999_999, 10**9]).map(
    lambda microseconds: (FIRST + timedelta(microseconds=microseconds)).isoformat(" ")[:-3]
) | st.sampled_from(["12026-11-29 07:08:51.81747+00", "2026-11-23 03:41:14+01"])
metadata = st.none() | st.just('{"metadata": {"user": "Zoë", "n": 1.50}}') | st.just("not pgdoc's")


def assembled(frames: list[bytes]) -> list[Change]:
    """Decode and assemble the changes, as a stream does."""
    assembler = Assembler(0, Registry("docs", [Span(7, "docs", "orders", 0, None)]))
    return assembler.feed(Wal2Json().decode(frames)).changes


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    version = draw(st.integers(1, 3))
    return {
        "id": draw(texts),
        "data": json_codec.encode(draw(documents)).decode(),
        "version": version,
        "replaced_version": draw(st.sampled_from([1, version])),
        "created_at": draw(moments),
        "updated_at": draw(moments),
    }


@st.composite
def changes(draw: st.DrawFn) -> Change:
    kind, new, old, text = draw(st.sampled_from("IUD")), draw(images()), draw(images()), draw(metadata)
    if draw(st.booleans()):
        old = {**new, "version": old["version"], "data": old["data"]}
    row = wire.row(90, kind, "orders", new=new if kind in "IU" else None, old=old if kind in "UD" else None)
    frames = [wire.begin(90, 100, 108), *([] if text is None else [wire.message(90, text)]), row, wire.commit(100, 108)]
    (found,) = assembled(frames)
    return found


def outcome(make: Any, change: Change) -> Any:
    """Return what a way to write the event makes, or the error's class and text."""
    try:
        return make(events.from_change(change, IDS))
    except Exception as exc:  # noqa: BLE001 (compared)
        return type(exc), str(exc)


@settings(max_examples=400, deadline=None)
@given(changes())
def test_joined_and_encoded_json_are_the_same(change: Change) -> None:
    joined = outcome(lambda event: event.to_json(), change)

    assert joined == outcome(event_json._encoded, change)


@settings(max_examples=200, deadline=None)
@given(changes())
def test_json_has_the_values_of_the_dict(change: Change) -> None:
    text = outcome(lambda event: event.to_json(), change)

    if isinstance(text, bytes):
        assert json_codec.decode(text) == events.from_change(change, IDS).to_dict()


@settings(max_examples=200, deadline=None)
@given(changes(), st.permutations(event_json.FIELDS))
def test_fields_do_not_depend_on_the_order_in_which_they_are_read(change: Change, order: list[str]) -> None:
    one, other = events.from_change(change, IDS), events.from_change(change, IDS)

    assert {name: outcome_of(one, name) for name in order} == {
        name: outcome_of(other, name) for name in event_json.FIELDS
    }


def outcome_of(event: events.ChangeEvent, name: str) -> Any:
    try:
        return repr(getattr(event, name))  # unlike ==, it does not fail at an unreadable time
    except Exception as exc:  # noqa: BLE001 (compared)
        return type(exc), str(exc)


def test_the_usual_event_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the comparison above compares two ways."""
    image = {
        "id": "o-1",
        "data": '{"a": 1}',
        "version": 2,
        "replaced_version": 1,
        "created_at": "2026-11-23 03:41:13.403010+00",
        "updated_at": "2026-11-23 03:41:14.123456+00",
    }
    frames = [
        wire.begin(90, 100, 108),
        wire.row(90, "U", "orders", new=image, old={**image, "version": 1, "data": '{"a": 2, "b": [1]}'}),
        wire.commit(100, 108),
    ]
    (change,) = assembled(frames)
    monkeypatch.delattr(event_json, "_encoded")

    written = orjson.loads(events.from_change(change, IDS).to_json())

    assert written["update_description"]["updated_fields"] == {"a": 1}
    assert written["full_document"]["updated_at"] == "2026-11-23T03:41:14.123456+00:00"


def test_metadata_that_json_can_not_hold_makes_the_event_unreadable() -> None:
    """Any SQL writer can send it."""
    image = {"id": "o-1", "data": "{}", "version": 1, "replaced_version": 1, "created_at": TIME, "updated_at": TIME}
    row = wire.row(90, "I", "orders", new=image)
    frames = [wire.begin(90, 100, 108), wire.message(90, '{"metadata": {"a": "\\ud800"}}'), row, wire.commit(100, 108)]
    (change,) = assembled(frames)

    with pytest.raises(UnreadableDocument, match="document 'o-1' of collection \"orders\""):
        events.from_change(change, IDS).to_json()


def test_a_document_that_is_kept_does_not_keep_its_text_three_times() -> None:
    image = {"id": "o-1", "data": f'{{"a": "{"x" * 100_000}"}}', "version": 1, "replaced_version": 1}
    row = wire.row(90, "I", "orders", new={**image, "created_at": TIME, "updated_at": TIME})
    tracemalloc.start()
    try:
        (change,) = assembled([wire.begin(90, 100, 108), row, wire.commit(100, 108)])
        document = events.from_change(change, IDS).full_document
        assert document is not None
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 150_000  # beside the message, which was there before


def test_what_the_user_has_changed_is_written() -> None:
    image = {
        "id": "o-1",
        "data": '{"a": 1}',
        "version": 1,
        "replaced_version": 1,
        "created_at": "2026-11-23 03:41:13.403010+00",
        "updated_at": "2026-11-23 03:41:13.403010+00",
    }
    frames = [wire.begin(90, 100, 108), wire.row(90, "I", "orders", new=image), wire.commit(100, 108)]
    (change,) = assembled(frames)
    event = events.from_change(change, IDS)
    assert event.full_document is not None
    event.full_document.data["a"] = "changed"

    assert orjson.loads(event.to_json())["full_document"]["data"] == {"a": "changed"}
