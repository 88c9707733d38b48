"""Calls that change or replace the first match, insert where there is none, and update elements of arrays."""
# ruff: noqa: PT012 (a failing transaction or bulk is a block)

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import AsyncStore, BulkResult, WriteCount, metadata
from pgdoc.errors import BulkError, DuplicateDocument, InvalidFilter, InvalidInput, InvalidUpdate
from tests.integration.wal import recorded

if TYPE_CHECKING:
    from pgdoc import AsyncCollection

ITEMS: dict[str, Any] = {"items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}, {"sku": "b", "n": 3}]}


async def data_of(docs: AsyncCollection) -> dict[str, Any]:
    return {document.id: document.data async for document in docs.find()}


async def test_every_call_with_a_filter_updates_the_element_that_it_matched(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        await docs.insert("1", ITEMS)
        await docs.insert("2", {"items": [{"sku": "b"}]})
        changed = await docs.update_one({"_id": "1", "items.sku": "b"}, {"$inc": {"items.$.n": 10}})
        assert changed is not None
        assert [item["n"] for item in changed["items"]] == [1, 12, 3]
        assert await docs.update_many({"items.sku": "b"}, {"$set": {"items.$.seen": True}}) == 2
        async with store.bulk() as bulk:
            await bulk["docs"].update_one({"items.n": {"$gte": 3}}, {"$inc": {"items.$.n": 1}}, sort="_id")
            await bulk["docs"].update_many({"items.sku": "b"}, {"$unset": {"items.$.seen": ""}})
        assert bulk.result.changed == 3
        assert await data_of(docs) == {
            "1": {"items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 13}, {"sku": "b", "n": 3}]},
            "2": {"items": [{"sku": "b"}]},
        }


async def test_every_update_takes_array_filters(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        await docs.insert("1", ITEMS)
        change: dict[str, Any] = {"$inc": {"items.$[item].n": 10}}
        given: dict[str, Any] = {"array_filters": [{"item.sku": "b"}]}
        await docs.update("1", change, **given)
        await docs.update("1", change, upsert=True, **given)
        await docs.update_one({}, change, **given)
        await docs.update_many({}, change, **given)
        async with store.bulk() as bulk:
            await bulk["docs"].update("1", change, **given)
            await bulk["docs"].update("1", change, upsert=True, **given)
            await bulk["docs"].update_one({}, change, **given)
            await bulk["docs"].update_many({}, change, **given)
        document = await docs.get("1")
        assert document is not None
        assert [item["n"] for item in document["items"]] == [1, 82, 83]
        with pytest.raises(InvalidUpdate, match="'$[item]' needs an array".replace("$", r"\$").replace("[", r"\[")):
            await docs.update("2", change, upsert=True, **given)


async def test_a_position_that_no_element_has_is_a_misfit(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store, store.transaction() as tx:
        docs = tx["docs"]
        made = await docs.insert("1", {"a": [1], "b": 1})
        for call in (docs.update_one, docs.update_many):
            with pytest.raises(InvalidUpdate, match=r"'1' of.*'a.\$'.*the filter matched no element of 'a'") as caught:
                await call({"$or": [{"b": 1}, {"a": 5}]}, {"$set": {"a.$": 2}})
            assert (caught.value.operator, caught.value.path) == ("$set", "a.$")
        assert await docs.get("1") == made


async def test_an_upsert_by_filter_inserts_once_and_then_updates(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        wanted = {"day": "mon", "by.name": "ann", "n": {"$gte": 0}}
        change: dict[str, Any] = {"$inc": {"n": 1}, "$setOnInsert": {"new": True}, "$currentDate": {"at": True}}
        first = await docs.update_one(wanted, change, upsert=True)
        second = await docs.update_one(wanted, change, upsert=True)
        assert first is not None
        assert second is not None
        assert first.id == second.id
        assert (first.version, second.version) == (1, 2)
        at = f"{second.updated_at:%Y-%m-%dT%H:%M:%S.%f}Z"
        assert second.data == {"day": "mon", "by": {"name": "ann"}, "n": 2, "new": True, "at": at}
        assert await docs.count() == 1


async def test_a_replacement_by_filter(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        assert await docs.replace_one({"n": 1}, {"n": 2}) is None
        first = await docs.replace_one({"_id": "a", "n": 1}, {"n": 2}, upsert=True)
        assert first is not None
        assert (first.id, first.data, first.version) == ("a", {"n": 2}, 1)
        await docs.insert("b", {"n": 3})
        with recorded(own_schema["conninfo"]) as changes:
            same = await docs.replace_one({"n": {"$gt": 0}}, {"n": 3}, sort="-n")
            assert same is not None
            assert (same.id, same.version) == ("b", 2)
            assert changes() == ["update", "end"]
        assert await data_of(docs) == {"a": {"n": 2}, "b": {"n": 3}}


@pytest.mark.parametrize("upsert", [False, True])
async def test_the_document_before_or_after(own_schema: dict[str, Any], upsert: bool) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        made = await docs.insert("a", {"n": 1})
        wanted = {"_id": "a"}
        assert await docs.update_one(wanted, {"$inc": {"n": 1}}, upsert=upsert, return_document="before") == made
        after = await docs.update_one(wanted, {"$inc": {"n": 0}}, upsert=upsert, return_document="before")
        assert after == await docs.get("a")
        assert after is not None
        assert after.data == {"n": 2}
        with pytest.raises(InvalidUpdate, match="'a' of"):
            await docs.update_one(wanted, {"$push": {"n": 1}}, upsert=upsert, return_document="before")
        assert await docs.replace_one(wanted, {}, upsert=upsert, return_document="before") == after
        assert await docs.update_one({"_id": "b"}, {"$set": {"n": 1}}, upsert=upsert, return_document="before") is None
        assert await docs.replace_one({"_id": "c"}, {}, upsert=upsert, return_document="before") is None
        assert await docs.count() == (3 if upsert else 1)
        wrong: Any = True
        for call, value in ((docs.update_one, {"$set": {"n": 1}}), (docs.replace_one, {"n": 1})):
            with pytest.raises(InvalidInput, match="return_document must be 'after' or 'before', got True"):
                await call(wanted, value, return_document=wrong)


async def test_an_upsert_that_can_not_insert_is_an_error_only_if_no_document_matches(
    own_schema: dict[str, Any],
) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        cases: list[tuple[dict[str, Any], dict[str, Any], type[Exception]]] = [
            ({"tags": {"$all": ["x", "y"]}}, {"$inc": {"n": 1}}, InvalidFilter),
            ({"tags": "x"}, {"$set": {"tags.$": "z"}}, InvalidUpdate),
            ({"tags": "z"}, {"$push": {"tags": "w"}}, InvalidUpdate),
        ]
        for wanted, change, error in cases:
            with pytest.raises(error):
                await docs.update_one(wanted, change, upsert=True)
            with pytest.raises(BulkError) as caught:
                async with store.bulk() as bulk:
                    await bulk["docs"].insert("other", {})
                    await bulk["docs"].update_one(wanted, change, upsert=True)
            assert isinstance(caught.value.__cause__, error)
        assert await docs.count() == 0
        await docs.insert("a", {"tags": ["x", "y"]})
        for wanted, change, _ in cases:
            changed = await docs.update_one(wanted, change, upsert=True)
            assert changed is not None
        assert await data_of(docs) == {"a": {"tags": ["z", "y", "w"], "n": 1}}
        with pytest.raises(InvalidFilter, match="'_id'"):
            await docs.update_one({"_id": 5}, {"$set": {"n": 1}}, upsert=True)
        with pytest.raises(InvalidFilter, match="'_id'"):
            await docs.replace_one({"_id": 5}, {"n": 1}, upsert=True)


async def test_an_upsert_does_not_skip_locked_documents(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidInput, match="upsert and skip_locked exclude each other"):
            await store["docs"].update_one({}, {"$set": {"n": 1}}, upsert=True, skip_locked=True)


async def test_a_document_that_keeps_an_upsert_out_is_a_duplicate(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["docs"].insert("a", {"mail": "x", "n": 1})
        await store["docs"].create_index("mail", unique=True)
    async with AsyncStore(**own_schema) as store, store.transaction() as tx:
        docs = tx["docs"]
        with pytest.raises(DuplicateDocument, match="'a'") as caught:
            await docs.update_one({"_id": "a", "n": 5}, {"$set": {"n": 2}}, upsert=True)
        assert (caught.value.document_id, caught.value.index) == ("a", None)
        for call, value in ((docs.update_one, {"$set": {"mail": "x"}}), (docs.replace_one, {"mail": "x"})):
            with pytest.raises(DuplicateDocument, match="mail") as caught:
                await call({"mail": {"$gt": "y"}}, value, upsert=True)
            assert caught.value.paths == ("mail",)
        assert await docs.update_one({"mail": "y"}, {"$inc": {"n": 1}}, upsert=True) is not None
        assert await docs.count() == 2


async def test_an_update_counts_what_matched_and_what_changed(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        assert isinstance(await docs.update_many({}, {"$set": {"n": 1}}), WriteCount)
        for number in range(4):
            await docs.insert(str(number), {"n": number})
        count = await docs.update_many({"n": {"$gte": 1}}, {"$min": {"n": 2}})
        assert (count, count.matched, count.modified) == (1, 3, 1)
        assert repr(count) == "1"
        for other in (copy.deepcopy(count), pickle.loads(pickle.dumps(count))):  # noqa: S301 (our own)
            assert (other, other.matched, other.modified) == (1, 3, 1)
        none = await docs.update_many({"n": 77}, {"$set": {"n": 1}})
        assert (none, none.matched, none.modified) == (0, 0, 0)
        once = await docs.update_many({"_id": "0"}, {"$set": {"n": 0}})
        assert (once, once.matched) == (0, 1)


async def test_a_bulk_upserts_and_replaces_by_filter(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with metadata(by="me"):
            async with store.bulk() as bulk:
                docs = bulk["docs"]
                await docs.update_one({"_id": "a", "k": 1}, {"$inc": {"n": 1}, "$setOnInsert": {"x": 1}}, upsert=True)
                await docs.update_one({"k": 1}, {"$inc": {"n": 1}, "$setOnInsert": {"x": 2}}, upsert=True)
                await docs.update_one({"k": 1}, {"$inc": {"n": 0}}, upsert=True)
                await docs.replace_one({"k": 2}, {"k": 2}, upsert=False)
                await docs.replace_one({"_id": "b", "k": 2}, {"k": 2}, upsert=True)
                await docs.replace_one({"k": 2}, {"k": 3}, upsert=True)
                await docs.replace_one({"k": {"$gt": 0}}, {"k": 4}, sort="-k")
        assert bulk.result == BulkResult(inserted=2, changed=3)
        assert await data_of(store["docs"]) == {"a": {"k": 1, "n": 2, "x": 1}, "b": {"k": 4}}
        with pytest.raises(BulkError, match="'a'") as caught:
            async with store.bulk() as bulk:
                await bulk["docs"].update_one({"_id": "a", "k": 9}, {"$inc": {"n": 1}}, upsert=True)
        assert isinstance(caught.value.__cause__, DuplicateDocument)


async def test_an_upsert_carries_metadata_before_its_insert(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        docs = await store.create_collection("docs")
        async with store.watch("docs") as stream:
            with metadata(by="me"):
                await docs.update_one({"_id": "a"}, {"$inc": {"n": 1}}, upsert=True)
                await docs.update_one({"_id": "a"}, {"$inc": {"n": 1}}, upsert=True)
                await docs.replace_one({"_id": "b"}, {}, upsert=True)
            events = [await anext(stream) for _ in range(3)]
        assert [(event.event_type.value, event.document_id, event.metadata) for event in events] == [
            ("insert", "a", {"by": "me"}),
            ("update", "a", {"by": "me"}),
            ("insert", "b", {"by": "me"}),
        ]


async def test_a_write_refuses_none_as_its_filter(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        docs, change = store["docs"], {"$set": {"n": 2}}
        await docs.insert("a", {"n": 1})
        nothing: Any = None
        refused = "needs a filter, got None: use {} for every document"
        async with store.bulk() as bulk:
            for calls in (docs, bulk["docs"]):
                for call in (calls.delete_many, calls.delete_one):
                    with pytest.raises(InvalidFilter, match=refused):
                        await call(nothing)
                for write in (calls.update_many, calls.update_one, calls.replace_one):
                    with pytest.raises(InvalidFilter, match=refused):
                        await write(nothing, change)
        assert await data_of(docs) == {"a": {"n": 1}}
        assert await docs.update_many({}, change) == 1
        assert await docs.delete_many({}) == 1


async def test_an_upsert_names_the_field_that_its_filter_compares_twice(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidFilter, match="compares 'n' twice, so"):
            await store["docs"].update_one({"n": 1, "$and": [{"n": 2}]}, {"$set": {"m": 1}}, upsert=True)
