"""Parts of documents, different values, plans."""

from __future__ import annotations

from typing import Any

import pytest

from pgdoc import AsyncStore
from pgdoc.errors import CollectionNotFound, InvalidFilter, InvalidInput

ORDER = {
    "total": 5,
    "status": "new",
    "lines": [{"sku": "a", "n": 1}, {"sku": "b"}, 7],
    "to": {"city": "Łódź", "zip": 9},
}


async def test_fields_are_the_part_of_the_data_that_leaves_the_server(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        made = await orders.insert("o-1", ORDER)
        (found,) = [document async for document in orders.find(fields=["total", "lines.sku", "to.city", "none"])]
        assert found.data == {"total": 5, "lines": [{"sku": "a"}, {"sku": "b"}], "to": {"city": "Łódź"}}
        assert (found.id, found.version, found.created_at) == ("o-1", 1, made.created_at)
        without = await orders.find_one({"total": 5}, sort="-total", fields=["-lines.sku", "-to"])
        assert without is not None
        assert without.data == {"total": 5, "status": "new", "lines": [{"n": 1}, {}, 7]}
        for fields in ["_id"], []:
            empty = await orders.find_one(fields=fields)
            assert empty is not None
            assert empty.data == {}


@pytest.mark.parametrize("fields", [["a", "-b"], ["a", "a.b"], ["-a.b", "-a"], ["-_id"], [""], ["-"], [1], 7, {"a": 1}])
async def test_what_are_no_fields_is_refused(own_schema: dict[str, Any], fields: Any) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidInput):
            store["orders"].find(fields=fields)
        with pytest.raises(InvalidInput):
            await store["orders"].find_one(fields=fields)


async def test_names_of_fields_are_never_sql(own_schema: dict[str, Any]) -> None:
    names = ["a'b", 'a"b', "a}b", "%s", "{table}", "$1", "a\\b", "'); DROP TABLE x; --", "\x01", "-"]
    async with AsyncStore(**own_schema) as store:
        odd = await store["odd"].insert("o", dict.fromkeys(names, 1))
        for name in names[:-1]:
            for fields, expected in (name, {name: 1}), (f"-{name}", {k: 1 for k in names if k != name}):
                found = await store["odd"].find_one(fields=fields)
                assert found is not None
                assert found.data == expected
            assert await store["odd"].distinct(name) == [1]
        assert await store["odd"].get("o") == odd


async def test_distinct_values_come_in_the_order_of_types(own_schema: dict[str, Any]) -> None:
    values: list[Any] = [True, [3, [3], 1.0], "b", None, 1, "a", {"x": 1}, False, [], -2.5, [None], 10**30, "1"]
    async with AsyncStore(**own_schema) as store:
        odd = store["odd"]
        await odd.insert_many([(str(number), {"v": value}) for number, value in enumerate(values)])
        await odd.insert("missing", {})
        expected = [None, -2.5, 1, 3, 10**30, "1", "a", "b", {"x": 1}, [3], False, True]
        assert await odd.distinct("v") == expected
        assert await odd.distinct("v", {"v": {"$gt": 2}}) == [1, 3, 10**30, [3]]
        assert await odd.distinct("_id", {"v": {"$in": ["a", "b"]}}) == ["2", "5"]
        assert await odd.distinct("w") == []


async def test_distinct_goes_through_the_arrays_on_the_way(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["a"].insert("1", {"a": [{"b": [1, 2]}, {"b": 2}, {"c": 1}, 3, {"b": {"0": 9}}]})
        await store["a"].insert("2", {"a": {"b": 5}})
        assert await store["a"].distinct("a.b") == [1, 2, 5, {"0": 9}]
        assert await store["a"].distinct("a.0.b") == [1, 2]
        assert await store["a"].distinct("a.3") == [3]
        assert await store["a"].distinct("a.b.0") == [1, 9]


@pytest.mark.parametrize("path", ["", "-a", 7, None, ["a"]])
async def test_what_is_no_path_is_refused(own_schema: dict[str, Any], path: Any) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidInput):
            await store["orders"].distinct(path)


async def test_a_plan_is_text_and_nothing_is_executed(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"total": 5})
        plan = await store["orders"].explain({"total": {"$gt": 1}})
        assert "Scan" in plan
        assert "cost=" in plan
        assert "Sort" in await store["orders"].explain(sort="total", limit=3, skip=1)
        with pytest.raises(InvalidFilter):
            await store["orders"].explain({"$bad": 1})
        async with store.transaction() as tx:
            assert "Scan" in await tx["orders"].explain()


async def test_a_collection_that_is_missing_has_no_values(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        assert await store["none"].distinct("a") == []
        assert await store["none"].explain() == ""
    async with AsyncStore(**own_schema, auto_create=False) as store:
        with pytest.raises(CollectionNotFound):
            await store["none"].distinct("a")


async def test_several_paths_sort_one_after_the_other(own_schema: dict[str, Any]) -> None:
    pairs = [(f"{city}{total}", {"to": {"city": city}, "total": total}) for city in "ba" for total in (2, 10, 1, None)]
    long = "x" * 100
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert_many(pairs)
        found = [document.id async for document in orders.find(sort=["to.city", "-total"])]
        assert found == ["a10", "a2", "a1", "aNone", "b10", "b2", "b1", "bNone"]
        found = [document.id async for document in orders.find(sort=("total", "-_id"), skip=2, limit=4)]
        assert found == ["b1", "a1", "b2", "a2"]
        await store["long"].insert_many([(str(n), {"a": long + str(n)}) for n in (3, 1, 2)])
        await store["long"].insert("0", {"a": long})
        assert [document.id async for document in store["long"].find(sort="a")] == ["0", "1", "2", "3"]
        assert [document.id async for document in store["long"].find(sort="-a")] == ["3", "2", "1", "0"]
