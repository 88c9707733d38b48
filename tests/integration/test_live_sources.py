"""Live queries on watched tables, as other roles, behind a pooler, in forks, and in calls that are cancelled."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc import AsyncStore, Store
from pgdoc._sync.live_source import LiveSource
from pgdoc._sync.stream_backend import StreamBackend
from pgdoc.errors import CollectionNotFound, DatabaseError
from pgdoc.live.changes import applied
from pgdoc.live.order import DocumentOrder
from pgdoc.live.queries import LiveQueries
from tests.fixtures.fix_server import PLUGIN
from tests.unit.interrupts import Interrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from pgdoc import LiveQuery
    from pgdoc.live.images import RowImage

PATIENCE_S = 20.0
MAKE_TABLE = """
CREATE TABLE {schema}.sales (id int PRIMARY KEY, region text, total numeric, at timestamptz DEFAULT '2026-01-01');
INSERT INTO {schema}.sales SELECT n, 'r' || n % 3, n * 1.5 FROM generate_series(1, 30) AS n
"""


@pytest.fixture
def table(shared_dsn: str, schema: str, sql: psycopg.Connection) -> str:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("made")  # and so the schema
        sql.execute(MAKE_TABLE.format(schema=schema).encode())
        store.add_table(f"{schema}.sales")
    return f"{schema}.sales"


def rows_of(query: LiveQuery) -> list[Any]:
    return [document.data for document in query.documents]


def numbers_of(query: LiveQuery) -> list[int]:
    return [document["id"] for document in query.documents]


def test_a_live_query_on_a_table_has_the_rows_as_events_have_them(
    shared_dsn: str, schema: str, sql: psycopg.Connection, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc._sync.live_reader._PART_ROWS", 7)  # several statements read the table
    with Store(shared_dsn, schema=schema) as store:
        wanted = {"region": "r1", "total": {"$gt": 3}}
        with store.live(table, wanted, sort="-total", limit=3) as query, store.watch(table) as stream:
            assert numbers_of(query) == [28, 25, 22]
            sql.execute("UPDATE sales SET total = 99.50 WHERE id = 4")
            event = stream.next(timeout=PATIENCE_S)
            changes = query.next_batch(PATIENCE_S)
            assert [(each.kind, each.document.id) for each in changes] == [("removed", "22"), ("added", "4")]
            assert event is not None
            assert rows_of(query)[0] == event.full_document.data  # type: ignore[union-attr]
            assert isinstance(query.documents[0], type(event.full_document))
            sql.execute("UPDATE sales SET id = 100 WHERE id = 4")
            assert [(each.kind, each.document.id) for each in query.next_batch(PATIENCE_S)] == [
                ("removed", "4"),
                ("added", "100"),
            ]
            sql.execute("DELETE FROM sales WHERE id > 10")
            query.next_batch(PATIENCE_S)
            assert numbers_of(query) == [10, 7]


def test_a_query_follows_a_table_that_changes_its_shape_and_key(
    shared_dsn: str, schema: str, sql: psycopg.Connection, table: str
) -> None:
    with Store(shared_dsn, schema=schema) as store, store.live(table, sort="id", limit=2) as query:
        sql.execute("ALTER TABLE sales ADD COLUMN note text DEFAULT 'x'")
        query.next_batch(PATIENCE_S)
        assert [row["note"] for row in rows_of(query)] == ["x", "x"]
        sql.execute("ALTER TABLE sales DROP CONSTRAINT sales_pkey, ADD PRIMARY KEY (region, id)")
        while query.documents[0].id != '["r1","1"]':
            assert query.next_batch(PATIENCE_S)
        sql.execute("UPDATE sales SET note = 'y' WHERE id = 1")
        assert [each.document["note"] for each in query.next_batch(PATIENCE_S)] == ["y"]
        store.remove_table(table)
        with pytest.raises(CollectionNotFound, match="no longer watched"):
            query.next(PATIENCE_S)


def test_row_level_security_that_could_hide_documents_is_an_error(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    role = f"reader_of_{schema}"
    with Store(shared_dsn, schema=schema) as store:
        store["orders"].insert("a", {})
        sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION".encode())
        try:
            with pytest.raises(DatabaseError) as refused, Store(f"{shared_dsn} user={role}", schema=schema) as other:
                other["orders"].live()
            assert refused.value.sqlstate == "42501"
            sql.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON orders TO {role}".encode())
            sql.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
            with (
                pytest.raises(DatabaseError, match="has row-level security"),
                Store(f"{shared_dsn} user={role}", schema=schema) as other,
            ):
                other["orders"].live()
        finally:
            sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_query_that_fails_leaves_the_others_alone(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as query:
        with monkeypatch.context() as patch:
            patch.setattr("pgdoc._sync.live_reader.LiveReader.documents", lambda *_: 1 / 0)
            with pytest.raises(pgdoc.StreamError, match="a live query failed"):
                store["orders"].live({"n": 1})
        store["orders"].insert("a", {})
        assert [each.document.id for each in query.next_batch(PATIENCE_S)] == ["a"]


def test_reads_go_through_a_pooler(dsn: str, pooled_dsn: str) -> None:
    with Store(pooled_dsn, replication_conninfo=dsn) as store:
        for number in range(12):
            store["orders"].insert(f"o{number:02d}", {"n": number})
        with store["orders"].live(sort="n", limit=1) as query:
            for number in range(11):
                store["orders"].delete(f"o{number:02d}")
                query.next_batch(PATIENCE_S)
                assert [each["n"] for each in query.documents] == [number + 1]


def test_a_transaction_of_many_rows_is_one_batch(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].live(sort="-n", limit=3) as query:
        sql.execute("INSERT INTO orders SELECT n::text, jsonb_build_object('n', n) FROM generate_series(1, 30000) n")
        assert len(query.next_batch(PATIENCE_S)) == 3
        assert [each["n"] for each in query.documents] == [30_000, 29_999, 29_998]
        assert query.next_batch(0) == []


FORKS = """
import os, sys, pgdoc
dsn, schema, plugin = sys.argv[1:]
store = pgdoc.Store(dsn, schema=schema, plugin=plugin)
query = store["orders"].live()
pgdoc._sync.live_source._STOP_S = 3600  # close() in the child must not wait for a thread that is not there
child = os.fork()
if child == 0:
    try:
        query.next(timeout=1)
    except pgdoc.StreamError as exc:
        print(exc, flush=True)
    query.close()
    store.close()
    with pgdoc.Store(dsn, schema=schema, plugin=plugin) as own, own["orders"].live() as again:
        own["orders"].insert("child's", {})
        print(again.next(timeout=30).document.id, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], flush=True)
