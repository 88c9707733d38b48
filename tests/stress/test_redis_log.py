"""A million messages into Redis by three writers at once, while connections are cut and the server is killed."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

from pgdoc.errors import LogUnreachable
from pgdoc.relay.redis.reader import RedisReader
from pgdoc.relay.redis.writer import RedisWriter
from pgdoc.relay.targets import LogTarget
from tests.logs import CONFIG, messages
from tests.proxy import Proxy

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

COUNT = int(os.environ.get("PGDOC_LOG_MESSAGES", "1000000"))
SEED = int(os.environ.get("PGDOC_DAY_SEED", "0")) or random.randrange(1 << 32)
WRITERS = 3
WINDOW = 500
IN_FLIGHT = 4


async def write(url: str, count: int) -> None:
    """Do what a relay does with messages 1 to `count`."""
    writer = RedisWriter(LogTarget.parse(url))
    at, flights = 0, list[asyncio.Task[int]]()
    while at < count:
        try:
            at = (await writer.open(CONFIG)).sequence
            sent = at
            while sent < count or flights:
                while sent < count and len(flights) < IN_FLIGHT:
                    last = min(sent + WINDOW, count)
                    flights.append(asyncio.create_task(writer.send(messages(sent + 1, last))))
                    sent = last
                at = await flights.pop(0)
        except LogUnreachable:
            await asyncio.gather(*flights, return_exceptions=True)
            flights.clear()
            await asyncio.sleep(random.uniform(0, 0.1))
    await writer.close()


async def read(url: str, count: int) -> None:
    """Read the log while it is written, and check each entry."""
    reader = RedisReader(LogTarget.parse(url))
    position = 0
    while position < count:
        try:
            await reader.open()
            await reader.begin(position)
            while position < count:
                found = await reader.fetch(1000, 1.0)
                wanted = messages(position + 1, position + len(found))
                assert [(entry.sequence, entry.body) for entry in found] == [
                    (position + number, message.body) for number, message in enumerate(wanted, 1)
                ]
                position += len(found)
        except LogUnreachable:
            await asyncio.sleep(0.05)
    await reader.close()


async def break_things(server: RedisServer, proxy: Proxy, tasks: list[asyncio.Task[None]]) -> int:
    """Kill the server and cut connections at random times, until the tasks are done; return how often."""
    chance, count = random.Random(SEED), 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        count += 1
        if chance.random() < 0.2:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        else:
            await asyncio.to_thread(proxy.cut)
    return count


async def test_a_log_is_exact_after_a_day_of_faults(private_redis: RedisServer) -> None:
    print(f"PGDOC_DAY_SEED={SEED} repeats it")  # noqa: T201 (shown if it fails)
    with Proxy("127.0.0.1", private_redis.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/ORDERS"
        await write(url, 1)
        tasks = [asyncio.create_task(write(url, COUNT)) for _ in range(WRITERS)]
        tasks.append(asyncio.create_task(read(url, COUNT)))
        faults = await break_things(private_redis, proxy, tasks)
        await asyncio.gather(*tasks)
        assert faults > 0
        await read(f"{private_redis.url}/ORDERS", COUNT)
