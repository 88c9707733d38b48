# Written by .ci/twins.py from tests/integration/_async/test_where.py: change that file, and run it.
"""Filtered streams: events are filtered before the buffer, whatever reader feeds the stream."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import InvalidFilter, StreamClosed
from tests.integration._sync.streams import PATIENCE_S, brief, take

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_numbers = itertools.count(1)


@pytest.fixture
def name(shared_dsn: str) -> Iterator[str]:
    """The name of a consumer, which is dropped at the end."""
    yield f"filtered_{next(_numbers)}"
    with pgdoc.Store(shared_dsn) as store:
        for status in store.consumers():
            assert store.drop_consumer(status.name)


def test_a_stream_delivers_the_events_that_match(shared_dsn: str, schema: str) -> None:
    large = {"event_type": "insert", "full_document.data.total": {"$gt": 1000}}
    moved = {"update_description.updated_fields.address.city": {"$exists": True}}
    with Store(shared_dsn, schema=schema) as store:
        orders, users = store["orders"], store["users"]
        with (
            orders.watch(where=large) as large_orders,
            store.watch(where=moved) as moves,
            store.watch(where={"document_id": {"$in": ["o-2", "u-2"]}}) as two,
            store.watch("orders", "users", where={"metadata.user": "bob"}) as bobs,
            orders.watch(where={"event_type": "delete", "full_document_before_change.data.total": 2000}) as deleted,
            store.watch() as everything,
        ):
            orders.insert("o-1", {"total": 5, "address": {"city": "Rome"}})
            orders.insert("o-2", {"total": 2000, "address": {"city": "Rome"}})
            with pgdoc.metadata(user="bob"):
                orders.update("o-1", {"$set": {"address.city": "Bern", "total": 3000}})
            users.insert("u-1", {})
            users.insert("u-2", {"total": 1})
            orders.delete("o-2")
            take(everything, 6)
            assert brief(take(large_orders)) == [("insert", "orders", "o-2")]
            assert brief(take(moves)) == [("update", "orders", "o-1")]
            assert brief(take(two, 3)) == [
                ("insert", "orders", "o-2"),
                ("insert", "users", "u-2"),
                ("delete", "orders", "o-2"),
            ]
            assert brief(take(bobs)) == [("update", "orders", "o-1")]
            assert brief(take(deleted)) == [("delete", "orders", "o-2")]
            for stream in large_orders, moves, two, bobs, deleted:
                assert stream.try_next() is None


def test_what_does_not_match_takes_no_room_and_the_token_moves_past_it(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    with (
        Store(shared_dsn, schema=schema) as store,
        store["orders"].watch(where={"full_document.data.n": 500}, buffer_size=1) as stream,
        store["orders"].watch() as everything,
    ):
        sql.execute("INSERT INTO orders (id, data) SELECT n, jsonb_build_object('n', n) FROM generate_series(1, 999) n")
        events = take(everything, 999)
        assert brief(take(stream)) == [("insert", "orders", "500")]
        store["orders"].insert("late", {})
        (late,) = take(everything)
        assert stream.next(timeout=0.2) is None
        assert (stream.stats().mode, stream.stats().buffered) == ("live", 0)
        token = stream.resume_token
        while token < late.resume_token:
            assert stream.next(timeout=0.05) is None
            token = stream.resume_token
    assert token > events[-1].resume_token


def test_a_stream_that_resumes_receives_only_what_matches(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    """The stream resumes from the WAL, with a buffer so small that it leaves the shared reader repeatedly."""
    where = {"full_document.data.n": {"$mod": [10, 3]}}
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(where=where, buffer_size=2) as stream:
            sql.execute(
                "INSERT INTO orders (id, data) SELECT n, jsonb_build_object('n', n) FROM generate_series(1, 99) n"
            )
            (first,) = take(stream)
        for number in range(100, 130):
            store["orders"].insert(str(number), {"n": number})
        with store["orders"].watch(where=where, buffer_size=2, resume_after=first.resume_token) as stream:
            events = take(stream, 12)
            assert [event.document_id for event in events] == [str(number) for number in range(13, 130, 10)]
            store["orders"].insert("133", {"n": 133})
            assert brief(take(stream)) == [("insert", "orders", "133")]


def test_a_consumer_acknowledges_past_what_does_not_match(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    where = {"full_document.data.wanted": True}
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name, where=where, auto_ack=False) as stream:
            sql.execute("INSERT INTO orders (id, data) SELECT n, '{}' FROM generate_series(1, 50) n")
            store["orders"].insert("wanted", {"wanted": True})
            (event,) = take(stream)
            stream.ack(event)
            store["orders"].insert("unwanted", {})
        with store["orders"].watch(consumer=name, where=where) as stream:
            store["orders"].insert("more", {"wanted": True})
            assert brief(take(stream)) == [("insert", "orders", "more")]


def test_a_filter_that_can_not_be_decided_matches(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    """A document that Python cannot read neither blocks nor ends a stream."""
    with (
        Store(shared_dsn, schema=schema) as store,
        store["orders"].watch(where={"full_document.data.n": 1}) as stream,
    ):
        sql.execute(
            "INSERT INTO orders (id, data) VALUES ('huge', jsonb_build_object('n', repeat('9', 5000)::numeric))"
        )
        store["orders"].insert("o-1", {"n": 1})
        assert brief(take(stream, 2)) == [("insert", "orders", "huge"), ("insert", "orders", "o-1")]


def test_a_stream_ends_with_its_collection_whatever_its_filter(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("orders")
        inserts = store["orders"].watch(where={"event_type": "insert"})
        ends = store["orders"].watch(where={"event_type": "invalidate"})
        births = store.watch(where={"event_type": {"$in": ["create", "drop"]}})
        store["orders"].insert("o-1", {})
        store.drop_collection("orders")
        store.create_collection("orders")
        assert brief(take(inserts)) == [("insert", "orders", "o-1")]
        with pytest.raises(StreamClosed):
            inserts.next(timeout=PATIENCE_S)
        assert inserts.closed
        (invalidate,) = take(ends)
        assert invalidate.event_type == "invalidate"
        assert inserts.resume_token == invalidate.resume_token
        assert [event.event_type for event in ends] == []
        assert brief(take(births, 2)) == [("drop", "orders", None), ("create", "orders", None)]
        births.close()


def test_a_consumer_skips_collection_events_that_do_not_match(shared_dsn: str, schema: str, name: str) -> None:
    """A skipped event cannot be acknowledged by the user; the events before it still must be."""
    where = {"event_type": "insert"}
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("users")
        with store.watch("orders", "users", consumer=name, where=where, auto_ack=False) as stream:
            store["orders"].insert("o-1", {})
            take(stream)
            store.drop_collection("users")
            store["orders"].insert("o-2", {})
            take(stream)
        with store.watch("orders", "users", consumer=name, where=where, auto_ack=False) as stream:
            first, second = take(stream, 2)
            assert (first.document_id, second.document_id) == ("o-1", "o-2")
            stream.ack(second)
            store.drop_collection("orders")
            with pytest.raises(StreamClosed):
                stream.next(timeout=PATIENCE_S)
        with store.watch("orders", "users", consumer=name, where=where) as stream:
            store["orders"].insert("o-3", {})
            assert brief(take(stream)) == [("insert", "orders", "o-3")]


def test_skipping_the_last_drop_does_not_acknowledge_the_invalidate(shared_dsn: str, schema: str, name: str) -> None:
    where = {"event_type": "invalidate"}
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name, where=where, auto_ack=False) as stream:
            store.drop_collection("orders")
            (given,) = take(stream)
        with store["orders"].watch(consumer=name, where=where, auto_ack=False) as stream:
            (again,) = take(stream)
            assert again.resume_token == given.resume_token
            stream.ack(again)
        with store["orders"].watch(consumer=name, where=where) as stream:
            store["orders"].insert("o-1", {})
            store.drop_collection("orders")
            (another,) = take(stream)
            assert another.resume_token > given.resume_token


def test_skipped_events_are_acknowledged_after_a_checkpoint_before_them(
    shared_dsn: str, schema: str, name: str
) -> None:
    """Even if the consumer notices a checkpoint only after the stream has advanced."""
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("users")
        where = {"event_type": "insert"}
        with store.watch("orders", "users", consumer=name, where=where) as stream:
            store["orders"].insert("o-1", {})
            (event,) = take(stream)
            with store.transaction() as tx:
                stream.checkpoint(event, tx)
            store.drop_collection("users")
            store["orders"].insert("o-2", {})
            take(stream)
        (status,) = store.consumers()
        assert status.place > event.resume_token


def test_an_invalid_filter_is_refused_and_opens_nothing(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        for where in ({"total": 5}, {"event_type": "inserted"}, {"full_document.data.a": {"$regex": "("}}):
            with pytest.raises(InvalidFilter):
                store["orders"].watch(where=where)
            with pytest.raises(InvalidFilter):
                store.watch(where=where, consumer="never_made")
        assert store.collections() == []
        assert store.consumers() == []


def test_hundreds_of_filtered_streams_at_once(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("orders")
        streams = [store["orders"].watch(where={"document_id": f"o-{number}"}) for number in range(300)]
        for number in range(0, 300, 30):
            store["orders"].insert(f"o-{number}", {})
        for number in range(0, 300, 30):
            assert brief(take(streams[number])) == [("insert", "orders", f"o-{number}")]
        assert sum(stream.stats().buffered for stream in streams) == 0
        for stream in streams:
            stream.close()
