"""Calls on documents that other writers change at the same time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import Collection

WORKERS = 8
PATIENCE_S = 30


@pytest.mark.parametrize(("jobs", "skip_locked"), [(1000, True), (100, False)])
def test_each_job_is_claimed_once(own_schema: dict[str, Any], jobs: int, skip_locked: bool) -> None:
    claims: list[str] = []
    with pgdoc.Store(**own_schema, pool_size=WORKERS) as store:
        store["jobs"].insert_many((f"{n:04}", {"state": "new", "tags": ["x"]}) for n in range(jobs))

        def work(worker: int) -> None:
            claim: dict[str, Any] = {"$set": {"state": "taken", "by": worker}, "$inc": {"tries": 1}}
            wanted: dict[str, Any] = {"state": "new"} if skip_locked else {"state": "new", "tags.0": "x"}
            while job := store["jobs"].update_one(wanted, claim, sort="_id", skip_locked=skip_locked):
                assert job["by"] == worker
                claims.append(job.id)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, range(WORKERS)))
        while store["jobs"].update_one({"state": "new"}, {"$set": {"state": "late"}}):
            claims.append("late")  # skip_locked may skip jobs that another worker is claiming
        assert sorted(claims) == [f"{n:04}" for n in range(jobs)]
        assert store["jobs"].count({"tries": 1, "state": "taken"}) == jobs


CALLS: dict[str, Callable[[Collection, dict[str, Any]], Any]] = {
    "update_many": lambda docs, wanted: docs.update_many(wanted, {"$inc": {"n": 10}}),
    "update_one": lambda docs, wanted: docs.update_one(wanted, {"$inc": {"n": 10}}, sort="_id"),
    "delete_many": lambda docs, wanted: docs.delete_many(wanted),
    "delete_one": lambda docs, wanted: docs.delete_one(wanted, sort="_id"),
}

FILTERS: dict[str, dict[str, Any]] = {
    "scalar": {"state": "new"},
    "range": {"n": {"$lt": 5}},
    "in an array": {"tags": {"$in": ["x", 7]}},
    "at an index": {"tags.0": "x"},
    "an object": {"deep": {"a": [1]}},
    "not": {"state": {"$ne": "old"}},
    "an element": {"tags": {"$elemMatch": {"$eq": "x"}}},
    "a pattern": {"state": {"$regex": "^n"}},
}

DATA = {"state": "new", "n": 1, "tags": ["x"], "deep": {"a": [1]}}
OTHER = {"state": "old", "n": 50, "tags": ["y"], "deep": {"a": [2]}}


def call_while_changed(store: pgdoc.Store, call: Callable[[], Any], change: dict[str, Any], conninfo: str) -> Any:
    """Make a call while another transaction has changed document `a`; commit that once the call waits for it."""
    with ThreadPoolExecutor(1) as pool:
        with store.transaction() as tx:
            tx["docs"].update("a", change)
            result = pool.submit(call)
            wait_for_waiter(conninfo, tx.connection.info.backend_pid)
        return result.result(PATIENCE_S)


def wait_for_waiter(conninfo: str, holder: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    query = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while not connection.execute(query, [holder]).fetchall():
            assert time.monotonic() < deadline, "no session waits for the lock"
            time.sleep(0.01)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wanted", FILTERS)
def test_a_document_that_no_longer_matches_is_left_alone(own_schema: dict[str, Any], call: str, wanted: str) -> None:
    with pgdoc.Store(**own_schema, pool_size=4) as store:
        docs = store["docs"]
        docs.insert("a", DATA)
        docs.insert("b", DATA)
        conninfo, chosen = own_schema["conninfo"], FILTERS[wanted]
        result = call_while_changed(store, lambda: CALLS[call](docs, chosen), {"$set": OTHER}, conninfo)
        left, changed = docs.get("a"), docs.get("b")
    assert left is not None
    assert left.data == OTHER
    assert (changed is None) if "delete" in call else (changed is not None and changed["n"] == 11)
    assert getattr(result, "id", result) == (1 if "many" in call else "b")


@pytest.mark.parametrize("call", ["update_many", "update_one"])
def test_an_update_applies_to_a_matching_document_as_another_writer_left_it(
    own_schema: dict[str, Any], call: str
) -> None:
    with pgdoc.Store(**own_schema, pool_size=4) as store:
        docs = store["docs"]
        docs.insert("a", DATA)
        conninfo, wanted = own_schema["conninfo"], {"state": "new"}
        call_while_changed(store, lambda: CALLS[call](docs, wanted), {"$inc": {"n": 100}}, conninfo)
        left = docs.get("a")
    assert left is not None
    assert (left["n"], left.version) == (111, 3)


def test_skip_locked_skips_locked_documents(own_schema: dict[str, Any]) -> None:
    impatient = make_conninfo(own_schema["conninfo"], options="-c lock_timeout=10s")
    with pgdoc.Store(**{**own_schema, "conninfo": impatient}, pool_size=4) as store:
        docs = store["docs"]
        docs.insert("a", DATA)
        docs.insert("b", DATA)
        with store.transaction() as tx:
            tx["docs"].update("a", {"$set": {"n": 2}})
            for expected in ("b", None):
                claimed = docs.update_one({"state": "new"}, {"$set": {"state": "old"}}, sort="_id", skip_locked=True)
                assert (claimed and claimed.id) == expected


def test_writers_of_many_documents_do_not_deadlock(own_schema: dict[str, Any]) -> None:
    rounds, documents = 10, 60
    with pgdoc.Store(**own_schema, pool_size=WORKERS) as store:
        docs = store["docs"]
        docs.insert_many((f"{n:03}", {"n": 0, "down": documents - n}) for n in reversed(range(documents)))
        with store.transaction() as tx:
            tx.connection.execute(f"CREATE INDEX ON \"{own_schema['schema']}\".docs (((data -> 'down')::integer))")

        def count(worker: int) -> int:
            filters: list[dict[str, Any]] = [{"down": {"$gt": 0}}, {}, {"_id": {"$gte": "000"}}, {"n": {"$gte": 0}}]
            return sum(docs.update_many(filters[worker % 4], {"$inc": {"n": 1}}) for _ in range(rounds))

        with ThreadPoolExecutor(WORKERS) as pool:
            assert sum(pool.map(count, range(WORKERS))) == WORKERS * rounds * documents
        assert docs.count({"n": WORKERS * rounds}) == documents
