"""An event that is read back from its JSON is the event that was written."""

from __future__ import annotations

import contextlib
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgdoc.changes import event_json, event_parsing, events
from pgdoc.changes.diff import diff
from pgdoc.changes.events import ChangeEvent, EventType
from pgdoc.errors import InvalidEvent, UnreadableDocument
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import encode
from pgdoc.model.positions import Position
from pgdoc.model.table_row import TableRow
from pgdoc.model.tokens import ResumeToken, SnapshotProgress
from tests.json_values import any_documents, any_json, documents, texts
from tests.unit.changes.test_event_json import PLUGINS, Written, outcome, rows
from tests.unit.table_wire import RowWritten, Texts, shape_of

WHEN = datetime(2026, 11, 30, 0, 5, 7, 123456, UTC)
FIELDS = (*event_json.FIELDS, "columns")

times = st.datetimes(timezones=st.just(UTC))
numbers = st.integers(0, 2**64 - 1)
progress = st.builds(
    SnapshotProgress,
    st.lists(texts, max_size=3).map(tuple),
    texts,
    st.sampled_from(["*", "0a1b2c3d"]),
    st.integers(0, 2**62),  # a token that names more is refused
)
positions = st.builds(Position, numbers, st.just(0), st.just(0), st.just(0)) | st.builds(
    Position, numbers, st.integers(1, 2**64 - 1), st.sampled_from([0, 1]), st.integers(0, 10**17 - 1)
)
tokens = st.builds(
    ResumeToken, positions, numbers, st.integers(1, 2**31), st.none() | progress, st.none() | st.integers(1, 2**32)
)
collections = st.sampled_from(["orders", "C-3", "dé"])
tables = st.sampled_from(["public.orders", 'public.we"ird', "s.a.b\\"])
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
embedded = st.sampled_from(['{"event_type":"insert"}', ',"resume_token":"', '"}', "\\", '\\"'])
data = any_documents | st.dictionaries(
    st.sampled_from(["resume_token", "update_description", "renamed_to", "version", "id"]) | embedded,
    any_json | embedded,
    max_size=4,
)


@st.composite
def made(draw: st.DrawFn) -> ChangeEvent:
    """Return an event that was made from its fields, as a pickled one is."""
    kind: EventType = draw(st.sampled_from(EventType))
    is_table = draw(st.booleans())
    name = draw(tables if is_table else collections)
    of_row = kind in {"insert", "update", "replace", "delete", "snapshot"}
    row_id = draw(ids)

    def document() -> Document:
        if is_table:
            return TableRow.of(row_id, encode(draw(data)), name, None)
        return Document(row_id, draw(data), draw(st.integers(1, 2**62)), draw(times), draw(times))

    after = document() if of_row and kind != "delete" else None
    before = document() if kind in {"update", "replace", "delete"} else None
    return ChangeEvent(
        event_type=kind,
        collection=name,
        document_id=row_id if of_row else None,
        full_document=after,
        full_document_before_change=before,
        update_description=diff(before.data, after.data) if kind == "update" and before and after else None,
        resume_token=draw(tokens),
        timestamp=draw(times),
        transaction_id=draw(st.integers(0, 2**32 - 1)),
        metadata=draw(st.just({}) | documents),
        renamed_to=draw(tables if is_table else collections) if kind == "rename" else None,
        columns=draw(st.none() | data) if is_table else None,
    )


@settings(max_examples=300, deadline=None)
@given(made())
def test_an_event_that_was_written_is_read_back(event: ChangeEvent) -> None:
    text = event.to_json()
    found = ChangeEvent.from_json(text)

    assert found.to_json() == text
    assert found == event
    assert found.resume_token.database_oid == event.resume_token.database_oid
    assert found.to_json() == text
    assert found.to_dict() == event.to_dict()
    assert pickle.loads(pickle.dumps(found)) == event  # noqa: S301
    assert ChangeEvent.from_json(text.decode()) == event