print(query.next(timeout=30).document.id, flush=True)
store.close()
"""


def test_a_forked_child_leaves_the_queries_to_its_parent(shared_dsn: str, schema: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FORKS), shared_dsn, schema, PLUGIN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    first, *others = done.stdout.splitlines()
    assert "made before the process forked" in first
    assert others == ["child's", "0", "child's"]


def test_a_cancelled_call_loses_no_change(shared_dsn: str, schema: str) -> None:
    async def run() -> None:
        found: list[str] = []
        async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].live() as query:
            for number in range(40):
                await store["orders"].insert(f"o{number:02d}", {})
                waiting = asyncio.ensure_future(query.next())
                await asyncio.sleep(0.001 * (number % 3))
                waiting.cancel()
                await asyncio.wait([waiting])
                if not waiting.cancelled():
                    found.append(waiting.result().document.id)  # type: ignore[union-attr]
            while len(found) < 40:
                found += [each.document.id for each in await query.next_batch(PATIENCE_S)]
        assert found == [f"o{number:02d}" for number in range(40)]

    asyncio.run(run())


def test_what_was_read_is_sorted_beside_the_event_loop(
    shared_dsn: str, schema: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    place = DocumentOrder.place

    def note(order: DocumentOrder, image: RowImage) -> Any:
        threads.append(threading.get_ident())
        return place(order, image)

    async def run() -> None:
        async with AsyncStore(shared_dsn, schema=schema) as store:
            await store["orders"].insert_many((str(number), {"n": number}) for number in range(20))
            async with store["orders"].live(sort="-n"), store.live(table, sort="-total"):
                pass

    monkeypatch.setattr(DocumentOrder, "place", note)
    asyncio.run(run())
    assert threads
    assert threading.get_ident() not in threads


def test_a_loop_that_ends_leaves_nothing_behind(shared_dsn: str, schema: str) -> None:
    async def run() -> None:
        store = AsyncStore(shared_dsn, schema=schema)
        await store["orders"].live()
        opening = asyncio.ensure_future(store["others"].live()._open())
        await asyncio.sleep(0.005)
        opening.cancel()
        await asyncio.wait([opening])
        await store.close()

    asyncio.run(run())


def test_a_query_does_not_wait_for_a_transaction_that_waits_for_its_client(
    shared_dsn: str, schema: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    fetch = StreamBackend.fetch

    def note(backend: StreamBackend, name: str, *params: Any, **options: Any) -> Any:
        looks.append(name)
        return fetch(backend, name, *params, **options)

    with Store(shared_dsn, schema=schema) as store:
        with store["others"].live():  # so that the first slot exists
            pass
        store["orders"].insert("a", {})
        with sql.transaction():
            sql.execute("INSERT INTO orders (id, data) VALUES ('b', '{}')")
            monkeypatch.setattr(StreamBackend, "fetch", note)
            query = store["orders"].live()
            assert looks.count("running") == 1
            assert [each.id for each in query.documents] == ["a"]
        assert [each.document.id for each in query.next_batch(PATIENCE_S)] == ["b"]
        query.close()


@pytest.mark.parametrize("by_batch", [False, True])
def test_an_interrupt_at_any_step_loses_no_change(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, by_batch: bool
) -> None:
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BATCHES", 2)  # so that it also falls behind
    with Store(shared_dsn, schema=schema) as store, store["orders"].live(sort="-n", limit=4) as query:
        rows: list[str] = []
        step = written = 0
        while step < 120:
            for _ in range(1 + step % 4):
                written += 1
                store["orders"].insert(f"o{written:04d}", {"n": written})
            store["orders"].delete(f"o{written - 1:04d}")
            wanted = [each.id for each in store["orders"].find(sort="-n", limit=4)]
            while rows != wanted:
                found: list[Any] = []
                with Interrupt(step, within="pgdoc._sync.live"):
                    found = query.next_batch(PATIENCE_S) if by_batch else [query.next(PATIENCE_S)]
                for change in found:
                    applied(rows, change, change.document.id)
                step += 1
                assert step < 10_000
            with Interrupt(step % 7, within="pgdoc._sync.live"):
                assert [each.id for each in query.documents] == wanted
            assert [each.id for each in query.documents] == wanted


def test_an_interrupt_while_a_query_opens_leaves_nothing_behind(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as first:
        for step in range(0, 60, 3):
            with Interrupt(step, within="pgdoc._sync.live"), store["orders"].live({"n": step}):
                pass
        gc.collect()
        store["orders"].insert("a", {"n": 3})
        assert first.next(PATIENCE_S) is not None
        source = store._live._sources["orders"]
        deadline = time.monotonic() + PATIENCE_S
        while len(source.queries) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)


class _Slow(dict[Any, None]):
    """A dict that other threads can change between any two steps of an iteration."""

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            time.sleep(0.0005)
            yield key


def test_queries_that_open_and_close_in_other_threads_leave_the_others_alone(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as first:
        queries = store._live._sources["orders"].queries
        queries._wanting, queries._reading = _Slow(), _Slow()

        def open_some(number: int) -> None:
            for turn in range(12):
                with store["orders"].live({"n": 100 * number + turn}):
                    pass

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(open_some, range(4)))
        store["orders"].insert("a", {})
        assert [each.document.id for each in first.next_batch(PATIENCE_S)] == ["a"]


def test_a_query_that_opens_while_the_last_one_closes_stays_open(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[LiveQuery] = []
    close = LiveSource.close

    def open_first(source: LiveSource) -> None:
        monkeypatch.setattr(LiveSource, "close", close)
        opened.append(store["orders"].live())
        close(source)

    with Store(shared_dsn, schema=schema) as store:
        last = store["orders"].live()
        monkeypatch.setattr(LiveSource, "close", open_first)
        last.close()
        store["orders"].insert("a", {})
        assert [each.document.id for each in opened[0].next_batch(PATIENCE_S)] == ["a"]


def test_the_changes_before_the_end_of_a_collection_are_handed_out(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as query:
        source = store._live._sources["orders"]
        with source.lock, store.watch("orders") as stream:  # so that the source takes all of it at once
            store["orders"].insert("a", {})
            store["orders"].insert("b", {})
            store.drop_collection("orders")
            while stream.next(PATIENCE_S).event_type != "drop":  # type: ignore[union-attr]
                pass
        found = query.next_batch(PATIENCE_S) + query.next_batch(PATIENCE_S)
        assert [each.document.id for each in found] == ["a", "b"]
        with pytest.raises(CollectionNotFound):
            query.next(PATIENCE_S)


def test_reads_that_are_too_early_come_less_and_less_often(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    end_read = LiveQueries.end_read

    def refuse_some(queries: LiveQueries, query: Any, read: Any, rows: Any) -> bool:
        times.append(time.monotonic())
        return end_read(queries, query, read, rows if len(times) > 5 else None)

    monkeypatch.setattr(LiveQueries, "end_read", refuse_some)
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as query:
        assert all(later - one >= 0.01 * 2**turn for turn, (one, later) in enumerate(pairwise(times)))
        assert len(times) == 6
        assert query.documents == []


def test_few_changes_of_large_documents_are_much_to_wait_for(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BYTES", 100_000)
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as query:
        for number in range(3):
            store["orders"].insert(f"o{number}", {"n": "x" * 60_000})
        with store["orders"].live({"_id": "o2"}):  # it begins where the shared source has all three
            assert query._inbox.batches == deque()
        assert {each.document.id for each in query.next_batch(PATIENCE_S)} >= {"o0", "o1"}
        while len(query.documents) < 3:
            query.next_batch(PATIENCE_S)
        store["orders"].delete("o1")
        assert [each.document.id for each in query.next_batch(PATIENCE_S)] == ["o1"]
