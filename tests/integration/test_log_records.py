"""The records beside a log survive what happens between two steps of a call, and what others write among them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nats.js import JetStreamContext

import pgdoc
from pgdoc.relay.engines import open_log_reader, open_records
from pgdoc.relay.targets import LogTarget
from tests.logs import fresh_log
from tests.made_logs import PARTITIONS, fill, message_of

if TYPE_CHECKING:
    from typing import Any

    import pytest

    from tests.engines import NatsServer
    from tests.redis_server import RedisServer


async def _delete_half(url: str) -> None:
    """Delete the records of a group as a process does that is killed before the server has forgotten them."""
    records = open_records(LogTarget.parse(url))
    await records.open()
    try:
        for key, record in (await records.read("billing.")).items():
            assert await records.write(key, b"", record.revision)
    finally:
        await records.close()


def test_a_group_begins_anew_after_a_drop_that_was_killed_in_the_middle(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_log()}"
    fill(url, range(20))
    read_all(url, 20)
    asyncio.run(_delete_half(url))
    assert not pgdoc.drop_log_group(url, "billing")
    read_all(url, 20)


def read_all(url: str, number: int) -> None:
    with pgdoc.RemoteStream(url, group="billing", start="beginning", lease=2.0) as stream:
        for _ in range(number):
            assert stream.next(timeout=10) is not None
        stream.ack()


def test_the_newest_entries_of_all_partitions_are_asked_for_at_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{nats_server.url}/{fresh_log()}"
    fill(url, range(20))
    asked, answered, ask = 0, [], JetStreamContext.get_last_msg

    async def counted(self: JetStreamContext, *names: Any) -> Any:
        nonlocal asked
        asked += 1
        found = await ask(self, *names)
        answered.append(asked)
        return found

    monkeypatch.setattr(JetStreamContext, "get_last_msg", counted)
    newest = asyncio.run(_newest(url))
    assert answered
    assert min(answered) == PARTITIONS + 1  # of the collection's events, too
    partitions = [message_of(number).partition for number in range(20)]
    assert newest == [
        max(at for at, each in enumerate([None, *partitions]) if each in (None, number)) for number in range(PARTITIONS)
    ]


async def _newest(url: str) -> list[int]:
    reader = open_log_reader(LogTarget.parse(url))
    await reader.open()
    try:
        return await reader.newest()
    finally:
        await reader.close()


def test_what_somebody_else_writes_among_the_records_in_redis_is_damaged_and_can_be_dropped(
    redis_server: RedisServer,
) -> None:
    name = fresh_log()
    url = f"{redis_server.url}/{name}"
    fill(url, range(20))
    read_all(url, 20)
    for field in ("billing.p.0", "billing.p.999", "odd name"):
        redis_server.ask("HSET", f"{{{name}}}:records", field, "nonsense")
    (found,) = pgdoc.log_groups(url)
    assert (found.name, found.damaged) == ("billing", ("p.0", "p.999"))
    assert pgdoc.drop_log_group(url, "billing")
    assert pgdoc.log_groups(url) == []
    read_all(url, 20)
