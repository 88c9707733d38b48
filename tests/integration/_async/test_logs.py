"""Each engine's log has each event once, in order, whatever fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc import AsyncRelay, ChangeEvent
from pgdoc.runtime.primitives import async_call, async_sleep
from tests.integration._async.relays import fresh_stream, relaying, until
from tests.integration._async.workers import fresh_name, opened
from tests.proxy import Proxy

if TYPE_CHECKING:
    from pgdoc import AsyncStore
    from tests.logs import Engine


async def write(store: AsyncStore, first: int, last: int) -> None:
    """Write documents `first` to `last`, each in a transaction of its own or with nine others."""
    for number in range(first, last + 1, 10):
        ids = [f"o-{n}" for n in range(number, min(number + 10, last + 1))]
        if number % 3:
            await store["orders"].insert_many([(each, {}) for each in ids])
        else:
            for each in ids:
                await store["orders"].insert(each, {})


async def check_exact(engine: Engine, log: str, count: int) -> None:
    """Check that a log has the inserts of documents 1 to `count`, each once and in order."""
    found = await async_call(engine.entries, log)
    events = [ChangeEvent.from_json(body) for _, _, body in found]
    assert [event.document_id for event in events] == [f"o-{n}" for n in range(1, count + 1)]
    assert [token for _, token, _ in found] == [str(event.resume_token) for event in events]
    assert [sequence for sequence, _, _ in found] == list(range(1, count + 1))


async def test_each_event_is_there_once_also_when_the_relay_runs_again(
    shared_dsn: str, schema: str, engine: Engine
) -> None:
    log, consumer = fresh_stream(), fresh_name()
    async with opened(shared_dsn, schema) as store:
        relay = AsyncRelay(store, consumer, engine.url(log), "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            await write(store, 1, 300)
            await until(lambda: relay.status().stored == 300)
        await write(store, 301, 500)
        async with relaying(relay):
            await write(store, 501, 600)
            await until(lambda: relay.status().sequence == 600)
        await check_exact(engine, log, 600)


async def test_each_event_is_there_once_when_the_server_is_killed(
    shared_dsn: str, schema: str, private_engine: Engine
) -> None:
    log, server = fresh_stream(), private_engine.server
    async with opened(shared_dsn, schema) as store:
        relay = AsyncRelay(store, fresh_name(), private_engine.url(log), "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            for kill in range(3):
                await write(store, kill * 400 + 1, kill * 400 + 400)
                await until(lambda kill=kill: relay.status().sequence > kill * 400)  # type: ignore[misc]
                await async_call(server.kill)
                await until(lambda: relay.status().state != "relaying" or relay.status().stored == relay.status().sent)
                await async_call(server.start)
            await write(store, 1201, 1300)
            await until(lambda: relay.status().sequence == 1300)
        await check_exact(private_engine, log, 1300)


async def test_each_event_is_there_once_when_connections_are_cut(shared_dsn: str, schema: str, engine: Engine) -> None:
    log = fresh_stream()
    with Proxy("127.0.0.1", engine.server.port) as proxy:
        async with opened(shared_dsn, schema) as store:
            relay = AsyncRelay(store, fresh_name(), engine.url(log, proxy.port), "orders", partitions=4)
            async with relaying(relay):
                await until(lambda: relay.status().state == "relaying")
                for cut in range(8):
                    await write(store, cut * 200 + 1, cut * 200 + 200)
                    await async_call(proxy.cut)
                    await async_sleep(0.05)
                await until(lambda: relay.status().sequence == 1600)
            assert relay.status().interruptions > 0
            await check_exact(engine, log, 1600)


async def test_each_event_is_there_once_when_two_relays_write(shared_dsn: str, schema: str, engine: Engine) -> None:
    log = fresh_stream()
    async with opened(shared_dsn, schema) as store:
        relays = [AsyncRelay(store, fresh_name(), engine.url(log), "orders", partitions=4) for _ in range(2)]
        async with relaying(relays[0]), relaying(relays[1]):
            await until(lambda: all(relay.status().state == "relaying" for relay in relays))
            await write(store, 1, 1500)
            for _ in range(300):  # neither relay needs to get the last acknowledgement
                if len(await async_call(engine.entries, log)) == 1500:
                    break
                await async_sleep(0.2)
        await check_exact(engine, log, 1500)


async def test_a_large_event_is_there_in_parts(shared_dsn: str, schema: str, engine: Engine) -> None:
    log = fresh_stream()
    async with opened(shared_dsn, schema) as store:
        relay = AsyncRelay(store, fresh_name(), engine.url(log), "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            await store["orders"].insert("small", {})
            await store["orders"].insert("large", {"text": "x" * (20 << 20)})
            await store["orders"].insert("last", {})
            await until(lambda: relay.status().stored > 4 and relay.status().waiting == 0)
        found = await async_call(engine.entries, log)
    parts = [body for _, _, body in found[1:-1]]
    assert len(parts) > 2
    assert [len(body) for body in parts[:-1]] == [len(parts[0])] * (len(parts) - 1)
    events = [ChangeEvent.from_json(body) for body in (found[0][2], b"".join(parts), found[-1][2])]
    assert [event.document_id for event in events] == ["small", "large", "last"]
    assert {token for _, token, _ in found[1:-1]} == {str(events[1].resume_token)}
