"""The connections of a store: after a restart of the server, and when loops over `find` hold many of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from psycopg_pool import ConnectionPool

import pgdoc
from pgdoc import AsyncStore, Store
from pgdoc.errors import PoolExhausted, ServerUnreachable
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from pgdoc.server import LocalServer

WORKERS = 4
MANY = 250
"""More documents than `find` fetches at once, so that an iterator holds a connection."""


def use_all_connections(store: Store) -> None:
    """Make every connection of the pool exist, idle."""
    with contextlib.ExitStack() as stack:
        for _ in range(WORKERS):
            stack.enter_context(store.transaction())


def test_the_first_call_after_a_restart_drops_every_dead_connection(
    rough_server: LocalServer, rough_dsn: str, rough_schema: str
) -> None:
    with Store(rough_dsn, schema=rough_schema, pool_size=WORKERS) as store:
        store["docs"].insert("a", {})
        use_all_connections(store)
        rough_server.restart()
        assert store["docs"].get("a") is not None
        pool = store._connections._pool
        assert pool is not None
        assert pool.get_stats()["returns_bad"] == WORKERS


def test_a_transaction_after_a_restart_begins(rough_server: LocalServer, rough_dsn: str, rough_schema: str) -> None:
    with Store(rough_dsn, schema=rough_schema, pool_size=WORKERS) as store:
        use_all_connections(store)
        rough_server.restart()
        with store.transaction() as tx:
            tx["docs"].insert("a", {})
        assert store["docs"].count() == 1


def test_calls_fail_while_the_server_is_down_and_the_next_one_works(
    rough_server: LocalServer, rough_dsn: str, rough_schema: str
) -> None:
    with Store(rough_dsn, schema=rough_schema, pool_size=WORKERS) as store:
        store["docs"].insert("a", {})
        use_all_connections(store)
        with rough_server.stopped():
            for _ in range(2):
                with pytest.raises(ServerUnreachable):
                    store["docs"].get("a")
        assert store["docs"].get("a") is not None


def test_an_outage_is_logged_once(
    rough_server: LocalServer, rough_dsn: str, rough_schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Store(rough_dsn, schema=rough_schema, pool_size=WORKERS) as store:
        store["docs"].insert("a", {})
        use_all_connections(store)
        with rough_server.stopped():
            for _ in range(2):
                with pytest.raises(ServerUnreachable):
                    store["docs"].get("a")
        wait_until(lambda: store["docs"].get("a") is not None)
    lost, back = [record.getMessage() for record in caplog.records if record.name == "pgdoc.store"]
    assert lost.startswith("no connection to the server: ")
    assert back == "connected to the server again"
    assert not [record for record in caplog.records if record.name == "psycopg.pool" and record.levelno > logging.INFO]


class CountedLock:
    """A lock that counts how many threads have asked for it."""

    def __init__(self) -> None:
        self.asked: list[None] = []
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.asked.append(None)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("is_open", [False, True])
def test_calls_that_wait_for_a_silent_server_share_one_check(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, is_open: bool
) -> None:
    checks: list[None] = []

    def silent() -> None:
        checks.append(None)
        wait_until(lambda: len(lock.asked) == WORKERS)
        raise ServerUnreachable("the server says nothing")

    def call(_: int) -> None:
        with pytest.raises(ServerUnreachable, match="the server says nothing"):
            store.collections()

    with (
        Store(**own_schema, pool_size=1) as store,
        ThreadPoolExecutor(WORKERS) as threads,
        contextlib.ExitStack() as stack,
    ):
        connections, lock = store._connections, CountedLock()
        if is_open:
            monkeypatch.setattr("pgdoc._sync.connections._CHECK_SERVER_AFTER_S", 0.01)
            stack.enter_context(store.transaction())  # keeps the one connection
        monkeypatch.setattr(connections, "_opening", lock)
        monkeypatch.setattr(connections, "_check_server", silent)
        list(threads.map(call, range(WORKERS)))
        assert len(checks) == 1
        lock.asked.clear()
        list(threads.map(call, range(WORKERS)))  # a later call checks again
        assert len(checks) == 2


def test_other_pools_log_as_before(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with Store(dsn) as store:
        store.collections()
        with ConnectionPool("host=/nonexistent", open=False, name="pgdoc", reconnect_timeout=0.0) as pool:
            wait_until(lambda: "error connecting in 'pgdoc'" in caplog.text)
            pool.close()


def test_as_many_loops_as_connections_can_call_the_store(own_schema: dict[str, Any]) -> None:
    everywhere = Barrier(WORKERS)

    def work(number: int) -> int:
        seen = 0
        for document in store["docs"].find():
            if not seen:
                everywhere.wait()
            store["docs"].update(document.id, {"$inc": {f"by_{number}": 1}})
            seen += 1
        return seen

    with Store(**own_schema, pool_size=WORKERS) as store, ThreadPoolExecutor(WORKERS) as threads:
        store["docs"].insert_many((str(n), {}) for n in range(MANY))
        assert list(threads.map(work, range(WORKERS))) == [MANY] * WORKERS
        expected = {f"by_{number}": 1 for number in range(WORKERS)}
        assert all(document.data == expected for document in store["docs"].find())


async def test_as_many_async_loops_as_connections_can_call_the_store(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, pool_size=WORKERS) as store:
        await store["docs"].insert_many([(str(n), {}) for n in range(MANY)])
        begun = 0
        everywhere = asyncio.Event()

        async def work(number: int) -> int:
            nonlocal begun
            seen = 0
            async for document in store["docs"].find():
                if not seen:
                    begun += 1
                    if begun == WORKERS:
                        everywhere.set()
                    await everywhere.wait()
                await store["docs"].update(document.id, {"$inc": {f"by_{number}": 1}})
                seen += 1
            return seen

        assert await asyncio.gather(*map(work, range(WORKERS))) == [MANY] * WORKERS


def test_one_more_loop_is_refused_at_once_and_the_error_names_the_others(own_schema: dict[str, Any]) -> None:
    schema = own_schema["schema"]
    with Store(**own_schema, pool_size=2) as store:
        store["docs"].insert_many((str(n), {}) for n in range(MANY))
        loops = [store["docs"].find(), store["docs"].find()]
        for loop in loops:
            next(loop)
        with pytest.raises(PoolExhausted, match=rf'2 x find on collection "{schema}\.docs"') as caught:
            next(store["docs"].find())
        assert caught.value.holders == (f'find on collection "{schema}.docs"',) * 2
        assert store["docs"].count() == MANY
        assert len(list(store["docs"].find(limit=100))) == 100
        loops.pop().close()
        assert len(list(store["docs"].find())) == MANY
        loops.pop().close()


def test_a_loop_inside_a_transaction_needs_no_further_connection(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema, pool_size=1) as store:
        store["docs"].insert_many((str(n), {}) for n in range(MANY))
        with store.transaction() as tx:
            loops = [tx["docs"].find() for _ in range(3)]
            assert [next(loop).data for loop in loops] == [{}] * 3


def test_an_index_build_with_progress_needs_no_second_connection_for_calls(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc._sync.indexes._POLL_S", 0.0)
    phases: list[str] = []
    with Store(**own_schema, pool_size=1) as store:
        store["docs"].insert_many((str(n), {"n": n}) for n in range(5_000))
        store["docs"].create_index("n", progress=lambda found: phases.append(found.phase))
    assert phases[-1] == "ready"
    assert len(phases) > 1


def test_a_call_that_gets_no_connection_names_the_transactions(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc._sync.connections._CHECK_SERVER_AFTER_S", 0.1)
    monkeypatch.setattr("pgdoc._sync.connections._WAIT_S", 0.1)
    with Store(**own_schema, pool_size=1) as store, store.transaction() as tx:
        tx["docs"].insert("a", {})
        with pytest.raises(PoolExhausted, match=r"1 of them are in transactions.*tx\[name\]") as caught:
            store["docs"].count()
        assert caught.value.holders == ("a transaction",)
        with pytest.raises(PoolExhausted), store.transaction():
            pass
    assert issubclass(PoolExhausted, pgdoc.ServerError)
