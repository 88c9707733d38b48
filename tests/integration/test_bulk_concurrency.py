"""Bulks with concurrent writers, in threads and tasks, and with more writes than fit in memory."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc.crud.bulk_results import CHUNK_STATEMENTS
from tests.integration.test_find_memory import resident_kib
from tests.integration.test_update_concurrency import (
    DATA,
    FILTERS,
    OTHER,
    PATIENCE_S,
    WORKERS,
    call_while_changed,
    wait_for_waiter,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import BulkCollection, BulkResult

LIMIT_KIB = 32 << 10


def bulk(store: pgdoc.Store, write: Callable[[BulkCollection], None]) -> BulkResult:
    with store.bulk() as b:
        write(b["docs"])
    return b.result


@pytest.mark.parametrize("wanted", FILTERS)
@pytest.mark.parametrize("call", ["update_one", "delete_one"])
def test_update_one_and_delete_one_take_a_document_that_still_matches(
    own_schema: dict[str, Any], call: str, wanted: str
) -> None:
    def write(docs: BulkCollection) -> None:
        if call == "delete_one":
            docs.delete_one(FILTERS[wanted], sort="_id")
        else:
            docs.update_one(FILTERS[wanted], {"$inc": {"n": 10}}, sort="_id")

    with pgdoc.Store(**own_schema, pool_size=4) as store:
        store["docs"].insert_many([("a", DATA), ("b", DATA)])
        result = call_while_changed(store, lambda: bulk(store, write), {"$set": OTHER}, own_schema["conninfo"])
        left = {document.id: document["n"] for document in store["docs"].find()}
    assert result in (pgdoc.BulkResult(changed=1), pgdoc.BulkResult(deleted=1))
    assert left == ({"a": OTHER["n"], "b": 11} if call == "update_one" else {"a": OTHER["n"]})


@pytest.mark.parametrize("upsert", [False, True])
def test_an_update_applies_to_the_document_as_another_writer_left_it(own_schema: dict[str, Any], upsert: bool) -> None:
    with pgdoc.Store(**own_schema, pool_size=4) as store:
        store["docs"].insert("a", DATA)
        call_while_changed(
            store,
            lambda: bulk(store, lambda docs: docs.update("a", {"$inc": {"n": 10}}, upsert=upsert)),
            {"$inc": {"n": 100}},
            own_schema["conninfo"],
        )
        left = store["docs"].get("a")
    assert left is not None
    assert (left["n"], left.version) == (111, 3)


@pytest.mark.parametrize("upsert", [False, True])
def test_a_misfit_is_of_the_document_as_it_is_then(own_schema: dict[str, Any], upsert: bool) -> None:
    with pgdoc.Store(**own_schema, pool_size=4) as store:
        store["docs"].insert("a", DATA)
        with pytest.raises(pgdoc.BulkError, match="the value is 'text'"):
            call_while_changed(
                store,
                lambda: bulk(store, lambda docs: docs.update("a", {"$inc": {"n": 10}}, upsert=upsert)),
                {"$set": {"n": "text"}},
                own_schema["conninfo"],
            )


@pytest.mark.parametrize("call", ["update", "replace", "delete"])
def test_a_version_that_another_made_is_found(own_schema: dict[str, Any], call: str) -> None:
    def write(docs: BulkCollection) -> None:
        if call == "update":
            docs.update("a", {"$inc": {"n": 10}}, if_version=1)
        elif call == "replace":
            docs.replace("a", {}, if_version=1)
        else:
            docs.delete("a", if_version=1)

    with pgdoc.Store(**own_schema, pool_size=4) as store:
        store["docs"].insert("a", DATA)
        with pytest.raises(pgdoc.BulkError) as raised:
            call_while_changed(store, lambda: bulk(store, write), {"$inc": {"n": 1}}, own_schema["conninfo"])
        assert isinstance(raised.value.__cause__, pgdoc.VersionConflict)
        assert raised.value.__cause__.found_version == 2


def test_bulks_in_threads_lose_nothing(own_schema: dict[str, Any]) -> None:
    keys = [f"{n:02}" for n in range(50)]

    def work(store: pgdoc.Store) -> None:
        for _ in range(5):
            with store.bulk() as b:
                for key in keys:  # the same order in all threads, to avoid deadlocks
                    b["counts"].update(key, {"$inc": {"n": 1}}, upsert=True)
                    b["log"].insert(pgdoc.new_id(), {})

    with pgdoc.Store(**own_schema, pool_size=WORKERS) as store:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, [store] * WORKERS))
        assert {document.id: document["n"] for document in store["counts"].find()} == dict.fromkeys(keys, WORKERS * 5)
        assert store["log"].count() == WORKERS * 5 * len(keys)


def test_threads_may_share_a_bulk(own_schema: dict[str, Any]) -> None:
    each = CHUNK_STATEMENTS

    with pgdoc.Store(**own_schema) as store:
        with store.bulk() as b, ThreadPoolExecutor(WORKERS) as pool:

            def work(worker: int) -> None:
                for n in range(each):
                    b["docs"].insert(f"{worker}-{n}", {})

            list(pool.map(work, range(WORKERS)))
        assert b.result.inserted == store["docs"].count() == WORKERS * each


def test_tasks_may_share_a_bulk(own_schema: dict[str, Any]) -> None:
    count = 3 * CHUNK_STATEMENTS + 1

    async def main() -> None:
        async with pgdoc.AsyncStore(**own_schema) as store:
            async with store.bulk() as b:
                await asyncio.gather(*(b["docs"].insert(f"{n}", {}) for n in range(count)))
            assert b.result.inserted == await store["docs"].count() == count

    asyncio.run(main())


def test_a_bulk_that_is_cancelled_while_it_waits_stores_nothing(own_schema: dict[str, Any]) -> None:
    async def send(store: pgdoc.AsyncStore) -> None:
        async with store.bulk() as b:
            await b["docs"].insert("new", {})
            await b["docs"].update("a", {"$inc": {"n": 1}})

    async def main() -> None:
        async with pgdoc.AsyncStore(**own_schema, pool_size=2) as store:
            await store["docs"].insert("a", DATA)
            async with store.transaction() as tx:
                await tx["docs"].update("a", {"$set": {"n": 2}})
                sending = asyncio.create_task(send(store))
                holder = tx.connection.info.backend_pid
                await asyncio.to_thread(wait_for_waiter, own_schema["conninfo"], holder)
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(sending, PATIENCE_S)
            assert await store["docs"].get("new") is None
            await send(store)
            document = await store["docs"].get("a")
            assert document is not None
            assert document["n"] == 3

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_50_000_writes_pass_in_flat_memory(own_schema: dict[str, Any]) -> None:
    count, text = 25_000, "x" * 2_000  # 75 MiB if all were buffered as objects
    with pgdoc.Store(**own_schema) as store:
        with store.bulk() as b:
            b["docs"].insert("first", {"x": text})
            before = resident_kib()
            for n in range(count - 1):
                b["docs"].insert(f"{n}", {"x": text})
                b["docs"].update(f"{n}", {"$set": {"y": n}})
                if n % 5_000 == 0:
                    assert resident_kib() - before < LIMIT_KIB
            b["docs"].delete("first")
        assert b.result == pgdoc.BulkResult(inserted=count, changed=count - 1, deleted=1)
        assert store["docs"].count() == count - 1
