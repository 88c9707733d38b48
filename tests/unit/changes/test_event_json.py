"""The layout of an event is the same however its JSON is made, and whichever columns were read first."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Required, TypedDict
from unittest.mock import patch

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pgdoc.changes import event_json, events
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.pgoutput import PgOutput
from pgdoc.decoding.records import Span
from pgdoc.decoding.wal2json import Wal2Json
from pgdoc.errors import ProtocolError, UnreadableDocument
from pgdoc.model import json_codec
from pgdoc.model.typed.reader import reader_of
from tests.json_values import documents
from tests.unit import pgoutput_wire, wire
from tests.unit.table_wire import RowWritten, rows_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.changes.change import Change
    from pgdoc.decoding.plugins import Decoder

IDS = (7421, 1, 16384)
TIME = "2026-11-23 03:41:13.403010+00"
FIRST = datetime(2026, 11, 23, 3, 41, tzinfo=UTC)
PLUGINS = ("wal2json", "pgoutput")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
moments = st.sampled_from([0, 1, 1_000, 500_000, 999_999, 10**9]).map(
    lambda microseconds: (FIRST + timedelta(microseconds=microseconds)).isoformat(" ")[:-3]
)
odd_moments = st.sampled_from(
    [
        "12026-11-29 07:08:51.81747+00",
        "2026-11-23 03:41:14+01",
        "2026-11-23 03:41:13.000000+00",
        "2026-02-30 03:41:13.403010+00",
        "infinity",
        "-infinity",
        "0044-03-15 00:00:00+00 BC",
        '2026-11-23\n03:41:13.403010"00',
        "",
        None,
    ]
)
odd_data = st.sampled_from(
    [
        '{"n": ' + "9" * 5000 + "}",
        '{"n": 123456789012345678901234567890, "m": -9223372036854775809}',
        '{"n": 1.50, "m": 0.1000000000000000055511151231257827}',
        '{"n": "NaN", "m": NaN, "k": Infinity}',
        '{"n": ' + "[" * 300 + "]" * 300 + "}",
        '{"n": ' + "[" * 3000 + "]" * 3000 + "}",
        '{"n": "\\ud800"}',
        "[1]",
        "null",
        "",
        None,
    ]
)
metadata = st.none() | st.sampled_from(
    ['{"metadata": {"user": "Zoë", "n": 1.50}}', "not pgdoc's", '{"metadata": {"n": "\\ud800"}}']
)


class Model(TypedDict, total=False):
    a: Required[int]  # which hardly any of the documents has


TYPED = reader_of(Model)
decoders = st.sampled_from([None, json_codec.decode_decimals, json_codec.decode_comparable, TYPED])


class Written(NamedTuple):
    """What a transaction wrote: one row.

    Attributes:
        message: the writer's metadata.
        is_toasted: whether the update left the data in TOAST, unchanged.
        lost: a column that the table does not have.
        decode: the decoder of the stream.
    """

    kind: str
    new: dict[str, Any]
    old: dict[str, Any]
    message: str | None = None
    is_toasted: bool = False
    lost: str | None = None
    decode: Any = None
    loses: bool = False

    def images(self) -> dict[str, Any]:
        new, old = ({name: image[name] for name in image if name != self.lost} for image in (self.new, self.old))
        return {"new": new if self.kind in "IU" else None, "old": old if self.kind in "UD" else None}

    def row(self, plugin: str) -> bytes:
        images = self.images()
        if plugin == "wal2json":
            if self.is_toasted and images["new"]:
                images["new"].pop("data", None)
            return wire.row(10, self.kind, "orders", **images)
        if self.is_toasted and images["new"] and "data" in images["new"]:
            images["new"]["data"] = pgoutput_wire.UNCHANGED
        return pgoutput_wire.row(self.kind, **images)

    def change(self, plugin: str, row: bytes | None = None) -> Change:
        """Decode and assemble the change, as a stream does; `row` replaces its frame."""
        row = row or self.row(plugin)
        if plugin == "wal2json":
            messages = [] if self.message is None else [wire.message(10, self.message)]
            frames = [wire.begin(10, 20, 28), *messages, row, wire.commit(20, 28)]
            return assembled(Wal2Json(), frames)
        messages = [] if self.message is None else [pgoutput_wire.message(self.message.encode())]
        types = {name: oid for name, oid in pgoutput_wire.TYPES.items() if name != self.lost}
        relation = pgoutput_wire.relation(types=types)
        committed_us = (datetime.fromisoformat(wire.TIMESTAMP) - EPOCH) // timedelta(microseconds=1)
        frames = [pgoutput_wire.begin(20, committed_us), relation, *messages, row, pgoutput_wire.commit(20, 28)]
        return assembled(PgOutput("docs"), frames)

    def event(self, plugin: str) -> events.ChangeEvent:
        return events.from_change(self.change(plugin), IDS, None, self.decode)


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def assembled(decoder: Decoder, frames: list[bytes]) -> Change:
    registry = Registry("docs", [Span(pgoutput_wire.ORDERS, "docs", "orders", 0, None)])
    (found,) = Assembler(0, registry).feed(decoder.decode(frames)).changes
    return found


@st.composite
def images(draw: st.DrawFn, *, is_odd: bool) -> dict[str, Any]:
    version = draw(st.integers(1, 3))
    data: st.SearchStrategy[Any] = documents.map(lambda value: json_codec.encode(value).decode())
    times: st.SearchStrategy[Any] = moments
    if is_odd:
        data, times = data | odd_data, times | odd_moments
    return {
        "id": draw(texts),
        "data": draw(data),
        "version": version,
        "replaced_version": draw(st.sampled_from([1, version])),
        "created_at": draw(times),
        "updated_at": draw(times),
    }


@st.composite
def written(draw: st.DrawFn) -> Written:
    is_odd = draw(st.booleans())
    kind, new, old = draw(st.sampled_from("IUD")), draw(images(is_odd=is_odd)), draw(images(is_odd=is_odd))
    if draw(st.booleans()):
        old = {**new, "version": old["version"], "data": old["data"]}
    lost = draw(st.sampled_from([None] * 8 + list(new))) if is_odd else None
    is_toasted = is_odd and kind == "U" and draw(st.booleans())
    return Written(kind, new, old, draw(metadata), is_toasted, lost, draw(decoders))


rows_of_tables = st.builds(
    lambda row, message, decode: row._replace(message=message, decode=decode), rows_written(), metadata, decoders
)
rows = written() | rows_of_tables


def outcome(make: Callable[[events.ChangeEvent], Any], event: events.ChangeEvent) -> Any:
    """Return what a way to write the event makes, or the error's class and text."""
    try:
        return make(event)
    except Exception as exc:  # noqa: BLE001 (compared)
        return type(exc), str(exc)


