"""Threads and tasks of one store, and separate stores, that work at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import pytest

import pgdoc
from pgdoc import AsyncStore, Document
from pgdoc._async.stream_backend import AsyncStreamBackend
from pgdoc.errors import DuplicateDocument, ServerUnreachable, StreamClosed, VersionConflict
from tests.integration.wal import recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.server import LocalServer

T = TypeVar("T")

WRITERS = 8
ROUNDS = 40


def at_once(write: Callable[[int], T]) -> list[T]:
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(write, range(WRITERS)))


@pytest.mark.parametrize("upsert", [False, True])
@pytest.mark.parametrize("pool_size", [1, 4])
def test_no_increment_is_lost(own_schema: dict[str, Any], upsert: bool, pool_size: int) -> None:
    with pgdoc.Store(**own_schema, pool_size=pool_size) as store:
        counters = store["counters"]
        if not upsert:
            counters.insert("c", {"n": 0})

        def count(writer: int) -> None:
            for _ in range(ROUNDS):
                counters.update("c", {"$inc": {"n": 1, f"by.{writer}": 1}}, upsert=upsert)

        at_once(count)
        counter = counters.get("c")
    assert counter is not None
    assert counter.data["n"] == WRITERS * ROUNDS
    assert counter.version == WRITERS * ROUNDS + (not upsert)
    assert set(counter.data["by"].values()) == {ROUNDS}


def test_metadata_precedes_its_change_even_after_waiting_for_another_writer(own_schema: dict[str, Any]) -> None:
    with pgdoc.Store(**own_schema) as store:
        store["counters"].insert("c", {"n": 0})
        with recorded(own_schema["conninfo"]) as changes:

            def count(writer: int) -> None:
                with pgdoc.metadata(writer=writer):
                    for _ in range(ROUNDS):
                        store["counters"].update("c", {"$inc": {"n": 1}})

            at_once(count)
            seen = changes()
        counter = store["counters"].get("c")
    assert counter is not None
    assert counter.data == {"n": WRITERS * ROUNDS}
    transactions = list(zip(seen[::3], seen[1::3], seen[2::3], strict=True))
    assert {entry[1:] for entry in transactions} == {("update", "end")}
    for writer in range(WRITERS):
        assert sum(metadata == {"writer": writer} for metadata, *_ in transactions) == ROUNDS


def test_one_of_many_inserts_of_an_id_wins(own_schema: dict[str, Any]) -> None:
    with pgdoc.Store(**own_schema) as store:

        def insert(writer: int) -> bool:
            try:
                store["orders"].insert("o-1", {"writer": writer})
            except DuplicateDocument:
                return False
            return True

        assert at_once(insert).count(True) == 1


def test_one_of_many_changes_of_a_version_wins(own_schema: dict[str, Any]) -> None:
    with pgdoc.Store(**own_schema) as store:
        store["orders"].insert("o-1", {})

        def change(writer: int) -> Any:
            try:
                store["orders"].update("o-1", {"$set": {"writer": writer}}, if_version=1)
            except VersionConflict as conflict:
                return conflict.found_version
            return 1

        assert sorted(at_once(change)) == [1] + [2] * (WRITERS - 1)


def test_a_transaction_copies_from_itself(own_schema: dict[str, Any]) -> None:
    with pgdoc.Store(**own_schema) as store:
        store["orders"].insert_many((f"o-{n}", {"text": "x" * 1000}) for n in range(1000))
        with store.transaction() as tx:
            assert tx["archive"].insert_many((d.id, d.data) for d in tx["orders"].find()) == 1000
            with pytest.raises(DuplicateDocument):
                tx["archive"].insert_many((d.id, d.data) for d in tx["orders"].find())
            assert tx["archive"].count() == 1000
        assert store["archive"].count() == 1000


async def test_a_failing_insert_many_undoes_no_other_task_of_its_transaction(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("last", {})
        many = [(f"o-{n}", {"text": "x" * 1000}) for n in range(1000)]
        async with store.transaction() as tx:
            failed, *inserted = await asyncio.gather(
                tx["orders"].insert_many([*many, ("last", {})]),
                *(tx["others"].insert(str(n), {}) for n in range(3)),
                return_exceptions=True,
            )
        assert isinstance(failed, DuplicateDocument)
        assert [document.id for document in inserted if isinstance(document, Document)] == ["0", "1", "2"]
        assert await store["others"].count() == 3


async def test_every_call_of_a_transaction_takes_its_turn(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"n": 1})
        stream = await store["orders"].watch(consumer="turns")
        await store["orders"].insert("o-2", {"n": 1})
        event = await anext(stream)
        async with store.transaction() as tx:
            session, orders, connection = tx._session, tx["orders"], tx.connection
            wait, waits = connection.wait, []

            async def watched(*args: Any, **kwargs: Any) -> Any:
                waits.append(session._turn.locked())
                return await wait(*args, **kwargs)

            vars(connection)["wait"] = watched
            await orders.insert_many([("o-3", {})])
            await orders.create_index("n")
            await orders.set_limits(max_size=10_000)
            await orders.drop_index((await orders.indexes())[0].name)
            await stream.checkpoint(event, tx)
            await orders.update("o-1", {"$inc": {"n": 1}})
            assert [document.id async for document in orders.find(sort="_id")] == ["o-1", "o-2", "o-3"]
            vars(connection).pop("wait")
        await stream.close()
        assert waits.count(True) > 20
        assert waits.count(False) == 0
        assert await store.drop_consumer("turns")


def test_stores_that_create_a_collection_at_once_agree(own_schema: dict[str, Any]) -> None:
    def insert(writer: int) -> None:
        with pgdoc.Store(**own_schema) as store:
            if writer % 2:
                store["orders"].insert(f"o-{writer}", {})
            else:
                with store.transaction() as tx:
                    tx["orders"].insert(f"o-{writer}", {})

    at_once(insert)
    with pgdoc.Store(**own_schema) as store:
        assert store["orders"].count() == WRITERS


def test_a_store_reconnects_after_the_server_restarts(private_server: LocalServer, private_dsn: str) -> None:
    with pgdoc.Store(private_dsn) as store:
        store["orders"].insert("o-1", {})
        private_server.restart()
        assert store["orders"].count() == 1


def test_a_connection_lost_during_a_call_raises_server_unreachable(own_schema: dict[str, Any]) -> None:
    with pgdoc.Store(**own_schema) as store:
        store["orders"].insert("o-1", {})

        def in_the_block() -> None:
            with store.transaction() as tx:
                pid = tx.connection.info.backend_pid
                with psycopg.connect(own_schema["conninfo"], autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
                tx["orders"].insert("o-2", {})

        with pytest.raises(ServerUnreachable):
            in_the_block()
        assert store["orders"].count() == 1


async def test_tasks_may_share_a_transaction_in_which_a_unique_index_refuses_documents(
    own_schema: dict[str, Any],
) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert_many([(f"o-{n}", {"n": n}) for n in range(250)])
        await orders.create_index("n", unique=True)
        async with store.transaction() as tx:

            async def insert(name: str, n: int) -> str:
                try:
                    return (await tx["orders"].insert(name, {"n": n})).id
                except DuplicateDocument:
                    return "refused"

            async def count() -> str:
                return str(len([document async for document in tx["orders"].find({"_id": {"$lt": "p"}})]))

            found = await asyncio.gather(
                insert("p-1", 1), insert("p-2", 300), count(), insert("p-3", 2), insert("p-4", 301)
            )
            assert list(found) == ["refused", "p-2", "250", "refused", "p-4"]
        assert await orders.count() == 252


@pytest.mark.parametrize("way", ["now", "after", "consumer"])
async def test_a_stream_that_another_task_closes_while_it_opens_leaves_nothing(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    real = AsyncStreamBackend.prepare_start

    async def close_first(backend: AsyncStreamBackend, *args: Any) -> None:
        await real(backend, *args)
        await stream.close()

    async with AsyncStore(**own_schema) as store:
        async with store["orders"].watch() as other:
            options: dict[str, Any] = {"now": {}, "after": {"resume_after": other.resume_token}}.get(
                way, {"consumer": way}
            )
            monkeypatch.setattr(AsyncStreamBackend, "prepare_start", close_first)
            stream = store["orders"].watch(**options)
            if way == "consumer":
                with pytest.raises(StreamClosed):
                    await stream
            else:
                assert (await stream).closed
            assert len(other._backend.hub.subscriptions._open) == 1
        if way == "consumer":
            await store.drop_consumer(way)
