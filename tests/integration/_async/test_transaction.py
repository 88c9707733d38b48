"""Transactions: commit, rollback, and which errors leave them usable."""
# ruff: noqa: PT012 (a failing transaction is a block)

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgdoc import AsyncStore
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
from pgdoc.runtime.primitives import async_sleep
from tests.background import AsyncBackground


async def test_a_transaction_commits_as_a_whole(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.transaction() as tx:
            await tx["orders"].insert("o-1", {"n": 1})
            await tx["stock"].insert_many([("s-1", {}), ("s-2", {})])
            assert await store["orders"].get("o-1") is None
            assert await tx["orders"].get("o-1") is not None
        assert await store["orders"].count() == 1
        assert await store["stock"].count() == 2


async def test_an_exception_rolls_a_transaction_back(own_schema: dict[str, Any]) -> None:
    async def fail(store: AsyncStore) -> None:
        async with store.transaction() as tx:
            await tx["orders"].insert("o-1", {})
            raise LookupError("out of the block")

    async with AsyncStore(**own_schema) as store:
        with pytest.raises(LookupError, match="out of the block"):
            await fail(store)
        assert await store.collections() == []
        async with store.transaction() as tx:  # the failed transaction has no effect on this one
            await tx["orders"].insert("o-1", {})
        assert await store["orders"].count() == 1


async def test_raising_rollback_discards_a_transaction(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        async with store.transaction() as tx:
            await tx["orders"].insert("o-1", {})
            raise psycopg.Rollback
        assert await store["orders"].count() == 0


async def test_refused_calls_leave_the_transaction_usable(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store, store.transaction() as tx:
        orders = tx["orders"]
        assert await orders.get("o-1") is None
        await orders.insert("o-1", {"status": "new"})
        with pytest.raises(DuplicateDocument):
            await orders.insert("o-1", {})
        with pytest.raises(DuplicateDocument):
            await orders.insert_many([("o-2", {}), ("o-1", {})])
        with pytest.raises(InvalidDocument):
            await orders.insert_many([("o-2", {}), ("o-3", {"x": object()})])
        with pytest.raises(InvalidUpdate):
            await orders.update("o-1", {"$inc": {"status": 1}})
        with pytest.raises(VersionConflict):
            await orders.delete("o-1", if_version=9)
        await orders.insert("o-9", {})
        assert [d.id async for d in orders.find(sort="_id")] == ["o-1", "o-9"]


async def test_a_missing_collection_leaves_the_transaction_usable(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, auto_create=False) as store:
        await store.create_collection("there")
        async with store.transaction() as tx:
            for name in ("first", "second"):
                with pytest.raises(CollectionNotFound, match=name):
                    await tx[name].insert("o-1", {})
                with pytest.raises(CollectionNotFound):
                    await tx[name].insert_many([("o-1", {})])
                with pytest.raises(CollectionNotFound):
                    assert [d async for d in tx[name].find()]
            await tx["there"].insert("o-1", {})
        assert await store["there"].count() == 1


async def test_a_transaction_recreates_a_dropped_collection(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        for _ in range(2):
            async with store.transaction() as tx:
                await tx["orders"].insert("o-1", {})
            await store.drop_collection("orders")
        assert await store.collections() == []


async def test_a_collection_dropped_by_another_fails_at_most_one_transaction(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store, AsyncStore(**own_schema) as other:
        async with store.transaction() as tx:
            await tx["orders"].insert("o-1", {})
        await other.drop_collection("orders")
        with pytest.raises(CollectionNotFound):
            async with store.transaction() as tx:
                await tx["orders"].insert("o-2", {})
        async with store.transaction() as tx:
            await tx["orders"].insert("o-3", {})
        assert [d.id async for d in store["orders"].find()] == ["o-3"]


async def test_plain_sql_is_part_of_the_transaction(own_schema: dict[str, Any]) -> None:
    table = f"{own_schema['schema']}.ledger"
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with store.transaction() as tx:
                await tx.connection.execute(f"CREATE TABLE {table} (n int)".encode())
                await tx["orders"].insert("o-1", {})
                await tx.connection.execute("SELECT 1 / 0")
        assert await store["orders"].count() == 0


async def test_an_error_suppressed_inside_a_transaction_still_fails_it(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with pytest.raises(DatabaseError, match="rolled back") as raised:
            async with store.transaction() as tx:
                await tx["orders"].insert("o-1", {})
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await tx.connection.execute("SELECT 1 / 0")
        assert raised.value.sqlstate == "25P02"
        assert await store["orders"].count() == 0


async def test_a_transaction_on_a_closed_connection_is_not_silently_lost(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with pytest.raises(ServerUnreachable):
            async with store.transaction() as tx:
                await tx["orders"].insert("o-1", {})
                await tx.connection.close()
        assert await store["orders"].count() == 0


async def test_an_error_at_commit_is_an_error_of_pgdoc(own_schema: dict[str, Any]) -> None:
    table = f"{own_schema['schema']}.ledger"
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with pytest.raises(PgdocError, match="commit"):
            async with store.transaction() as tx:
                await tx.connection.execute(
                    f"CREATE TABLE {table} (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)".encode()
                )
                await tx.connection.execute(f"INSERT INTO {table} VALUES (1), (1)".encode())
        async with store.transaction() as tx:
            await tx["orders"].insert("o-1", {})
        assert await store["orders"].count() == 1


async def test_other_calls_of_a_transaction_work_during_a_find(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert_many((f"o-{n}", {"n": 0}) for n in range(250))
        async with store.transaction() as tx:
            async for document in tx["orders"].find({"n": 0}):
                assert await tx["orders"].update(document.id, {"$inc": {"n": 1}}) is not None
                async for same in tx["orders"].find({"_id": document.id}):
                    assert same.data == {"n": 1}
        assert await store["orders"].count({"n": 1}) == 250


async def test_an_iterator_that_outlives_its_transaction_is_harmless(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        await store["orders"].insert_many((f"o-{n}", {}) for n in range(250))
        async with store.transaction() as tx:
            left = tx["orders"].find()
            assert (await anext(left)).version == 1
        async with store.transaction() as tx:
            other = tx["orders"].find()
            assert (await anext(other)).version == 1
            with pytest.raises(PgdocError):
                assert [d async for d in left]
            await left.aclose()
            assert len([d async for d in other]) == 249


async def test_a_call_that_waits_for_its_turn_when_the_transaction_ends_is_refused(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"n": 1})
        with psycopg.connect(own_schema["conninfo"]) as other:
            other.execute(f'SELECT FROM "{own_schema["schema"]}".orders FOR UPDATE')
            transaction = store.transaction()
            tx = await transaction.__aenter__()
            waiting = AsyncWaitingTurns(tx._session)

            async def write_late() -> None:
                with pytest.raises(TransactionClosed):
                    await tx["orders"].insert("late", {})

            async with AsyncBackground(tx["orders"].update, "o-1", {"$inc": {"n": 1}}):
                await waiting.reach(1)
                async with AsyncBackground(write_late):
                    await waiting.reach(2)
                    error = ZeroDivisionError()
                    async with AsyncBackground(transaction.__aexit__, ZeroDivisionError, error, None):
                        await waiting.reach(3)
                        other.rollback()
        assert [document.data async for document in store["orders"].find()] == [{"n": 1}]


class AsyncWaitingTurns:
    """Counts the calls that have asked for the turn of a transaction."""

    def __init__(self, session: Any) -> None:
        self._turn, self._asked = session._turn, 0
        session._turn = self

    async def __aenter__(self) -> None:
        self._asked += 1
        await self._turn.__aenter__()

    async def __aexit__(self, *exc_info: object) -> None:
        await self._turn.__aexit__(*exc_info)

    async def reach(self, number: int) -> None:
        for _ in range(1_000):
            await async_sleep(0.01)
            if self._asked >= number:
                return
        pytest.fail(f"{self._asked} calls have asked for their turn, not {number}")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
async def test_a_bulk_that_outlives_its_transaction_writes_nothing_and_keeps_no_connection(
    own_schema: dict[str, Any], error: Exception | None, ordered: bool
) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        orders = await store.create_collection("orders")
        with pytest.raises(
            DatabaseError if error is None else ZeroDivisionError, match="not ended" if error is None else None
        ):
            async with store.transaction() as tx:
                bulk = tx.bulk(ordered=ordered)
                await bulk.__aenter__()
                await bulk["orders"].insert("o-1", {})
                await tx["orders"].insert("o-2", {})
                if error is not None:
                    raise error
        with pytest.raises(TransactionClosed):
            await bulk.__aexit__(None, None, None)
        async with store.transaction() as tx:
            empty = tx.bulk(ordered=ordered)
            await empty.__aenter__()
            raise psycopg.Rollback
        with pytest.raises(TransactionClosed, match="before this bulk"):
            await empty.__aexit__(None, None, None)
        assert await orders.count() == 0


@pytest.mark.parametrize("fails", [True, False])
async def test_bulks_of_one_transaction_that_overlap_roll_it_back(own_schema: dict[str, Any], fails: bool) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        with pytest.raises(DatabaseError, match="rolled back"):
            async with store.transaction() as tx:
                one, two = tx.bulk(), tx.bulk()
                await one.__aenter__()
                await two.__aenter__()
                await one["orders"].insert("o-1" if fails else "o-2", {})
                await two["orders"].insert("o-3", {})
                for bulk in (one, two):
                    with pytest.raises(DatabaseError, match="overlapped"):
                        await bulk.__aexit__(None, None, None)
        assert await store["orders"].count() == 1


async def test_a_bulk_that_is_left_while_its_writes_wait_for_a_connection_takes_none(
    own_schema: dict[str, Any],
) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        orders = await store.create_collection("orders")
        await orders.count()
        async with store.transaction():
            bulk = store.bulk()
            await bulk.__aenter__()
            for number in range(CHUNK_STATEMENTS - 1):
                await bulk["orders"].insert(f"o-{number}", {})

            async def send() -> None:
                with pytest.raises(TransactionClosed):
                    await bulk["orders"].insert("last", {})

            sending = AsyncBackground(send)
            await sending.__aenter__()
            while not store._connections._pool.get_stats()["requests_waiting"]:  # type: ignore[union-attr]
                await async_sleep(0.01)
            assert not await bulk.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
        await sending.__aexit__()
        assert await orders.count() == 0


async def test_insert_many_sends_block_by_block(own_schema: dict[str, Any]) -> None:
    documents = {f"o-{n}": {"n": n, "text": "x" * 1000} for n in range(1000)}
    async with AsyncStore(**own_schema) as store:
        async with store.transaction() as tx:
            assert await tx["orders"].insert_many(documents.items()) == 1000
            assert await tx["orders"].insert_many([]) == 0
        assert {d.id: d.data async for d in store["orders"].find()} == documents


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_isolation_holds_for_one_transaction(own_schema: dict[str, Any], isolation: str) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        async with store.transaction(isolation=isolation) as tx:
            row = await (await tx.connection.execute("SHOW transaction_isolation")).fetchone()
            assert row == (isolation,)
        async with store.transaction() as tx:
            row = await (await tx.connection.execute("SHOW transaction_isolation")).fetchone()
            assert row == ("read committed",)


async def test_an_invalid_isolation_level_is_refused(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(ValueError, match="serializable"):
            store.transaction(isolation="chaos; DROP TABLE orders")


async def test_a_serialization_failure_is_reported_as_such(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"n": 0})
        with pytest.raises(DatabaseError) as raised:
            async with store.transaction(isolation="repeatable read") as tx:
                await tx["orders"].get("o-1")
                await store["orders"].update("o-1", {"$inc": {"n": 1}})
                await tx["orders"].update("o-1", {"$inc": {"n": 1}})
        assert raised.value.sqlstate == "40001"


async def test_outside_its_block_a_transaction_is_closed(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        transaction = store.transaction()
        with pytest.raises(TransactionClosed):
            await transaction["orders"].get("o-1")
        async with transaction as tx:
            await tx["orders"].insert("o-1", {})
        with pytest.raises(TransactionClosed):
            await tx["orders"].insert("o-2", {})
    with pytest.raises(StoreClosed):
        async with store.transaction():
            pass
