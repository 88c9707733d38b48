"""Streams that start with a snapshot of the existing documents."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import TYPE_CHECKING

import pytest

import pgdoc
from pgdoc import AsyncStore, ResumeToken
from pgdoc._async.snapshot_reader import settle
from pgdoc.errors import InvalidResumeToken, ServerUnreachable, StreamClosed
from tests.integration._async.streams import PATIENCE_S, brief, take

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from pgdoc import AsyncChangeStream, ChangeEvent
    from pgdoc._async.stream_backend import AsyncStreamBackend

_numbers = itertools.count(1)

FILL = "INSERT INTO {} (id, data) SELECT 'k' || n, jsonb_build_object('n', n) FROM generate_series(1, {}) n"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc._async.snapshot_reader.CHUNK_DOCUMENTS", 3)


@pytest.fixture
def name(shared_dsn: str) -> Iterator[str]:
    """The name of a consumer, which is dropped at the end."""
    yield f"copy_{next(_numbers)}"
    with pgdoc.Store(shared_dsn) as store:
        for status in store.consumers():
            assert store.drop_consumer(status.name)


async def fill(store: AsyncStore, sql: psycopg.Connection, count: int, *collections: str) -> None:
    for collection in collections:
        await store.create_collection(collection)
        sql.execute(FILL.format(collection, count))


def ids(events: list[ChangeEvent]) -> list[str | None]:
    return [event.document_id for event in events]


def apart(events: list[ChangeEvent]) -> tuple[list[tuple[str, str, str | None]], list[tuple[str, str, str | None]]]:
    """Return the documents of the snapshot, and the changes: the next part may have been read before them or after."""
    found = brief(events)
    return [each for each in found if each[0] == "snapshot"], [each for each in found if each[0] != "snapshot"]


async def rest(stream: AsyncChangeStream, last: str) -> list[ChangeEvent]:
    """Read up to and including the event of a document."""
    events = await take(stream)
    while events[-1].document_id != last:
        events += await take(stream)
    return events


@pytest.mark.usefixtures("small_parts")
async def test_existing_documents_come_before_changes(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 7, "orders", "users")
        await store["orders"].update("k3", {"$set": {"paid": 10**30}})
        async with store.watch("orders", "users", snapshot=True) as stream, store.watch(snapshot=True) as everything:
            events = await take(stream, 14)
            assert stream.stats().mode in {"live", "snapshot"}
            await store["users"].delete("k1")
            assert brief(await take(stream)) == [("delete", "users", "k1")]
            assert brief(await rest(everything, "k1"))[-1] == ("snapshot", "orders", "k1")
    assert [(event.collection, event.document_id) for event in events] == [
        (collection, f"k{number}") for collection in ("orders", "users") for number in range(1, 8)
    ]
    third = events[2]
    assert (third.event_type, third.transaction_id, third.metadata, third.renamed_to) == ("snapshot", 0, {}, None)
    assert third.full_document is not None
    assert (third.full_document.data, third.full_document.version) == ({"n": 3, "paid": 10**30}, 2)
    assert (third.full_document_before_change, third.update_description) == (None, None)
    assert third.timestamp.utcoffset() is not None
    assert sorted(events, key=lambda event: event.resume_token) == events
    assert third.to_dict()["full_document"]["created_at"] == third.full_document.created_at.isoformat()
    assert b'"event_type":"snapshot"' in third.to_json()


@pytest.mark.usefixtures("small_parts")
async def test_changes_of_delivered_documents_come_between_snapshot_events(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 9, "orders")
        async with store["orders"].watch(snapshot=True) as stream:
            assert ids(await take(stream, 3)) == ["k1", "k2", "k3"]
            await store["orders"].update("k2", {"$set": {"seen": 1}})  # already delivered
            await store["orders"].update("k8", {"$set": {"seen": 2}})  # not delivered yet
            await store["orders"].delete("k9")
            await store["orders"].insert("k0", {})
            await store["orders"].insert("k77", {})
            events = await rest(stream, "k8")
            existing, changes = apart(events)
            assert existing == [("snapshot", "orders", f"k{number}") for number in (4, 5, 6, 7, 77, 8)]
            assert changes == [("update", "orders", "k2"), ("insert", "orders", "k0")]
            assert brief(events[-3:]) == existing[-3:]  # these were not read before the changes
            assert events[-1].full_document is not None
            assert events[-1].full_document.data == {"n": 8, "seen": 2}
            assert await stream.next(timeout=0.3) is None  # the stream then checks whether there are more documents
            assert stream.stats().mode == "live"
            await store["orders"].insert("last", {})
            assert brief(await take(stream)) == [("insert", "orders", "last")]


@pytest.mark.usefixtures("small_parts")
async def test_a_stream_goes_on_after_every_single_token(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 5, "a", "b")
        events: list[ChangeEvent] = []
        async with store.watch("a", "b", snapshot=True) as stream:
            for number in range(10):
                events += await take(stream)
                if number in {2, 6}:
                    await store["a"].update("k1", {"$inc": {"n": 10}})
                    events += await take(stream)
            await store["b"].insert("last", {})
            events += await take(stream)
        for place, event in enumerate(events[:-1]):
            token = str(event.resume_token)
            existing, _ = apart(events[: place + 1])
            assert ResumeToken.parse(token).is_inside == (len(existing) < 10)
            async with store.watch("b", "a", snapshot=True, resume_after=token) as stream:
                seen = await rest(stream, "last")
            given = {(each.collection, each.document_id) for each in events[: place + 1]}
            shown = {(each.collection, each.document_id) for each in seen if each.event_type == "snapshot"}
            assert not given & shown
            wanted = {(name, f"k{number}") for name in "ab" for number in range(1, 6)}
            assert wanted <= given | shown <= {*wanted, ("b", "last")}


async def test_a_snapshot_resumes_only_with_matching_arguments(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 3, "orders", "users")
        async with store.watch("orders", "users", snapshot=True) as stream:
            (first,) = await take(stream)
            token = first.resume_token
            assert stream.resume_token >= token
            await take(stream, 5)
            assert await stream.next(timeout=0.1) is None
            over = stream.resume_token
        with pytest.raises(InvalidResumeToken, match="pass snapshot=True"):
            store.watch("orders", "users", resume_after=token)
        with pytest.raises(InvalidResumeToken, match="of other collections"):
            await take(store["orders"].watch(snapshot=True, resume_after=token))
        with pytest.raises(ValueError, match="can't resume after an LSN"):
            store["orders"].watch(snapshot=True, resume_after="16/B374D848")
        await store["users"].insert("last", {})
        async with store["users"].watch(snapshot=True, resume_after=over) as stream:  # the token is past the snapshot
            assert brief(await take(stream)) == [("insert", "users", "last")]


@pytest.mark.usefixtures("small_parts")
async def test_what_becomes_of_collections_meanwhile(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 7, "a", "b", "c", "d")
        async with store.watch(snapshot=True) as stream:
            assert ids(await take(stream, 3)) == ["k1", "k2", "k3"]
            await store.rename_collection("a", "z")
            sql.execute("TRUNCATE b")
            await store["b"].insert("new", {})
            await store.drop_collection("c")
            await store["e"].insert("young", {})
            events = await take(stream, 17)
            assert await stream.next(timeout=0.2) is None
    existing, changes = apart(events)
    assert changes == [
        ("rename", "a", None),
        ("truncate", "b", None),
        ("drop", "c", None),
        ("create", "e", None),
        ("insert", "e", "young"),
    ]
    renamed_at = brief(events).index(changes[0])  # k4 to k6 may have been read before
    assert renamed_at in {0, 3}
    assert existing == [
        *(("snapshot", "z" if number > renamed_at else "a", f"k{number + 3}") for number in (1, 2, 3, 4)),
        ("snapshot", "b", "new"),
        *(("snapshot", "d", f"k{number}") for number in range(1, 8)),
    ]


async def test_dropping_the_collection_ends_a_stream_inside_its_snapshot(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 3, "orders")
        stream = await store["orders"].watch(snapshot=True)
        await store.drop_collection("orders")
        assert brief(await take(stream, 2)) == [("drop", "orders", None), ("invalidate", "orders", None)]
        with pytest.raises(StreamClosed):
            await stream.next(timeout=PATIENCE_S)


async def test_a_snapshot_of_empty_collections_has_no_events(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch(snapshot=True) as everything:
        async with store["orders"].watch(snapshot=True) as stream:
            await store["orders"].insert("o-1", {})
            (event,) = await take(stream)
            assert event.document_id == "o-1"
        assert brief(await take(everything, 2)) == [("create", "orders", None), ("insert", "orders", "o-1")]


async def test_a_stream_keeps_no_document_of_a_snapshot_that_is_delivered(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        sql.execute(FILL.format(f'"{schema}".orders', 5))
        async with store.watch("orders", snapshot=True) as stream:
            await take(stream, 1)
            snapshot = weakref.ref(stream._delivery.snapshot)
            await take(stream, 4)
            await store["orders"].insert("new", {})
            await take(stream, 1)
            gc.collect()
            assert snapshot() is None


async def test_a_filter_applies_to_existing_documents(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    where = {"event_type": {"$in": ["snapshot", "insert"]}, "full_document.data.n": {"$gt": 8}}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 9, "orders")
        async with store["orders"].watch(where=where, snapshot=True) as stream:
            await store["orders"].insert("small", {"n": 1})
            await store["orders"].insert("zlarge", {"n": 10})
            events = await take(stream, 2)
            assert ids(events) == ["k9", "zlarge"]


async def test_large_documents_are_read_in_small_parts(
    shared_dsn: str, schema: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc._async.snapshot_reader.CHUNK_BYTES", 1)
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 9, "orders")
        async with store["orders"].watch(snapshot=True) as stream:
            assert ids(await take(stream, 9)) == [f"k{number}" for number in range(1, 10)]


@pytest.mark.usefixtures("small_parts")
async def test_a_consumer_resumes_inside_its_snapshot(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 8, "orders")
        async with store["orders"].watch(snapshot=True, consumer=name, auto_ack=False) as stream:
            events = await take(stream, 5)
            stream.ack(events[3])
        await store["orders"].update("k2", {"$set": {"seen": True}})
        with pytest.raises(InvalidResumeToken, match="open it with snapshot=True"):
            await take(store["orders"].watch(consumer=name))
        async with store["orders"].watch(snapshot=True, consumer=name) as stream:
            events = await rest(stream, "k8")
            assert brief(events) == [
                ("update", "orders", "k2"),
                *(("snapshot", "orders", f"k{number}") for number in range(5, 9)),
            ]
            assert await stream.next(timeout=0.2) is None
        await store["orders"].insert("last", {})
        for _ in range(2):
            async with store["orders"].watch(snapshot=True, consumer=name, auto_ack=False) as stream:
                assert brief(await take(stream)) == [("insert", "orders", "last")]
        async with store["orders"].watch(consumer=name) as stream:
            assert brief(await take(stream)) == [("insert", "orders", "last")]


async def test_a_consumer_interrupted_at_the_start_of_its_snapshot_still_gets_it(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [ServerUnreachable("it is away for a moment"), KeyboardInterrupt()]

    async def fail_first(backend: AsyncStreamBackend) -> None:
        if failures:
            raise failures.pop()
        await settle(backend)

    monkeypatch.setattr("pgdoc._async.stream.settle", fail_first)
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 3, "orders")
        async with store["orders"].watch(snapshot=True, consumer=name) as stream:
            with pytest.raises(KeyboardInterrupt):
                await stream.next(timeout=PATIENCE_S)
            assert ids(await take(stream, 3)) == ["k1", "k2", "k3"]
    assert not failures


@pytest.mark.usefixtures("small_parts")
async def test_checkpoints_move_on_inside_a_part(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 8, "orders")
        seen: list[str | None] = []
        while len(seen) < 9:
            async with store["orders"].watch(snapshot=True, consumer=name) as stream:
                for _ in range(2):
                    if len(seen) == 8:
                        await store["orders"].insert("last", {})
                    (event,) = await take(stream)
                    async with store.transaction() as tx:
                        await tx["copy"].insert(str(event.document_id), {})
                        await stream.checkpoint(event, tx)
                    seen.append(event.document_id)
                    if len(seen) == 9:
                        break
                await take(stream, 0)
        assert seen == [*(f"k{number}" for number in range(1, 9)), "last"]


async def test_a_consumer_opened_without_snapshot_gets_none(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store, sql, 3, "orders")
        async with store["orders"].watch(consumer=name):
            pass
        async with store["orders"].watch(consumer=name, snapshot=True) as stream:
            await store["orders"].insert("o-1", {})
            assert brief(await take(stream)) == [("insert", "orders", "o-1")]
