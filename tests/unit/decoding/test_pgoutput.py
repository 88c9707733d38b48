from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.pgoutput import PgOutput, pgoutput_options
from pgdoc.decoding.records import COLLECTION_COLUMNS, Begin, Commit, Idle, Images, Message, RowChange
from pgdoc.errors import ProtocolError
from tests.unit import wire
from tests.unit.pgoutput_wire import (
    ORDERS,
    SCHEMA,
    TYPES,
    UNCHANGED,
    begin,
    commit,
    message,
    relation,
    row,
    truncation,
)

WHEN = "2026-11-26 09:20:00.123456+00:00"
WHOLE = {"id": "o-1", "data": '{"n": 1.10}', "version": 1, "replaced_version": 1, "created_at": "a", "updated_at": "b"}
ROW = row("I", new=WHOLE)
TRANSACTION = [begin(), relation(), ROW, commit()]
ELSEWHERE = [relation(7, "orders", "else"), row("I", new=WHOLE, number=7), truncation(7)]


def decode(*frames: bytes) -> Any:
    return PgOutput(SCHEMA).decode(frames)


def decode_row(frame: bytes, *before: bytes) -> RowChange:
    (_, change) = decode(begin(), *(before or [relation()]), frame)
    assert isinstance(change, RowChange)
    return change


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Transactions, some without any wanted change, with keepalives between and inside them."""
    frames = [relation(), *ELSEWHERE[:1]]
    for _ in range(draw(st.integers(0, 5))):
        frames.append(begin())
        changes = [ROW, message(b"{}"), message(b"", b"other"), wire.keepalive(15), truncation(7, ORDERS), *ELSEWHERE]
        frames += draw(st.lists(st.sampled_from(changes), max_size=4))
        frames.append(commit())
        frames += draw(st.lists(st.sampled_from([wire.keepalive(30), message(b"x", transactional=False)]), max_size=2))
    return frames


def plain(records: list[Any]) -> list[Any]:
    """Return the records without the method that decodes a row, which differs between decoders."""
    return [record[:5] if isinstance(record, RowChange) else record for record in records]


@given(streams(), st.data())
def test_how_frames_are_grouped_never_changes_the_records(frames, data):
    decoder = PgOutput(SCHEMA)
    records = [record for group in data.draw(wire.groups(frames)) for record in decoder.decode(group)]
    assert plain(records) == plain(decode(*frames))


@given(streams())
def test_every_change_is_inside_a_transaction_and_no_transaction_is_empty(frames):
    inside: list[type] | None = None
    for record in decode(*frames):
        if isinstance(record, Begin):
            assert inside is None
            inside = []
        elif isinstance(record, RowChange | Message):
            assert inside is not None
            inside.append(type(record))
        elif isinstance(record, Commit):
            assert inside != []
            inside = None


def test_a_transaction():
    first, change, last = decode(*TRANSACTION)
    assert (first, last) == (Begin(20, 700, WHEN), Commit(28))
    assert change[:5] == (10, "I", "orders", ROW, True)
    assert change.images() == Images(WHOLE, {})


def test_messages_of_other_prefixes_are_ignored():
    others = [message(b"{}", b"pgdoc.flush"), message(b"{}", b"other"), message(b"{}", transactional=False)]
    assert decode(begin(), *others, commit()) == [Commit(28)]


def test_a_table_of_another_schema_has_its_oid_and_no_name():
    rows = [record for record in decode(begin(), *ELSEWHERE, commit()) if isinstance(record, RowChange)]
    assert rows
    assert all(row.oid and row.table == "" for row in rows)


def test_origins_and_types_are_ignored():
    assert decode(wire.xlog_data(0, b"Y" + b"\0" * 10), begin(), wire.xlog_data(0, b"O" + b"\0" * 10), commit()) == [
        Commit(28)
    ]


def test_a_keepalive_inside_a_transaction_is_ignored():
    assert decode(begin(), wire.keepalive(15)) == []
    assert decode(begin(), relation(), ROW, wire.keepalive(15), commit(), wire.keepalive(40))[2:] == [
        Commit(28),
        Idle(40),
    ]


def test_unchanged_toast_values_are_taken_from_the_old_row():
    change = decode_row(row("U", new={**WHOLE, "data": UNCHANGED, "version": 2}, old=WHOLE))
    assert change.complete
    assert change.images() == Images({**WHOLE, "version": 2}, WHOLE)


def test_a_key_tuple_has_only_the_columns_of_the_key():
    empty = dict.fromkeys(WHOLE) | {"id": "o-1"}
    change = decode_row(row("D", old=empty, mark=b"K"), relation(key="id"))
    assert (change.complete, change.images()) == (False, Images({}, {"id": "o-1"}))
    change = decode_row(row("U", new={**WHOLE, "data": UNCHANGED}, old=empty, mark=b"K"), relation(key="id"))
    assert not change.complete
    assert set(change.images().after) == set(WHOLE) - {"data"}


@pytest.mark.parametrize(
    ("frame", "complete"),
    [
        (ROW, True),
        (row("U", new=WHOLE, old=WHOLE), True),
        (row("U", new=WHOLE), False),
        (row("D", old=WHOLE), True),
        (row("D", old=WHOLE, mark=b"K"), False),
    ],
)
def test_a_change_without_the_whole_old_row_is_incomplete(frame, complete):
    assert decode_row(frame).complete is complete
    assert not decode_row(frame, relation(types={"id": 25, "n": 23})).complete


def test_a_truncation_is_one_record_for_each_table_of_the_schema():
    frames = [relation(), relation(8, "users"), *ELSEWHERE[:1]]
    first, *changes = decode(begin(), *frames, truncation(8, 7, ORDERS))
    assert isinstance(first, Begin)
    assert [(change.kind, change.table, change.complete) for change in changes] == [
        ("T", "users", True),
        ("T", "", True),
        ("T", "orders", True),
    ]
    assert [change.oid for change in changes if isinstance(change, RowChange)] == [8, 7, ORDERS]
    assert changes[0].images() == Images({}, {})


def test_the_last_relation_message_of_a_table_applies():
    decoder = PgOutput(SCHEMA)
    renamed = relation(name="sold", types={**TYPES, "note": 25})
    _, before, after = decoder.decode([begin(), relation(), ROW, renamed, row("I", new={**WHOLE, "note": None})])
    assert isinstance(before, RowChange)
    assert isinstance(after, RowChange)
    assert (before.table, after.table) == ("orders", "sold")
    assert before.images().after == WHOLE
    assert after.images().after == {**WHOLE, "note": None}


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=63))
def test_every_name_and_text_is_decoded(text):
    change = decode_row(row("I", new={**WHOLE, "id": text}), relation(name=text))
    assert (change.table, change.images().after["id"]) == (text, text)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b'{"a": 1}', '{"a": 1}'), ("zoë".encode(), "zoë"), (b"x\0y", "x"), (b"", ""), (b"\xff", None)],
)
def test_the_content_of_a_message_is_its_text_or_none(content, text):
    assert decode(begin(), message(content)) == [Begin(20, 700, WHEN), Message(10, text)]


@pytest.mark.parametrize(
    "payload",
    [
        b"I" + struct.pack(">I", 1),
        b"I",
        b"T" + struct.pack(">IB", 2, 0),
        b"R" + struct.pack(">I", ORDERS) + b"docs\0orders\0f" + struct.pack(">H", 9),
        b"R" + struct.pack(">I", ORDERS) + b"docs\0\xff\0f\0\0",
        b"M\1",
        message(b"{}")[PAYLOAD:] + b"x",
        b"C\0",
        b"S" + b"\0" * 8,
        b"",
    ],
)
def test_a_message_that_pgoutput_does_not_write_is_refused_with_the_offset(payload):
    frame = wire.xlog_data(10, payload)
    with pytest.raises(ProtocolError) as raised:
        decode(relation(), begin(), frame)
    assert PAYLOAD <= raised.value.offset <= len(frame)


@pytest.mark.parametrize(
    "frame",
    [
        row("I"),
        row("I", new={"id": "1"}),
        row("I", old=WHOLE),
        row("U", old=WHOLE),
        ROW[:-1],
        ROW + b"x",
        row("I", new={**WHOLE, "version": "one"}),
        row("I", new=WHOLE).replace(b"o-1", b"\xff-1"),
        row("I", new=WHOLE).replace(b"Nt", b"Nb").replace(b"\0\6t", b"\0\6b"),
    ],
)
def test_a_malformed_row_is_refused_when_it_is_decoded(frame):
    change = decode_row(frame)
    with pytest.raises(ProtocolError) as raised:
        change.images()
    assert PAYLOAD <= raised.value.offset <= len(frame)


@pytest.mark.parametrize("payload", [b"B", b"B" + struct.pack(">QqI", 1, 2**62, 1)])
def test_a_malformed_begin_is_refused_when_a_change_follows(payload):
    decoder = PgOutput(SCHEMA)
    assert decoder.decode([wire.xlog_data(10, payload), relation()]) == []
    with pytest.raises(ProtocolError, match="begin"):
        decoder.decode([ROW])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    known = [
        *TRANSACTION,
        *ELSEWHERE,
        message(b"{}"),
        truncation(ORDERS),
        wire.keepalive(1),
        row("U", new=WHOLE, old=WHOLE),
    ]
    frame = bytearray(draw(st.sampled_from(known)))
    for at in draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
        frame[at] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))])


@given(st.lists(st.binary(max_size=80) | damaged() | st.sampled_from(TRANSACTION), max_size=6))
@example([b""])
@example([b"k"])
@example([b"w"])
def test_damaged_frames_raise_nothing_but_protocol_errors(frames):
    try:
        for record in decode(*frames):
            if isinstance(record, RowChange):
                record.images()
    except ProtocolError as exc:
        assert 0 <= exc.offset <= max(PAYLOAD + 5, *map(len, frames))  # noqa: PT017


def test_the_options_are_the_same_for_every_schema():
    assert (
        pgoutput_options("docs")
        == pgoutput_options("else")
        == {
            "proto_version": "1",
            "publication_names": "pgdoc",
            "messages": "true",
        }
    )
    assert set(TYPES) == COLLECTION_COLUMNS
