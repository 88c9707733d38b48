"""A log in Redis, read as a stream and by a group, while a relay writes it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from pgdoc import AsyncRelay, AsyncRemoteStream, HistoryLost
from pgdoc.runtime.primitives import async_call
from tests.integration._async.relays import fresh_stream, relaying, until
from tests.integration._async.workers import fresh_name, opened

if TYPE_CHECKING:
    from pgdoc import ChangeEvent
    from tests.redis_server import RedisServer


async def read(streams: list[AsyncRemoteStream], count: int) -> list[ChangeEvent]:
    """Read so many events of the streams in turn."""
    found: list[ChangeEvent] = []
    waited = 0.0
    while len(found) < count:
        before = len(found)
        for stream in streams:
            found += await stream.next_batch(timeout=0.05)
        waited = 0.0 if len(found) > before else waited + 0.05
        assert waited < 20, f"only {len(found)} of {count} events came"
    return found


async def test_the_stream_of_a_log_is_that_of_the_server(
    shared_dsn: str, schema: str, redis_server: RedisServer
) -> None:
    url = f"{redis_server.url}/{fresh_stream()}"
    async with opened(shared_dsn, schema) as store, await store.watch("orders") as watched:
        relay = AsyncRelay(store, fresh_name(), url, "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            await store["orders"].insert_many([(f"o-{n}", {"n": n}) for n in range(200)])
            await store["orders"].delete_many({})
            await until(lambda: relay.status().stored == 400)
        direct = [event for _ in range(400) if (event := await watched.next(timeout=20)) is not None]
        async with AsyncRemoteStream(url, start="beginning") as stream:
            assert await read([stream], 400) == direct
        async with AsyncRemoteStream(url, resume_after=direct[250].resume_token) as stream:
            assert await read([stream], 149) == direct[251:]
        async with await store.watch("orders", resume_after=stream.resume_token) as resumed:
            await store["orders"].insert("last", {})
            event = await resumed.next(timeout=20)
            assert event is not None
            assert event.document_id == "last"


async def test_a_stream_goes_on_after_redis_was_killed(
    shared_dsn: str, schema: str, private_redis: RedisServer
) -> None:
    url = f"{private_redis.url}/ORDERS"
    async with opened(shared_dsn, schema) as store:
        relay = AsyncRelay(store, fresh_name(), url, "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            async with AsyncRemoteStream(url, buffer_size=50) as stream:
                found = []
                for first in (0, 300, 600):
                    await store["orders"].insert_many([(f"o-{n}", {}) for n in range(first, first + 300)])
                    found += await read([stream], 10)
                    await async_call(private_redis.kill)
                    await async_call(private_redis.start)
                found += await read([stream], 900 - len(found))
    assert [event.document_id for event in found] == [f"o-{n}" for n in range(900)]


async def test_the_members_of_a_group_share_a_log(shared_dsn: str, schema: str, redis_server: RedisServer) -> None:
    url = f"{redis_server.url}/{fresh_stream()}"
    async with opened(shared_dsn, schema) as store:
        relay = AsyncRelay(store, fresh_name(), url, "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            await store["orders"].insert_many([(f"o-{n}", {"step": 0}) for n in range(100)])
            for step in range(1, 4):
                await store["orders"].update_many({}, {"$set": {"step": step}})
            await until(lambda: relay.status().stored == 400)
        members = [AsyncRemoteStream(url, group="billing", start="beginning", lease=1.0) for _ in range(3)]
        async with members[0], members[1], members[2]:
            steps: dict[str | None, list[int]] = defaultdict(list)
            for event in await read(members, 400):
                assert event.full_document is not None
                steps[event.document_id].append(event.full_document.data["step"])
    assert steps == {f"o-{n}": [0, 1, 2, 3] for n in range(100)}


async def test_a_stream_that_was_too_slow_for_the_limit_of_a_log_is_told(
    shared_dsn: str, schema: str, redis_server: RedisServer
) -> None:
    url = f"{redis_server.url}/{fresh_stream()}?max_len=100"
    async with opened(shared_dsn, schema) as store:
        relay = AsyncRelay(store, fresh_name(), url, "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            await store["orders"].insert("first", {})
            async with AsyncRemoteStream(url, start="beginning") as stream:
                (first,) = await read([stream], 1)
            await store["orders"].insert_many([(f"o-{n}", {}) for n in range(1000)])
            await until(lambda: relay.status().stored == 1001)
        with pytest.raises(HistoryLost, match="has forgotten"):
            await AsyncRemoteStream(url, resume_after=first.resume_token)
        async with AsyncRemoteStream(url, start="beginning") as stream:
            events = await read([stream], 100)
            while events[-1].document_id != "o-999":  # the log keeps up to 1% more
                events += await read([stream], 1)
            assert len(events) <= 101
