"""Upserts by filter at the same time: none is lost, and none inserts twice where an id or a unique index forbids it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from tests.integration.test_update_concurrency import PATIENCE_S, wait_for_waiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import Collection

WORKERS = 8
ROUNDS = 25

FILTERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "an id": lambda number: {"_id": f"k-{number}"},
    "a unique index": lambda number: {"key": number},
}


@pytest.mark.parametrize("by", FILTERS)
@pytest.mark.parametrize("in_transaction", [False, True])
def test_no_upsert_is_lost_or_inserted_twice(own_schema: dict[str, Any], by: str, in_transaction: bool) -> None:
    with pgdoc.Store(**own_schema, pool_size=WORKERS) as store:
        store.create_collection("docs")
        store["docs"].create_index("key", unique=True)

        def upsert(docs: Collection, number: int) -> None:
            change = {"$inc": {"n": 1}, "$set": {"key": number}}
            assert docs.update_one(FILTERS[by](number), change, upsert=True) is not None

        def work(_worker: int) -> None:
            for number in range(ROUNDS):
                if in_transaction:
                    with store.transaction() as tx:
                        upsert(tx["docs"], number)
                else:
                    upsert(store["docs"], number)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, range(WORKERS)))
        assert [document["n"] for document in store["docs"].find()] == [WORKERS] * ROUNDS


@pytest.mark.parametrize("by", FILTERS)
def test_an_upsert_that_waited_for_another_insert_updates_its_document(own_schema: dict[str, Any], by: str) -> None:
    with pgdoc.Store(**own_schema, pool_size=4) as store:
        store.create_collection("docs")
        store["docs"].create_index("key", unique=True)
        wanted, change = FILTERS[by](1), {"$inc": {"n": 1}, "$set": {"key": 1}}
        with ThreadPoolExecutor(1) as pool:
            with store.transaction() as tx:
                tx["docs"].update_one(wanted, change, upsert=True)
                waiting = pool.submit(store["docs"].update_one, wanted, change, upsert=True)
                wait_for_waiter(own_schema["conninfo"], tx.connection.info.backend_pid)
            document = waiting.result(PATIENCE_S)
        assert document is not None
        assert document["n"] == 2
        assert store["docs"].count() == 1


def test_without_a_unique_index_upserts_by_other_fields_may_each_insert(own_schema: dict[str, Any]) -> None:
    with pgdoc.Store(**own_schema, pool_size=4) as store:
        store.create_collection("docs")
        with store.transaction() as tx:
            tx["docs"].update_one({"key": 1}, {"$inc": {"n": 1}}, upsert=True)
            store["docs"].update_one({"key": 1}, {"$inc": {"n": 1}}, upsert=True)
        assert [document.data for document in store["docs"].find()] == [{"key": 1, "n": 1}] * 2
