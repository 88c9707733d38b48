"""Rows of watched tables are the same however they are read, and through both plugins."""

from __future__ import annotations

import contextlib
import copy
import pickle
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pgdoc.changes import events
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.changes.table_rows import TableRows, image_of_row, rows_of_table
from pgdoc.changes.whole_changes import check_images
from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.pgoutput import PgOutput
from pgdoc.decoding.records import LOST, Images, RowChange
from pgdoc.decoding.wal2json import Wal2Json
from pgdoc.errors import ProtocolError, ReplicaIdentityChanged, UnreadableDocument
from tests.unit import pgoutput_wire, wire
from tests.unit.table_wire import IDS, RowWritten, Texts, rows_written, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.changes.change import Change

PLUGINS = ("wal2json", "pgoutput")
SHAPE = shape_of(("id", "bigint"), ("total", "numeric(12,2)"), ("note", "text"))
ROW: Texts = {"id": "7", "total": "1500.50", "note": "a"}


@pytest.fixture
def without_parsing() -> Iterator[None]:
    """Fail if a row has to be parsed as a whole."""
    with (
        patch("pgdoc.changes.assembler.rows_of_table", side_effect=AssertionError("parsed by the hub")),
        patch("pgdoc.changes.table_rows._read", side_effect=AssertionError("parsed by the reader")),
    ):
        yield


def images(change: Change) -> list[dict[str, Any]]:
    """Read the images as a whole, the last part first."""
    found = change.row.read(change.row.message)
    for image in filter(None, found):
        assert [image["columns"], image["data"], image["id"]]
    return [{name: image[name] for name in ("id", "data", "columns")} if image else {} for image in found]


@settings(max_examples=250, deadline=None)
@given(rows_written(changes_key=True), st.sampled_from(PLUGINS))
def test_a_row_has_the_json_of_its_texts(written: RowWritten, plugin: str) -> None:
    assume(plugin == "pgoutput" or not written.loses)
    after = image_of_row(written.new, written.shape) if written.kind in "IU" else {}
    before = image_of_row(written.old, written.shape) if written.kind in "UD" else {}
    is_split = written.kind == "U" and any(written.new[name] != written.old[name] for name in written.shape.key)

    found = [(change.row.kind, images(change)) for change in written.changes(plugin)]

    assert found == ([("D", [{}, before]), ("I", [after, {}])] if is_split else [(written.kind, [after, before])])


@settings(max_examples=150, deadline=None)
@given(rows_written(changes_key=True), st.sampled_from(PLUGINS))
def test_the_quick_way_gives_what_parsing_gives(written: RowWritten, plugin: str) -> None:
    quick = written.changes(plugin)
    with patch.object(TableRows, "take", return_value=None):
        slow = written.changes(plugin)

    assert [change.position for change in quick] == [change.position for change in slow]
    assert list(map(outcome, quick)) == list(map(outcome, slow))


def outcome(change: Change) -> Any:
    """Return all of a change: its images, or the error of reading them."""
    row = change.row
    head = (row.kind, row.table, row.complete)
    try:
        found = row.read(row.message)
        parts = ("data", "columns", "id")
        return head, [
            {**{part: image[part] for part in parts}, LOST: image.get(LOST)} if image else {} for image in found
        ]
    except UnreadableDocument as exc:
        return head, str(exc)


@settings(max_examples=150, deadline=None)
@given(rows_written(), st.sampled_from(PLUGINS), st.data())
def test_a_damaged_row_raises_only_errors_of_reading(written: RowWritten, plugin: str, data: st.DataObject) -> None:
    frame = bytearray(written.row(plugin))
    start = PAYLOAD + (20 if plugin == "wal2json" else 5)
    for at in data.draw(st.lists(st.integers(start, len(frame) - 1), min_size=1, max_size=3)):
        frame[at] = data.draw(st.integers(0, 255))
    damaged = bytes(frame[: data.draw(st.integers(start, len(frame)) | st.just(len(frame)))])
    try:
        changes = written.changes(plugin, damaged)
    except (ProtocolError, ValueError):  # the table's name was damaged, or the row had to be parsed
        return

    for event in [events.from_change(change, IDS) for change in changes if change.row.complete]:
        for read in (events.ChangeEvent.to_json, events.ChangeEvent.to_dict, attrgetter("document_id")):
            with contextlib.suppress(ProtocolError, UnreadableDocument):
                read(event)


