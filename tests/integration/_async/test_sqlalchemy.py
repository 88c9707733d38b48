"""Sessions of SQLAlchemy in transactions: rows and documents commit together, and the connection stays as it was."""
# ruff: noqa: PT012 (a failing transaction is a block)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, ProgrammingError, StatementError

from pgdoc import (
    AsyncStore,
    AsyncWorker,
    DuplicateDocument,
    SerializationFailure,
    TransactionClosed,
    TransactionLost,
)
from pgdoc.sqlalchemy import async_connection_in, async_session_in
from tests.integration._async.workers import count, fresh_name, running
from tests.sqlalchemy_models import AsyncSession, Invoice, async_sessionmaker, create_invoices, numbers

if TYPE_CHECKING:
    from pgdoc import AsyncTransaction, ChangeEvent


def invoice(number: str, **values: Any) -> Invoice:
    return Invoice(number=number, **{"amount": 1, **values})


async def test_documents_and_rows_commit_together_or_not_at_all(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store:
        async with store.transaction() as tx, async_session_in(tx) as session:
            await tx["orders"].insert("o-1", {})
            session.add(kept := invoice("i-1", data={"lines": [1, 2.5]}))
        assert kept.data == {"lines": [1, 2.5]}  # the block does not expire it
        with pytest.raises(IntegrityError):
            async with store.transaction() as tx, async_session_in(tx) as session:
                await tx["orders"].insert("o-2", {})
                session.add(invoice("i-1"))
        with pytest.raises(DuplicateDocument):
            async with store.transaction() as tx, async_session_in(tx) as session:
                session.add(invoice("i-2"))
                await session.flush()
                await tx["orders"].insert("o-1", {})
        async with store.transaction() as tx, async_session_in(tx) as session:
            session.add(invoice("i-3"))
            await session.commit()  # commits nothing yet
            raise psycopg.Rollback
        assert [document.id async for document in store["orders"].find()] == ["o-1"]
    assert numbers(dsn) == ["i-1"]


async def test_an_exception_undoes_the_block_and_the_transaction_goes_on(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store:
        async with store.transaction() as tx:
            await tx["orders"].insert("before", {})
            with pytest.raises(ZeroDivisionError):
                async with async_session_in(tx) as session:
                    await tx["orders"].insert("inside", {})
                    session.add(invoice("i-1"))
                    await session.flush()
                    raise ZeroDivisionError
            await tx["orders"].insert("after", {})
            async with async_session_in(tx) as session:
                session.add(invoice("i-2"))
        assert [document.id async for document in store["orders"].find(sort="_id")] == ["after", "before"]
    assert numbers(dsn) == ["i-2"]


async def test_a_rollback_of_the_session_goes_back_to_its_last_commit(dsn: str) -> None:
    create_invoices(dsn, ["i-0"])
    async with AsyncStore(dsn) as store:
        async with store.transaction() as tx, async_session_in(tx) as session:
            session.add(invoice("i-1"))
            await session.commit()
            for _ in range(3):
                session.add(invoice("i-0"))
                with pytest.raises(IntegrityError):
                    await session.flush()
                await session.rollback()
            session.add(invoice("i-2"))
            async with session.begin_nested() as nested:
                session.add(invoice("i-3"))
                await nested.rollback()
            await tx["orders"].insert("o-1", {})
        assert await store["orders"].count() == 1
    assert numbers(dsn) == ["i-0", "i-1", "i-2"]


async def test_a_collection_that_a_rollback_undid_is_made_again(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.transaction() as tx:
            async with async_session_in(tx) as session:
                await tx["orders"].insert("o-1", {})
                await session.rollback()
                await tx["orders"].insert("o-2", {})
            with pytest.raises(ZeroDivisionError):
                async with async_session_in(tx):
                    await tx["others"].insert("o-1", {})
                    raise ZeroDivisionError
        assert [document.id async for document in store["orders"].find()] == ["o-2"]
        assert await store.collections() == ["orders"]
        await store["others"].insert("o-2", {})


async def test_a_session_inside_another_one_keeps_its_own_savepoints(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store:
        async with store.transaction() as tx, async_session_in(tx) as outer:
            outer.add(invoice("outer"))
            await outer.flush()
            async with async_session_in(tx) as inner:
                inner.add(invoice("inner"))
                await inner.commit()
                inner.add(invoice("undone"))
                await inner.flush()
                await inner.rollback()
            with pytest.raises(ZeroDivisionError):
                async with async_session_in(tx) as inner:
                    inner.add(invoice("failed"))
                    await inner.flush()
                    raise ZeroDivisionError
            assert (await outer.scalars(select(Invoice.number).order_by(Invoice.number))).all() == ["inner", "outer"]
        with pytest.raises(DBAPIError, match="savepoint"):  # the outer one ends the savepoint of the inner one
            async with store.transaction() as tx, async_session_in(tx) as outer, async_session_in(tx) as inner:
                inner.add(invoice("lost"))
                await outer.commit()
                await inner.rollback()
    assert numbers(dsn) == ["inner", "outer"]


async def test_the_connection_refuses_to_end_the_transaction(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store, store.transaction() as tx, async_session_in(tx) as session:
        session.add(invoice("i-1"))
        await session.flush()
        for end in ("commit", "rollback"):
            with pytest.raises(ProgrammingError, match=rf"{end}\(\) of the connection would end the transaction"):
                async with async_connection_in(tx) as connection:
                    await getattr(connection, end)()
        connection = await session.connection()
        with pytest.raises(InvalidRequestError, match="isolation_level may not be altered"):
            await connection.execution_options(isolation_level="AUTOCOMMIT")
    assert numbers(dsn) == ["i-1"]


async def test_a_core_connection_is_part_of_the_transaction(dsn: str) -> None:
    create_invoices(dsn, ["i-0"])
    async with AsyncStore(dsn) as store:
        async with store.transaction() as tx, async_connection_in(tx) as connection:
            await tx["orders"].insert("o-1", {})
            with pytest.raises(IntegrityError):
                async with connection.begin_nested():
                    await connection.execute(insert(Invoice).values(number="i-0", amount=1))
            rows = [{"number": f"i-{n}", "amount": n} for n in range(1, 4)]
            await connection.execute(insert(Invoice), rows)
        assert await store["orders"].count() == 1
    assert numbers(dsn) == ["i-0", "i-1", "i-2", "i-3"]


async def test_the_session_is_that_of_the_users_factory(dsn: str) -> None:
    class Own(AsyncSession):
        pass

    create_invoices(dsn)
    factory = async_sessionmaker(class_=Own, bind=None, autoflush=False, info={"from": "factory"})
    async with AsyncStore(dsn) as store, store.transaction() as tx:
        async with async_session_in(tx, factory, info={"for": "block"}) as session:
            assert isinstance(session, Own)
            assert not session.autoflush
            assert session.info == {"from": "factory", "for": "block"}
            session.add(invoice("i-1"))
        async with async_session_in(tx, Own) as session:
            assert isinstance(session, Own)
            assert await session.get(Invoice, "i-1") is not None
        with pytest.raises(TypeError, match="join_transaction_mode"):
            async with async_session_in(tx, join_transaction_mode="control_fully"):
                pass
    assert numbers(dsn) == ["i-1"]


async def test_a_transaction_that_is_not_open_is_refused(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store:
        transaction = store.transaction()
        with pytest.raises(TransactionClosed):
            async with async_session_in(transaction):
                pass
        async with transaction as tx, async_session_in(tx) as session:
            session.add(invoice("i-1"))
        with pytest.raises(InvalidRequestError, match="closed"):
            await session.execute(select(Invoice))
        with pytest.raises(TransactionClosed):
            async with async_session_in(tx):
                pass
        for wrong in (store, tx.bulk()):
            with pytest.raises(TypeError, match=r"`async with store\.transaction"):
                async with async_session_in(wrong):  # type: ignore[call-overload]
                    pass
        async with store.transaction() as tx:
            block = async_connection_in(tx)
            connection = await block.__aenter__()
        with pytest.raises(StatementError, match="the transaction is not open"):  # others may use its connection now
            await connection.execute(text("SELECT 1"))
        await block.__aexit__(None, None, None)
    assert numbers(dsn) == ["i-1"]


async def test_the_connection_returns_to_the_pool_as_it_was(dsn: str) -> None:
    create_invoices(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION IF NOT EXISTS hstore")
    hstore = text("SELECT 'a=>1'::hstore, '127.0.0.1'::inet, 1.5::numeric, '{\"a\": 1}'::jsonb")

    def state(connection: Any) -> tuple[object, ...]:
        return (
            connection.row_factory,
            connection.cursor_factory,
            connection.prepare_threshold,
            connection.autocommit,
            connection.isolation_level,
            connection.read_only,
            list(connection._notice_handlers),
            connection.adapters.types.get("hstore"),
            connection.adapters._dumpers,
            connection.adapters._loaders,
        )

    async with AsyncStore(dsn, pool_size=1) as store:
        await store["orders"].insert("o-1", {"n": 1})
        async with store.transaction() as tx:
            before, pid = state(tx.connection), tx.connection.info.backend_pid
            rows = await (await tx.connection.execute(hstore.text)).fetchone()
        for _ in range(7):  # beyond the threshold for prepared statements
            async with store.transaction() as tx, async_session_in(tx) as session:
                session.add(invoice(f"i-{_}"))
                await session.execute(hstore)
                await tx["orders"].update("o-1", {"$inc": {"n": 1}})
        async with store.transaction() as tx:
            assert tx.connection.info.backend_pid == pid
            assert state(tx.connection) == before
            assert await (await tx.connection.execute(hstore.text)).fetchone() == rows
        document = await store["orders"].get("o-1")
        assert document is not None
        assert document.data == {"n": 8}
        assert [d.data async for d in store["orders"].find({"n": 8})] == [{"n": 8}]


async def test_rows_have_sqlalchemys_form_whatever_the_row_factory_of_the_connection(dsn: str) -> None:
    create_invoices(dsn, ["i-1"])
    async with AsyncStore(dsn, pool_size=1) as store, store.transaction() as tx:
        tx.connection.row_factory = dict_row
        async with async_session_in(tx) as session:
            assert (await session.scalars(select(Invoice.number))).all() == ["i-1"]
        tx.connection.row_factory = psycopg.rows.tuple_row


async def test_a_serialization_failure_in_the_session_repeats_the_transaction(dsn: str) -> None:
    create_invoices(dsn, ["i-1"])
    attempts = 0

    async def add(tx: AsyncTransaction) -> None:
        nonlocal attempts
        attempts += 1
        async with async_session_in(tx) as session:
            found = await session.get_one(Invoice, "i-1")
            if attempts == 1:
                with psycopg.connect(dsn) as other:
                    other.execute("UPDATE invoices SET amount = amount + 10")
            found.amount += 1

    async with AsyncStore(dsn) as store:
        await store.run(add, isolation="repeatable read")
        assert attempts == 2
        async with store.transaction() as tx, async_session_in(tx) as session:
            assert (await session.get_one(Invoice, "i-1")).amount == 12
        attempts = 0
        with pytest.raises(SerializationFailure) as caught:
            await store.run(add, isolation="repeatable read", retries=0)
        assert isinstance(caught.value.__cause__, DBAPIError)


def terminate(dsn: str, tx: AsyncTransaction) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [tx.connection.info.backend_pid])


async def test_a_lost_connection_is_not_replaced_by_another_one(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store:
        with pytest.raises(TransactionLost):
            async with store.transaction() as tx, async_session_in(tx) as session:
                terminate(dsn, tx)
                session.add(invoice("i-1"))
        with pytest.raises(TransactionLost):
            async with store.transaction() as tx, async_connection_in(tx) as connection:
                terminate(dsn, tx)
                with pytest.raises(DBAPIError):
                    await connection.execute(select(Invoice))
                await connection.rollback()  # SQLAlchemy would connect again now
                await connection.execute(insert(Invoice).values(number="i-1", amount=1))
        async with store.transaction() as tx, async_session_in(tx) as session:
            session.add(invoice("i-2"))
    assert numbers(dsn) == ["i-2"]


async def test_rows_of_a_bulk_and_of_a_session_commit_together(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store:
        async with store.transaction() as tx:
            async with tx.bulk() as bulk, async_session_in(tx) as session:
                for n in range(3):
                    await bulk["orders"].insert(f"o-{n}", {})
                    session.add(invoice(f"i-{n}"))
            async with async_session_in(tx) as session, tx.bulk() as bulk:
                await bulk["orders"].insert("o-3", {})
                session.add(invoice("i-3"))
            with pytest.raises(ZeroDivisionError):
                async with tx.bulk() as bulk, async_session_in(tx) as session:
                    await bulk["orders"].insert("undone", {})
                    session.add(invoice("undone"))
                    await session.flush()
                    raise ZeroDivisionError
        assert await store["orders"].count() == 4
    assert numbers(dsn) == ["i-0", "i-1", "i-2", "i-3"]


async def test_documents_are_read_while_the_session_rolls_back(dsn: str) -> None:
    create_invoices(dsn, ["i-0"])
    async with AsyncStore(dsn) as store:
        await store["orders"].insert_many((f"o-{n:03}", {}) for n in range(250))
        async with store.transaction() as tx:
            found = tx["orders"].find(sort="_id")
            ids = [(await found.__anext__()).id]
            async with async_session_in(tx) as session:
                session.add(invoice("i-0"))
                with pytest.raises(IntegrityError):
                    await session.flush()
                await session.rollback()
            ids += [document.id async for document in found]
            assert ids == [f"o-{n:03}" for n in range(250)]


async def test_a_worker_writes_rows_and_repeats_what_a_conflict_undid(dsn: str) -> None:
    create_invoices(dsn)
    async with AsyncStore(dsn) as store:
        worker, name = AsyncWorker(store), fresh_name()
        failed: list[bool] = []

        @worker.on("orders", consumer=name, retries=0)
        async def book(tx: AsyncTransaction, events: list[ChangeEvent]) -> None:
            async with async_session_in(tx) as session:
                for event in events:
                    session.add(invoice(str(event.document_id)))
                    await tx["effects"].insert(str(event.document_id), {})
                if not failed:
                    failed.append(True)
                    await session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

        await worker.declare()
        await store["orders"].insert_many([("o-1", {}), ("o-2", {})])
        async with running(worker):
            await count(store, "effects", 2)
        assert await store.dead_letters() == []
        await store.drop_consumer(name)
    assert numbers(dsn) == ["o-1", "o-2"]