@settings(max_examples=200, deadline=None)
@given(rows, st.sampled_from(PLUGINS))
def test_an_event_of_a_stream_is_read_back_by_the_decoder_of_its_stream(row: Written | RowWritten, plugin: str) -> None:
    event = row.event(plugin)
    text = outcome(ChangeEvent.to_json, event)
    if not isinstance(text, bytes) or b'"data":,' in text:
        return  # what can't be written, and what no server sends

    assert events.from_json(text, row.decode).to_json() == text
    found = events.from_json(text, row.decode)
    for name in FIELDS:
        one, other = getattr(found, name), outcome(attrgetter(name), event)
        if isinstance(one, Document):  # its data may be unreadable
            assert type(one) is type(other)
            for part in ("id", "data", "version", "created_at", "updated_at"):
                read: Any = attrgetter(part)
                assert outcome(read, one) == outcome(read, other)  # type: ignore[arg-type]
        else:
            assert one == other, name
    assert outcome(ChangeEvent.to_json, found) == outcome(ChangeEvent.to_json, event)


@settings(max_examples=200, deadline=None)
@given(made(), st.integers(0, 3))
def test_any_layout_of_the_json_is_read(event: ChangeEvent, indent: int) -> None:
    reordered = dict(reversed(json.loads(event.to_json()).items()))

    assert ChangeEvent.from_json(json.dumps(reordered, indent=indent or None)) == event


@settings(max_examples=200, deadline=None)
@given(made(), st.data())
def test_a_damaged_text_raises_only_errors_of_reading(event: ChangeEvent, data: st.DataObject) -> None:
    text = bytearray(event.to_json())
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=3)):
        text[at] = data.draw(st.integers(0, 255))
    damaged = bytes(text[: data.draw(st.integers(0, len(text)))])
    with contextlib.suppress(InvalidEvent):
        found = ChangeEvent.from_json(damaged)
        makers: list[Any] = [*map(attrgetter, FIELDS), ChangeEvent.to_dict, ChangeEvent.to_json]
        for make in makers:
            with contextlib.suppress(InvalidEvent, UnreadableDocument):
                make(found)


USUAL = ChangeEvent(
    event_type=EventType.UPDATE,
    collection="orders",
    document_id="o-1",
    full_document=Document("o-1", {"n": 1, "of": {"version": 2}}, 2, WHEN, WHEN),
    full_document_before_change=Document("o-1", {}, 1, WHEN, WHEN),
    update_description=diff({}, {"n": 1}),
    resume_token=ResumeToken(Position(100, 90, 0, 0), 7421, 1, None, 16384),
    timestamp=WHEN,
    transaction_id=732,
    metadata={"by": "me"},
)


