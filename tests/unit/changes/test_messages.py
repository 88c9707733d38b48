"""Events of the application's own: their fields, their JSON, and which streams get them."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.changes import events
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.change import Change
from pgdoc.changes.event_filter import parse_where
from pgdoc.changes.events import ChangeEvent, EventType
from pgdoc.changes.life import Life
from pgdoc.changes.registry import Registry
from pgdoc.changes.router import Router, Selection, named_by, names_of
from pgdoc.decoding.records import CollectionChange, Span, TableShape
from pgdoc.decoding.wal2json import Wal2Json
from pgdoc.model.json_codec import decode_comparable, decode_decimals, encode_value
from pgdoc.model.topics import check_topics
from tests.json_values import any_json
from tests.unit import wire

WORDS = ["a", "b", "c"]
topics = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(".".join)
patterns = topics | topics.map(lambda topic: f"{topic}.*") | st.just("*")


def registry(*spans: Span) -> Registry:
    return Registry("docs", [Span(7, "docs", "orders", 0, None), *spans])


def read(*frames: bytes, known: Registry | None = None) -> list[Change]:
    assembler = Assembler(0, known or registry())
    return assembler.feed(Wal2Json("docs").decode([wire.begin(90, 100, 108), *frames, wire.commit(100, 108)])).changes


def message(lsn: int, topic: str, payload: str = "null", key: str | None = "k") -> bytes:
    return wire.row(
        lsn, "I", "messages", schema="pgdoc", new={"id": lsn, "topic": topic, "key": key, "payload": payload}
    )


def event_of(payload: str, topic: str = "order.shipped", **options: Any) -> ChangeEvent:
    (change,) = read(wire.message(90, '{"metadata": {"user": "a"}}'), message(92, topic, payload))
    return events.from_change(change, (1, 1, None), **options)


def test_an_event_has_its_topic_its_key_and_its_payload() -> None:
    event = event_of('{"n": 1.10, "list": [1]}')
    assert event.event_type is EventType.MESSAGE
    assert (event.collection, event.topic, event.document_id) == ("topic:order.shipped", "order.shipped", "k")
    assert (event.payload, event.metadata) == ({"n": 1.1, "list": [1]}, {"user": "a"})
    assert (event.full_document, event.full_document_before_change, event.update_description) == (None, None, None)
    assert (event.columns, event.renamed_to, event.transaction_id) == (None, None, 700)
    assert event_of("1.10", decode_text=decode_decimals).payload == Decimal("1.10")
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 (its own)


def test_other_events_have_neither_topic_nor_payload() -> None:
    row = {"id": "o", "data": "{}", "version": 1, "replaced_version": 1}
    row |= dict.fromkeys(("created_at", "updated_at"), wire.TIMESTAMP)
    (change,) = read(wire.row(92, "I", "orders", new=row))
    event = events.from_change(change, (1, 1, None))
    assert (event.topic, event.payload) == (None, None)
    assert b"topic" not in event.to_json()
    assert "payload" not in event.to_dict()


def test_the_json_has_the_numbers_as_they_were_published_until_the_payload_was_read() -> None:
    event = event_of('{"n": 1.10}')
    text = event.to_json()
    assert text.endswith(b'"renamed_to":null,"topic":"order.shipped","payload":{"n": 1.10}}')
    assert ChangeEvent.from_json(text).to_json() == text
    again = ChangeEvent.from_json(text)
    again.payload["n"] = 2
    assert again.to_json().endswith(b'"payload":{"n":2}}')


@given(any_json, topics, st.none() | st.text(min_size=1).filter(lambda key: "\0" not in key))
def test_an_event_that_is_read_back_is_the_event_that_was_written(payload: Any, topic: str, key: str | None) -> None:
    text = encode_value(payload, "").decode()
    (change,) = read(message(92, topic, text, key))
    event = events.from_change(change, (1, 1, None))
    found = ChangeEvent.from_json(event.to_json())
    assert found == event
    assert found.to_dict() == event.to_dict()
    assert (found.topic, found.document_id) == (topic, key)


def test_a_payload_that_looks_like_an_event_is_cut_out_whole() -> None:
    inner = event_of('{"a": 1}').to_json().decode()
    event = event_of(inner)
    assert ChangeEvent.from_json(event.to_json()).payload == event.payload


def matching(topic: str, pattern: str) -> bool:
    return pattern in {"*", topic} or (pattern.endswith(".*") and topic.startswith(pattern[:-1]))


@given(st.lists(topics, max_size=8), st.lists(st.frozensets(patterns, min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_stream_gets_the_topics_that_it_selects_in_order(published: list[str], wanted: list[frozenset[str]]) -> None:
    changes = read(*(message(92 + 2 * number, topic) for number, topic in enumerate(published)))
    router = Router(lambda change: events.from_change(change, (1, 1, None)))
    selections = [Selection(frozenset(), None, topics=check_topics(some)) for some in wanted]
    for selection in selections:
        router.add(selection)
    found = router.route(changes)
    for selection, some in zip(selections, wanted, strict=True):
        expected = [
            change
            for change, topic in zip(changes, published, strict=True)
            if any(matching(topic, each) for each in some)
        ]
        assert found.get(selection, []) == expected
        assert all(selection.covers(change.row.table) for change in expected)
    for selection in selections:
        router.remove(selection)
    assert router.route(changes) == {}


@pytest.mark.parametrize(
    ("where", "is_wanted"),
    [
        ({"topic": "order.shipped"}, True),
        ({"topic": "other"}, False),
        ({"payload.n": 1.1}, True),
        ({"payload.n": {"$gt": 2}}, False),
        ({"payload.list": 2}, True),
        ({"event_type": "message"}, True),
        ({"event_type": {"$in": ["insert", "message"]}}, True),
        ({"event_type": "insert"}, False),
        ({"document_id": "k", "metadata.user": "a"}, True),
        ({"document_id": "other"}, False),
        ({"collection": "topic:order.shipped"}, True),
        ({"collection": "orders"}, False),
        ({"full_document.data.n": 1}, False),
    ],
)
def test_a_filter_can_name_topic_payload_and_key(where: dict[str, Any], is_wanted: bool) -> None:
    (change,) = read(
        wire.message(90, '{"metadata": {"user": "a"}}'), message(92, "order.shipped", '{"n": 1.10, "list": [1, 2]}')
    )

    def view(change: Change) -> ChangeEvent:
        return events.from_change(change, (1, 1, None), decode_text=decode_comparable)

    selection = Selection(None, parse_where(where), topics=frozenset({"topic:order.*"}))
    router = Router(view)
    router.add(selection)
    assert bool(router.route([change])) == is_wanted
    assert parse_where(where).matches(events.to_be_compared(view(change))) == is_wanted


def test_only_a_message_has_the_fields_of_one() -> None:
    row = {"id": "o", "data": '{"payload": 1}', "version": 1, "replaced_version": 1}
    row |= dict.fromkeys(("created_at", "updated_at"), wire.TIMESTAMP)
    (change,) = read(wire.row(92, "I", "orders", new=row))
    event = events.from_change(change, (1, 1, None))
    for field in ("topic", "payload"):
        assert not parse_where({field: {"$exists": True}}).matches(event)
        assert parse_where({field: None}).matches(event)


def test_what_the_catalogs_functions_are_asked_leaves_topics_out() -> None:
    messages = Selection(frozenset(), None, topics=frozenset({"topic:a", "topic:b.*"}))
    mixed = Selection(frozenset({"orders"}), None, topics=frozenset({"topic:a"}))
    everything = Selection(None, None, topics=frozenset({"topic:a"}))
    assert (messages.names, mixed.names, everything.names) == ([], ["orders"], None)
    assert names_of([messages, mixed]) == ["orders"]
    assert names_of([messages, everything]) is None
    assert named_by([messages, mixed]) == frozenset({"orders", "topic:*"})
    assert named_by([everything]) is None


def test_a_stream_on_topics_does_not_end_with_its_collections() -> None:
    selection = Selection(frozenset({"orders"}), None, topics=frozenset({"topic:a"}))
    drop = Change((9, 5, 0, 0), read(message(92, "a"))[0].transaction, CollectionChange(5, "drop", "orders", b"_"))
    assert Life(selection.vital).follow(drop) is None
    assert Life(frozenset({"orders"})).follow(drop) is not None


def test_a_table_with_the_name_of_a_topic_is_not_believed() -> None:
    """Its owner need not be a role that may publish."""
    span = Span(8, "topic:order", "shipped", 0, None, TableShape(("id",), None, ()))
    known = registry(span)
    assert known.tables == frozenset()
    assert read(wire.row(92, "I", "shipped", schema="topic:order", new={"id": "1"}), known=known) == []
    assert len(read(message(92, "order.shipped"), known=known)) == 1
