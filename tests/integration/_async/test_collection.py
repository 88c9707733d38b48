"""The document calls of a collection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import AsyncStore
from pgdoc.errors import (
    CollectionNotFound,
    DuplicateDocument,
    InvalidDocument,
    InvalidFilter,
    InvalidName,
    InvalidUpdate,
    VersionConflict,
)


async def test_an_inserted_document_is_read_back(own_schema: dict[str, Any]) -> None:
    data = {"total": 1250.5, "status": "new", "tags": ["a", {"b": None}], "naïve": "☃"}
    async with AsyncStore(**own_schema) as store:
        before = datetime.now(UTC) - timedelta(minutes=1)
        made = await store["orders"].insert("o-1", data)
        assert (made.id, made.data, made.version) == ("o-1", data, 1)
        assert made.created_at == made.updated_at > before
        assert made.created_at.tzinfo is UTC
        assert await store["orders"].get("o-1") == made


async def test_times_are_in_utc_whatever_the_time_zone_of_the_session(own_schema: dict[str, Any]) -> None:
    options = "-c timezone=Asia/Kathmandu -c datestyle=German"
    async with AsyncStore(
        **{**own_schema, "conninfo": make_conninfo(own_schema["conninfo"], options=options)}
    ) as store:
        made = await store["orders"].insert("o-1", {})
        found = await store["orders"].get("o-1")
    assert made.created_at.tzinfo is UTC
    assert found == made


async def test_a_missing_document_is_none(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = await store.create_collection("orders")
        assert await orders.get("o-1") is None
        assert await orders.update("o-1", {"$set": {"a": 1}}) is None
        assert await orders.replace("o-1", {}) is None
        assert await orders.delete("o-1") is False


async def test_inserting_an_id_twice_changes_nothing(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        made = await store["orders"].insert("o-1", {"a": 1})
        with pytest.raises(DuplicateDocument, match="'o-1'") as raised:
            await store["orders"].insert("o-1", {"a": 2})
        assert raised.value.document_id == "o-1"
        assert await store["orders"].get("o-1") == made


@pytest.mark.parametrize("document_id", ["", "a\0b", "x" * 1025, "\ud800", 7])
async def test_an_invalid_id_is_refused(own_schema: dict[str, Any], document_id: Any) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidDocument):
            await store["orders"].insert(document_id, {})
        assert await store.collections() == []


@pytest.mark.parametrize("document_id", ["x" * 1024, "%s {} $1", "a'b\"c\\d", "tab\there\nand there", "🦉"])
async def test_any_other_text_is_a_valid_id(own_schema: dict[str, Any], document_id: str) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert(document_id, {"n": 1})
        await store["orders"].update(document_id, {"$inc": {"n": 1}})
        await store["copies"].insert_many([(document_id, {"n": 2})])
        assert [d.id async for d in store["copies"].find({"_id": document_id})] == [document_id]
        found = await store["orders"].find_one({"_id": document_id})
    assert found is not None
    assert found.data == {"n": 2}


async def test_update_changes_parts_and_counts_versions(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        made = await store["orders"].insert("o-1", {"total": 5, "old": True})
        changes = {"$set": {"address.city": "Ulm"}, "$inc": {"total": 2}, "$unset": {"old": ""}}
        updated = await store["orders"].update("o-1", changes)
        assert updated is not None
        assert updated.data == {"total": 7, "address": {"city": "Ulm"}}
        assert (updated.version, updated.created_at) == (2, made.created_at)
        assert updated.updated_at > made.updated_at
        assert await store["orders"].get("o-1") == updated


async def test_an_update_that_changes_nothing_writes_nothing(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        made = await store["orders"].insert("o-1", {"a": 1})
        assert await store["orders"].update("o-1", {"$set": {"a": 1.0}}) == made
        assert await store["orders"].update("o-1", {"$set": {"a": 1}}, upsert=True) == made
        assert await store["orders"].update("o-1", {"$unset": {"b": ""}}, if_version=1) == made
        assert await store["orders"].get("o-1") == made


async def test_true_and_one_are_different_values(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"a": 1})
        updated = await store["orders"].update("o-1", {"$set": {"a": True}})
        assert updated is not None
        assert updated.data["a"] is True
        assert updated.version == 2


async def test_an_update_that_does_not_fit_is_refused(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        made = await store["orders"].insert("o-1", {"status": "new"})
        for upsert in (False, True):
            with pytest.raises(InvalidUpdate, match="status") as raised:
                await store["orders"].update("o-1", {"$inc": {"status": 1}}, upsert=upsert)
            assert (raised.value.operator, raised.value.path) == ("$inc", "status")
        assert await store["orders"].get("o-1") == made


async def test_upsert_creates_a_missing_document(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        for version in (1, 2, 3):
            counted = await store["counters"].update("visits", {"$inc": {"n": 1}}, upsert=True)
            assert counted is not None
            assert (counted.data, counted.version) == ({"n": version}, version)


async def test_replace_writes_the_whole_document(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        made = await store["orders"].insert("o-1", {"a": 1, "b": 2})
        replaced = await store["orders"].replace("o-1", {"c": 3})
        assert replaced is not None
        assert (replaced.data, replaced.version, replaced.created_at) == ({"c": 3}, 2, made.created_at)
        assert await store["orders"].get("o-1") == replaced


async def test_replacing_with_equal_data_still_counts(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"a": 1})
        replaced = await store["orders"].replace("o-1", {"a": 1})
        assert replaced is not None
        assert replaced.version == 2


async def test_replace_with_upsert_inserts_or_replaces(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        for version in (1, 2):
            replaced = await store["orders"].replace("o-1", {"n": version}, upsert=True)
            assert replaced == await store["orders"].get("o-1")
            assert replaced is not None
            assert (replaced.data, replaced.version) == ({"n": version}, version)


async def test_delete_returns_whether_the_document_existed(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        assert await store["orders"].delete("o-1") is True
        assert await store["orders"].delete("o-1") is False
        assert await store["orders"].count() == 0


async def test_if_version_allows_a_change_of_that_version(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert("o-1", {"n": 0})
        assert await orders.update("o-1", {"$inc": {"n": 1}}, if_version=1) is not None
        assert await orders.replace("o-1", {"n": 5}, if_version=2) is not None
        assert await orders.delete("o-1", if_version=3) is True


async def test_if_version_refuses_another_version(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        made = await orders.insert("o-1", {"n": 0})
        with pytest.raises(VersionConflict, match="at version 1, not at version 7") as conflict:
            await orders.update("o-1", {"$inc": {"n": 1}}, if_version=7)
        assert conflict.value.found_version == 1
        with pytest.raises(VersionConflict):
            await orders.replace("o-1", {}, if_version=7)
        with pytest.raises(VersionConflict):
            await orders.delete("o-1", if_version=7)
        assert await orders.get("o-1") == made


async def test_if_version_of_a_missing_document_conflicts(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = await store.create_collection("orders")
        with pytest.raises(VersionConflict) as conflict:
            await orders.update("o-1", {"$inc": {"n": 1}}, if_version=7)
        assert conflict.value.found_version is None
        with pytest.raises(VersionConflict):
            await orders.replace("o-1", {}, if_version=7)
        with pytest.raises(VersionConflict):
            await orders.delete("o-1", if_version=7)


async def test_if_version_and_upsert_exclude_each_other(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(ValueError, match="if_version"):
            await store["orders"].update("o-1", {"$set": {"a": 1}}, upsert=True, if_version=1)
        with pytest.raises(ValueError, match="if_version"):
            await store["orders"].replace("o-1", {}, upsert=True, if_version=1)


async def test_insert_many_takes_any_iterable_of_pairs(own_schema: dict[str, Any]) -> None:
    documents = {f"o-{n:05}": {"n": n, "text": "back\\slash\ttab\nline ☃" * 20} for n in range(2000)}
    told: list[int] = []
    async with AsyncStore(**own_schema) as store:
        assert await store["orders"].insert_many(documents.items(), progress=told.append) == 2000
        assert await store["orders"].insert_many(iter([("x", {"m": None})])) == 1
        assert await store["orders"].insert_many([]) == 0
        found = {document.id: document.data async for document in store["orders"].find({"n": {"$exists": True}})}
    assert found == documents
    assert told == sorted(told)
    assert len(told) > 1
    assert told[-1] == 2000


@pytest.mark.parametrize("pairs", [[("new", {}), ("o-1", {})], [("new", {}), ("new", {})]])
async def test_insert_many_is_all_or_nothing(
    own_schema: dict[str, Any], pairs: list[tuple[str, dict[str, Any]]]
) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        with pytest.raises(DuplicateDocument) as raised:
            await store["orders"].insert_many(pairs)
        assert raised.value.document_id == pairs[1][0]
        assert await store["orders"].count() == 1


async def test_insert_many_names_the_document_that_cant_be_stored(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidDocument, match="'o-2'") as raised:
            await store["orders"].insert_many([("o-1", {}), ("o-2", {"a": {"b": float("nan")}})])
        assert raised.value.path == "a.b"
        assert await store["orders"].count() == 0


async def test_an_error_of_the_iterable_is_passed_on_and_nothing_is_stored(own_schema: dict[str, Any]) -> None:
    def pairs() -> Any:
        yield "o-1", {}
        raise LookupError("the source is gone")

    async with AsyncStore(**own_schema) as store:
        with pytest.raises(LookupError, match="the source is gone"):
            await store["orders"].insert_many(pairs())
        assert await store["orders"].count() == 0


async def test_find_filters_sorts_limits_and_skips(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert_many((f"o-{n}", {"n": n, "even": n % 2 == 0}) for n in range(10))
        found = [d.id async for d in orders.find({"even": True, "n": {"$gt": 0}}, sort="-n", limit=2, skip=1)]
        assert found == ["o-6", "o-4"]
        assert [d.id async for d in orders.find(sort=["even", "-n"], limit=0)] == []
        first = await orders.find_one({"n": {"$in": [3, 4, 99]}}, sort="n")
        assert first is not None
        assert first == await orders.get("o-3")
        assert await orders.find_one({"n": 99}) is None
        assert await orders.count({"even": True}) == 5
        assert await orders.count() == 10


async def test_find_refuses_an_invalid_filter_at_once(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidFilter, match=r"\$gtt"):
            store["orders"].find({"n": {"$gtt": 1}})
        with pytest.raises(ValueError, match="integer from 0"):
            store["orders"].find(limit=-1)


async def test_a_find_that_is_left_early_gives_its_connection_back(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        orders = store["orders"]
        await orders.insert_many((f"o-{n}", {}) for n in range(1000))
        for _ in range(3):
            documents = orders.find()
            assert (await anext(documents)).version == 1
            await documents.aclose()
        assert await orders.count() == 1000


async def test_other_calls_work_during_a_find(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert_many((f"o-{n}", {"n": 0}) for n in range(300))
        async for document in orders.find():
            await orders.update(document.id, {"$inc": {"n": 1}})
        assert await orders.count({"n": 1}) == 300


async def test_a_missing_collection_is_empty(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        assert await orders.get("o-1") is None
        assert [d async for d in orders.find()] == []
        assert await orders.find_one() is None
        assert await orders.count() == 0
        assert await orders.update("o-1", {"$set": {"a": 1}}) is None
        assert await orders.delete("o-1") is False
        assert await store.collections() == []


async def test_the_first_document_creates_its_collection(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["a"].insert("1", {})
        await store["b"].insert_many([("1", {})])
        await store["c"].update("1", {"$set": {"x": 1}}, upsert=True)
        await store["d"].replace("1", {}, upsert=True)
        assert await store.collections() == ["a", "b", "c", "d"]


async def test_without_auto_create_a_missing_collection_is_an_error(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, auto_create=False) as store:
        orders = store["orders"]
        with pytest.raises(CollectionNotFound, match=r"orders"):
            await orders.insert("o-1", {})
        with pytest.raises(CollectionNotFound):
            await orders.insert_many([("o-1", {})])
        with pytest.raises(CollectionNotFound):
            await orders.get("o-1")
        with pytest.raises(CollectionNotFound):
            assert [d async for d in orders.find()]
        await store.create_collection("orders")
        await orders.insert("o-1", {})


@pytest.mark.parametrize("name", ["", "1a", "-a", "a.b", 'a"b', "a b", "ä" * 32, None, "a\n"])
async def test_an_invalid_collection_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidName):
        AsyncStore("").collection(name)


@pytest.mark.parametrize("name", ["_", "a-b", "Orders", "select", "ä" * 31, "o_1"])
async def test_any_other_name_is_a_valid_collection_name(own_schema: dict[str, Any], name: str) -> None:
    async with AsyncStore(own_schema["conninfo"], schema="Odd-" + own_schema["schema"]) as store:
        await store[name].insert("o-1", {"n": 1})
        await store[name].insert_many([("o-2", {"n": 2})])
        assert await store[name].count({"n": {"$gt": 0}}) == 2
        assert await store.collections() == [name]
