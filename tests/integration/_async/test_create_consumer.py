"""Consumers that are created before anything opens them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc import AsyncStore
from pgdoc.errors import (
    CollectionNotFound,
    ConsumerLost,
    InvalidFilter,
    InvalidName,
    InvalidResumeToken,
    PgdocError,
    ReplicaIdentityChanged,
    TableRefused,
)
from tests.integration._async.streams import brief, take

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_numbers = itertools.count(1)


@pytest.fixture
def name(shared_dsn: str) -> Iterator[str]:
    """The name of a consumer; all consumers are dropped at the end."""
    yield f"declared_{next(_numbers)}"
    with pgdoc.Store(shared_dsn) as store:
        for status in store.consumers():
            assert store.drop_consumer(status.name)


async def test_it_misses_nothing_that_is_committed_after_the_call(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        sql.execute("SET synchronous_commit = off")
        sql.execute("INSERT INTO orders (id, data) VALUES ('before', '{}')")
        assert await store.create_consumer(name, "orders")
        sql.execute("INSERT INTO orders (id, data) VALUES ('after', '{}')")
        assert not await store.create_consumer(name, "orders")
        (status,) = await store.consumers()
        assert (status.name, status.schema, status.owner_pid) == (name, schema, None)
        async with store["orders"].watch(consumer=name) as stream:
            assert brief(await take(stream)) == [("insert", "orders", "after")]


async def test_a_process_that_has_it_open_is_not_disturbed(shared_dsn: str, schema: str, name: str) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        AsyncStore(shared_dsn, schema=schema) as deploy,
        store["orders"].watch(consumer=name, auto_ack=False) as stream,
    ):
        await store["orders"].insert("1", {})
        assert brief(await take(stream)) == [("insert", "orders", "1")]
        (before,) = await store.consumers()
        assert not await deploy.create_consumer(name, "orders")
        await store["orders"].insert("2", {})
        (two,) = await take(stream)
        async with store.transaction() as tx:
            await stream.checkpoint(two, tx)
        (after,) = await store.consumers()
        assert before.owner_pid is not None
        assert (after.owner_pid, after.place > before.place) == (before.owner_pid, True)


async def test_it_creates_collections_and_reads_what_it_is_opened_with(shared_dsn: str, schema: str, name: str) -> None:
    where = {"event_type": "insert"}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        assert await store.create_consumer(name, "orders", "bills", where=where)
        assert await store.collections() == ["bills", "orders"]
        await store["bills"].insert("b", {})
        await store["orders"].insert("o", {})
        await store["orders"].delete("o")
        async with store.watch("orders", "bills", where=where, consumer=name) as stream:
            assert brief(await take(stream, 2)) == [("insert", "bills", "b"), ("insert", "orders", "o")]


async def test_it_begins_with_a_snapshot_when_it_is_opened(shared_dsn: str, schema: str, name: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["orders"].insert("1", {})
        assert await store.create_consumer(name, "orders", snapshot=True)
        await store["orders"].insert("2", {})
        assert not await store.create_consumer(name, "orders", snapshot=True)
        with pytest.raises(InvalidResumeToken, match=f'consumer "{name}" has not finished its snapshot: open it'):
            await store.create_consumer(name, "orders")
        async with store["orders"].watch(consumer=name) as stream:
            with pytest.raises(InvalidResumeToken, match="has not finished its snapshot"):
                await stream.next(timeout=20)
        async with store["orders"].watch(consumer=name, snapshot=True, auto_ack=False) as stream:
            one = await stream.next(timeout=20)
            assert one is not None
            stream.ack(one)
        with pytest.raises(InvalidResumeToken, match="inside the snapshot of other collections"):
            await store.create_consumer(name, "orders", "bills", snapshot=True)
        async with store["orders"].watch(consumer=name, snapshot=True) as stream:
            assert {one.document_id, *(event.document_id for event in await take(stream))} == {"1", "2"}
            await store["orders"].insert("3", {})
            assert brief(await take(stream)) == [("insert", "orders", "3")]
        assert not await store.create_consumer(name, "orders")


REFUSED: list[tuple[list[Any], dict[str, Any], type[Exception], str]] = [
    (["nowhere"], {}, CollectionNotFound, r'collection ".+\.nowhere" does not exist: create it'),
    (["public.nowhere"], {}, TableRefused, r'"public\.nowhere"'),
    (["no name"], {}, InvalidName, "is not a valid collection name"),
    ([5], {}, InvalidName, "5 is not a valid collection name"),
    (["orders"], {"where": {"nonsense": 1}}, InvalidFilter, "nonsense"),
    (["orders"], {"where": [1]}, InvalidFilter, r"\[1\]"),
    (["orders"], {"tables": True}, ValueError, "leave out the names, or tables"),
    (["plain"], {}, ReplicaIdentityChanged, "is not REPLICA IDENTITY FULL"),
]


async def test_it_refuses_what_watch_refuses(shared_dsn: str, schema: str, sql: psycopg.Connection, name: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema, auto_create=False) as store:
        await store.create_collection("orders")
        await store.create_collection("plain")
        with sql.transaction():
            sql.execute("SET LOCAL session_replication_role = replica")  # the event trigger refuses it
            sql.execute("ALTER TABLE plain REPLICA IDENTITY DEFAULT")
        for names, options, error, match in REFUSED:
            with pytest.raises(error, match=match) as refused:
                await store.create_consumer(name, *names, **options)
            with pytest.raises(error) as watched:
                await store.watch(*names, **options, consumer=name)
            assert str(refused.value) == str(watched.value)
        assert await store.consumers() == []


@pytest.mark.parametrize("wrong", ["Billing", "", "a" * 41, "a-b", None, 7])
async def test_a_name_that_is_not_valid_is_refused(shared_dsn: str, wrong: Any) -> None:
    async with AsyncStore(shared_dsn) as store:
        with pytest.raises(InvalidName, match="is not a valid consumer name"):
            await store.create_consumer(wrong)


async def test_a_consumer_of_another_schema_is_not_it(shared_dsn: str, schema: str, name: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, AsyncStore(shared_dsn, schema="other") as other:
        assert await store.create_consumer(name)
        with pytest.raises(ConsumerLost, match=f'consumer "{name}" reads the schema "{schema}", not "other"'):
            await other.create_consumer(name)


async def test_a_closed_store_creates_nothing(shared_dsn: str, name: str) -> None:
    store = AsyncStore(shared_dsn)
    await store.close()
    with pytest.raises(PgdocError, match="the store is closed"):
        await store.create_consumer(name)
