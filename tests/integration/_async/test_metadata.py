"""The writer's metadata is in the WAL before the change that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import AsyncStore, metadata
from pgdoc.errors import DuplicateDocument, InvalidDocument
from tests.integration.wal import recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgdoc import AsyncCollection


async def writes(orders: AsyncCollection) -> AsyncIterator[str]:
    """Make every kind of write in turn, and yield the kind of change after each."""
    await orders.insert("o-1", {"n": 1})
    yield "insert"
    await orders.update("o-1", {"$inc": {"n": 1}})
    yield "update"
    await orders.update("o-1", {"$inc": {"n": 1}}, if_version=2)
    yield "update"
    await orders.update("o-1", {"$inc": {"n": 1}}, upsert=True)
    yield "update"
    await orders.update("o-2", {"$inc": {"n": 1}}, upsert=True)
    yield "insert"
    await orders.replace("o-1", {"n": 1})
    yield "update"
    await orders.replace("o-1", {"n": 1}, upsert=True)
    yield "update"
    await orders.replace("o-3", {"n": 1}, upsert=True)
    yield "insert"
    await orders.insert_many([("o-4", {})])
    yield "insert"
    await orders.delete("o-1")
    yield "delete"
    await orders.delete("o-2", if_version=1)
    yield "delete"


async def test_each_write_of_a_metadata_block_emits_it_before_its_change(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = await store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes, metadata(user="Ål", n=2**70):
            async for kind in writes(orders):
                assert changes() == [{"user": "Ål", "n": 2**70}, kind, "end"]


@pytest.mark.parametrize("name", ["metadata", "carried"])
async def test_a_collection_of_any_name_can_be_written_with_metadata(own_schema: dict[str, Any], name: str) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store[name]
        with metadata(user="bob"):
            await orders.insert("a", {})
            assert await orders.update("a", {"$set": {"n": 1}})
            assert await orders.replace("a", {"n": 2})
            assert await orders.update_many({}, {"$inc": {"n": 1}}) == 1
            assert await orders.update_one({}, {"$inc": {"n": 1}})
            assert await orders.delete("a")
            assert await orders.delete_many({}) == 0


async def test_without_metadata_there_is_no_message(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = await store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            async for kind in writes(orders):
                assert changes() == [kind, "end"]


async def test_a_transaction_emits_metadata_once(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            async with store.transaction(metadata={"user": "alice"}) as tx:
                kinds = [kind async for kind in writes(tx["orders"])]
            assert changes() == [{"user": "alice"}, *kinds, "end"]


async def test_metadata_holds_in_and_after_savepoints_that_are_rolled_back(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = await store.create_collection("orders")
        await orders.insert("o-1", {})
        with recorded(own_schema["conninfo"]) as changes:
            async with store.transaction(metadata={"user": "alice"}) as tx:
                with pytest.raises(DuplicateDocument):
                    await tx["orders"].insert_many([("o-2", {}), ("o-1", {})])
                await tx["orders"].insert("o-3", {})
            assert changes() == [{"user": "alice"}, "insert", "end"]


async def test_a_transaction_merges_its_metadata_over_that_of_the_block_around_it(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            with metadata(user="alice", app="shop"):
                async with store.transaction(metadata={"user": "bob"}) as tx:
                    await tx["orders"].insert("o-1", {})
            assert changes() == [{"user": "bob", "app": "shop"}, "insert", "end"]


async def test_a_metadata_block_inside_a_transaction_applies_to_its_writes_only(own_schema: dict[str, Any]) -> None:
    outer = {"user": "alice"}
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            async with store.transaction(metadata=outer) as tx:
                await tx["orders"].insert("o-1", {})
                with metadata(step=2):
                    await tx["orders"].insert("o-2", {})
                    await tx["orders"].insert_many([("o-3", {})])
                await tx["orders"].insert("o-4", {})
            inner = {"user": "alice", "step": 2}
            assert changes() == [outer, "insert", inner, "insert", inner, "insert", outer, "insert", "end"]


async def test_metadata_ends_with_its_block_inside_a_transaction_without_metadata(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            async with store.transaction() as tx:
                with metadata(step=1):
                    await tx["orders"].insert("o-1", {})
                await tx["orders"].insert("o-2", {})
            assert changes() == [{"step": 1}, "insert", {}, "insert", "end"]


async def test_metadata_that_json_cannot_represent_is_refused_before_anything_is_sent(
    own_schema: dict[str, Any],
) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidDocument, match="user"):
            store.transaction(metadata={"user": object()})
        with pytest.raises(InvalidDocument, match="user"), metadata(user={1, 2}):
            pass
        with pytest.raises(InvalidDocument, match="mapping"):
            store.transaction(metadata=["alice"])  # type: ignore[arg-type]