def test_the_usual_layout_is_not_cut_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the laws above test both ways."""
    monkeypatch.delattr(event_parsing, "_members")
    assert ChangeEvent.from_json(USUAL.to_json()) == USUAL


def test_an_event_inside_a_document_is_a_part_of_the_document() -> None:
    inner = USUAL.to_json()
    text = inner.replace(b'{"n":1,', b'{"n":%b,' % inner)

    found = ChangeEvent.from_json(text)

    assert found.full_document is not None
    assert found.full_document.data["n"] == orjson.loads(inner)
    assert (found.resume_token, found.to_json()) == (USUAL.resume_token, found.to_json())


def test_numbers_have_the_digits_that_were_written() -> None:
    digits = b"1.50000000000000000000000000000000000001"
    text = USUAL.to_json().replace(b'"n":1,', b'"n":%b,"m":1%b,' % (digits, b"0" * 30))

    exact, rounded = ChangeEvent.from_json(text, decimals=True), ChangeEvent.from_json(text)

    assert exact.full_document is not None
    assert rounded.full_document is not None
    assert exact.full_document["n"] == Decimal(digits.decode())
    assert exact.full_document["m"] == rounded.full_document["m"] == 10**30
    assert (rounded.full_document["n"], type(rounded.full_document["n"])) == (1.5, float)
    assert digits in exact.to_json()


def test_a_document_that_python_cannot_read_leaves_the_event_readable() -> None:
    text = USUAL.to_json().replace(b'"n":1,', b'"n":1%b,' % (b"0" * 5000))

    found = ChangeEvent.from_json(text)

    assert (found.document_id, found.resume_token, found.to_json()) == ("o-1", USUAL.resume_token, text)
    assert found.full_document is not None
    with pytest.raises(UnreadableDocument, match="document 'o-1' of collection \"orders\""):
        _ = found.full_document.data


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_removed_field_whose_name_is_half_a_surrogate_pair_is_written_and_read_back(plugin: str) -> None:
    """A table's column of type json can hold it."""
    shape = shape_of(("id", "bigint"), ("data", "jsonb"), document="data")
    new: Texts = {"id": "1", "data": '{"a": 1}'}
    old: Texts = {"id": "1", "data": '{"\\ud800": 1, "a": 1}'}
    event = RowWritten(shape, "U", new, old).event(plugin)

    found = ChangeEvent.from_json(event.to_json())

    assert found == event
    assert found.update_description is not None
    assert found.update_description.removed_fields == ["\ud800"]


def test_what_the_user_has_changed_is_written() -> None:
    found = ChangeEvent.from_json(USUAL.to_json())
    assert found.full_document is not None
    found.full_document.data["n"] = 2
    found.metadata.clear()

    assert orjson.loads(found.to_json())["full_document"]["data"]["n"] == 2
    assert orjson.loads(found.to_json())["metadata"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the JSON of an event"),
        ("null", "is not the JSON of an event"),
        ("[]", "is not the JSON of an event"),
        ("{}", "lacks event_type, collection, document_id"),
        ('{"event_type":"insert"', "is not the JSON of an event"),
        ('{"event_type":"insert"}x', "is not the JSON of an event"),
        (b"\xff", "is not the JSON of an event"),
        ("\ud800", "is not the JSON of an event"),
        (1, "1 is not the JSON of an event"),
        (1 << 60, "is not the JSON of an event"),
        (USUAL.to_json()[:-1], "is not the JSON of an event"),
        (USUAL.to_json().replace(b'"update"', b'"merge"'), "'merge' is not a type of event"),
        (USUAL.to_json().replace(b"732", b'"a"'), 'its transaction_id is "a", not a number'),
        (USUAL.to_json().replace(b'"renamed_to":null', b'"renamed":null'), "lacks renamed_to"),
        (USUAL.to_json().replace(b'"orders"', b"7"), "its collection is 7, not a text"),
    ],
)
def test_a_text_that_is_no_event_is_refused(text: Any, message: str) -> None:
    with pytest.raises(InvalidEvent, match=message):
        ChangeEvent.from_json(text)


@pytest.mark.parametrize(
    ("former", "latter", "name"),
    [
        (b'"version":2,"created', b'"version":"2","created', "full_document"),
        (b',"full_document":{"id":"o-1",', b',"full_document":{', "full_document"),
        (b'{"by":"me"}', b'["by"]', "metadata"),
        (b'"0/64.', b'"', "resume_token"),
        (b'123456+00:00","trans', b'123456","trans', "timestamp"),
        (b'123456+00:00","updated', b'123456","updated', "full_document"),
        (b'"removed_fields"', b'"removed"', "update_description"),
        (b'"updated_fields":{', b'"updated_fields":7,"fields":{', "update_description"),
    ],
)
def test_a_damaged_field_is_refused_when_it_is_read(former: bytes, latter: bytes, name: str) -> None:
    found = ChangeEvent.from_json(USUAL.to_json().replace(former, latter))

    with pytest.raises(InvalidEvent, match="the JSON of an event is damaged"):
        getattr(found, name)
