"""Groups of streams of one log: each partition is read by one of them at a time, in order."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import AsyncRemoteStream, ConsumerLost, InvalidInput, NotAConsumer, StreamError
from pgdoc.relay.partitions import partition_of
from pgdoc.runtime.primitives import async_call
from tests.integration._async.relays import fresh_stream, until
from tests.integration._async.workers import opened
from tests.made_logs import PARTITIONS, append, fill, message_of, truncate_message

if TYPE_CHECKING:
    from pgdoc import ChangeEvent
    from tests.engines import NatsServer


def member(url: str, **options: Any) -> AsyncRemoteStream:
    return AsyncRemoteStream(url, **{"group": "billing", "start": "beginning", "lease": 1.0, **options})


def owned(stream: AsyncRemoteStream) -> set[int]:
    return {number for number, each in list(stream._reading.membership.owned.items()) if not each.is_dropped}  # type: ignore[union-attr]


def number_of(event: ChangeEvent) -> int:
    assert event.full_document is not None
    n: int = event.full_document.data["n"]
    return n


async def drain(streams: list[AsyncRemoteStream], count: int) -> list[int]:
    """Read events of all streams in turn until there are so many."""
    found: list[int] = []
    waited = 0.0
    while len(found) < count:
        before = len(found)
        for stream in streams:
            found += [number_of(event) for event in await stream.next_batch(timeout=0.02)]
        waited = 0.0 if len(found) > before else waited + 0.02 * len(streams)
        assert waited < 20, f"only {len(found)} of {count} events came"
    return found


def assert_in_order(found: list[int]) -> None:
    """Each document's events are in the order in which they were made."""
    last: dict[int, int] = defaultdict(lambda: -1)
    for n in found:
        assert last[n % 100] < n
        last[n % 100] = n


async def test_the_members_of_a_group_share_the_partitions_and_each_event_comes_once(
    nats_server: NatsServer,
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(500))
    async with member(url) as first, member(url) as second, member(url) as third:
        streams = [first, second, third]
        found = await drain(streams, 500)
        await until_shared(streams)
        await async_call(fill, url, range(500, 1000))
        found += await drain(streams, 500)
        assert sorted(found) == list(range(1000))
        assert_in_order(found)


async def until_shared(streams: list[AsyncRemoteStream]) -> None:
    waited = 0.0
    while True:
        shares = [owned(stream) for stream in streams]
        sizes = sorted(map(len, shares))
        if set().union(*shares) == set(range(PARTITIONS)) and sum(sizes) == PARTITIONS and sizes[-1] - sizes[0] <= 1:
            return
        assert waited < 30, f"the partitions are {shares}"
        for stream in streams:
            assert await stream.next(timeout=0.05) is None
        waited += 0.05 * len(streams)


async def test_a_member_that_comes_back_goes_on_after_what_was_acknowledged(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(100))
    acknowledged: list[int] = []
    async with member(url, auto_ack=False) as stream:
        for _ in range(40):
            event = await stream.next(timeout=20)
            assert event is not None
            if len(acknowledged) < 25:
                stream.ack(event)
                acknowledged.append(number_of(event))
    async with member(url) as stream:
        found = acknowledged + await drain([stream], 75)
        assert sorted(found) == list(range(100))
        assert_in_order(found)


async def test_a_new_group_begins_where_its_first_member_says(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(50))
    async with member(url, start="now") as first, member(url, start="beginning") as second:
        await async_call(fill, url, range(50, 90))
        assert sorted(await drain([first, second], 40)) == list(range(50, 90))


