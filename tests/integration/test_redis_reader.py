"""Reading a log in Redis: every entry in order, whatever was trimmed shows, and records by compare-and-set."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgdoc import async_drop_log_group, async_log_groups
from pgdoc.errors import HistoryLost, LogRefused, LogUnreachable
from pgdoc.relay.messages import MessagePart
from pgdoc.relay.partitions import EVERY
from pgdoc.relay.redis.reader import RedisReader
from pgdoc.relay.redis.records import RedisRecords
from pgdoc.relay.redis.writer import RedisWriter
from pgdoc.relay.targets import LogTarget
from tests.logs import CONFIG, PARTITIONS, fresh_log, messages
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgdoc.relay.log import LogEntry, LogInfo
    from tests.redis_server import RedisServer


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return f"{redis_server.url}/{fresh_log()}"


@asynccontextmanager
async def written(url: str, count: int = 0, *, size: int = 20) -> AsyncIterator[RedisWriter]:
    writer = RedisWriter(LogTarget.parse(url))
    try:
        await writer.open(CONFIG)
        for first in range(1, count + 1, 500):
            await writer.send(messages(first, min(first + 499, count), size=size))
        yield writer
    finally:
        await writer.close()


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[tuple[RedisReader, LogInfo]]:
    reader = RedisReader(LogTarget.parse(url))
    try:
        yield reader, await reader.open()
    finally:
        await reader.close()


async def read(reader: RedisReader, last: int, most: int = 100) -> list[LogEntry]:
    """Read until the reader is beyond an entry."""
    found: list[LogEntry] = []
    while reader.position < last:
        found += await reader.fetch(most, 5.0)
    return found


async def test_a_log_is_read_in_order_and_whole(url: str) -> None:
    async with written(f"{url}?max_len=100000", 3000), reading(url) as (reader, info):
        assert (info.first, info.last, info.config.partitions) == (1, 3000, PARTITIONS)
        await reader.begin(0)
        found = await read(reader, 3000)
    wanted = messages(1, 3000)
    assert [entry.sequence for entry in found] == list(range(1, 3001))
    assert [(entry.token, entry.body) for entry in found] == [(each.token, each.body) for each in wanted]


async def test_reading_begins_after_any_entry(url: str) -> None:
    async with written(url, 50), reading(url) as (reader, _):
        for after in (0, 1, 17, 49, 50):
            await reader.begin(after)
            assert [entry.sequence for entry in await read(reader, 50, most=7)] == list(range(after + 1, 51))
            assert await reader.fetch(10, 0.0) == []


async def test_a_reader_of_partitions_has_their_entries_and_those_of_all(url: str) -> None:
    async with written(url, 500), reading(url) as (reader, _):
        await reader.begin(100, partitions=[1, 3])
        found = await read(reader, 500)
    wanted = [
        number for number, each in enumerate(messages(1, 500), 1) if number > 100 and each.partition in (1, 3, EVERY)
    ]
    assert [entry.sequence for entry in found] == wanted


async def test_a_reader_of_collections_passes_over_the_others(url: str) -> None:
    async with written(url) as writer, reading(url) as (reader, _):
        await writer.send([each._replace(collection="other") for each in messages(1, 20)])
        await reader.begin(0, collections=["orders"])
        assert await reader.fetch(10, 0.0) == []
        assert reader.position == 20
        await writer.send(messages(21, 22))
        assert [entry.sequence for entry in await reader.fetch(10, 5.0)] == [21, 22]


async def test_a_reader_that_waits_is_woken_by_the_next_entry(url: str) -> None:
    async with written(url, 10) as writer, reading(url) as (reader, _):
        await reader.begin(10)
        waiting = asyncio.create_task(reader.fetch(10, 60.0))
        await asyncio.sleep(0.1)
        await writer.send(messages(11, 15))
        found = await waiting  # few at first: their size is not known yet
        assert found
        while len(found) < 5:
            found += await reader.fetch(10, 5.0)
        assert [entry.sequence for entry in found] == [11, 12, 13, 14, 15]


async def test_a_reader_keeps_up_with_a_relay_that_writes(url: str) -> None:
    async with written(url) as writer, reading(url) as (reader, _):
        await reader.begin(0)

        async def write() -> None:
            for first in range(1, 5001, 50):
                await writer.send(messages(first, first + 49))

        writing = asyncio.create_task(write())
        found = await read(reader, 5000)
        await writing
    assert [entry.sequence for entry in found] == list(range(1, 5001))


async def test_the_token_of_an_entry_is_found(url: str) -> None:
    async with written(url, 30), reading(url) as (reader, _):
        assert [await reader.token_at(number) for number in (1, 30)] == [messages(n, n)[0].token for n in (1, 30)]
        assert [await reader.token_at(number) for number in (0, 31)] == [None, None]


async def test_a_part_is_read_as_one(url: str) -> None:
    async with written(url) as writer, reading(url) as (reader, _):
        part = messages(1, 1)[0]._replace(part=MessagePart(2, 3))
        await writer.send([part])
        await reader.begin(0)
        assert await reader.fetch(1, 5.0) == [(1, part.token, part.body, MessagePart(2, 3))]
        assert (await reader.open()).last_part == MessagePart(2, 3)


async def test_a_reader_that_was_too_slow_for_a_trimmed_log_is_told(url: str) -> None:
    async with written(f"{url}?max_len=100", 1000), reading(url) as (reader, info):
        assert (info.first, info.last) == (901, 1000)
        assert [await reader.token_at(number) for number in (900, 901)] == [None, messages(901, 901)[0].token]
        await reader.begin(899)
        with pytest.raises(HistoryLost, match="sequence 899") as lost:
            await read(reader, 1000)
        assert lost.value.oldest_available is not None
        await reader.begin(900)
        assert len(await read(reader, 1000)) == 100


@pytest.mark.parametrize("partition", ["all", "1"])
async def test_what_somebody_trims_or_deletes_shows(redis_server: RedisServer, url: str, partition: str) -> None:
    key = f"{{{url.rpartition('/')[2]}}}:{partition}"
    async with written(url, 100), reading(url) as (reader, _):
        ids = redis_server.ask("XRANGE", key, "-", "+")
        redis_server.ask("XDEL", key, ids[3][0])
        await reader.begin(0)
        with pytest.raises(HistoryLost):
            await read(reader, 100)
        redis_server.ask("XTRIM", key, "MAXLEN", "0")
        await reader.begin(0)
        with pytest.raises(HistoryLost):
            await read(reader, 100)
        redis_server.ask("DEL", key)
        await reader.begin(0)
        with pytest.raises(HistoryLost):
            await read(reader, 100)


async def test_a_log_without_entries_has_an_end(redis_server: RedisServer, url: str) -> None:
    name = url.rpartition("/")[2]
    async with written(url, 10) as writer, reading(url) as (reader, _):
        for stream in ("all", *range(PARTITIONS)):
            redis_server.ask("XTRIM", f"{{{name}}}:{stream}", "MAXLEN", "0")
        info = await reader.open()
        assert (info.first, info.last) == (11, 10)
        await reader.begin(10)
        await writer.send(messages(11, 11))
        assert [entry.sequence for entry in await reader.fetch(10, 5.0)] == [11]


async def test_a_log_that_is_made_anew_is_noticed(redis_server: RedisServer, url: str) -> None:
    name = url.rpartition("/")[2]
    async with written(url, 10) as writer, reading(url) as (reader, info):
        await reader.begin(10)
        redis_server.ask("DEL", *(f"{{{name}}}:{key}" for key in ("log", "all", *range(PARTITIONS))))
        with pytest.raises(LogUnreachable, match="made anew"):
            await reader.fetch(10, 0.0)
        with pytest.raises(LogRefused) as refused:
            await reader.open()
        assert refused.value.reason == "missing"
        await writer.open(CONFIG)
        assert (await reader.open()).identity != info.identity


async def test_a_key_that_no_relay_made_is_refused(redis_server: RedisServer, url: str) -> None:
    redis_server.ask("HSET", f"{{{url.rpartition('/')[2]}}}:log", "a", "b")
    with pytest.raises(LogRefused) as refused:
        async with reading(url):
            pass
    assert refused.value.reason == "foreign"


async def test_an_entry_that_no_relay_wrote_is_refused_by_readers(redis_server: RedisServer, url: str) -> None:
    async with written(url, 10), reading(url) as (reader, _):
        redis_server.ask("XADD", f"{{{url.rpartition('/')[2]}}}:1", "*", "a", "b")
        await reader.begin(0)
        with pytest.raises(LogRefused) as refused:
            await read(reader, 10)
    assert refused.value.reason == "foreign"


async def test_a_replica_can_be_read(private_redis: RedisServer, second_redis: RedisServer) -> None:
    second_redis.ask("REPLICAOF", "127.0.0.1", str(private_redis.port))
    second_redis.wait_until(lambda: second_redis.ask("ROLE")[3] == b"connected")
    async with (
        written(f"{private_redis.url}/COPIED?wait_replicas=1", 700),
        reading(f"{second_redis.url}/COPIED") as (reader, _),
    ):
        await reader.begin(0)
        assert len(await read(reader, 700)) == 700


async def test_a_reader_whose_connection_is_cut_goes_on_after_it_is_opened_again(
    redis_server: RedisServer, url: str
) -> None:
    found: list[LogEntry] = []
    with Proxy("127.0.0.1", redis_server.port) as proxy:
        async with (
            written(url, 2000),
            reading(f"redis://127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}") as (reader, _),
        ):
            await reader.begin(0)
            while reader.position < 2000:
                try:
                    found += await reader.fetch(100, 5.0)
                    await asyncio.to_thread(proxy.cut)
                except LogUnreachable:
                    await reader.open()
                    await reader.begin(reader.position)
    assert [entry.sequence for entry in found] == list(range(1, 2001))


async def test_records_are_written_by_compare_and_set(url: str) -> None:
    one, other = RedisRecords(LogTarget.parse(url)), RedisRecords(LogTarget.parse(url))
    try:
        await one.open()
        await other.open()
        first = await one.write("g.1", b"a:b\n\xff", 0)
        assert first is not None
        assert await other.write("g.1", b"c", 0) is None
        assert await other.read("g.") == {"g.1": (b"a:b\n\xff", first)}
        second = await other.write("g.1", b"c", first)
        assert second is not None
        assert await one.write("g.1", b"d", first) is None
        assert not await one.delete("g.1", first)
        assert await one.delete("g.1", second)
        assert await one.read("") == {}
        third = await other.write("g.1", b"e", 0)
        assert third not in (None, first, second)
        await other.write("h.1", b"", 0)
        assert set(await one.read("")) == {"g.1", "h.1"}
        assert set(await one.read("h")) == {"h.1"}
    finally:
        await one.close()
        await other.close()


async def test_of_many_writers_of_a_record_one_wins_each_time(url: str) -> None:
    records = [RedisRecords(LogTarget.parse(url)) for _ in range(5)]
    for each in records:
        await each.open()

    async def add(mine: RedisRecords) -> None:
        done = 0
        while done < 20:
            found = (await mine.read("sum")).get("sum")
            value, revision = (0, 0) if found is None else (int(found.value), found.revision)
            done += await mine.write("sum", str(value + 1).encode(), revision) is not None

    await asyncio.gather(*map(add, records))
    assert (await records[0].read("sum"))["sum"].value == b"100"
    for each in records:
        await each.close()


async def test_the_rights_that_the_page_lists_are_enough(private_redis: RedisServer) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/relay-to-redis.md").read_text()
    command = next(line for line in page.splitlines() if line.startswith("ACL SETUSER"))
    private_redis.ask(*command.split())
    url = f"redis://relay:secret@127.0.0.1:{private_redis.port}/ORDERS?max_len=10&max_age=1h"
    async with written(url, 100), reading(url) as (reader, info):
        await reader.begin(info.first - 1)
        assert (await read(reader, 100))[-1].token == await reader.token_at(100)
        assert await reader.fetch(1, 0.01) == []
    with pytest.raises(LogUnreachable, match="0 of 1"):
        async with written(f"{url}&wait_replicas=1&timeout=100ms"):
            pass
    records = RedisRecords(LogTarget.parse(url))
    await records.open()
    revision = await records.write("a", b"b", 0)
    assert revision is not None
    assert await records.delete("a", revision)
    assert await records.read("") == {}
    assert await records.write("billing.begun", b"{}", 0)
    await records.close()
    assert await async_drop_log_group(url, "billing")
    assert await async_log_groups(url) == []
