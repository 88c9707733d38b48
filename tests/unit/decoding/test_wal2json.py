from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.records import Begin, Commit, Idle, Images, Message, Record, RegistryRow, RowChange, Span
from pgdoc.decoding.wal2json import Wal2Json, read_images, read_parts, wal2json_options
from pgdoc.errors import ProtocolError
from tests.unit import wire

ROW = wire.row(10, "I", "orders", new={"id": "o-1", "data": '{"n": 1.10}', "version": 1})
TRANSACTION = [wire.begin(10, 20, 28), ROW, wire.commit(20, 28)]


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Transactions, many of them empty, with keepalives between and inside them, and messages outside."""
    frames: list[bytes] = []
    lsn = 100
    for _ in range(draw(st.integers(0, 5))):
        frames.append(wire.begin(lsn, lsn + 50, lsn + 58))
        changes = st.sampled_from([ROW, wire.message(lsn, "{}"), wire.keepalive(lsn)])
        frames += draw(st.lists(changes, max_size=4))
        frames.append(wire.commit(lsn + 50, lsn + 58))
        lsn += 58
        outside = st.sampled_from([wire.keepalive(lsn), wire.message(lsn, "x", transactional=False)])
        frames += draw(st.lists(outside, max_size=2))
    return frames


@given(streams(), st.data())
def test_how_frames_are_grouped_never_changes_the_records(frames, data):
    decoder = Wal2Json()
    records = [record for group in data.draw(wire.groups(frames)) for record in decoder.decode(group)]
    assert records == Wal2Json().decode(frames)


@given(streams())
def test_every_change_is_inside_a_transaction_and_no_transaction_is_empty(frames):
    inside: list[type] | None = None
    for record in Wal2Json().decode(frames):
        if isinstance(record, Begin):
            assert inside is None
            inside = []
        elif isinstance(record, RowChange):
            assert inside is not None
            inside.append(RowChange)
        elif isinstance(record, Message) and inside is not None:
            inside.append(Message)
        elif isinstance(record, Commit):
            assert inside != []
            inside = None


def test_a_transaction():
    change = RowChange(10, "I", "orders", ROW, complete=False, read=read_parts)  # a collection has more columns
    assert Wal2Json().decode(TRANSACTION) == [Begin(20, 700, wire.TIMESTAMP), change, Commit(28)]


def test_a_transaction_without_changes_is_only_its_commit():
    assert Wal2Json().decode([wire.begin(10, 20, 28), wire.commit(20, 28)]) == [Commit(28)]


def decode_row(frame: bytes) -> RowChange:
    (_, change) = Wal2Json().decode([wire.begin(10, 20, 28), frame])
    assert isinstance(change, RowChange)
    return change


WHOLE = {"id": "o-1", "data": '{"n": 1.10}', "version": 1, "replaced_version": 1, "created_at": "a", "updated_at": "b"}


def test_numbers_are_decoded_as_numbers_and_all_else_as_text():
    assert decode_row(ROW).images() == Images({"id": "o-1", "data": '{"n": 1.10}', "version": 1}, {})


def test_unchanged_toast_values_are_taken_from_the_old_row():
    new = {**WHOLE, "version": 2}
    del new["data"]
    change = decode_row(wire.row(10, "U", "orders", new=new, old=WHOLE))
    assert change.complete
    assert change.images() == Images({**WHOLE, "version": 2}, WHOLE)


def test_a_delete_has_the_old_row_and_a_truncation_none():
    assert decode_row(wire.row(10, "D", "orders", old=WHOLE)).images() == Images({}, WHOLE)
    assert decode_row(wire.row(10, "T", "orders")).images() == Images({}, {})


@pytest.mark.parametrize(
    ("kind", "new", "old", "complete"),
    [
        ("I", WHOLE, None, True),
        ("U", WHOLE, WHOLE, True),
        ("U", WHOLE, {"id": "o-1"}, False),
        ("U", WHOLE, None, False),
        ("D", None, WHOLE, True),
        ("D", None, {"id": "o-1"}, False),
        ("T", None, None, True),
    ],
)
def test_a_change_without_the_whole_old_row_is_incomplete(kind, new, old, complete):
    assert decode_row(wire.row(10, kind, "orders", new=new, old=old)).complete is complete


def test_the_content_of_a_document_is_never_mistaken_for_the_message_around_it():
    data = '{"table":"t","identity":[{"name":"x"},{"name":"x"},{"name":"x"},{"name":"x"},{"name":"x"},{"name":"x"}]}'
    change = decode_row(wire.row(10, "D", "orders", old={"id": data, "data": data}))
    assert (change.table, change.complete) == ("orders", False)
    assert change.images().before == {"id": data, "data": data}


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=63))
@example('"')
@example("\\")
def test_every_name_of_a_table_is_decoded(name):
    assert decode_row(wire.row(10, "I", name, new=WHOLE)).table == name


NAMES = ["orders", "orderz", "order", 'or"ers', "or\\ers", '","table":"x', "registry"]


@st.composite
def rows_of_any_table(draw: st.DrawFn) -> bytes:
    """A row whose table may stand where that of another row stands, and whose document may look like such a place."""
    kind, schema, name = draw(st.sampled_from("IUDT")), draw(st.sampled_from(["docs", "pgdo"])), st.sampled_from(NAMES)
    image = WHOLE | {"data": f'"schema":"docs","table":"{draw(name)}","columns":[{{"name":"id"'}
    images = {"new": image if kind in "IU" else None, "old": image if kind in "UD" else None}
    return wire.row(draw(st.sampled_from([10, 1 << 40])), kind, draw(name), schema=schema, **images)


@given(st.lists(rows_of_any_table(), max_size=8))
def test_a_row_is_decoded_the_same_whatever_row_came_before_it(frames):
    decoder = Wal2Json()
    alone = [record for frame in frames for record in Wal2Json().decode([frame])]
    assert [record for frame in frames for record in decoder.decode([frame])] == alone


@given(rows_of_any_table(), st.data())
def test_a_row_that_is_cut_is_refused_also_after_a_whole_one(frame, data):
    decoder = Wal2Json()
    decoder.decode([frame])
    with pytest.raises(ProtocolError):
        decoder.decode([frame[: data.draw(st.integers(PAYLOAD + 12, len(frame) - 1))].removesuffix(b"}")])


def test_a_keepalive_inside_a_transaction_is_ignored():
    begun = [wire.begin(10, 20, 28), wire.keepalive(15)]
    assert Wal2Json().decode(begun) == []
    assert Wal2Json().decode([wire.keepalive(15)]) == [Idle(15)]


def test_a_message_inside_a_transaction_is_preceded_by_its_begin():
    frames = [wire.begin(10, 20, 28), wire.message(10, '{"metadata": {"user": "zoë"}}')]
    assert Wal2Json().decode(frames) == [Begin(20, 700, wire.TIMESTAMP), Message(10, '{"metadata": {"user": "zoë"}}')]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"action":"M","lsn":"0/A","transactional":true,"prefix":"pgdoc","content":"\xe9\xff"}',
        b'{"action":"M","lsn":"0/A","transactional":true,"prefix":"pgdoc","content":"cut',
        b'{"action":"M","lsn":"0/A","transactional":true,"prefix":"pgdoc"}',
        b'{"action":"M","content":7}',
    ],
)
def test_a_message_that_is_not_text_raises_nothing(payload):
    records = Wal2Json().decode([wire.begin(10, 20, 28), wire.xlog_data(10, payload), ROW])
    assert records[1] == Message(10, None)
    assert isinstance(records[2], RowChange)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"action":"I","lsn":"0/A","columns":[]}',
        b'{"action":"I","table":"orders","columns":[',
        b'{"action":"I","table":"\xff","columns":[]}',
        b'{"action":"I","table":"a\\x"}',
        b'{"action":"I"',
        b'{"action":"X","table":"orders"}',
        b"BEGIN 756                       ",
        b"",
    ],
)
def test_a_message_that_wal2json_does_not_write_is_refused_with_the_offset(payload):
    frame = wire.xlog_data(10, payload)
    with pytest.raises(ProtocolError) as raised:
        Wal2Json().decode([wire.begin(10, 20, 28), frame])
    assert PAYLOAD <= raised.value.offset <= len(frame)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"action":"I","schema":"docs","table":"orders","columns":[}',
        b'{"action":"I","schema":"docs","table":"orders","columns":[7]}',
        b'{"action":"I","schema":"docs","table":"orders","columns":[{"name":"id"}]}',
        b'{"action":"I","schema":"docs","table":"orders","columns":null}',
        b'{"action":"I","schema":"docs","table":"orders","columns":[{"name":[],"value":1}]}',
    ],
)
def test_a_malformed_row_is_refused_when_it_is_decoded(payload):
    change = decode_row(wire.xlog_data(10, payload))
    with pytest.raises(ProtocolError):
        change.images()


@pytest.mark.parametrize(
    "payload", [b'{"action":"B"}', b'{"action":"B","lsn":"0","xid":1,"timestamp":""}', b'{"action":"B']
)
def test_a_malformed_begin_is_refused_when_a_change_follows(payload):
    decoder = Wal2Json()
    assert decoder.decode([wire.xlog_data(10, payload)]) == []
    with pytest.raises(ProtocolError, match="begin"):
        decoder.decode([ROW])


FULL_TIMES = {"created_at": "2026-11-23 03:41:13.403010+00", "updated_at": "2026-11-23 03:41:13.403010+00"}
FULL_ROW = wire.row(
    10, "I", "orders", new={"id": "o-1", "data": "{}", "version": 1, "replaced_version": 1, **FULL_TIMES}
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    frame = bytearray(draw(st.sampled_from([*TRANSACTION, FULL_ROW, wire.message(10, "{}"), wire.keepalive(1)])))
    for at in draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
        frame[at] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))])


@given(st.lists(st.binary(max_size=80) | damaged() | st.sampled_from(TRANSACTION), max_size=4))
@example([b""])
@example([b"k"])
@example([b"w"])
@example([FULL_ROW.replace(b"13.403010", b"13.4\xa03010")])
def test_damaged_frames_raise_nothing_but_protocol_errors(frames):
    try:
        for record in Wal2Json().decode(frames):
            if isinstance(record, RowChange):
                record.images()
    except ProtocolError as exc:
        assert 0 <= exc.offset <= max(PAYLOAD, *map(len, frames))  # noqa: PT017


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [("docs", "docs.*"), ("Weird, T.able*'\"\\", "Weird\\,\\ T\\.able\\*\\'\\\"\\\\.*"), ("straße", "straße.*")],
)
def test_the_filter_is_always_the_whole_schema_and_the_registry(schema, pattern):
    assert wal2json_options(schema)["add-tables"] == f"{pattern},pgdoc.messages,pgdoc.registry"


def test_only_the_catalogs_table_is_the_registry():
    frames = [wire.registry_row(10, "orders"), wire.row(12, "I", "registry", new={"oid": 7}, schema="docs")]
    first, second = decode_rows(*frames)
    assert isinstance(first, RegistryRow)
    assert (first.span, first.is_new, first.has_closed) == (Span(7, "docs", "orders", 8, None), True, False)
    assert isinstance(second, RowChange)
    assert second.table == "registry"


def test_the_end_of_a_collection_is_an_update_of_its_row():
    (row,) = decode_rows(wire.registry_row(10, "orders", kind="drop"))
    assert isinstance(row, RegistryRow)
    assert (row.span.until, row.has_closed, row.closed_by, row.exact) == (9, True, "drop", True)


def test_names_that_begin_alike_up_to_a_quote_are_told_apart():
    frames = [wire.row(lsn, "I", name, new={"id": "1"}) for lsn, name in ((10, 'a"b'), (11, 'a"c'), (12, 'a"b'))]
    assert [row.table for row in decode_rows(*frames) if isinstance(row, RowChange)] == ['a"b', 'a"c', 'a"b']


@pytest.mark.parametrize("column", ["oid", "since", "until", "exact", "opened_by"])
def test_a_registry_of_another_form_is_refused(column):
    frame = wire.registry_row(10, "orders").replace(f'"name":"{column}"'.encode(), b'"name":"else"')
    with pytest.raises(ProtocolError, match="registry"):
        decode_rows(frame)


def decode_rows(*frames: bytes) -> list[Record]:
    return Wal2Json().decode([wire.begin(9, 20, 28), *frames])[1:]


COLUMNS = ["id", "data", "version", "replaced_version", "created_at", "updated_at"]
HOSTILE = st.sampled_from(
    [
        "",
        "o-1",
        '"}]',
        '},{"name":"data","value":',
        '},{"name":"version","value":1}',
        ':[{"name":"id","value":',
        "\\",
        "é",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def collection_rows(draw: st.DrawFn) -> bytes:
    """Rows of a collection whose texts look like the message around them, also in another shape than the usual."""

    def image() -> dict[str, Any]:
        values: dict[str, Any] = {"id": draw(HOSTILE), "data": draw(HOSTILE), "version": draw(st.integers(0, 3))}
        values |= {
            "replaced_version": draw(st.integers(0, 3)),
            "created_at": draw(HOSTILE),
            "updated_at": draw(HOSTILE),
        }
        if draw(st.booleans()):
            return values
        names = draw(st.permutations([*COLUMNS, "other"]))
        return {name: values.get(name, "x") for name in names[: draw(st.integers(1, 7))]}

    kind = draw(st.sampled_from("IUD"))
    return wire.row(90, kind, "orders", new=image() if kind in "IU" else None, old=image() if kind in "UD" else None)


@given(collection_rows())
def test_a_row_that_is_sliced_is_the_row_that_is_parsed(frame: bytes) -> None:
    after, before = decode_row(frame).images()
    assert Images({**before, **after} if after else after, before) == read_images(frame)


@pytest.mark.parametrize("at", range(3, 7))
def test_nothing_keeps_the_values_of_a_column_that_was_added(at: int) -> None:
    values = {"id": "o-1", "data": "{}", "version": 1, "replaced_version": 1}
    values |= {"created_at": "2026-11-23 03:41:13.403010+00", "updated_at": "2026-11-23 03:41:14.123456+00"}
    tracemalloc.start()
    try:
        for number in range(30):
            items = list(values.items())
            items.insert(at, ("other", f"{number}{'x' * 100_000}"))
            assert len(decode_row(wire.row(90, "I", "orders", new=dict(items))).images().after) == 7
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 300_000
