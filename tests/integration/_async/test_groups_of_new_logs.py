"""Members of a group go on when the engine has forgotten the log, and a relay has written it anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import AsyncRemoteStream, AsyncStore, ConsumerLost, LogRefused, async_drop_log_group
from pgdoc.relay.partitions import partition_of
from pgdoc.runtime.primitives import async_call
from tests.integration._async.relays import fresh_stream
from tests.integration._async.workers import opened
from tests.made_logs import PARTITIONS, append, fill, message_of

if TYPE_CHECKING:
    from tests.redis_server import RedisServer


def write_anew(
    server: RedisServer, name: str, numbers: range, *, with_records: bool = True, partitions: int = PARTITIONS
) -> None:
    """Replace a log in one step by one with these events, as a relay does after the server has forgotten it."""
    other = fresh_stream()
    made = [message_of(number) for number in numbers]
    made = [each._replace(partition=partition_of(each.document_id, partitions)) for each in made]
    append(f"{server.url}/{other}", made, partitions=partitions)
    with server.client() as client:
        keys = [key.decode() for key in client.scan_iter(f"{{{other}}}:*", count=1000)]
        kept = f"{{{name}}}:records".encode() if with_records else None
        together = client.pipeline(transaction=True)
        for key in client.scan_iter(f"{{{name}}}:*", count=1000):
            if key != kept:
                together.delete(key)
        for key in keys:
            together.rename(key, key.replace(other, name))
        together.execute()


async def store_effects(stream: AsyncRemoteStream, store: AsyncStore, until: int) -> list[int]:
    """Return the numbers of the events whose checkpoints were taken, up to one."""
    stored: list[int] = []
    while until not in stored:
        event = await stream.next(timeout=10)
        assert event is not None, stored
        assert event.full_document is not None
        try:
            async with store.transaction() as tx:
                await stream.checkpoint(event, tx)
        except ConsumerLost:
            continue
        stored.append(event.full_document.data["n"])
    return stored


@pytest.mark.parametrize("with_records", [True, False])
async def test_each_event_has_one_effect_though_the_log_is_written_anew(
    shared_dsn: str, schema: str, redis_server: RedisServer, *, with_records: bool
) -> None:
    name = fresh_stream()
    url = f"{redis_server.url}/{name}"
    await async_call(fill, url, range(0, 3000, 100))  # of one document
    async with (
        opened(shared_dsn, schema) as store,
        AsyncRemoteStream(url, group="billing", start="beginning", store=store, lease=2.0) as stream,
    ):
        stored = await store_effects(stream, store, 2900)
        await async_call(lambda: write_anew(redis_server, name, range(2000, 4000, 100), with_records=with_records))
        stored += await store_effects(stream, store, 3900)
    assert stored == list(range(0, 4000, 100))


async def read_on(stream: AsyncRemoteStream) -> set[str | None]:
    """Return the ids of the documents of the events that come, until none comes for a while."""
    found = set()
    while (event := await stream.next(timeout=8)) is not None:
        found.add(event.document_id)
    return found


async def test_a_group_does_not_read_other_partitions_after_the_positions_of_its_own(redis_server: RedisServer) -> None:
    name = fresh_stream()
    url = f"{redis_server.url}/{name}"
    await async_call(fill, url, range(50))
    async with AsyncRemoteStream(url, group="billing", start="beginning") as stream:
        assert len([await stream.next(timeout=10) for _ in range(25)]) == 25  # some partitions, and some not at all
        await async_call(lambda: write_anew(redis_server, name, range(50), partitions=4))
        with pytest.raises(LogRefused, match="was made anew with 4 partitions, and had 8"):
            await read_on(stream)
    with pytest.raises(
        LogRefused, match=r'group "billing" has read this log when that had 8 partitions, and now it has 4'
    ):
        await AsyncRemoteStream(url, group="billing")
    assert await async_drop_log_group(url, "billing")
    async with AsyncRemoteStream(url, group="billing", start="beginning") as stream:
        assert len({(await stream.next(timeout=10)).document_id for _ in range(50)}) == 50  # type: ignore[union-attr]
