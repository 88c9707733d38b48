"""What a store makes of PgBouncer's modes and settings, and whether it finds out where its connections lead."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import AsyncStore, Store
from pgdoc.errors import DirectRouteNeeded, UnsupportedServer
from tests.fixtures.fix_pgbouncer import running_pgbouncer
from tests.mixed_calls import async_call, call, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server

THREADS, CALLS = 8, 60
FEWER_SESSIONS = "default_pool_size = 3\nserver_round_robin = 1\n"
IGNORES = "ignore_startup_parameters = options\n"


@pytest.fixture
def ignoring_dsn(server: Server, dsn: str) -> Iterator[str]:
    """Through a PgBouncer that drops the startup options without a word."""
    with running_pgbouncer(server, dsn, FEWER_SESSIONS + IGNORES) as found:
        yield found


@pytest.mark.parametrize("ignores", ["", IGNORES], ids=["refuses options", "ignores options"])
@pytest.mark.parametrize("names_direct_route", [True, False], ids=["both", "conninfo only"])
def test_every_kind_of_call_works_in_more_threads_than_the_pooler_has_sessions(
    server: Server, dsn: str, names_direct_route: bool, ignores: str
) -> None:
    direct = dsn if names_direct_route else None
    with (
        running_pgbouncer(server, dsn, FEWER_SESSIONS + ignores) as pooled,
        Store(pooled, replication_conninfo=direct, pool_size=THREADS) as store,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        prepare(store)
        calls = [(who, number) for number in range(CALLS) for who in range(THREADS)]
        for done in [threads.submit(call, store, *each) for each in calls]:
            done.result()


async def test_every_kind_of_call_works_in_more_tasks_than_the_pooler_has_sessions(dsn: str, ignoring_dsn: str) -> None:
    with Store(dsn) as sync_store:
        prepare(sync_store)
    async with AsyncStore(ignoring_dsn, pool_size=THREADS) as store:

        async def work(who: int) -> None:
            for number in range(CALLS):
                await async_call(store, who, number)

        await asyncio.gather(*(work(who) for who in range(THREADS)))


def prepares(store: Store) -> bool:
    for _ in range(10):
        store["docs"].count()
    with store._connections.connection() as connection:
        return connection.prepare_threshold is not None


def test_a_direct_connection_prepares_statements_whatever_replication_conninfo_is(dsn: str) -> None:
    for replication_conninfo in (None, dsn):
        with Store(dsn, replication_conninfo=replication_conninfo) as store:
            store.create_collection("docs")
            assert prepares(store)
            store["docs"].create_index("n")


def test_a_pooler_is_never_sent_a_prepared_statement(dsn: str, pooled_dsn: str, ignoring_dsn: str) -> None:
    for conninfo in (pooled_dsn, ignoring_dsn):
        with Store(conninfo) as store:
            store.create_collection("docs")
            assert not prepares(store)
    with psycopg.connect(ignoring_dsn, autocommit=True, prepare_threshold=None) as client:
        for _ in range(6):
            assert client.execute("SELECT name FROM pg_prepared_statements").fetchall() == []


@pytest.mark.parametrize("settings", ["", IGNORES])
def test_streams_and_consumers_through_a_pooler_say_what_is_missing(server: Server, dsn: str, settings: str) -> None:
    with running_pgbouncer(server, dsn, FEWER_SESSIONS + settings) as pooled, Store(pooled) as store:
        store.create_collection("docs")
        for consumer in (None, "mine"):
            with pytest.raises(DirectRouteNeeded, match="replication_conninfo"):
                store.watch(consumer=consumer)
        with pytest.raises(DirectRouteNeeded, match="replication_conninfo"):
            store.create_consumer("mine", "docs")
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
            for _ in range(6):  # no setting of a stream's session was left in the pooler's
                assert other.execute("SHOW idle_session_timeout").fetchall() == [("0",)]


def test_a_build_of_an_index_asks_for_a_session_of_its_own(dsn: str, ignoring_dsn: str) -> None:
    with Store(ignoring_dsn) as store:
        docs = store.create_collection("docs")
        with pytest.raises(DirectRouteNeeded, match=r"indexes of collection .*replication_conninfo"):
            docs.create_index("n")
        with store.transaction() as tx:  # which has a session
            tx["docs"].create_index("n")
        assert len(docs.indexes()) == 1


def test_session_mode_works(server: Server, dsn: str) -> None:
    with (
        running_pgbouncer(server, dsn, "pool_mode = session\ndefault_pool_size = 20\n") as pooled,
        Store(pooled, replication_conninfo=pooled) as store,
    ):
        prepare(store)
        for number in range(CALLS):
            call(store, 0, number)
        store["docs"].create_index("n")


async def test_statement_mode_is_refused_at_the_first_call(server: Server, dsn: str) -> None:
    with running_pgbouncer(server, dsn, "pool_mode = statement\n") as pooled:
        with Store(pooled) as store, pytest.raises(UnsupportedServer, match="pool_mode = transaction"):
            store["docs"].get("a")
        async with AsyncStore(pooled) as async_store:
            with pytest.raises(UnsupportedServer, match="pool_mode = transaction"):
                await async_store["docs"].get("a")
