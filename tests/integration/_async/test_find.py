"""Finds: fields, distinct values, plans, sorts and limits."""

from __future__ import annotations

import itertools
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


async def test_fields_select_the_part_of_the_data_that_leaves_the_server(own_schema: dict[str, Any]) -> None:
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


ORDER2 = {"total": 7, "lines": [{"sku": "b", "n": 4}, {"sku": "a", "n": 9}]}


@pytest.mark.parametrize(
    ("wanted", "fields", "expected"),
    [
        (
            {},
            {"lines": {"$slice": -1}, "total": 1},
            [{"total": 5, "lines": [7]}, {"total": 7, "lines": [{"sku": "a", "n": 9}]}],
        ),
        ({"lines.sku": "a"}, {"lines.$": 1}, [{"lines": [{"sku": "a", "n": 1}]}, {"lines": [{"sku": "a", "n": 9}]}]),
        ({"lines.n": {"$gt": 3}}, {"lines.$": 1}, [{"lines": [{"sku": "b", "n": 4}]}]),
        ({}, {"lines": {"$elemMatch": {"n": {"$gt": 4}}}}, [{}, {"lines": [{"sku": "a", "n": 9}]}]),
        (
            {"total": {"$gte": 5}},
            {"id": "$_id", "n": {"$size": "$lines"}, "to": "$to.city"},
            [{"id": "o-1", "n": 3, "to": "Łódź"}, {"id": "o-2", "n": 2}],
        ),
    ],
)
async def test_operators_project_what_leaves_the_server(
    own_schema: dict[str, Any], wanted: Any, fields: Any, expected: list[Any]
) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert("o-1", ORDER)
        await orders.insert("o-2", ORDER2)
        for _ in range(2):
            found = [d async for d in orders.find(wanted, sort="_id", fields=fields)]
            assert [d.data for d in found] == expected
            assert {d.id: d.data async for d in orders.find(wanted, fields=fields)} == {d.id: d.data for d in found}
            first = await orders.find_one(wanted, sort="_id", fields=fields)
            assert first is not None
            assert first.data == expected[0]
            rest = [d.data async for d in orders.find(wanted, sort="_id", fields=fields, after=first, limit=5)]
            assert rest == expected[1:]
            await orders.create_index("lines.sku")


async def test_a_projected_document_is_a_position_if_it_has_the_values_of_the_sort(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert("o-1", ORDER)
        await orders.insert("o-2", ORDER2)
        await orders.create_index("total")
        wanted = {"total": {"$in": [5, 7]}, "lines.sku": "a"}
        keeping: list[Any] = [{"total": 1, "lines.$": 1}, {"lines": {"$slice": 1}}, {"lines": 0}]
        for fields in keeping:
            (found,) = [d async for d in orders.find(wanted, sort="-total", fields=fields, limit=1)]
            (other,) = [d async for d in orders.find(wanted, sort="-total", fields=fields, after=found, limit=5)]
            assert (found["total"], other["total"]) == (7, 5)
        changing: list[Any] = [{"lines": {"$slice": 1}}, {"lines.sku": 0}, {"lines": "$total"}, {"lines.$": 1}]
        for fields in changing:
            part = await orders.find_one(wanted, fields=fields)
            with pytest.raises(InvalidInput, match="leave out or change 'lines'"):
                orders.find(wanted, sort="lines", fields=fields, after=part)


@pytest.mark.parametrize(
    "fields", [["a", "-b"], ["a", "a.b"], ["-a.b", "-a"], ["-_id"], [""], ["-"], [1], 7, {"a": None}]
)
async def test_invalid_fields_are_refused(own_schema: dict[str, Any], fields: Any) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidInput):
            store["orders"].find(fields=fields)
        with pytest.raises(InvalidInput):
            await store["orders"].find_one(fields=fields)


async def test_field_names_are_never_run_as_sql(own_schema: dict[str, Any]) -> None:
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


