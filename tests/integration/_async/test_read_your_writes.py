"""Waiting until a consumer or a stream has processed what was committed."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import AsyncStore
from pgdoc.errors import (
    ConsumerNotFound,
    InvalidInput,
    InvalidResumeToken,
    StreamClosed,
    TransactionClosed,
    WaitTimeout,
)
from pgdoc.runtime.primitives import async_sleep
from tests.background import AsyncBackground
from tests.integration._async.streams import take

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import AsyncChangeStream

_numbers = itertools.count(1)
_EFFECTS = "effects"


@pytest.fixture
def name(shared_dsn: str) -> Iterator[str]:
    """The name of a consumer; all consumers are dropped at the end."""
    yield f"waited_{next(_numbers)}"
    with pgdoc.Store(shared_dsn) as store:
        for status in store.consumers():
            assert store.drop_consumer(status.name)


async def by_event(store: AsyncStore, stream: AsyncChangeStream, seen: set[str]) -> None:
    """Note each event, which the next call acknowledges."""
    del store
    async for event in stream:
        seen.add(str(event.document_id))


async def by_batch(store: AsyncStore, stream: AsyncChangeStream, seen: set[str]) -> None:
    """Note the events of each batch, some time after it was delivered."""
    del store
    async for events in stream.batches(7):
        await async_sleep(0.002)
        seen.update(str(event.document_id) for event in events)


async def exactly_once(store: AsyncStore, stream: AsyncChangeStream, seen: set[str]) -> None:
    """Store the effects of each batch, with its checkpoint; note it before the commit, with which a wait may end."""
    async for events in stream.batches(50):
        async with store.transaction() as tx:
            await tx[_EFFECTS].insert_many((str(event.document_id), {}) for event in events)
            await stream.checkpoint(events[-1], tx)
            seen.update(str(event.document_id) for event in events)


async def slowly(store: AsyncStore, stream: AsyncChangeStream, seen: set[str]) -> None:
    """Note each event, and acknowledge it, some time after it was delivered."""
    del store
    async for event in stream:
        await async_sleep(0.02)
        seen.add(str(event.document_id))
        stream.ack(event)


async def write(store: AsyncStore, prefix: str, pause_s: float, until: threading.Event, committed: set[str]) -> None:
    """Insert documents, and note each that is committed."""
    for number in itertools.count():
        if until.is_set():
            return
        document_id = f"{prefix}-{number}"
        await store["orders"].insert(document_id, {})
        committed.add(document_id)
        await async_sleep(pause_s)


async def effects(store: AsyncStore) -> set[str]:
    return {document.id async for document in store[_EFFECTS].find()}


async def until_shared(stream: AsyncChangeStream) -> None:
    """Wait until the hub feeds the stream of a consumer."""
    for _ in range(2000):
        if stream._consumer._share.is_feeding:  # type: ignore[union-attr]
            return
        await async_sleep(0.01)
    raise AssertionError(stream.stats())


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("handle", [by_event, by_batch, exactly_once, slowly])
async def test_after_waiting_everything_committed_before_is_processed(
    shared_dsn: str,
    schema: str,
    name: str,
    handle: Any,
    is_shared: bool,
) -> None:
    seen: set[str] = set()
    committed: set[str] = set()
    done = threading.Event()
    async with AsyncStore(shared_dsn, schema=schema) as store, AsyncStore(shared_dsn, schema=schema) as other:
        await store.create_collection(_EFFECTS)
        is_slow = handle is slowly
        pause_s = 0.1 if is_slow else 0.005
        async with store["orders"].watch(consumer=name, auto_ack=not is_slow) as stream:
            second = await store["others"].watch(consumer=f"{name}_b") if is_shared else None
            async with (
                AsyncBackground(handle, store, stream, seen),
                AsyncBackground(write, other, "a", pause_s, done, committed),
                AsyncBackground(write, other, "b", pause_s, done, committed),
            ):
                try:
                    if is_shared:
                        await until_shared(stream)
                    for _ in range(5):
                        async with other.transaction() as tx:
                            await tx["orders"].insert(pgdoc.new_id(), {})
                            mine = pgdoc.new_id()
                            await tx["orders"].insert(mine, {})
                        before = committed | {mine}
                        await other.wait_for(name, await tx.lsn())
                        assert before <= seen
                        if handle is exactly_once:
                            assert before <= await effects(other)
                        before = committed.copy()
                        await stream.wait_for(await other.now())
                        assert before <= seen
                finally:
                    done.set()
                    await stream.close()
                    if second is not None:
                        await second.close()


async def test_a_consumer_at_rest_is_found_to_have_passed(shared_dsn: str, schema: str, name: str) -> None:
    """Its collections do not change, so it has nothing to acknowledge."""
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch(consumer=name) as stream:
        assert await stream.try_next() is None
        for _ in range(3):
            await store["others"].insert(pgdoc.new_id(), {})
            await store.wait_for(name)
            await stream.wait_for()


async def test_a_stream_without_a_consumer_is_waited_for(shared_dsn: str, schema: str) -> None:
    seen: set[str] = set()
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch() as stream,
        AsyncBackground(by_batch, store, stream, seen),
    ):
        try:
            for number in range(20):
                await store["orders"].insert(str(number), {})
                await stream.wait_for()
                assert str(number) in seen
                await store["others"].insert(str(number), {})
                await stream.wait_for(str(await store.now()))
        finally:
            await stream.close()


async def test_a_snapshot_is_waited_for(shared_dsn: str, schema: str, name: str) -> None:
    seen: set[str] = set()
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["orders"].insert_many((str(number), {}) for number in range(3000))
        async with store["orders"].watch(consumer=name, snapshot=True) as stream:
            with pytest.raises(WaitTimeout):
                await store.wait_for(name, timeout=0)
            async with AsyncBackground(by_event, store, stream, seen):
                try:
                    await store.wait_for(name)
                    assert len(seen) == 3000
                finally:
                    await stream.close()


async def test_an_event_that_is_being_processed_is_not_passed(shared_dsn: str, schema: str, name: str) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch(consumer=name) as durable,
        store["orders"].watch() as stream,
    ):
        await store["orders"].insert("1", {})
        await store["orders"].insert("2", {})
        lsn = await store.now()
        for each in (durable, stream):
            _, event = await take(each, 2)
            assert event.document_id == "2"
            with pytest.raises(WaitTimeout, match="its reader has not asked for the next event"):
                await each.wait_for(lsn, timeout=0.1)
            await each.wait_for(event.resume_token.lsn)
        with pytest.raises(WaitTimeout, match=r"the session with pid \d+ has it open") as caught:
            await store.wait_for(name, lsn, timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.owner_pid == (await store.consumers())[0].owner_pid
        await store.wait_for(name, event.resume_token.lsn)
        for each in (durable, stream):
            assert await each.try_next() is None
            await each.wait_for(lsn)
        await store.wait_for(name, lsn)


async def test_a_batch_is_passed_as_a_whole(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["orders"].insert("0", {})
        await take(stream)
        async with store.bulk() as bulk:
            await bulk["orders"].insert("1", {})
        lsn = await store.now()
        await store["orders"].insert("2", {})
        while stream.stats().buffered < 2:
            await async_sleep(0.01)
        assert len(await stream.next_batch()) == 2
        with pytest.raises(WaitTimeout):
            await stream.wait_for(lsn, timeout=0.1)
        assert await stream.try_next() is None
        await stream.wait_for(lsn)


async def test_the_error_says_that_nobody_has_the_consumer_open(shared_dsn: str, schema: str, name: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=name) as stream:
            assert await stream.try_next() is None
        await store["orders"].insert("1", {})
        with pytest.raises(WaitTimeout, match="nobody has it open") as caught:
            await store.wait_for(name, timeout=0.05)
        assert caught.value.owner_pid is None
        assert pgdoc.Lsn.parse(caught.value.reached) < await store.now()


async def test_a_wait_goes_on_when_the_consumer_is_opened_later(shared_dsn: str, schema: str, name: str) -> None:
    seen: set[str] = set()
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch(consumer=name):
            pass
        await store["orders"].insert("1", {})
        async with AsyncBackground(store.wait_for, name):
            await async_sleep(0.1)
            stream = await store["orders"].watch(consumer=name)
            reading = AsyncBackground(by_event, store, stream, seen)
            await reading.__aenter__()
        assert seen == {"1"}
        await stream.close()
        await reading.__aexit__(None, None, None)


async def test_what_can_not_be_waited_for_is_refused_at_once(shared_dsn: str, schema: str, name: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        with pytest.raises(ConsumerNotFound, match=f'consumer "{name}" does not exist'):
            await store.wait_for(name)
        async with store["orders"].watch(consumer=name) as stream:
            beyond = pgdoc.Lsn(await store.now() + (1 << 40))
            for wait in (lambda lsn: store.wait_for(name, lsn), stream.wait_for):
                with pytest.raises(InvalidResumeToken, match="beyond the end of this server's WAL"):
                    await wait(beyond)
                with pytest.raises(InvalidInput, match="lsn must be an LSN"):
                    await wait("nothing")
            with pytest.raises(InvalidInput, match="timeout must be a number"):
                await store.wait_for(name, timeout="1")  # type: ignore[arg-type]
        await store["orders"].insert("1", {})
        with pytest.raises(StreamClosed):
            await stream.wait_for()


async def test_a_standby_of_a_consumer_says_so(shared_dsn: str, schema: str, name: str) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        AsyncStore(shared_dsn, schema=schema) as other,
        store["orders"].watch(consumer=name),
        other["orders"].watch(consumer=name) as standby,
    ):
        with pytest.raises(WaitTimeout, match="it is a standby"):
            await standby.wait_for(timeout=0.01)


async def test_a_transaction_has_an_lsn_once_it_has_committed(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        async with store.transaction() as tx:
            await tx["orders"].insert("0", {})
            with pytest.raises(TransactionClosed, match="has not committed"):
                await tx.lsn()
            raise psycopg.Rollback
        with pytest.raises(TransactionClosed, match="has not committed"):
            await tx.lsn()
        async with store.transaction() as tx:
            await tx["orders"].insert("1", {})
        lsn = await tx.lsn()
        (event,) = await take(stream)
        assert event.resume_token.lsn < lsn <= await store.now()
        await store["orders"].insert("2", {})
        assert await tx.lsn() == lsn