@pytest.mark.parametrize("kind", "IUD")
@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_usual_row_is_not_parsed(without_parsing: None, plugin: str, kind: str) -> None:
    event = RowWritten(SHAPE, kind, ROW, {**ROW, "note": "b"}).event(plugin)

    assert event.document_id == "7"
    for document in (event.full_document, event.full_document_before_change):
        assert document is None or document.data["total"] == 1500.50


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ((("note", "text"), ("id", "bigint"), ("total", "bigint")), ("id",)),
        ((("id", "uuid"), ("note", "text"), ("total", "bigint")), ("note", "id")),
        ((("id", "bytea"), ("note", "text")), ("id",)),
        ((("id", "boolean"), ("note", "text[]")), ("id",)),
    ],
)
def test_an_update_that_keeps_its_key_is_not_parsed(
    without_parsing: None, plugin: str, columns: tuple[tuple[str, str], ...], key: tuple[str, ...]
) -> None:
    texts = {"id": "\\xdead" if columns[0][1] == "bytea" else "t", "note": "{a}", "total": "5"}
    shape = shape_of(*columns, key=key)
    old: Texts = {name: texts[name] for name, _ in columns}

    assert RowWritten(shape, "U", {**old, columns[-1][0]: "{b}"}, old).change(plugin).row.kind == "U"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_value_that_is_left_in_toast_is_not_parsed_for(without_parsing: None, plugin: str) -> None:
    event = RowWritten(SHAPE, "U", {**ROW, "total": "1"}, ROW, toasted=frozenset({"note"})).event(plugin)

    assert event.full_document is not None
    assert event.full_document.data == {"id": 7, "total": 1, "note": "a"}


def test_a_generated_column_is_left_out_without_parsing(without_parsing: None) -> None:
    event = RowWritten(SHAPE, "U", ROW, {**ROW, "note": "b"}, generated=True).event("wal2json")

    assert event.full_document is not None
    assert list(event.full_document.data) == ["id", "total", "note"]


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("kind", "UD")
def test_a_row_without_its_before_image_is_incomplete(plugin: str, kind: str) -> None:
    old = {"id": "7", "total": None, "note": None}
    new = ROW if kind == "U" else None
    if plugin == "wal2json":
        row = wire.row(10, kind, "orders", new=new, old={"id": orjson.Fragment("7")}, schema="public")
    else:
        row = pgoutput_wire.row(kind, new=new, old=old, mark=b"K")

    (change,) = RowWritten(SHAPE, kind, ROW, old).changes(plugin, row, identity="id")
    with pytest.raises(ReplicaIdentityChanged):
        check_images(change)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_an_update_without_any_identity_is_incomplete(plugin: str) -> None:
    if plugin == "wal2json":
        row = wire.row(10, "U", "orders", new=ROW, schema="public")
    else:
        row = pgoutput_wire.row("U", new=ROW)

    (change,) = RowWritten(SHAPE, "U", ROW, ROW).changes(plugin, row)
    assert (change.row.kind, change.row.complete) == ("U", False)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_key_that_changes_makes_a_delete_and_an_insert(plugin: str) -> None:
    delete, insert = RowWritten(SHAPE, "U", {**ROW, "id": "8"}, ROW).changes(plugin)

    assert (delete.row.kind, insert.row.kind) == ("D", "I")
    assert delete.position < insert.position
    assert [events.from_change(each, IDS).document_id for each in (delete, insert)] == ["7", "8"]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_equal_numbers_of_different_texts_are_different_keys(plugin: str) -> None:
    shape = shape_of(("id", "numeric(12,2)"), ("note", "text"))
    old: Texts = {"id": "1.0", "note": "a"}

    found = RowWritten(shape, "U", {**old, "id": "1.00"}, old).changes(plugin)
    assert [change.row.kind for change in found] == ["D", "I"]


def test_a_value_with_zero_bytes_in_its_size_is_not_taken_for_a_new_row() -> None:
    """The size of the old note, 2,048 bytes, and what follows it begin as a tuple of eight columns does."""
    shape = shape_of(("id", "text"), ("note", "text"))
    old: Texts = {"id": "aN", "note": "N" * 2048}

    found = RowWritten(shape, "U", {**old, "id": "bN"}, old).changes("pgoutput")
    assert [change.row.kind for change in found] == ["D", "I"]


