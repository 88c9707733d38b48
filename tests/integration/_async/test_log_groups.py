"""The groups of a log can be seen and dropped, in each engine, with the rows that they leave in a database."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import (
    AsyncRemoteStream,
    AsyncStore,
    AsyncWorker,
    ConsumerBusy,
    DatabaseError,
    GroupStatus,
    InvalidInput,
    LogRefused,
    async_drop_log_group,
    async_log_groups,
)
from pgdoc._async import log_groups as calls
from pgdoc.runtime.primitives import async_call
from tests.integration._async.relays import fresh_stream
from tests.integration._async.workers import count, fresh_name, opened, recorder, running
from tests.integration._async.workers import until as until_true
from tests.made_logs import PARTITIONS, append, delete, fill, message_of, records_of, token_of, write_records

if TYPE_CHECKING:
    import psycopg

    from tests.engines import NatsServer
    from tests.logs import Engine


def member(url: str, **options: Any) -> AsyncRemoteStream:
    return AsyncRemoteStream(url, **{"group": "billing", "start": "beginning", "lease": 2.0, **options})


async def the_group(url: str, **options: Any) -> GroupStatus:
    (group,) = await async_log_groups(url, **options)
    return group


async def read(stream: AsyncRemoteStream, number: int) -> None:
    for _ in range(number):
        assert await stream.next(timeout=20) is not None


_POSITION = b'"sequence":1,"token":"%s","identity":"other"' % token_of(1).encode()
KILLED = {
    "billing.begun": b"{%s}" % _POSITION,
    "billing.p.0": b'{"owner":"a","epoch":1,%s}' % _POSITION,
    "billing.m.a": b'{"beat":7,"lease":0.5,"host":"web1","pid":4711}',
}
"""What a member leaves that was killed."""


async def test_a_group_is_listed_with_its_members_and_where_it_stands(engine: Engine) -> None:
    url = engine.url(fresh_stream())
    await async_call(fill, url, range(50))
    assert await async_log_groups(url) == []
    async with member(url, group="a.b #1") as stream:
        await read(stream, 50)
        stream.ack()
        await until_true(lambda: is_at(url, behind=0))
        found = await the_group(url)
        (shown,) = found.members
        assert (shown.host, shown.pid, shown.lease.total_seconds()) == (socket.gethostname(), os.getpid(), 2.0)
        assert [each.number for each in found.partitions] == list(range(PARTITIONS))
        assert {each.owner for each in found.partitions} == {shown.id}
        assert max(each.sequence or 0 for each in found.partitions) == 50
        assert token_of(49) in {each.token for each in found.partitions}
        assert (found.name, found.rows) == ("a.b #1", None)
    await async_call(fill, url, range(50, 60))
    left = await the_group(url)
    assert left.members == ()
    assert {each.owner for each in left.partitions} == {None}
    assert left.behind == max(each.behind or 0 for each in left.partitions)
    assert 0 < left.behind <= 60
    assert {each.number for each in left.partitions if each.behind} == partitions_of(range(50, 60))


def partitions_of(numbers: range) -> set[int]:
    return {message_of(number).partition for number in numbers}


async def is_at(url: str, *, behind: int) -> bool:
    return (await the_group(url)).behind == behind


async def test_a_group_is_dropped_once_its_members_have_ended_and_then_begins_anew(engine: Engine) -> None:
    url = engine.url(fresh_stream())
    await async_call(fill, url, range(20))
    async with member(url) as stream, member(url, group="other") as other:
        await read(stream, 20)
        await read(other, 20)
        with pytest.raises(ConsumerBusy, match=rf'group "billing" .* \(pid {os.getpid()} on .*\): end their processes'):
            await async_drop_log_group(url, "billing")
    assert await async_drop_log_group(url, "billing")
    assert not await async_drop_log_group(url, "billing")
    assert await async_call(records_of, url, "billing") == []
    assert (await the_group(url)).name == "other"
    async with member(url) as stream:
        await read(stream, 20)


async def test_a_member_that_was_killed_does_not_keep_a_group(engine: Engine) -> None:
    url = engine.url(fresh_stream())
    await async_call(fill, url, range(3))
    await async_call(write_records, url, KILLED)
    found = await the_group(url)
    assert [(each.id, each.host, each.pid) for each in found.members] == [("a", "web1", 4711)]
    assert [each.owner for each in found.partitions] == ["a"] + [None] * (PARTITIONS - 1)
    assert found.behind is None  # the sequence is one of another log
    assert await async_drop_log_group(url, "billing")
    assert await async_log_groups(url) == []


async def test_what_a_group_leaves_in_a_database_is_dropped_with_the_store(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(5))
    async with opened(shared_dsn, schema) as store:
        await store_effects(url, store, 5)
        found = await the_group(url, store=store)
        rows = found.rows
        assert rows == len({message_of(number).partition for number in range(5)})
        assert found.behind == 0
        assert max(each.sequence or 0 for each in found.partitions) == 5
        assert await async_drop_log_group(url, "billing")
        assert await async_log_groups(url) == []
        assert await the_group(url, store=store) == GroupStatus("billing", (), (), None, rows)
        assert await async_drop_log_group(url, "billing", store=store)
        assert await async_log_groups(url, store=store) == []
        assert not await async_drop_log_group(url, "billing", store=store)
        await store_effects(url, store, 5)  # each event once more: none counts as stored


async def store_effects(url: str, store: AsyncStore, number: int) -> None:
    async with member(url, store=store) as stream:
        for _ in range(number):
            event = await stream.next(timeout=20)
            assert event is not None
            async with store.transaction() as tx:
                await stream.checkpoint(event, tx)
        assert await stream.next(timeout=0.2) is None


AHEAD = "SET epoch = epoch + 3600 * 1000000::bigint WHERE"
"""What a machine leaves whose clock was an hour ahead."""


async def test_a_group_begins_anew_after_a_machine_whose_clock_was_ahead_has_claimed_its_partitions(
    shared_dsn: str, schema: str, sql: psycopg.Connection, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    await async_call(fill, url, range(5))
    async with opened(shared_dsn, schema) as store:
        for _ in range(2):
            async with member(url, group=group, store=store) as stream:
                await read(stream, 5)
            assert await async_drop_log_group(url, group)  # the rows stay
            sql.execute(f"UPDATE pgdoc.group_positions {AHEAD} group_name = %s".encode(), [group])


async def test_a_worker_begins_anew_after_a_machine_whose_clock_was_ahead_has_run_its_handlers(
    shared_dsn: str, schema: str, sql: psycopg.Connection, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    async with opened(shared_dsn, schema) as store:
        for number in (5, 10):
            await async_call(fill, url, range(number - 5, number))
            await handle(store, url, group, number)
            assert await async_drop_log_group(url, group)
            sql.execute(f"UPDATE pgdoc.handlers {AHEAD} split_part(consumer, '#', 1) = %s".encode(), [group])


async def test_a_group_is_not_dropped_while_a_transaction_of_a_member_is_open(
    shared_dsn: str, schema: str, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "LOCK_TIMEOUT", "100ms")
    url = f"{nats_server.url}/{fresh_stream()}"
    await async_call(fill, url, range(1))
    async with opened(shared_dsn, schema) as store:
        async with member(url, store=store) as stream:
            event = await stream.next(timeout=20)
            assert event is not None
            tx = await store.transaction().__aenter__()
            await stream.checkpoint(event, tx)
        with pytest.raises(ConsumerBusy, match="a transaction of a member is open"):
            await async_drop_log_group(url, "billing", store=store)
        assert len((await the_group(url, store=store)).partitions) == PARTITIONS
        await tx.__aexit__(None, None, None)
        assert await async_drop_log_group(url, "billing", store=store)


async def handle(store: AsyncStore, url: str, group: str, number: int) -> None:
    """Run a worker until this many events have had their effect."""
    worker = AsyncWorker(store, log=url, start="beginning")
    worker.on("orders", consumer=group, name="record")(recorder())
    async with running(worker):
        await count(store, "effects", number)


async def test_a_group_of_a_worker_is_dropped_with_the_positions_of_its_handlers(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    await async_call(fill, url, range(10))
    async with opened(shared_dsn, schema) as store:
        await handle(store, url, group, 10)
        found = await the_group(url, store=store)
        assert (found.name, found.rows) == (group, PARTITIONS)
        assert await async_drop_log_group(url, group, store=store)
        assert await async_log_groups(url, store=store) == []
        await store["effects"].delete_many({})
        await handle(store, url, group, 10)


async def test_the_groups_of_a_log_that_is_gone_can_be_dropped(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    await async_call(fill, url, range(10))
    async with opened(shared_dsn, schema) as store:
        await handle(store, url, group, 10)
        await async_call(delete, url)
        found = await the_group(url, store=store)
        assert (found.name, found.behind, found.rows) == (group, None, PARTITIONS)
        assert await async_drop_log_group(url, group, store=store)
        with pytest.raises(LogRefused, match="does not exist"):
            await async_log_groups(url, store=store)
        with pytest.raises(LogRefused, match="does not exist"):
            await async_drop_log_group(url, group, store=store)


async def test_a_group_begins_anew_in_a_log_of_this_name_with_the_events_of_another_database(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    await async_call(fill, url, range(10))
    async with opened(shared_dsn, schema) as store:
        await handle(store, url, group, 10)
        await async_call(delete, url)
        await async_call(lambda: append(url, map(message_of, range(10)), system_id=7))
        assert (await the_group(url, store=store)).rows == PARTITIONS
        assert await async_drop_log_group(url, group, store=store)
        await store["effects"].delete_many({})
        await handle(store, url, group, 10)


async def test_groups_are_listed_beside_one_with_damaged_records_which_can_be_dropped(engine: Engine) -> None:
    url = engine.url(fresh_stream())
    await async_call(fill, url, range(3))
    damaged = {"billing.p.0": b"nonsense", "billing.begun": b"7", "billing.p.1": KILLED["billing.p.0"]}
    await async_call(write_records, url, KILLED | damaged)
    async with member(url, group="other") as stream:
        await read(stream, 3)
        stream.ack()
    billing, other = await async_log_groups(url)
    assert (billing.name, billing.damaged, billing.behind) == ("billing", ("begun", "p.0"), None)
    assert [each.id for each in billing.members] == ["a"]
    assert [each.owner for each in billing.partitions] == [None, "a"] + [None] * (PARTITIONS - 2)
    assert [each.sequence for each in billing.partitions] == [None, 1] + [None] * (PARTITIONS - 2)
    assert (other.name, other.damaged, other.behind) == ("other", (), 0)
    with pytest.raises(LogRefused, match=r"the record \S*begun of the group is damaged: drop the group"):
        await member(url).__aenter__()
    assert await async_drop_log_group(url, "billing")
    assert [each.name for each in await async_log_groups(url)] == ["other"]
    async with member(url) as stream:
        await read(stream, 3)


async def test_a_role_needs_rights_on_the_rows_of_groups(
    shared_dsn: str, schema: str, sql: psycopg.Connection, nats_server: NatsServer
) -> None:
    url, role = f"{nats_server.url}/{fresh_stream()}", f"grouped_{schema}"
    await async_call(fill, url, range(1))
    sql.execute(f'CREATE ROLE "{role}" LOGIN'.encode())
    try:
        async with AsyncStore(f"{shared_dsn} user={role}", schema=schema) as store:
            with pytest.raises(DatabaseError, match=r"GRANT SELECT ON pgdoc\.group_positions, pgdoc\.handlers TO"):
                await async_log_groups(url, store=store)
            with pytest.raises(DatabaseError, match=r"GRANT SELECT, DELETE ON pgdoc\.group_positions, pgdoc\.handlers"):
                await async_drop_log_group(url, "billing", store=store)
    finally:
        sql.execute(f'DROP OWNED BY "{role}"'.encode())
        sql.execute(f'DROP ROLE "{role}"'.encode())


async def test_what_is_no_log_of_a_group_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is not a log that can be read"):
        await async_log_groups("kafka://127.0.0.1:1/orders")
    with pytest.raises(InvalidInput, match="group must be"):
        await async_drop_log_group("nats://127.0.0.1:1/ORDERS", "")
    with pytest.raises(TypeError, match="store must be of type"):
        await async_log_groups("nats://127.0.0.1:1/ORDERS", store="shop")  # type: ignore[arg-type]
