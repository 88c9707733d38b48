"""Transactions: commit, rollback, and which errors leave them usable."""
# ruff: noqa: PT012 (a failing transaction is a block)

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgdoc import AsyncStore
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