def fields_of(event: events.ChangeEvent, names: Iterable[str] = event_json.FIELDS) -> dict[str, Any]:
    return {name: outcome(lambda event, name=name: repr(getattr(event, name)), event) for name in names}  # type: ignore[misc]


@settings(max_examples=150, deadline=None)
@given(rows, st.sampled_from(PLUGINS))
def test_json_is_the_same_from_the_change_and_from_the_fields(row: Written | RowWritten, plugin: str) -> None:
    direct = outcome(events.ChangeEvent.to_json, row.event(plugin))

    with patch.object(event_json, "_read_directly", return_value=None):
        assert direct == outcome(events.ChangeEvent.to_json, row.event(plugin))


@settings(max_examples=150, deadline=None)
@given(rows, st.sampled_from(PLUGINS))
def test_the_dict_is_the_same_from_the_change_and_from_the_fields(row: Written | RowWritten, plugin: str) -> None:
    direct = outcome(events.ChangeEvent.to_dict, row.event(plugin))

    with patch.object(event_json, "_read_directly", return_value=None):
        assert repr(direct) == repr(outcome(events.ChangeEvent.to_dict, row.event(plugin)))


def in_full(value: Any) -> Any:
    """Return the value with ints for numbers such as `Decimal("1E+38")`: a description writes all of their digits."""
    if isinstance(value, dict):
        return {key: in_full(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(in_full, value))
    return int(value) if isinstance(value, Decimal) and int(value.as_tuple().exponent) > 0 else value


@settings(max_examples=80, deadline=None)
@given(rows, st.sampled_from(PLUGINS))
def test_json_has_the_values_of_the_dict(row: Written | RowWritten, plugin: str) -> None:
    text = outcome(lambda event: event.to_json(), row.event(plugin))
    values = outcome(lambda event: event.to_dict(), row.event(plugin))

    if isinstance(text, bytes) and isinstance(values, dict):
        assert repr(in_full((row.decode or json_codec.decode)(text))) == repr(in_full(values))


@settings(max_examples=80, deadline=None)
@given(rows)
def test_both_plugins_give_the_same_event(row: Written | RowWritten) -> None:
    assume(row.lost is None and not row.loses)  # else some fields can be read through one plugin only
    one, other = (fields_of(row.event(plugin)) for plugin in PLUGINS)
    assert one == other

    for make in (events.ChangeEvent.to_json, events.ChangeEvent.to_dict):
        assert repr(outcome(make, row.event("wal2json"))) == repr(outcome(make, row.event("pgoutput")))


@settings(max_examples=80, deadline=None)
@given(rows, st.sampled_from(PLUGINS), st.permutations(event_json.FIELDS))
def test_fields_do_not_depend_on_the_order_in_which_they_are_read(
    row: Written | RowWritten, plugin: str, order: list[str]
) -> None:
    assert fields_of(row.event(plugin), order) == fields_of(row.event(plugin))


@settings(max_examples=80, deadline=None)
@given(rows, st.sampled_from(PLUGINS))
def test_streams_that_read_one_change_share_nothing_that_can_be_changed(row: Written | RowWritten, plugin: str) -> None:
    change = row.change(plugin)
    one, other = (events.from_change(change, IDS, None, row.decode) for _ in range(2))
    for document in (outcome(lambda event: event.full_document, one), outcome(lambda event: event.metadata, one)):
        for values in (getattr(document, "__dict__", {}), outcome(lambda document: document.data, document), document):
            if isinstance(values, dict):
                values.clear()

    assert fields_of(other) == fields_of(row.event(plugin))


@settings(max_examples=150, deadline=None)
@given(written(), st.sampled_from(PLUGINS), st.data())
def test_a_damaged_row_raises_only_errors_of_reading(row: Written, plugin: str, data: st.DataObject) -> None:
    frame = bytearray(row.row(plugin))
    for at in data.draw(st.lists(st.integers(PAYLOAD + 20, len(frame) - 1), min_size=1, max_size=3)):
        frame[at] = data.draw(st.integers(0, 255))
    damaged = bytes(frame[: data.draw(st.integers(PAYLOAD + 20, len(frame)) | st.just(len(frame)))])
    try:
        change = row.change(plugin, damaged)
    except (ProtocolError, ValueError):  # the table's name was damaged, so that the row is another table's
        return

    makers: list[Callable[[events.ChangeEvent], Any]] = [events.ChangeEvent.to_json, events.ChangeEvent.to_dict]
    makers += map(attrgetter, event_json.FIELDS)
    for make in makers:
        with contextlib.suppress(ProtocolError, UnreadableDocument):
            make(events.from_change(change, IDS, None, row.decode))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_usual_event_is_made_from_its_change(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the comparison above compares two ways."""
    image = {
        "id": "o-1",
        "data": '{"a": 1}',
        "version": 2,
        "replaced_version": 1,
        "created_at": "2026-11-23 03:41:13.403010+00",
        "updated_at": "2026-11-23 03:41:14.123456+00",
    }
    row = Written("U", image, {**image, "version": 1, "data": '{"a": 2, "b": [1]}'})
    monkeypatch.setattr(event_json, "_SHAPES", {})

    for made in (orjson.loads(row.event(plugin).to_json()), row.event(plugin).to_dict()):
        assert made["update_description"]["updated_fields"] == {"a": 1}
        assert made["full_document"]["updated_at"] == "2026-11-23T03:41:14.123456+00:00"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_what_is_done_to_one_dict_is_in_no_other(plugin: str) -> None:
    image = {"id": "o-1", "data": "{}", "version": 2, "replaced_version": 1, "created_at": TIME, "updated_at": TIME}
    row = Written("U", image, {**image, "version": 1})
    text, values = row.event(plugin).to_json(), row.event(plugin).to_dict()
    for value in row.event(plugin).to_dict()["update_description"].values():
        value.update(a=1) if isinstance(value, dict) else value.append("a")

    assert row.event(plugin).to_dict() == values
    assert row.event(plugin).to_json() == text


def test_metadata_that_no_writer_of_pgdoc_sends_is_written_as_it_came() -> None:
    """Any SQL writer can send it."""
    image = {"id": "o-1", "data": "{}", "version": 1, "replaced_version": 1, "created_at": TIME, "updated_at": TIME}
    row = Written("I", image, image, message='{"metadata": {"a": "\\ud800"}}')

    assert b'"metadata":{"a":"\\ud800"}' in row.event("wal2json").to_json()


@pytest.mark.parametrize("kind", ["I", "U"])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_document_that_is_kept_keeps_neither_its_message_nor_its_text_twice(plugin: str, kind: str) -> None:
    image = {"id": "o-1", "data": f'{{"a": "{"x" * 100_000}"}}', "version": 1, "replaced_version": 1}
    image |= {"created_at": TIME, "updated_at": TIME}
    row = Written(kind, {**image, "version": 2}, image)
    frame = row.row(plugin)
    references = sys.getrefcount(frame)
    tracemalloc.start()
    try:
        document = events.from_change(row.change(plugin, frame), IDS).full_document
        assert document is not None
        kept_unread, _ = tracemalloc.get_traced_memory()
        assert document.data["a"]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sys.getrefcount(frame) == references
    assert kept_unread < 150_000
    assert kept < 150_000
    assert (document.version, document.updated_at) == (2, datetime.fromisoformat(TIME))


def test_what_the_user_has_changed_is_written() -> None:
    image = {
        "id": "o-1",
        "data": '{"a": 1}',
        "version": 1,
        "replaced_version": 1,
        "created_at": "2026-11-23 03:41:13.403010+00",
        "updated_at": "2026-11-23 03:41:13.403010+00",
    }
    event = Written("I", image, image).event("wal2json")
    assert event.full_document is not None
    event.full_document.data["a"] = "changed"

    assert orjson.loads(event.to_json())["full_document"]["data"] == {"a": "changed"}


def test_metadata_that_the_user_has_emptied_is_written_empty() -> None:
    image = {"id": "o-1", "data": "{}", "version": 1, "replaced_version": 1, "created_at": TIME, "updated_at": TIME}
    event = Written("I", image, image, message='{"metadata": {"user": "Zo"}}').event("wal2json")
    event.metadata.clear()

    assert orjson.loads(event.to_json())["metadata"] == event.to_dict()["metadata"] == {}


def test_the_dicts_of_updates_that_changed_nothing_share_nothing() -> None:
    image = {"id": "o-1", "data": "{}", "version": 2, "replaced_version": 1, "created_at": TIME, "updated_at": TIME}
    row = Written("U", image, {**image, "version": 1})
    row.event("wal2json").to_dict()["update_description"]["removed_fields"].append("changed by the user")

    assert row.event("wal2json").to_dict()["update_description"]["removed_fields"] == []


def test_a_column_that_was_renamed_is_lost() -> None:
    """wal2json sends its value under the new name, so that the row has as many columns as before."""
    image = {"id": "o-1", "data": "{}", "version": 1, "replaced_version": 1, "created_at": TIME, "updated_at": TIME}
    frame = Written("I", image, image).row("wal2json")
    change = Written("I", image, image).change("wal2json", frame.replace(b'"updated_at"', b'"modified"'))

    for make in (events.ChangeEvent.to_json, events.ChangeEvent.to_dict, attrgetter("timestamp")):
        with pytest.raises(UnreadableDocument, match='collection "orders" lacks updated_at'):
            make(events.from_change(change, IDS))
