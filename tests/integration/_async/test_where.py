"""Filtered streams: events are filtered before the buffer, whatever reader feeds the stream."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

import pgdoc
from pgdoc import AsyncStore
from pgdoc.errors import InvalidFilter, StreamClosed
from tests.integration._async.streams import PATIENCE_S, brief, take

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


async def test_a_stream_delivers_the_events_that_match(shared_dsn: str, schema: str) -> None:
    large = {"event_type": "insert", "full_document.data.total": {"$gt": 1000}}
    moved = {"update_description.updated_fields.address.city": {"$exists": True}}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders, users = store["orders"], store["users"]
        async with (
            orders.watch(where=large) as large_orders,
            store.watch(where=moved) as moves,
            store.watch(where={"document_id": {"$in": ["o-2", "u-2"]}}) as two,
            store.watch("orders", "users", where={"metadata.user": "bob"}) as bobs,
            orders.watch(where={"event_type": "delete", "full_document_before_change.data.total": 2000}) as deleted,
            store.watch() as everything,
        ):
            await orders.insert("o-1", {"total": 5, "address": {"city": "Rome"}})
            await orders.insert("o-2", {"total": 2000, "address": {"city": "Rome"}})
            with pgdoc.metadata(user="bob"):
                await orders.update("o-1", {"$set": {"address.city": "Bern", "total": 3000}})
            await users.insert("u-1", {})
            await users.insert("u-2", {"total": 1})
            await orders.delete("o-2")
            await take(everything, 6)
            assert brief(await take(large_orders)) == [("insert", "orders", "o-2")]
            assert brief(await take(moves)) == [("update", "orders", "o-1")]
            assert brief(await take(two, 3)) == [
                ("insert", "orders", "o-2"),
                ("insert", "users", "u-2"),
                ("delete", "orders", "o-2"),
            ]
            assert brief(await take(bobs)) == [("update", "orders", "o-1")]
            assert brief(await take(deleted)) == [("delete", "orders", "o-2")]
            for stream in large_orders, moves, two, bobs, deleted:
                assert await stream.try_next() is None


async def test_what_does_not_match_takes_no_room_and_the_token_moves_past_it(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch(where={"full_document.data.n": 500}, buffer_size=1) as stream,
        store["orders"].watch() as everything,
    ):
        sql.execute("INSERT INTO orders (id, data) SELECT n, jsonb_build_object('n', n) FROM generate_series(1, 999) n")
        events = await take(everything, 999)
        assert brief(await take(stream)) == [("insert", "orders", "500")]
        await store["orders"].insert("late", {})
        (late,) = await take(everything)
        assert await stream.next(timeout=0.2) is None
        assert (stream.stats().mode, stream.stats().buffered) == ("live", 0)
        token = stream.resume_token
        while token < late.resume_token:
            assert await stream.next(timeout=0.05) is None
            token = stream.resume_token
    assert token > events[-1].resume_token


async def test_a_stream_that_resumes_receives_only_what_matches(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    """The stream resumes from the WAL, with a buffer so small that it leaves the shared reader repeatedly."""
    where = {"full_document.data.n": {"$mod": [10, 3]}}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(where=where, buffer_size=2) as stream:
            sql.execute(
                "INSERT INTO orders (id, data) SELECT n, jsonb_build_object('n', n) FROM generate_series(1, 99) n"
            )
            (first,) = await take(stream)
        for number in range(100, 130):
            await store["orders"].insert(str(number), {"n": number})
        async with store["orders"].watch(where=where, buffer_size=2, resume_after=first.resume_token) as stream:
            events = await take(stream, 12)
            assert [event.document_id for event in events] == [str(number) for number in range(13, 130, 10)]
            await store["orders"].insert("133", {"n": 133})
            assert brief(await take(stream)) == [("insert", "orders", "133")]


async def test_a_consumer_acknowledges_past_what_does_not_match(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    where = {"full_document.data.wanted": True}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=name, where=where, auto_ack=False) as stream:
            sql.execute("INSERT INTO orders (id, data) SELECT n, '{}' FROM generate_series(1, 50) n")
            await store["orders"].insert("wanted", {"wanted": True})
            (event,) = await take(stream)
            stream.ack(event)
            await store["orders"].insert("unwanted", {})
        async with store["orders"].watch(consumer=name, where=where) as stream:
            await store["orders"].insert("more", {"wanted": True})
            assert brief(await take(stream)) == [("insert", "orders", "more")]


async def test_a_filter_that_can_not_be_decided_matches(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    """A document that Python cannot read neither blocks nor ends a stream."""
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch(where={"full_document.data.n": 1}) as stream,
    ):
        sql.execute(
            "INSERT INTO orders (id, data) VALUES ('huge', jsonb_build_object('n', repeat('9', 5000)::numeric))"
        )
        await store["orders"].insert("o-1", {"n": 1})
        assert brief(await take(stream, 2)) == [("insert", "orders", "huge"), ("insert", "orders", "o-1")]


async def test_a_stream_ends_with_its_collection_whatever_its_filter(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        inserts = await store["orders"].watch(where={"event_type": "insert"})
        ends = await store["orders"].watch(where={"event_type": "invalidate"})
        births = await store.watch(where={"event_type": {"$in": ["create", "drop"]}})
        await store["orders"].insert("o-1", {})
        await store.drop_collection("orders")
        await store.create_collection("orders")
        assert brief(await take(inserts)) == [("insert", "orders", "o-1")]
        with pytest.raises(StreamClosed):
            await inserts.next(timeout=PATIENCE_S)
        assert inserts.closed
        (invalidate,) = await take(ends)
        assert invalidate.event_type == "invalidate"
        assert inserts.resume_token == invalidate.resume_token
        assert [event.event_type async for event in ends] == []
        assert brief(await take(births, 2)) == [("drop", "orders", None), ("create", "orders", None)]
        await births.close()


async def test_a_consumer_skips_collection_events_that_do_not_match(shared_dsn: str, schema: str, name: str) -> None:
    """A skipped event cannot be acknowledged by the user; the events before it still must be."""
    where = {"event_type": "insert"}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("users")
        async with store.watch("orders", "users", consumer=name, where=where, auto_ack=False) as stream:
            await store["orders"].insert("o-1", {})
            await take(stream)
            await store.drop_collection("users")
            await store["orders"].insert("o-2", {})
            await take(stream)
        async with store.watch("orders", "users", consumer=name, where=where, auto_ack=False) as stream:
            first, second = await take(stream, 2)
            assert (first.document_id, second.document_id) == ("o-1", "o-2")
            stream.ack(second)
            await store.drop_collection("orders")
            with pytest.raises(StreamClosed):
                await stream.next(timeout=PATIENCE_S)
        async with store.watch("orders", "users", consumer=name, where=where) as stream:
            await store["orders"].insert("o-3", {})
            assert brief(await take(stream)) == [("insert", "orders", "o-3")]


async def test_skipping_the_last_drop_does_not_acknowledge_the_invalidate(
    shared_dsn: str, schema: str, name: str
) -> None:
    where = {"event_type": "invalidate"}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=name, where=where, auto_ack=False) as stream:
            await store.drop_collection("orders")
            (given,) = await take(stream)
        async with store["orders"].watch(consumer=name, where=where, auto_ack=False) as stream:
            (again,) = await take(stream)
            assert again.resume_token == given.resume_token
            stream.ack(again)
        async with store["orders"].watch(consumer=name, where=where) as stream:
            await store["orders"].insert("o-1", {})
            await store.drop_collection("orders")
            (another,) = await take(stream)
            assert another.resume_token > given.resume_token


async def test_skipped_events_are_acknowledged_after_a_checkpoint_before_them(
    shared_dsn: str, schema: str, name: str
) -> None:
    """Even if the consumer notices a checkpoint only after the stream has advanced."""
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("users")
        where = {"event_type": "insert"}
        async with store.watch("orders", "users", consumer=name, where=where) as stream:
            await store["orders"].insert("o-1", {})
            (event,) = await take(stream)
            async with store.transaction() as tx:
                await stream.checkpoint(event, tx)
            await store.drop_collection("users")
            await store["orders"].insert("o-2", {})
            await take(stream)
        (status,) = await store.consumers()
        assert status.place > event.resume_token


async def test_an_invalid_filter_is_refused_and_opens_nothing(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        for where in ({"total": 5}, {"event_type": "inserted"}, {"full_document.data.a": {"$regex": "("}}):
            with pytest.raises(InvalidFilter):
                store["orders"].watch(where=where)
            with pytest.raises(InvalidFilter):
                store.watch(where=where, consumer="never_made")
        assert await store.collections() == []
        assert await store.consumers() == []


async def test_hundreds_of_filtered_streams_at_once(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        streams = [await store["orders"].watch(where={"document_id": f"o-{number}"}) for number in range(300)]
        for number in range(0, 300, 30):
            await store["orders"].insert(f"o-{number}", {})
        for number in range(0, 300, 30):
            assert brief(await take(streams[number])) == [("insert", "orders", f"o-{number}")]
        assert sum(stream.stats().buffered for stream in streams) == 0
        for stream in streams:
            await stream.close()
