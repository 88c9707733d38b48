"""The lag of a stream is true: see the laws in `pgdoc.streams.lag`."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pgdoc
from pgdoc import AsyncStore
from pgdoc.runtime.primitives import async_sleep
from tests.integration._async.streams import take

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg

    from pgdoc import AsyncChangeStream, StreamStats

INSERT = "INSERT INTO orders (id, data) SELECT n::text, '{}' FROM generate_series(%s::int, %s::int) AS n"
PATIENCE_S = 60.0
NO_LAG = timedelta(0)


async def until_even(stream: AsyncChangeStream) -> StreamStats:
    """Return the figures once the stream has passed everything that the server has reported."""
    deadline = time.monotonic() + PATIENCE_S
    while (stats := stream.stats()).lag_bytes or stats.mode != "live":
        assert time.monotonic() < deadline, stats
        assert await stream.next(timeout=0.02) is None
    return stats


async def until_reported(stream: AsyncChangeStream) -> StreamStats:
    """Return the figures once the stream has passed everything that was reported, without reading it."""
    deadline = time.monotonic() + PATIENCE_S
    while (stats := stream.stats()).lag_bytes:
        assert time.monotonic() < deadline, stats
        await async_sleep(0.01)
    return stats


async def until_buffered(stream: AsyncChangeStream, count: int) -> StreamStats:
    deadline = time.monotonic() + PATIENCE_S
    while (stats := stream.stats()).buffered < count:
        assert time.monotonic() < deadline, stats
        await async_sleep(0.01)
    return stats


@asynccontextmanager
async def consumer(store: AsyncStore, schema: str) -> AsyncIterator[AsyncChangeStream]:
    name = f"c_{schema}"
    try:
        async with store["orders"].watch(consumer=name, buffer_size=100_000) as stream:
            yield stream
    finally:
        await store.drop_consumer(name)


async def check_half_read(stream: AsyncChangeStream, sql: psycopg.Connection, most: int) -> None:
    """Read a transaction of 2,000 events: the lag falls with each event, and is zero after the last."""
    assert (await until_even(stream)).lag == NO_LAG
    sql.execute(INSERT, [1, 2000])
    whole = await until_buffered(stream, most)
    assert whole.buffered_bytes > whole.buffered * 50
    bytes_left, ages = [whole.lag_bytes], [whole.lag]
    for _ in range(1999):
        await take(stream)
        stats = stream.stats()
        bytes_left.append(stats.lag_bytes)
        ages.append(stats.lag)
    assert min(ages) > NO_LAG
    assert min(bytes_left) > 0
    assert bytes_left[0] > 2000 * 50, "each event is a row in the WAL"
    assert sorted(bytes_left, reverse=True)[1000] < bytes_left[0] * 0.7
    await take(stream)
    assert (await until_even(stream)).lag == NO_LAG


async def test_a_transaction_that_is_half_read_counts(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await check_half_read(stream, sql, 2000)
        assert stream.stats().buffered_bytes == 0


async def test_a_transaction_that_is_read_from_the_wal_counts(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch(buffer_size=50) as stream:
        await check_half_read(stream, sql, 50)


async def test_a_transaction_that_a_consumer_has_half_read_counts(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, consumer(store, schema) as stream:
        await check_half_read(stream, sql, 2000)


async def test_the_lag_of_a_loop_that_stands_still_grows_with_the_clock(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        sql.execute(INSERT, [1, 3])
        first, began = await until_buffered(stream, 3), time.monotonic()
        await async_sleep(0.3)
        sql.execute(INSERT, [4, 6])
        second = await until_buffered(stream, 6)
        assert second.lag - first.lag >= timedelta(seconds=0.25)
        assert second.lag - first.lag <= timedelta(seconds=time.monotonic() - began + 1)
        assert second.lag_bytes > first.lag_bytes
        await take(stream, 6)
        assert (await until_even(stream)).lag == NO_LAG
        await async_sleep(0.3)
        assert stream.stats().lag == NO_LAG, "an idle stream has no lag"


async def test_what_others_write_is_no_lag(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("audit")
        async with store["orders"].watch() as stream:
            for number in range(20):
                await store["audit"].insert(str(number), {})
                stats = await until_even(stream)
                assert (stats.lag, stats.buffered) == (NO_LAG, 0)


async def test_a_standby_has_no_lag_and_its_owner_does(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        AsyncStore(shared_dsn, schema=schema) as other,
        consumer(store, schema) as owner,
        other["orders"].watch(consumer=f"c_{schema}") as standby,
    ):
        sql.execute(INSERT, [1, 3])
        assert (await until_buffered(owner, 3)).lag > NO_LAG
        stats = standby.stats()
        assert (stats.mode, stats.lag, stats.lag_bytes) == ("standby", NO_LAG, 0)


async def test_the_documents_of_a_snapshot_are_no_lag_but_the_changes_that_wait_for_it_are(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        sql.execute(INSERT, [1, 500])
        async with store["orders"].watch(snapshot=True) as stream:
            events = await take(stream, 10)
            stats = await until_reported(stream)
            assert (stats.mode, stats.lag, stats.buffered) == ("snapshot", NO_LAG, 0)
            sql.execute("UPDATE orders SET data = '{\"a\": 1}' WHERE id = %s", [events[0].document_id])
            stats = await until_buffered(stream, 1)
            assert stats.lag > NO_LAG
            events += await take(stream, 491)
            assert (await until_even(stream)).lag == NO_LAG
    assert [event.event_type for event in events].count(pgdoc.EventType.UPDATE) == 1


async def test_a_stream_that_resumes_lags_as_much_as_it_has_to_read(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as beside:
        await until_even(beside)
        token = beside.resume_token
        sql.execute(INSERT, [1, 3000])
        await take(beside, 3000)  # the server has reported all of them
        async with store["orders"].watch(resume_after=token, buffer_size=100) as stream:
            for left in range(3000, 0, -1):
                stats = stream.stats()
                assert stats.lag_bytes > 0, left
                assert stats.lag > NO_LAG, left
                await take(stream)
            assert (await until_even(stream)).lag == NO_LAG
