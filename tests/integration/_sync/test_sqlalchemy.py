# Written by .ci/twins.py from tests/integration/_async/test_sqlalchemy.py: change that file, and run it.
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
    Store,
    Worker,
    DuplicateDocument,
    SerializationFailure,
    TransactionClosed,
    TransactionLost,
)
from pgdoc.sqlalchemy import connection_in, session_in
from tests.integration._sync.workers import count, fresh_name, running
from tests.sqlalchemy_models import Session, Invoice, sessionmaker, create_invoices, numbers

if TYPE_CHECKING:
    from pgdoc import Transaction, ChangeEvent


def invoice(number: str, **values: Any) -> Invoice:
    return Invoice(number=number, **{"amount": 1, **values})


def test_documents_and_rows_commit_together_or_not_at_all(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store:
        with store.transaction() as tx, session_in(tx) as session:
            tx["orders"].insert("o-1", {})
            session.add(kept := invoice("i-1", data={"lines": [1, 2.5]}))
        assert kept.data == {"lines": [1, 2.5]}  # the block does not expire it
        with pytest.raises(IntegrityError):
            with store.transaction() as tx, session_in(tx) as session:
                tx["orders"].insert("o-2", {})
                session.add(invoice("i-1"))
        with pytest.raises(DuplicateDocument):
            with store.transaction() as tx, session_in(tx) as session:
                session.add(invoice("i-2"))
                session.flush()
                tx["orders"].insert("o-1", {})
        with store.transaction() as tx, session_in(tx) as session:
            session.add(invoice("i-3"))
            session.commit()  # commits nothing yet
            raise psycopg.Rollback
        assert [document.id for document in store["orders"].find()] == ["o-1"]
    assert numbers(dsn) == ["i-1"]


def test_an_exception_undoes_the_block_and_the_transaction_goes_on(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store:
        with store.transaction() as tx:
            tx["orders"].insert("before", {})
            with pytest.raises(ZeroDivisionError):
                with session_in(tx) as session:
                    tx["orders"].insert("inside", {})
                    session.add(invoice("i-1"))
                    session.flush()
                    raise ZeroDivisionError
            tx["orders"].insert("after", {})
            with session_in(tx) as session:
                session.add(invoice("i-2"))
        assert [document.id for document in store["orders"].find(sort="_id")] == ["after", "before"]
    assert numbers(dsn) == ["i-2"]


def test_a_rollback_of_the_session_goes_back_to_its_last_commit(dsn: str) -> None:
    create_invoices(dsn, ["i-0"])
    with Store(dsn) as store:
        with store.transaction() as tx, session_in(tx) as session:
            session.add(invoice("i-1"))
            session.commit()
            for _ in range(3):
                session.add(invoice("i-0"))
                with pytest.raises(IntegrityError):
                    session.flush()
                session.rollback()
            session.add(invoice("i-2"))
            with session.begin_nested() as nested:
                session.add(invoice("i-3"))
                nested.rollback()
            tx["orders"].insert("o-1", {})
        assert store["orders"].count() == 1
    assert numbers(dsn) == ["i-0", "i-1", "i-2"]


def test_a_collection_that_a_rollback_undid_is_made_again(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.transaction() as tx:
            with session_in(tx) as session:
                tx["orders"].insert("o-1", {})
                session.rollback()
                tx["orders"].insert("o-2", {})
            with pytest.raises(ZeroDivisionError):
                with session_in(tx):
                    tx["others"].insert("o-1", {})
                    raise ZeroDivisionError
        assert [document.id for document in store["orders"].find()] == ["o-2"]
        assert store.collections() == ["orders"]
        store["others"].insert("o-2", {})


def test_a_session_inside_another_one_keeps_its_own_savepoints(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store:
        with store.transaction() as tx, session_in(tx) as outer:
            outer.add(invoice("outer"))
            outer.flush()
            with session_in(tx) as inner:
                inner.add(invoice("inner"))
                inner.commit()
                inner.add(invoice("undone"))
                inner.flush()
                inner.rollback()
            with pytest.raises(ZeroDivisionError):
                with session_in(tx) as inner:
                    inner.add(invoice("failed"))
                    inner.flush()
                    raise ZeroDivisionError
            assert (outer.scalars(select(Invoice.number).order_by(Invoice.number))).all() == ["inner", "outer"]
        with pytest.raises(DBAPIError, match="savepoint"):  # the outer one ends the savepoint of the inner one
            with store.transaction() as tx, session_in(tx) as outer, session_in(tx) as inner:
                inner.add(invoice("lost"))
                outer.commit()
                inner.rollback()
    assert numbers(dsn) == ["inner", "outer"]


def test_the_connection_refuses_to_end_the_transaction(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store, store.transaction() as tx, session_in(tx) as session:
        session.add(invoice("i-1"))
        session.flush()
        for end in ("commit", "rollback"):
            with pytest.raises(ProgrammingError, match=rf"{end}\(\) of the connection would end the transaction"):
                with connection_in(tx) as connection:
                    getattr(connection, end)()
        connection = session.connection()
        with pytest.raises(InvalidRequestError, match="isolation_level may not be altered"):
            connection.execution_options(isolation_level="AUTOCOMMIT")
    assert numbers(dsn) == ["i-1"]


def test_a_core_connection_is_part_of_the_transaction(dsn: str) -> None:
    create_invoices(dsn, ["i-0"])
    with Store(dsn) as store:
        with store.transaction() as tx, connection_in(tx) as connection:
            tx["orders"].insert("o-1", {})
            with pytest.raises(IntegrityError):
                with connection.begin_nested():
                    connection.execute(insert(Invoice).values(number="i-0", amount=1))
            rows = [{"number": f"i-{n}", "amount": n} for n in range(1, 4)]
            connection.execute(insert(Invoice), rows)
        assert store["orders"].count() == 1
    assert numbers(dsn) == ["i-0", "i-1", "i-2", "i-3"]


def test_the_session_is_that_of_the_users_factory(dsn: str) -> None:
    class Own(Session):
        pass

    create_invoices(dsn)
    factory = sessionmaker(class_=Own, bind=None, autoflush=False, info={"from": "factory"})
    with Store(dsn) as store, store.transaction() as tx:
        with session_in(tx, factory, info={"for": "block"}) as session:
            assert isinstance(session, Own)
            assert not session.autoflush
            assert session.info == {"from": "factory", "for": "block"}
            session.add(invoice("i-1"))
        with session_in(tx, Own) as session:
            assert isinstance(session, Own)
            assert session.get(Invoice, "i-1") is not None
        with pytest.raises(TypeError, match="join_transaction_mode"):
            with session_in(tx, join_transaction_mode="control_fully"):
                pass
    assert numbers(dsn) == ["i-1"]


def test_a_transaction_that_is_not_open_is_refused(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store:
        transaction = store.transaction()
        with pytest.raises(TransactionClosed):
            with session_in(transaction):
                pass
        with transaction as tx, session_in(tx) as session:
            session.add(invoice("i-1"))
        with pytest.raises(InvalidRequestError, match="closed"):
            session.execute(select(Invoice))
        with pytest.raises(TransactionClosed):
            with session_in(tx):
                pass
        for wrong in (store, tx.bulk()):
            with pytest.raises(TypeError, match=r"`with store\.transaction"):
                with session_in(wrong):  # type: ignore[call-overload]
                    pass
        with store.transaction() as tx:
            block = connection_in(tx)
            connection = block.__enter__()
        with pytest.raises(StatementError, match="the transaction is not open"):  # others may use its connection now
            connection.execute(text("SELECT 1"))
        block.__exit__(None, None, None)
    assert numbers(dsn) == ["i-1"]


def test_the_connection_returns_to_the_pool_as_it_was(dsn: str) -> None:
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

    with Store(dsn, pool_size=1) as store:
        store["orders"].insert("o-1", {"n": 1})
        with store.transaction() as tx:
            before, pid = state(tx.connection), tx.connection.info.backend_pid
            rows = (tx.connection.execute(hstore.text)).fetchone()
        for _ in range(7):  # beyond the threshold for prepared statements
            with store.transaction() as tx, session_in(tx) as session:
                session.add(invoice(f"i-{_}"))
                session.execute(hstore)
                tx["orders"].update("o-1", {"$inc": {"n": 1}})
        with store.transaction() as tx:
            assert tx.connection.info.backend_pid == pid
            assert state(tx.connection) == before
            assert (tx.connection.execute(hstore.text)).fetchone() == rows
        document = store["orders"].get("o-1")
        assert document is not None
        assert document.data == {"n": 8}
        assert [d.data for d in store["orders"].find({"n": 8})] == [{"n": 8}]


def test_rows_have_sqlalchemys_form_whatever_the_row_factory_of_the_connection(dsn: str) -> None:
    create_invoices(dsn, ["i-1"])
    with Store(dsn, pool_size=1) as store, store.transaction() as tx:
        tx.connection.row_factory = dict_row
        with session_in(tx) as session:
            assert (session.scalars(select(Invoice.number))).all() == ["i-1"]
        tx.connection.row_factory = psycopg.rows.tuple_row


def test_a_serialization_failure_in_the_session_repeats_the_transaction(dsn: str) -> None:
    create_invoices(dsn, ["i-1"])
    attempts = 0

    def add(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        with session_in(tx) as session:
            found = session.get_one(Invoice, "i-1")
            if attempts == 1:
                with psycopg.connect(dsn) as other:
                    other.execute("UPDATE invoices SET amount = amount + 10")
            found.amount += 1

    with Store(dsn) as store:
        store.run(add, isolation="repeatable read")
        assert attempts == 2
        with store.transaction() as tx, session_in(tx) as session:
            assert (session.get_one(Invoice, "i-1")).amount == 12
        attempts = 0
        with pytest.raises(SerializationFailure) as caught:
            store.run(add, isolation="repeatable read", retries=0)
        assert isinstance(caught.value.__cause__, DBAPIError)


def terminate(dsn: str, tx: Transaction) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [tx.connection.info.backend_pid])


def test_a_lost_connection_is_not_replaced_by_another_one(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store:
        with pytest.raises(TransactionLost):
            with store.transaction() as tx, session_in(tx) as session:
                terminate(dsn, tx)
                session.add(invoice("i-1"))
        with pytest.raises(TransactionLost):
            with store.transaction() as tx, connection_in(tx) as connection:
                terminate(dsn, tx)
                with pytest.raises(DBAPIError):
                    connection.execute(select(Invoice))
                connection.rollback()  # SQLAlchemy would connect again now
                connection.execute(insert(Invoice).values(number="i-1", amount=1))
        with store.transaction() as tx, session_in(tx) as session:
            session.add(invoice("i-2"))
    assert numbers(dsn) == ["i-2"]


def test_rows_of_a_bulk_and_of_a_session_commit_together(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store:
        with store.transaction() as tx:
            with tx.bulk() as bulk, session_in(tx) as session:
                for n in range(3):
                    bulk["orders"].insert(f"o-{n}", {})
                    session.add(invoice(f"i-{n}"))
            with session_in(tx) as session, tx.bulk() as bulk:
                bulk["orders"].insert("o-3", {})
                session.add(invoice("i-3"))
            with pytest.raises(ZeroDivisionError):
                with tx.bulk() as bulk, session_in(tx) as session:
                    bulk["orders"].insert("undone", {})
                    session.add(invoice("undone"))
                    session.flush()
                    raise ZeroDivisionError
        assert store["orders"].count() == 4
    assert numbers(dsn) == ["i-0", "i-1", "i-2", "i-3"]


def test_documents_are_read_while_the_session_rolls_back(dsn: str) -> None:
    create_invoices(dsn, ["i-0"])
    with Store(dsn) as store:
        store["orders"].insert_many((f"o-{n:03}", {}) for n in range(250))
        with store.transaction() as tx:
            found = tx["orders"].find(sort="_id")
            ids = [(found.__next__()).id]
            with session_in(tx) as session:
                session.add(invoice("i-0"))
                with pytest.raises(IntegrityError):
                    session.flush()
                session.rollback()
            ids += [document.id for document in found]
            assert ids == [f"o-{n:03}" for n in range(250)]


def test_a_worker_writes_rows_and_repeats_what_a_conflict_undid(dsn: str) -> None:
    create_invoices(dsn)
    with Store(dsn) as store:
        worker, name = Worker(store), fresh_name()
        failed: list[bool] = []

        @worker.on("orders", consumer=name, retries=0)
        def book(tx: Transaction, events: list[ChangeEvent]) -> None:
            with session_in(tx) as session:
                for event in events:
                    session.add(invoice(str(event.document_id)))
                    tx["effects"].insert(str(event.document_id), {})
                if not failed:
                    failed.append(True)
                    session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

        worker.declare()
        store["orders"].insert_many([("o-1", {}), ("o-2", {})])
        with running(worker):
            count(store, "effects", 2)
        assert store.dead_letters() == []
        store.drop_consumer(name)
    assert numbers(dsn) == ["o-1", "o-2"]
