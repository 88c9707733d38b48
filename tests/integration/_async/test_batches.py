"""Batches of events: whole, in order, and acknowledged by their last event."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc import AsyncStore
from pgdoc.errors import InvalidInput, ReplicaIdentityChanged, StreamClosed
from pgdoc.runtime.primitives import async_sleep
from tests.integration._async.streams import PATIENCE_S, take

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from pgdoc import AsyncChangeStream, ChangeEvent

_numbers = itertools.count(1)


@pytest.fixture
def name(shared_dsn: str) -> Iterator[str]:
    """The name of a consumer, which is dropped at the end."""
    yield (name := f"batches_{next(_numbers)}")
    with pgdoc.Store(shared_dsn) as store:
        store.drop_consumer(name)


def ids(events: list[ChangeEvent]) -> list[str | None]:
    return [event.document_id for event in events]


def numbered(begin: int, end: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"o-{n:04}", {"n": n}) for n in range(begin, end)]


def names(begin: int, end: int) -> list[str | None]:
    return [f"o-{n:04}" for n in range(begin, end)]


async def gather(stream: AsyncChangeStream, count: int, **options: Any) -> list[list[ChangeEvent]]:
    """Take batches until they have `count` events."""
    batches: list[list[ChangeEvent]] = []
    while sum(map(len, batches)) < count:
        batch = await stream.next_batch(timeout=PATIENCE_S, **options)
        assert batch, "no batch in time"
        batches.append(batch)
    return batches


async def test_batches_are_all_events_in_their_order(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["orders"].insert_many(numbered(0, 1000))
        while stream.stats().buffered < 1000:
            await async_sleep(0.01)
        batches = await gather(stream, 1000, max=300)
        assert await stream.next_batch(timeout=0) == []
    assert ids([event for batch in batches for event in batch]) == names(0, 1000)
    assert [len(batch) for batch in batches] == [300, 300, 300, 100]
    assert [event.full_document.data["n"] for event in batches[0] if event.full_document] == list(
        range(len(batches[0]))
    )


async def test_a_batch_may_have_any_number_of_events(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["orders"].insert_many(numbered(0, 3))
        batches = await gather(stream, 3, max=10**30)
    assert ids([event for batch in batches for event in batch]) == names(0, 3)


async def test_single_events_and_batches_mix(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["orders"].insert_many(numbered(0, 20))
        found = ids(await take(stream)) + ids(await stream.next_batch(3)) + ids([await anext(stream)])
        found += ids([event for batch in await gather(stream, 15) for event in batch])
        token, stats = stream.resume_token, stream.stats()
        await store["orders"].insert("last", {})
        async with store["orders"].watch(resume_after=token) as resumed:
            assert ids(await resumed.next_batch(timeout=PATIENCE_S)) == ["last"]
    assert found == names(0, 20)
    assert (stats.delivered, stats.buffered) == (20, 0)


async def test_batches_end_with_the_stream_after_its_last_event(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["orders"].insert_many(numbered(0, 3))
        await store.drop_collection("orders")
        kinds = [event.event_type.value async for batch in stream.batches() for event in batch]
        assert kinds == ["insert"] * 3 + ["drop", "invalidate"]
        with pytest.raises(StreamClosed):
            await stream.next_batch()


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "5", None])
async def test_the_size_of_a_batch_is_a_positive_integer(shared_dsn: str, schema: str, most: Any) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        with pytest.raises(InvalidInput, match="max must be a positive integer"):
            await stream.next_batch(most)
        with pytest.raises(InvalidInput, match="max must be a positive integer"):
            await anext(stream.batches(most))


@pytest.mark.parametrize("timeout", ["5", float("nan"), True, [1]])
async def test_a_timeout_is_a_number(shared_dsn: str, schema: str, timeout: Any) -> None:  # noqa: ASYNC109
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        with pytest.raises(InvalidInput, match="timeout must be a number of seconds"):
            await stream.next_batch(timeout=timeout)
        with pytest.raises(InvalidInput, match="timeout must be a number of seconds"):
            await stream.next(timeout=timeout)


async def test_a_batch_is_not_an_event(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=f"batch_{schema}", auto_ack=False) as stream:
            await store["orders"].insert_many(numbered(0, 3))
            batch: Any = await stream.next_batch()
            with pytest.raises(InvalidInput, match="is not an event: pass one of this stream, such as the last one"):
                stream.ack(batch)
            async with store.transaction() as tx:
                with pytest.raises(InvalidInput, match="is not an event"):
                    await stream.checkpoint(batch, tx)
            stream.ack(batch[-1])
        await store.drop_consumer(f"batch_{schema}")


async def test_the_events_before_an_error_come_first(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["orders"].insert_many(numbered(0, 3))
        sql.execute("SET session_replication_role = replica")  # where the event trigger does not refuse it
        sql.execute("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
        sql.execute("RESET session_replication_role")
        sql.execute("DELETE FROM orders")
        batches = await gather(stream, 3)
        assert ids([event for batch in batches for event in batch]) == names(0, 3)
        with pytest.raises(ReplicaIdentityChanged):
            await stream.next_batch(timeout=PATIENCE_S)


async def test_a_snapshot_comes_in_batches_with_the_changes_beside_it(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["orders"].insert_many(numbered(0, 500))
        async with store["orders"].watch(snapshot=True) as stream:
            batches = await gather(stream, 500)
            await store["orders"].insert("o-0500", {})
            batches += await gather(stream, 1)
    events = [event for batch in batches for event in batch]
    assert sorted(filter(None, ids(events))) == names(0, 501)
    assert events[-1].event_type == "insert"


async def test_the_next_batch_acknowledges_the_one_before(shared_dsn: str, schema: str, name: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=name) as stream:
            await store["orders"].insert_many(numbered(0, 6))
            first = await stream.next_batch(4, timeout=PATIENCE_S)
            second = await stream.next_batch(1, timeout=PATIENCE_S)
        async with store["orders"].watch(consumer=name) as stream:
            rest = await gather(stream, 6 - len(first))
    assert ids(second) == names(len(first), len(first) + 1)
    assert ids([event for batch in rest for event in batch]) == names(len(first), 6)


async def test_a_checkpoint_of_the_last_event_covers_its_batch(shared_dsn: str, schema: str, name: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=name) as stream:
            await store["orders"].insert_many(numbered(0, 10))
            done: list[str | None] = []
            while len(done) < 5:
                events = await stream.next_batch(5 - len(done), timeout=PATIENCE_S)
                async with store.transaction() as tx:
                    await tx["audit"].insert_many((f"a-{e.document_id}", e.to_dict()) for e in events)
                    await stream.checkpoint(events[-1], tx)
                done += ids(events)
            lost = await stream.next_batch(2, timeout=PATIENCE_S)  # not checkpointed
        async with store["orders"].watch(consumer=name) as stream:
            rest = [event for batch in await gather(stream, 5) for event in batch]
        assert await store["audit"].count() == 5
    assert done == names(0, 5)
    assert ids(rest) == names(5, 10)
    assert ids(rest)[: len(lost)] == ids(lost)
