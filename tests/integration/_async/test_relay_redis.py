"""Relays into Redis: what happens to the log when the server forgets, is full, or is replaced."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pgdoc import AsyncRelay, ChangeEvent
from pgdoc.runtime.primitives import async_call
from tests.integration._async.relays import relaying, until
from tests.integration._async.workers import fresh_name, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgdoc import AsyncStore
    from tests.redis_server import RedisServer


@asynccontextmanager
async def running(store: AsyncStore, url: str) -> AsyncIterator[AsyncRelay]:
    relay = AsyncRelay(store, fresh_name(), url, "orders", partitions=4)
    async with relaying(relay):
        await until(lambda: relay.status().state == "relaying")
        yield relay


async def insert(store: AsyncStore, first: int, last: int) -> None:
    await store["orders"].insert_many([(f"o-{n}", {}) for n in range(first, last + 1)])


async def check_exact(server: RedisServer, count: int) -> None:
    found = await async_call(server.entries, "ORDERS")
    events = [ChangeEvent.from_json(body) for _, _, body in found]
    assert [event.document_id for event in events] == [f"o-{n}" for n in range(1, count + 1)]
    assert [sequence for sequence, _, _ in found] == list(range(1, count + 1))


async def test_what_a_server_with_snapshots_only_has_forgotten_is_sent_again(
    shared_dsn: str, schema: str, private_redis: RedisServer
) -> None:
    private_redis.config = "appendonly no\nsave 3600 1"
    await async_call(private_redis.kill)
    await async_call(private_redis.start)
    async with opened(shared_dsn, schema) as store, running(store, f"{private_redis.url}/ORDERS") as relay:
        await insert(store, 1, 300)
        await until(lambda: relay.status().sequence == 300)
        await async_call(private_redis.ask, "SAVE")
        await insert(store, 301, 600)
        await until(lambda: relay.status().sequence == 600)
        await async_call(private_redis.kill)
        await async_call(private_redis.start)
        await insert(store, 601, 700)
        await until(lambda: relay.status().sequence == 700)
        await check_exact(private_redis, 700)


async def test_a_server_that_has_forgotten_the_whole_log_gets_all_that_is_not_confirmed(
    shared_dsn: str, schema: str, private_redis: RedisServer
) -> None:
    url = f"{private_redis.url}/ORDERS?confirm_after=1h"
    async with opened(shared_dsn, schema) as store, running(store, url) as relay:
        await insert(store, 1, 300)
        await until(lambda: relay.status().sequence == 300)
        await async_call(private_redis.ask, "FLUSHALL")
        await insert(store, 301, 400)
        await until(lambda: relay.status().sequence == 400)
        await check_exact(private_redis, 400)


async def test_a_relay_waits_for_room_and_goes_on(shared_dsn: str, schema: str, private_redis: RedisServer) -> None:
    async with opened(shared_dsn, schema) as store, running(store, f"{private_redis.url}/ORDERS") as relay:
        await insert(store, 1, 100)
        await until(lambda: relay.status().sequence == 100)
        await async_call(private_redis.ask, "CONFIG", "SET", "maxmemory", "1kb")
        await insert(store, 101, 200)
        await until(lambda: relay.status().state == "log_full")
        await async_call(private_redis.ask, "CONFIG", "SET", "maxmemory", "0")
        await until(lambda: relay.status().sequence == 200)
        await check_exact(private_redis, 200)


async def test_a_promoted_replica_gets_what_it_lacks(
    shared_dsn: str, schema: str, private_redis: RedisServer, second_redis: RedisServer
) -> None:
    await async_call(second_redis.ask, "REPLICAOF", "127.0.0.1", str(private_redis.port))
    url = f"redis://127.0.0.1:{private_redis.port},127.0.0.1:{second_redis.port}/ORDERS?confirm_after=1h"
    async with opened(shared_dsn, schema) as store, running(store, url) as relay:
        await insert(store, 1, 300)
        await until(lambda: relay.status().sequence == 300)
        await until(lambda: b"300" in (second_redis.ask("HGET", "{ORDERS}:log", "sequence") or b""))
        await async_call(second_redis.ask, "REPLICAOF", "NO", "ONE")  # from now on, it gets nothing
        await insert(store, 301, 600)
        await until(lambda: relay.status().sequence == 600)
        await async_call(private_redis.kill)
        await insert(store, 601, 700)
        await until(lambda: relay.status().sequence == 700)
        await check_exact(second_redis, 700)