async def test_an_event_of_a_whole_collection_comes_once_in_each_partition_at_its_place(
    nats_server: NatsServer,
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    messages = [*map(message_of, range(100)), truncate_message(100), *map(message_of, range(101, 201))]
    await async_call(append, url, messages)
    async with member(url) as stream:
        events: list[ChangeEvent] = []
        while len(events) < 200 + PARTITIONS:
            batch = await stream.next_batch(timeout=20)
            assert batch
            events += batch
    truncates = [event for event in events if event.document_id is None]
    assert len(truncates) == PARTITIONS
    seen: dict[int, list[int]] = defaultdict(list)
    for event in events:  # they come partition by partition, in batches
        if event.document_id is not None:
            seen[partition_of(event.document_id, PARTITIONS)].append(number_of(event))
    assert all(numbers == sorted(numbers) for numbers in seen.values())


async def test_a_former_owner_can_neither_acknowledge_nor_move_the_position(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(100))
    async with member(url, auto_ack=False) as former:
        events = await former.next_batch(2, timeout=20)
        assert len(events) == 2
        await pause(former)
        async with member(url, auto_ack=False) as other:
            assert sorted(await drain([other], 100)) == list(range(100))
            former.ack(events[0])  # it does not know yet
            await resume(former)
            taken = partition_of(events[0].document_id, PARTITIONS)
            await until(lambda: taken not in owned(former))
            with pytest.raises(ConsumerLost, match="taken over"):
                former.ack(events[1])
        async with member(url) as third:  # nothing was acknowledged by the one that had them
            assert sorted(await drain([former, third], 100)) == list(range(100))


async def pause(stream: AsyncRemoteStream) -> None:
    """Stop what a member does in the background, as a process that is suspended does."""
    reading = stream._reading
    await until(lambda: reading._task is not None)
    reading._thread._loop.call_soon_threadsafe(reading._task.cancel)  # type: ignore[union-attr]
    await until(reading._task.done)  # type: ignore[union-attr]


async def resume(stream: AsyncRemoteStream) -> None:
    stream._reading.run()


async def test_a_paused_member_delivers_nothing_after_its_lease(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(100))
    async with member(url) as stream:
        assert await stream.next(timeout=20) is not None
        await pause(stream)
        await until(lambda: stream._delivery.is_suspended)
        assert await stream.next(timeout=0.1) is None
        await resume(stream)
        assert len(await drain([stream], 99)) == 99


async def test_effects_in_postgresql_happen_once_though_a_member_is_taken_over(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(200))
    async with opened(shared_dsn, schema) as store:
        async with member(url, store=store) as former:
            for _ in range(50):
                event = await former.next(timeout=20)
                assert event is not None
                async with store.transaction() as tx:
                    await tx["effects"].insert(f"e-{number_of(event)}", {})
                    await former.checkpoint(event, tx)
            held = await former.next(timeout=20)
            assert held is not None
            await pause(former)
            async with member(url, store=store) as other:
                while await store["effects"].count() < 200:
                    event = await other.next(timeout=20)
                    assert event is not None
                    async with store.transaction() as tx:
                        await tx["effects"].insert(f"e-{number_of(event)}", {})
                        await other.checkpoint(event, tx)
                tx = await store.transaction().__aenter__()
                await tx["effects"].insert("twice", {})
                with pytest.raises(ConsumerLost, match="taken over") as lost:
                    await former.checkpoint(held, tx)
                await tx.__aexit__(ConsumerLost, lost.value, None)
                assert await other.next(timeout=0.5) is None
        assert await store["effects"].count() == 200


async def test_a_checkpoint_that_is_stored_already_is_refused(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(3))
    async with opened(shared_dsn, schema) as store, member(url, store=store) as stream:
        event = await stream.next(timeout=20)
        assert event is not None
        async with store.transaction() as tx:
            await stream.checkpoint(event, tx)
        with pytest.raises(ConsumerLost, match="its effect is stored"):
            async with store.transaction() as tx:
                await stream.checkpoint(event, tx)
        assert len(await drain([stream], 2)) == 2


async def test_a_partition_that_postgresql_gives_to_another_owner_is_taken_anew(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(1))
    async with opened(shared_dsn, schema) as store, member(url, store=store) as stream:
        event = await stream.next(timeout=20)
        assert event is not None
        async with store.transaction() as tx:
            await tx.connection.execute(
                "UPDATE pgdoc.group_positions SET epoch = epoch + 1 WHERE log = %s", [f"nats:{url.rpartition('/')[2]}"]
            )
        tx = await store.transaction().__aenter__()
        with pytest.raises(ConsumerLost, match="taken over") as lost:
            await stream.checkpoint(event, tx)
        await tx.__aexit__(ConsumerLost, lost.value, None)
        assert await drain([stream], 1) == [0]


async def test_a_checkpoint_that_is_rolled_back_is_read_again_by_the_next_member(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(1))
    async with opened(shared_dsn, schema) as store:
        async with member(url, store=store) as stream:
            event = await stream.next(timeout=20)
            assert event is not None
            tx = await store.transaction().__aenter__()
            await stream.checkpoint(event, tx)
            await tx.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
            await async_call(fill, url, range(100, 101))  # of the same document
            assert await drain([stream], 1) == [100]
            await async_call(fill, url, range(101, 102))  # of another partition: this one is passed over
            assert await stream.next(timeout=3) is not None
        async with member(url, store=store) as stream:
            assert sorted(await drain([stream], 3)) == [0, 100, 101]


async def test_what_checkpoints_have_committed_stands_in_the_records_of_the_group(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(20))
    async with opened(shared_dsn, schema) as store, member(url, store=store) as stream:
        last = {}
        for _ in range(20):
            event = await stream.next(timeout=20)
            assert event is not None
            async with store.transaction() as tx:
                await stream.checkpoint(event, tx)
            last[partition_of(event.document_id, PARTITIONS)] = number_of(event) + 1  # its sequence
        records = stream._reading.membership.owned  # type: ignore[union-attr]
        waited = 0.0
        while not all(records[number].stored.sequence >= sequence for number, sequence in last.items()):
            assert waited < 20
            assert await stream.next(timeout=0.1) is None
            waited += 0.1


async def test_a_member_keeps_at_most_twice_its_buffer_in_memory(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(2000))
    async with member(url, buffer_size=80) as stream:
        await until(lambda: len(stream._inbox._room_wanted) == PARTITIONS)  # nobody reads on before some is used
        assert 80 <= stream.stats().buffered <= 160
        found = await drain([stream], 2000)
    assert sorted(found) == list(range(2000))
    assert_in_order(found)


async def test_what_a_group_lacks_is_refused(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    for name in ("", "a\x00b", "a\ud800"):  # PostgreSQL could not store the others
        with pytest.raises(InvalidInput, match="group must be"):
            AsyncRemoteStream(url, group=name)
    for seconds in (0.1, float("inf"), float("nan")):
        with pytest.raises(InvalidInput, match="lease must be"):
            AsyncRemoteStream(url, group="g", lease=seconds)
    await async_call(fill, url, range(1))
    async with member(url) as stream:
        event = await stream.next(timeout=20)
        assert event is not None
        with pytest.raises(StreamError, match="position in each partition"):
            _ = stream.resume_token
        with pytest.raises(NotAConsumer, match="store"):
            await stream.checkpoint(event, None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="has not delivered"):
            stream.ack(type(event).from_json(event.to_json()))


async def test_a_member_goes_on_when_the_engine_was_away(private_nats: NatsServer) -> None:
    url = f"{private_nats.url}/ORDERS"
    await async_call(fill, url, range(100))
    async with member(url) as stream:
        found = await drain([stream], 100)
        await async_call(private_nats.kill)
        await async_call(private_nats.start)
        await async_call(fill, url, range(100, 200))
        found += await drain([stream], 100)
        assert sorted(found) == list(range(200))
        assert_in_order(found)