@pytest.mark.parametrize("total", ["NaN", "Infinity", None])
@pytest.mark.parametrize("document", [None, "payload"])
def test_a_null_that_wal2json_may_have_sent_for_another_value_makes_the_row_unreadable(
    total: str | None, document: str | None
) -> None:
    shape = shape_of(("id", "bigint"), ("total", "numeric(12,2)"), ("payload", "jsonb"), document=document)
    event = RowWritten(shape, "I", {"id": "7", "total": total, "payload": "{}"}, {}).event("wal2json")

    assert (event.document_id, event.collection, event.event_type) == ("7", "public.orders", "insert")
    assert str(event.resume_token)
    reads: list[Callable[[events.ChangeEvent], object]] = [
        events.ChangeEvent.to_json,
        events.ChangeEvent.to_dict,
        attrgetter("full_document"),
    ]
    if document is not None:
        reads.append(attrgetter("columns"))
    for read in reads:
        with pytest.raises(UnreadableDocument, match=r'"total".*plugin="auto"') as caught:
            read(event)
        assert (caught.value.collection, caught.value.document_id) == ("public.orders", "7")


def test_a_key_that_wal2json_has_lost_makes_the_id_unreadable() -> None:
    shape = shape_of(("id", "double precision"), ("note", "text"))
    event = RowWritten(shape, "I", {"id": "NaN", "note": "a"}, {}).event("wal2json")

    assert str(event.resume_token)
    with pytest.raises(UnreadableDocument, match='"id"'):
        _ = event.document_id


@pytest.mark.parametrize("type_", ["public.amount", "bigint"])
def test_null_is_null_in_a_column_of_which_wal2json_loses_nothing(type_: str) -> None:
    shape = shape_of(("id", "bigint"), ("total", type_))
    event = RowWritten(shape, "I", {"id": "7", "total": None}, {}).event("wal2json")

    assert event.full_document is not None
    assert event.full_document.data == {"id": 7, "total": None}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_another_shape_is_used_from_its_position_on(plugin: str) -> None:
    written = RowWritten(SHAPE, "I", ROW, {})
    later = shape_of(("id", "bigint"), ("total", "numeric(12,2)"), ("remark", "text"))
    registry = Registry("docs", [written.span._replace(until=15), written.span._replace(since=15, shape=later)])

    def feed(lsn: int, row: RowWritten) -> Change:
        types = {column.name: 25 for column in row.shape.columns}
        frame = row.row(plugin)
        frame = frame[:1] + lsn.to_bytes(8) * 2 + frame[17:]
        relation = pgoutput_wire.relation(schema="public", types=types)
        frames = [wire.begin(10, 20, 28), frame, wire.commit(20, 28)]
        if plugin == "pgoutput":
            frames = [pgoutput_wire.begin(), relation, frame, pgoutput_wire.commit()]
        decoder = Wal2Json("docs") if plugin == "wal2json" else PgOutput("docs")
        (found,) = Assembler(0, registry).feed(decoder.decode(frames)).changes
        return found

    assert images(feed(10, written))[0]["data"] == '{"id":7,"total":1500.50,"note":"a"}'
    renamed = RowWritten(later, "I", {"id": "7", "total": "2", "remark": "b"}, {})
    assert images(feed(16, renamed))[0]["data"] == '{"id":7,"total":2,"remark":"b"}'


@pytest.mark.parametrize("plugin", PLUGINS)
def test_events_of_rows_are_copied_and_pickled(plugin: str) -> None:
    shape = shape_of(("id", "bigint"), ("payload", "jsonb"), ("note", "text"), document="payload")
    row: Texts = {"id": "7", "payload": '{"a": 1.50}', "note": "x"}
    event = RowWritten(shape, "U", row, {**row, "payload": "{}"}).event(plugin)
    for other in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):  # noqa: S301 (our own)
        assert other == event
        assert repr(other) == repr(event)
        assert other.to_json() == event.to_json()
        assert other.columns == {"id": 7, "note": "x"}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_streams_share_what_was_read(plugin: str) -> None:
    change = RowWritten(SHAPE, "U", ROW, {**ROW, "note": "b"}).change(plugin)
    reader = "pgdoc.decoding.wal2json_rows.Wal2JsonRows.after"
    if plugin == "pgoutput":
        reader = "pgdoc.decoding.pgoutput_rows.PgOutputRows.after"
    with patch(reader, side_effect=lambda _frame: {"id": "7", "data": '{"a": 1}', "columns": None}) as after:
        for _ in range(3):
            assert events.from_change(change, IDS).full_document.data == {"a": 1}  # type: ignore[union-attr]
    assert after.call_count == 1


def test_rows_of_table_leaves_a_truncation_as_it_is() -> None:
    written = RowWritten(SHAPE, "I", ROW, {})
    row = written.change("wal2json").row
    assert isinstance(row, RowChange)
    row = row._replace(kind="T", table="orders", read=lambda _: Images({}, {}))

    (found,) = rows_of_table(row, written.span)
    assert (found.kind, found.table) == ("T", "public.orders")