async def test_distinct_descends_into_arrays_on_the_path(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["a"].insert("1", {"a": [{"b": [1, 2]}, {"b": 2}, {"c": 1}, 3, {"b": {"0": 9}}]})
        await store["a"].insert("2", {"a": {"b": 5}})
        assert await store["a"].distinct("a.b") == [1, 2, 5, {"0": 9}]
        assert await store["a"].distinct("a.0.b") == [1, 2]
        assert await store["a"].distinct("a.3") == [3]
        assert await store["a"].distinct("a.b.0") == [1, 9]


@pytest.mark.parametrize("path", ["", "-a", 7, None, ["a"]])
async def test_an_invalid_path_is_refused(own_schema: dict[str, Any], path: Any) -> None:
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


async def test_distinct_on_a_missing_collection_is_empty(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        assert await store["none"].distinct("a") == []
        assert await store["none"].explain() == ""
    async with AsyncStore(**own_schema, auto_create=False) as store:
        with pytest.raises(CollectionNotFound):
            await store["none"].distinct("a")


async def test_a_sort_by_several_paths_applies_them_in_order(own_schema: dict[str, Any]) -> None:
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


@pytest.mark.parametrize("count", [0, 100, 101, 250])
async def test_a_find_returns_few_and_many_documents_completely(own_schema: dict[str, Any], count: int) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["docs"].insert_many([(f"{n:03}", {"n": n, "in": True}) for n in range(count)])
        await store["docs"].insert("other", {"in": False})
        every = [f"{n:03}" for n in range(count)]
        for _ in range(2):  # the store remembers which filters find many documents
            for sort, limit, skip in itertools.product((None, "n"), (None, 0, 1, 100, 101, 400), (0, 60)):
                arguments: dict[str, Any] = {"sort": sort, "limit": limit, "skip": skip}
                expected = every[skip : None if limit is None else skip + limit]
                found = [document.id async for document in store["docs"].find({"in": True}, **arguments)]
                assert (found if sort else sorted(found)) == expected or (sort is None and len(found) == len(expected))
                async with store.transaction() as tx:
                    inside = [document.id async for document in tx["docs"].find({"in": True}, **arguments)]
                assert inside == found


async def test_the_largest_skip_and_limit_are_accepted(own_schema: dict[str, Any]) -> None:
    most = 2**63 - 1
    async with AsyncStore(**own_schema) as store:
        await store["docs"].insert("a", {"n": 1})
        await store["docs"].create_index("n")
        for sort in None, "n", "_id":
            for wanted in None, {"n": {"$gt": 0}}, {"n": 1}:
                every = [document.id async for document in store["docs"].find(wanted, sort=sort, limit=most)]
                assert every == ["a"]
                none = store["docs"].find(wanted, sort=sort, limit=most, skip=most)
                assert [document.id async for document in none] == []


async def test_a_find_that_is_abandoned_returns_its_connection(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        await store["docs"].insert_many([(f"{n:03}", {}) for n in range(500)])
        for _ in range(3):
            found = store["docs"].find()
            assert (await anext(found)).data == {}
            await found.aclose()
            assert await store["docs"].count() == 500


async def test_an_index_of_another_store_is_used_after_the_next_lookup(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"a": {"$gte": 3}}
    async with AsyncStore(**own_schema) as store, AsyncStore(**own_schema) as other:
        docs = store["docs"]
        await docs.insert_many([(str(n), {"a": [n] if n % 3 else n}) for n in range(50)])
        found = sorted([document.id async for document in docs.find(wanted)])
        assert "sort_key" not in await docs.explain(wanted)
        await other["docs"].create_index("a")
        assert "sort_key" in await other["docs"].explain(wanted)
        assert "sort_key" not in await docs.explain(wanted)
        monkeypatch.setattr("pgdoc.runtime.ttl_cache.FOR_S", 0.0)
        store._connections.indexes.forget(docs._table.name)
        assert "sort_key" in await docs.explain(wanted)
        assert await other["docs"].drop_index("a")
        assert sorted([document.id async for document in docs.find(wanted)]) == found
        assert await docs.count(wanted) == len(found) == 47
        assert "sort_key" not in await docs.explain(wanted)


async def test_lookups_and_ordered_ranges_use_generic_plans(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        docs = store["docs"]
        await docs.insert_many(
            [(f"{n:04}", {"shop": f"s-{n % 500}", "kind": f"k-{n % 5}", "total": n}) for n in range(5_000)]
        )
        await docs.create_index("shop")
        await docs.create_index("total")
        await docs.create_index("kind")
        for n in range(40):
            assert await docs.count({"shop": f"s-{n}"}) == 10
            assert await docs.find_one({"kind": f"k-{n % 5}"}) is not None
            found = docs.find({"total": {"$gt": n * 50}}, sort="total", limit=2)
            assert [document.data["total"] async for document in found] == [n * 50 + 1, n * 50 + 2]
            assert await docs.find_one({"shop": f"s-{n}"}, sort="total") is not None
        async with store.transaction() as tx:
            kept = "SELECT generic_plans FROM pg_prepared_statements WHERE statement ~ 'found_keys|key_span'"
            plans = await (await tx.connection.execute(kept)).fetchall()
        assert len(plans) == 3
        assert all(generic > 20 for (generic,) in plans)
