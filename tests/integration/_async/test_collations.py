"""Calls with a collation: what they find, sort, change and refuse, and which indexes they use."""

from __future__ import annotations

from typing import Any

import pytest

from pgdoc import AsyncStore
from pgdoc.errors import DuplicateDocument, InvalidFilter, InvalidInput

NAMES = {"1": "Anna", "2": "ANNA", "3": "änna", "4": "bob", "5": "Zoë", "6": ["zoe", 5], "7": 7, "8": None}


async def fill(store: AsyncStore) -> None:
    await store["people"].insert_many([(key, {"name": name, "age": int(key)}) for key, name in NAMES.items()])


async def test_reads_compare_texts_under_the_collation(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await fill(store)
        people = store["people"]
        for _ in range(2):  # without an index, then with one
            found = [person.id async for person in people.find({"name": "anna"}, collation="ci")]
            assert sorted(found) == ["1", "2"]
            assert await people.count({"name": "anna"}, collation="ci_ai") == 3
            assert await people.count({"name": "anna"}) == 0
            assert await people.count({"name": {"$in": ["ZOE", None, 7]}}, collation="ci_ai") == 4
            assert await people.count({"name": {"$gte": "b", "$lt": "C"}}, collation="ci") == 1
            assert await people.count({"name": {"$ne": "ANNA"}}, collation="ci") == 6
            one = await people.find_one({"name": "ZOË"}, collation="ci")
            assert one is not None
            assert one.id == "5"
            await people.create_index("name", collation="ci")
            await people.create_index("name", collation="ci_ai")


async def test_a_sort_and_its_pages_follow_the_collation(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await fill(store)
        people = store["people"]
        order = ["8", "7", "1", "2", "3", "4", "5", "6"]
        found = [person.id async for person in people.find(sort="name", collation="ci")]
        assert found == order
        page: Any = None
        paged: list[str] = []
        while documents := [
            document async for document in people.find(sort="name", limit=3, after=page, collation="ci_ai")
        ]:
            page = documents[-1]
            paged += [document.id for document in documents]
        assert paged == order
        assert await people.distinct("name", {"age": {"$lt": 7}}, collation="ci_ai") == [5, "ANNA", "bob", "Zoë"]
        assert await people.distinct("name", {"name": "ANNA"}, collation="ci") == ["ANNA"]
        assert await people.distinct("_id", {"name": "ANNA"}, collation="ci") == ["1", "2"]


async def test_writes_select_under_the_collation(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await fill(store)
        people = store["people"]
        assert await people.update_many({"name": "anna"}, {"$set": {"found": 1}}, collation="ci") == 2
        first = await people.update_one({"name": "anna"}, {"$set": {"found": 2}}, sort="-age", collation="ci_ai")
        assert first is not None
        assert first.id == "3"
        again = await people.replace_one({"name": "BOB"}, {"name": "Bob"}, upsert=True, collation="ci")
        assert again is not None
        assert again.version == 2
        gone = await people.delete_one({"name": "BOB"}, collation="ci")
        assert gone is not None
        assert gone.id == "4"
        assert await people.delete_many({"name": "zoe"}, collation="ci_ai") == 2
        async with store.bulk() as bulk:
            await bulk["people"].update_many({"name": "anna"}, {"$set": {"found": 3}}, collation="ci")
            await bulk["people"].update_one({"name": "anna"}, {"$inc": {"found": 1}}, sort="name", collation="ci")
            await bulk["people"].delete_one({"name": "ANNA"}, sort="-_id", collation="ci_ai")
            await bulk["people"].delete_many({"name": "nobody"}, collation="ci")
        assert [person.data.get("found") async for person in people.find(sort="_id")] == [4, 3, None, None]


async def test_a_unique_index_compares_under_its_collation(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        people = store["people"]
        await people.create_index("email", unique=True, collation="ci", where={"email": {"$exists": True}})
        (index,) = await people.indexes()
        assert (index.collation, index.unique, index.valid) == ("ci", True, True)
        await people.insert("1", {"email": "Ann@Example.com"})
        await people.insert("2", {"email": "änn@example.com"})
        with pytest.raises(DuplicateDocument) as raised:
            await people.insert("3", {"email": "ann@EXAMPLE.com"})
        assert raised.value.index == index.name
        await people.insert("4", {})
        await people.insert("5", {})
        long = "É" * 2_000
        await people.insert("6", {"email": long})
        with pytest.raises(DuplicateDocument):
            await people.insert("7", {"email": long.lower()})
        await people.insert("7", {"email": long + "x"})


@pytest.mark.parametrize(
    ("wanted", "arguments", "used"),
    [
        ({"name": "NAME 77"}, {"collation": "ci"}, True),
        ({"name": {"$in": ["NAME 77", "name 78"]}}, {"collation": "ci"}, True),
        ({"name": {"$gte": "NAME 77", "$lt": "NAME 78"}}, {"collation": "ci"}, True),
        ({"name": {"$regex": "^name 77", "$options": "i"}}, {}, True),
        ({"name": {"$regex": "^Name 77"}}, {"collation": "ci"}, True),
        ({"name": {"$regex": "^Name 77$"}}, {}, True),
        ({"name": {"$regex": "^name 77$", "$options": "i"}}, {}, True),
        ({}, {"sort": "name", "limit": 3, "collation": "ci"}, True),
        ({"name": "Name 77"}, {}, False),
        ({"name": "Name 77"}, {"collation": "ci_ai"}, False),
        ({"name": {"$regex": "name 77", "$options": "i"}}, {}, False),
        ({}, {"sort": "name", "limit": 3}, False),
    ],
    ids=str,
)
async def test_a_query_uses_an_index_of_its_collation(
    own_schema: dict[str, Any], wanted: dict[str, Any], arguments: dict[str, Any], used: bool
) -> None:
    async with AsyncStore(**own_schema) as store:
        people = store["people"]
        await people.insert_many(
            [(str(n), {"name": [f"Name {n}"] if n % 100 == 0 else f"Name {n}"}) for n in range(3_000)]
        )
        before = [document.id async for document in people.find(wanted, **{"sort": "_id", **arguments})]
        await people.create_index("name", collation="ci", name="by_name")
        plan = await people.explain(wanted, **arguments)
        assert ("people.by_name" in plan) is used, plan
        assert [document.id async for document in people.find(wanted, **{"sort": "_id", **arguments})] == before
        assert before


async def test_a_collation_is_one_of_the_known_ones(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        people = store["people"]
        for wrong in ("de_DE", {"locale": "en", "strength": 2}, True):
            with pytest.raises(InvalidInput, match="use 'ci'"):
                people.find({"a": "b"}, collation=wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidInput, match="use 'ci'"):
                people.find(collation=wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidInput, match="use 'ci'"):
                await people.create_index("a", collation=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="collation"):
            await people.create_index("$**", collation="ci")
        with pytest.raises(InvalidFilter, match="with the collation 'ci'"):
            await people.create_index("a", where={"b": "open"}, collation="ci")


async def test_filters_of_one_shape_are_compiled_apart_for_each_collation(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await fill(store)
        people = store["people"]
        for _ in range(2):
            for name, collation, expected in (
                ("ANNA", None, ["2"]),
                ("ANNA", "ci", ["1", "2"]),
                ("anna", "ci_ai", ["1", "2", "3"]),
                ("BOB", "ci", ["4"]),
                ("BOB", None, []),
            ):
                found = [person.id async for person in people.find({"name": name}, collation=collation)]
                assert sorted(found) == expected
                assert await people.count({"name": name}, collation=collation) == len(expected)
                assert await people.count({"name": name, "age": 2}, collation=collation) == ("2" in expected)
            await people.create_index("name", collation="ci")


async def test_ids_compare_without_the_collation(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        people = store["people"]
        await people.insert_many([("A", {"name": "x"}), ("a", {"name": "X"}), ("B", {"name": "x"})])
        for _ in range(2):
            assert [person.id async for person in people.find({"_id": "A"}, collation="ci")] == ["A"]
            assert await people.count({"_id": "A", "name": "X"}, collation="ci") == 1
            assert await people.count({"_id": {"$in": ["A", "b"]}}, collation="ci") == 1
            assert await people.count({"_id": {"$gte": "a"}}, collation="ci") == 1
        assert [person.id async for person in people.find(sort="_id", collation="ci")] == ["A", "B", "a"]
        assert [person.id async for person in people.find(sort="name", after=["X", "A"], collation="ci")] == ["B", "a"]


async def test_ids_have_no_index_with_a_collation(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidInput, match="'_id' can't have a collation"):
            await store["people"].create_index("_id", collation="ci")
        assert await store["people"].create_index("name", "_id", collation="ci")


async def test_a_duplicate_under_a_collation_names_the_path(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        people = store["people"]
        await people.create_index("contact.mail", unique=True, collation="ci")
        await people.insert("1", {"contact": {"mail": "Ann"}})
        with pytest.raises(DuplicateDocument, match=r"at 'contact\.mail'") as caught:
            await people.insert("2", {"contact": {"mail": "ANN"}})
        assert (caught.value.paths, caught.value.values) == (("contact.mail",), None)
