"""Rows of the table `pgdoc.messages`: the INSERT is an event, the rest is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.decoding.parts import Part
from pgdoc.decoding.pgoutput import PgOutput
from pgdoc.decoding.records import Begin, Commit, Record, RowChange
from pgdoc.decoding.wal2json import Wal2Json, wal2json_options
from pgdoc.errors import ProtocolError
from tests.unit import pgoutput_wire, wire

if TYPE_CHECKING:
    from collections.abc import Callable

ROW = {"id": 7, "topic": "order.shipped", "key": "o-1", "payload": '{"n": 1.10}'}
TYPES = {"id": 20, "topic": 25, "key": 25, "payload": 3802}


def by_wal2json(kind: str, *, schema: str = "pgdoc", columns: dict[str, Any] = ROW) -> list[Record]:
    images: dict[str, Any] = {"new": columns} if kind in "IU" else {}
    images |= {"old": {"id": 7}} if kind in "UD" else {}
    frame = wire.row(10, kind, "messages", schema=schema, **images)
    return Wal2Json("docs").decode([wire.begin(10, 20, 28), frame, wire.commit(20, 28)])


def by_pgoutput(kind: str, *, schema: str = "pgdoc", columns: dict[str, Any] = ROW) -> list[Record]:
    relation = pgoutput_wire.relation(name="messages", schema=schema, types={name: TYPES[name] for name in columns})
    images: dict[str, Any] = {"new": columns} if kind in "IU" else {}
    images |= {"old": {**dict.fromkeys(columns), "id": 7}, "mark": b"K"} if kind in "UD" else {}
    frame = pgoutput_wire.truncation(16_000) if kind == "T" else pgoutput_wire.row(kind, **images)
    return PgOutput("docs").decode([pgoutput_wire.begin(), relation, frame, pgoutput_wire.commit()])


both = pytest.mark.parametrize("decode", [by_wal2json, by_pgoutput])


def message(records: list[Record]) -> RowChange:
    begin, row, commit = records
    assert isinstance(begin, Begin)
    assert isinstance(commit, Commit)
    assert isinstance(row, RowChange)
    return row


@both
def test_an_insert_is_an_event_of_its_topic(decode: Callable[..., list[Record]]) -> None:
    row = message(decode("I"))
    assert (row.lsn, row.kind, row.table, row.complete) == (10, "M", "topic:order.shipped", True)
    assert row.images().after == {"id": "o-1", "data": '{"n": 1.10}'}


@both
def test_a_message_need_not_have_a_key(decode: Callable[..., list[Record]]) -> None:
    assert message(decode("I", columns={**ROW, "key": None})).images().after["id"] is None


@both
@pytest.mark.parametrize("kind", "UDT")
def test_what_else_happens_to_the_table_is_no_event(decode: Callable[..., list[Record]], kind: str) -> None:
    assert [type(record) for record in decode(kind)][-1] is Commit
    assert not [record for record in decode(kind) if isinstance(record, RowChange)]


@both
def test_a_table_of_the_same_name_elsewhere_is_a_table(decode: Callable[..., list[Record]]) -> None:
    row = message(decode("I", schema="docs"))
    assert (row.kind, row.table) == ("I", "messages")


@both
def test_the_order_of_the_columns_does_not_matter(decode: Callable[..., list[Record]]) -> None:
    turned = {name: ROW[name] for name in ("payload", "key", "topic", "id")}
    row = message(decode("I", columns=turned))
    assert row.table == "topic:order.shipped"
    assert row.images().after == {"id": "o-1", "data": '{"n": 1.10}'}


@both
def test_a_row_without_a_topic_does_not_end_the_streams_of_others(decode: Callable[..., list[Record]]) -> None:
    columns = {name: value for name, value in ROW.items() if name != "topic"}
    assert message(decode("I", columns=columns)).table == "topic:"


@given(st.text(), st.text())
def test_no_value_of_a_message_is_taken_for_its_topic(key: str, payload: str) -> None:
    columns = {**ROW, "key": f'","name":"topic","value":"x"{key}', "payload": payload}
    row = message(by_wal2json("I", columns=columns))
    assert row.table == "topic:order.shipped"
    assert row.images().after["data"] == payload or not payload


def test_a_cut_message_is_an_error() -> None:
    relation = pgoutput_wire.relation(name="messages", schema="pgdoc", types=TYPES)
    frame = pgoutput_wire.row("I", new=ROW)
    with pytest.raises(ProtocolError):
        PgOutput("docs").decode([pgoutput_wire.begin(), relation, frame[:40]])


def test_a_part_without_topics_does_not_ask_for_messages() -> None:
    assert wal2json_options("docs", Part(only=frozenset({"a"})))["add-tables"] == "docs.a,pgdoc.registry"
    asked = wal2json_options("docs", Part(only=frozenset({"a", "topic:*"})))["add-tables"]
    assert asked == "docs.a,pgdoc.messages,pgdoc.registry"
