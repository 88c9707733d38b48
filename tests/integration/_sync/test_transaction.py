# Written by .ci/twins.py from tests/integration/_async/test_transaction.py: change that file, and run it.
"""Transactions: commit, rollback, and which errors leave them usable."""
# ruff: noqa: PT012 (a failing transaction is a block)

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.crud.bulk_results import CHUNK_STATEMENTS
from pgdoc.errors import (
    CollectionNotFound,
    DatabaseError,
    DuplicateDocument,
    InvalidDocument,
    InvalidUpdate,
    PgdocError,
    ServerUnreachable,
    StoreClosed,
    TransactionClosed,
    VersionConflict,
)
from pgdoc.runtime.primitives import sleep
from tests.background import Background


def test_a_transaction_commits_as_a_whole(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.transaction() as tx:
            tx["orders"].insert("o-1", {"n": 1})
            tx["stock"].insert_many([("s-1", {}), ("s-2", {})])
            assert store["orders"].get("o-1") is None
            assert tx["orders"].get("o-1") is not None
        assert store["orders"].count() == 1
        assert store["stock"].count() == 2


def test_an_exception_rolls_a_transaction_back(own_schema: dict[str, Any]) -> None:
    def fail(store: Store) -> None:
        with store.transaction() as tx:
            tx["orders"].insert("o-1", {})
            raise LookupError("out of the block")

    with Store(**own_schema) as store:
        with pytest.raises(LookupError, match="out of the block"):
            fail(store)
        assert store.collections() == []
        with store.transaction() as tx:  # the failed transaction has no effect on this one
            tx["orders"].insert("o-1", {})
        assert store["orders"].count() == 1


def test_raising_rollback_discards_a_transaction(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with store.transaction() as tx:
            tx["orders"].insert("o-1", {})
            raise psycopg.Rollback
        assert store["orders"].count() == 0


def test_refused_calls_leave_the_transaction_usable(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, store.transaction() as tx:
        orders = tx["orders"]
        assert orders.get("o-1") is None
        orders.insert("o-1", {"status": "new"})
        with pytest.raises(DuplicateDocument):
            orders.insert("o-1", {})
        with pytest.raises(DuplicateDocument):
            orders.insert_many([("o-2", {}), ("o-1", {})])
        with pytest.raises(InvalidDocument):
            orders.insert_many([("o-2", {}), ("o-3", {"x": object()})])
        with pytest.raises(InvalidUpdate):
            orders.update("o-1", {"$inc": {"status": 1}})
        with pytest.raises(VersionConflict):
            orders.delete("o-1", if_version=9)
        orders.insert("o-9", {})
        assert [d.id for d in orders.find(sort="_id")] == ["o-1", "o-9"]


def test_a_missing_collection_leaves_the_transaction_usable(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema, auto_create=False) as store:
        store.create_collection("there")
        with store.transaction() as tx:
            for name in ("first", "second"):
                with pytest.raises(CollectionNotFound, match=name):
                    tx[name].insert("o-1", {})
                with pytest.raises(CollectionNotFound):
                    tx[name].insert_many([("o-1", {})])
                with pytest.raises(CollectionNotFound):
                    assert [d for d in tx[name].find()]
            tx["there"].insert("o-1", {})
        assert store["there"].count() == 1


def test_a_transaction_recreates_a_dropped_collection(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        for _ in range(2):
            with store.transaction() as tx:
                tx["orders"].insert("o-1", {})
            store.drop_collection("orders")
        assert store.collections() == []


def test_a_collection_dropped_by_another_fails_at_most_one_transaction(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, Store(**own_schema) as other:
        with store.transaction() as tx:
            tx["orders"].insert("o-1", {})
        other.drop_collection("orders")
        with pytest.raises(CollectionNotFound):
            with store.transaction() as tx:
                tx["orders"].insert("o-2", {})
        with store.transaction() as tx:
            tx["orders"].insert("o-3", {})
        assert [d.id for d in store["orders"].find()] == ["o-3"]


def test_plain_sql_is_part_of_the_transaction(own_schema: dict[str, Any]) -> None:
    table = f"{own_schema['schema']}.ledger"
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with pytest.raises(psycopg.errors.DivisionByZero):
            with store.transaction() as tx:
                tx.connection.execute(f"CREATE TABLE {table} (n int)".encode())
                tx["orders"].insert("o-1", {})
                tx.connection.execute("SELECT 1 / 0")
        assert store["orders"].count() == 0


def test_an_error_suppressed_inside_a_transaction_still_fails_it(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with pytest.raises(DatabaseError, match="rolled back") as raised:
            with store.transaction() as tx:
                tx["orders"].insert("o-1", {})
                with pytest.raises(psycopg.errors.DivisionByZero):
                    tx.connection.execute("SELECT 1 / 0")
        assert raised.value.sqlstate == "25P02"
        assert store["orders"].count() == 0


def test_a_transaction_on_a_closed_connection_is_not_silently_lost(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with pytest.raises(ServerUnreachable):
            with store.transaction() as tx:
                tx["orders"].insert("o-1", {})
                tx.connection.close()
        assert store["orders"].count() == 0


def test_an_error_at_commit_is_an_error_of_pgdoc(own_schema: dict[str, Any]) -> None:
    table = f"{own_schema['schema']}.ledger"
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with pytest.raises(PgdocError, match="commit"):
            with store.transaction() as tx:
                tx.connection.execute(f"CREATE TABLE {table} (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)".encode())
                tx.connection.execute(f"INSERT INTO {table} VALUES (1), (1)".encode())
        with store.transaction() as tx:
            tx["orders"].insert("o-1", {})
        assert store["orders"].count() == 1


def test_other_calls_of_a_transaction_work_during_a_find(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert_many((f"o-{n}", {"n": 0}) for n in range(250))
        with store.transaction() as tx:
            for document in tx["orders"].find({"n": 0}):
                assert tx["orders"].update(document.id, {"$inc": {"n": 1}}) is not None
                for same in tx["orders"].find({"_id": document.id}):
                    assert same.data == {"n": 1}
        assert store["orders"].count({"n": 1}) == 250


def test_an_iterator_that_outlives_its_transaction_is_harmless(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema, pool_size=1) as store:
        store["orders"].insert_many((f"o-{n}", {}) for n in range(250))
        with store.transaction() as tx:
            left = tx["orders"].find()
            assert (next(left)).version == 1
        with store.transaction() as tx:
            other = tx["orders"].find()
            assert (next(other)).version == 1
            with pytest.raises(PgdocError):
                assert [d for d in left]
            left.close()
            assert len([d for d in other]) == 249


def test_a_call_that_waits_for_its_turn_when_the_transaction_ends_is_refused(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {"n": 1})
        with psycopg.connect(own_schema["conninfo"]) as other:
            other.execute(f'SELECT FROM "{own_schema["schema"]}".orders FOR UPDATE')
            transaction = store.transaction()
            tx = transaction.__enter__()
            waiting = WaitingTurns(tx._session)

            def write_late() -> None:
                with pytest.raises(TransactionClosed):
                    tx["orders"].insert("late", {})

            with Background(tx["orders"].update, "o-1", {"$inc": {"n": 1}}):
                waiting.reach(1)
                with Background(write_late):
                    waiting.reach(2)
                    error = ZeroDivisionError()
                    with Background(transaction.__exit__, ZeroDivisionError, error, None):
                        waiting.reach(3)
                        other.rollback()
        assert [document.data for document in store["orders"].find()] == [{"n": 1}]


class WaitingTurns:
    """Counts the calls that have asked for the turn of a transaction."""

    def __init__(self, session: Any) -> None:
        self._turn, self._asked = session._turn, 0
        session._turn = self

    def __enter__(self) -> None:
        self._asked += 1
        self._turn.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        self._turn.__exit__(*exc_info)

    def reach(self, number: int) -> None:
        for _ in range(1_000):
            sleep(0.01)
            if self._asked >= number:
                return
        pytest.fail(f"{self._asked} calls have asked for their turn, not {number}")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_a_bulk_that_outlives_its_transaction_writes_nothing_and_keeps_no_connection(
    own_schema: dict[str, Any], error: Exception | None, ordered: bool
) -> None:
    with Store(**own_schema, pool_size=1) as store:
        orders = store.create_collection("orders")
        with pytest.raises(
            DatabaseError if error is None else ZeroDivisionError, match="not ended" if error is None else None
        ):
            with store.transaction() as tx:
                bulk = tx.bulk(ordered=ordered)
                bulk.__enter__()
                bulk["orders"].insert("o-1", {})
                tx["orders"].insert("o-2", {})
                if error is not None:
                    raise error
        with pytest.raises(TransactionClosed):
            bulk.__exit__(None, None, None)
        with store.transaction() as tx:
            empty = tx.bulk(ordered=ordered)
            empty.__enter__()
            raise psycopg.Rollback
        with pytest.raises(TransactionClosed, match="before this bulk"):
            empty.__exit__(None, None, None)
        assert orders.count() == 0


@pytest.mark.parametrize("fails", [True, False])
def test_bulks_of_one_transaction_that_overlap_roll_it_back(own_schema: dict[str, Any], fails: bool) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {})
        with pytest.raises(DatabaseError, match="rolled back"):
            with store.transaction() as tx:
                one, two = tx.bulk(), tx.bulk()
                one.__enter__()
                two.__enter__()
                one["orders"].insert("o-1" if fails else "o-2", {})
                two["orders"].insert("o-3", {})
                for bulk in (one, two):
                    with pytest.raises(DatabaseError, match="overlapped"):
                        bulk.__exit__(None, None, None)
        assert store["orders"].count() == 1


def test_a_bulk_that_is_left_while_its_writes_wait_for_a_connection_takes_none(
    own_schema: dict[str, Any],
) -> None:
    with Store(**own_schema, pool_size=1) as store:
        orders = store.create_collection("orders")
        orders.count()
        with store.transaction():
            bulk = store.bulk()
            bulk.__enter__()
            for number in range(CHUNK_STATEMENTS - 1):
                bulk["orders"].insert(f"o-{number}", {})

            def send() -> None:
                with pytest.raises(TransactionClosed):
                    bulk["orders"].insert("last", {})

            sending = Background(send)
            sending.__enter__()
            while not store._connections._pool.get_stats()["requests_waiting"]:  # type: ignore[union-attr]
                sleep(0.01)
            assert not bulk.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        sending.__exit__()
        assert orders.count() == 0


def test_insert_many_sends_block_by_block(own_schema: dict[str, Any]) -> None:
    documents = {f"o-{n}": {"n": n, "text": "x" * 1000} for n in range(1000)}
    with Store(**own_schema) as store:
        with store.transaction() as tx:
            assert tx["orders"].insert_many(documents.items()) == 1000
            assert tx["orders"].insert_many([]) == 0
        assert {d.id: d.data for d in store["orders"].find()} == documents


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_isolation_holds_for_one_transaction(own_schema: dict[str, Any], isolation: str) -> None:
    with Store(**own_schema, pool_size=1) as store:
        with store.transaction(isolation=isolation) as tx:
            row = (tx.connection.execute("SHOW transaction_isolation")).fetchone()
            assert row == (isolation,)
        with store.transaction() as tx:
            row = (tx.connection.execute("SHOW transaction_isolation")).fetchone()
            assert row == ("read committed",)


def test_an_invalid_isolation_level_is_refused(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(ValueError, match="serializable"):
            store.transaction(isolation="chaos; DROP TABLE orders")


def test_a_serialization_failure_is_reported_as_such(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {"n": 0})
        with pytest.raises(DatabaseError) as raised:
            with store.transaction(isolation="repeatable read") as tx:
                tx["orders"].get("o-1")
                store["orders"].update("o-1", {"$inc": {"n": 1}})
                tx["orders"].update("o-1", {"$inc": {"n": 1}})
        assert raised.value.sqlstate == "40001"


def test_outside_its_block_a_transaction_is_closed(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        transaction = store.transaction()
        with pytest.raises(TransactionClosed):
            transaction["orders"].get("o-1")
        with transaction as tx:
            tx["orders"].insert("o-1", {})
        with pytest.raises(TransactionClosed):
            tx["orders"].insert("o-2", {})
    with pytest.raises(StoreClosed):
        with store.transaction():
            pass
