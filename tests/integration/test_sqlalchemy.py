"""Sessions of SQLAlchemy in transactions of threads, tasks, processes and stores."""
# ruff: noqa: PT012 (a failing transaction is a block)

from __future__ import annotations

import asyncio
import gc
import os
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, select, text

import pgdoc
from pgdoc.sqlalchemy import async_session_in, session_in
from pgdoc.sqlalchemy.engines import engine_of
from tests.sqlalchemy_models import Invoice, create_invoices, numbers

if TYPE_CHECKING:
    from pgdoc import AsyncTransaction, Transaction

FEW = range(3)
MEMBERS = range(4)


def test_threads_have_transactions_of_their_own(dsn: str) -> None:
    create_invoices(dsn)
    together = threading.Barrier(len(MEMBERS), timeout=60)

    def work(member: int) -> set[int]:
        pids = set()
        for n in FEW:
            together.wait()
            with store.transaction() as tx, session_in(tx) as session:
                pids.add(tx.connection.info.backend_pid - session.scalars(text("SELECT pg_backend_pid()")).one())
                tx["orders"].insert(f"{member}-{n}", {})
                together.wait()  # now all are inside
                session.add(Invoice(number=f"{member}-{n}", amount=n))
        return pids

    with pgdoc.Store(dsn, pool_size=len(MEMBERS)) as store, ThreadPoolExecutor(len(MEMBERS)) as pool:
        store.create_collection("orders")  # otherwise each transaction would wait for the first, which makes it
        assert list(pool.map(work, MEMBERS)) == [{0}] * len(MEMBERS)
        assert [document.id for document in store["orders"].find(sort="_id")] == numbers(dsn)
    assert len(numbers(dsn)) == len(MEMBERS) * len(FEW)


def test_tasks_have_transactions_of_their_own(dsn: str) -> None:
    create_invoices(dsn)

    async def work(store: pgdoc.AsyncStore, together: asyncio.Barrier, member: int) -> None:
        for n in FEW:
            await together.wait()
            async with store.transaction() as tx, async_session_in(tx) as session:
                pid = (await session.scalars(text("SELECT pg_backend_pid()"))).one()
                assert pid == tx.connection.info.backend_pid
                await tx["orders"].insert(f"{member}-{n}", {})
                await together.wait()
                session.add(Invoice(number=f"{member}-{n}", amount=n))

    async def main() -> None:
        together = asyncio.Barrier(len(MEMBERS))
        async with pgdoc.AsyncStore(dsn, pool_size=len(MEMBERS)) as store, asyncio.timeout(60):
            await store.create_collection("orders")
            async with asyncio.TaskGroup() as tasks:
                for member in MEMBERS:
                    tasks.create_task(work(store, together, member))
            assert [document.id async for document in store["orders"].find(sort="_id")] == numbers(dsn)

    for _ in range(2):  # a store in a second event loop
        asyncio.run(main())
        with psycopg.connect(dsn) as connection:
            assert connection.execute("DELETE FROM invoices").rowcount == len(MEMBERS) * len(FEW)
            connection.execute("DELETE FROM docs.orders")


def test_a_task_that_is_cancelled_in_a_session_rolls_back(dsn: str) -> None:
    create_invoices(dsn)

    async def wait(tx: AsyncTransaction, inside: asyncio.Event) -> None:
        async with async_session_in(tx) as session:
            session.add(Invoice(number="i-1", amount=1))
            await session.flush()
            inside.set()
            await session.execute(text("SELECT pg_sleep(600)"))

    async def main() -> None:
        async with pgdoc.AsyncStore(dsn, pool_size=1) as store:

            async def work() -> None:
                async with store.transaction() as tx:
                    await wait(tx, inside)

            inside = asyncio.Event()
            task = asyncio.create_task(work())
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with store.transaction() as tx, async_session_in(tx) as session:
                session.add(Invoice(number="i-2", amount=1))

    asyncio.run(main())
    assert numbers(dsn) == ["i-2"]


def test_a_process_that_is_forked_has_sessions_of_its_own(dsn: str) -> None:
    create_invoices(dsn)
    with pgdoc.Store(dsn) as store, store.transaction() as tx, session_in(tx) as session:
        session.add(Invoice(number="parent", amount=1))
        session.flush()
        if (pid := os.fork()) == 0:
            try:
                with pgdoc.Store(dsn) as own, own.transaction() as its, session_in(its) as new:
                    new.add(Invoice(number="child", amount=1))
            except BaseException:  # noqa: BLE001 (this process must not go on as a test)
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert numbers(dsn) == ["child", "parent"]


def test_each_store_has_one_engine_which_goes_with_it(dsn: str) -> None:
    def engine(store: pgdoc.Store) -> Engine:
        with store.transaction() as tx:
            with session_in(tx) as session:
                found = session.connection().engine
            assert engine_of(tx) is found
        return found

    def engines() -> list[weakref.ref[Engine]]:
        with pgdoc.Store(dsn) as store, pgdoc.Store(dsn) as other:
            return [weakref.ref(engine(each)) for each in (store, store, other)]

    first, second, third = engines()  # weak references to one object are one object
    assert first is second is not third
    gc.collect()  # finds the stores' classes
    gc.collect()  # and their engines
    assert [first(), third()] == [None, None]


def test_rows_are_read_in_parts(dsn: str) -> None:
    create_invoices(dsn, (f"i-{n:03}" for n in range(300)))

    async def main() -> None:
        async with pgdoc.AsyncStore(dsn) as store, store.transaction() as tx, async_session_in(tx) as session:
            rows = await session.stream_scalars(select(Invoice.number).execution_options(yield_per=50))
            assert len([number async for number in rows]) == 300

    def read(tx: Transaction) -> int:
        with session_in(tx) as session:
            return len(list(session.scalars(select(Invoice.number).execution_options(yield_per=50))))

    with pgdoc.Store(dsn) as store:
        assert store.run(read) == 300
    asyncio.run(main())


def test_listeners_of_all_engines_see_the_statements_and_those_of_one_do_not(dsn: str) -> None:
    create_invoices(dsn)
    seen: list[str] = []
    own: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    def note_own(*_: object) -> None:
        own.append("a statement")

    users = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    event.listen(users, "before_cursor_execute", note_own)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        with pgdoc.Store(dsn) as store, store.transaction() as tx, session_in(tx) as session:
            session.rollback()
            session.execute(text("SELECT 1"))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    first, second = "SAVEPOINT sa_savepoint_1", "SAVEPOINT sa_savepoint_2"
    assert seen[seen.index(first) :] == [
        first,
        f"ROLLBACK TO {first}",
        f"RELEASE {first}",  # otherwise each rollback would leave one open
        second,
        "SELECT 1",
        f"RELEASE {second}",
    ]
    assert own == []


def test_a_session_that_commits_inside_a_later_bulk_fails_the_transaction(dsn: str) -> None:
    create_invoices(dsn)
    with pgdoc.Store(dsn) as store:
        with (
            pytest.raises(pgdoc.DatabaseError, match="savepoint"),
            store.transaction() as tx,
            session_in(tx) as session,
            tx.bulk() as bulk,
        ):
            bulk["orders"].insert("o-1", {})
            session.add(Invoice(number="i-1", amount=1))
            session.commit()
        assert store.collections() == []
    assert numbers(dsn) == []
