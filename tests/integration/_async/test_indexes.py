"""Indexes: creation, reuse, repair, removal and refusals. `test_index_plans` tests which plans use them."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgdoc import AsyncStore, Index, IndexProgress
from pgdoc.errors import (
    CollectionNotFound,
    DatabaseError,
    DuplicateDocument,
    InvalidFilter,
    InvalidInput,
    InvalidName,
)

RELATIONS = """
SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = %s::regclass AND NOT indisprimary ORDER BY relname
"""


def relations(own_schema: dict[str, Any], collection: str) -> list[tuple[str, bool]]:
    with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
        return connection.execute(RELATIONS, [f'"{own_schema["schema"]}"."{collection}"']).fetchall()


def invalidate(own_schema: dict[str, Any], collection: str, *, comments: bool) -> None:
    """Leave the indexes like a killed build does: invalid, or valid but without the comment."""
    with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
        for relation, _ in relations(own_schema, collection):
            name = f'"{own_schema["schema"]}"."{relation}"'
            if comments:
                connection.execute(f"COMMENT ON INDEX {name} IS NULL".encode())
            else:
                connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [name])


async def test_create_index_reuses_an_existing_index(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert_many([(str(n), {"status": "new", "total": n}) for n in range(100)])
        assert await orders.create_index("status") == "status"
        before = relations(own_schema, "orders")
        assert await orders.create_index("status") == "status"
        assert relations(own_schema, "orders") == before
        name = await orders.create_index("address.city", "-total", where={"status": "new"})
        (first, second) = await orders.indexes()
        assert first == Index(name, ("address.city", "-total"), False, {"status": "new"}, True, first.size_bytes)
        assert first.size_bytes > 0
        assert (second.name, second.paths, second.unique, second.where) == ("status", ("status",), False, None)
        assert await orders.drop_index(name) is True
        assert await orders.drop_index(name) is False
        assert relations(own_schema, "orders") == before
        assert await orders.drop_index("status") is True
        assert relations(own_schema, "orders") == []
        assert await orders.indexes() == []


async def test_other_indexes_of_the_table_are_left_alone(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
            table = f'"{own_schema["schema"]}".orders'
            connection.execute(f"CREATE INDEX mine ON {table} (updated_at)".encode())
            connection.execute(f'COMMENT ON INDEX "{own_schema["schema"]}".mine IS \'["not", "ours"]\''.encode())
        assert await store["orders"].indexes() == []
        assert await store["orders"].drop_index("mine") is False
        assert relations(own_schema, "orders") == [("mine", True)]


@pytest.mark.parametrize("comments", [True, False])
async def test_an_unfinished_index_is_rebuilt(own_schema: dict[str, Any], comments: bool) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].create_index("status", unique=True, name="one")
        before = relations(own_schema, "orders")
        invalidate(own_schema, "orders", comments=comments)
        assert [index.valid for index in await store["orders"].indexes()] == ([] if comments else [False])
        await store["orders"].create_index("status", unique=True, name="one")
        assert relations(own_schema, "orders") == before
        assert [index.valid for index in await store["orders"].indexes()] == [True]
        invalidate(own_schema, "orders", comments=comments)
        assert await store["orders"].drop_index("one") is True
        assert relations(own_schema, "orders") == []


async def test_an_index_of_a_restored_table_is_the_same_index(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].create_index("a")
        restored = []  # their names have the digest of an oid that the table no longer has
        with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
            for relation, valid in relations(own_schema, "orders"):
                restored.append((f"{relation[:-10]}0123456789", valid))
                name = f'"{own_schema["schema"]}"."{relation}"'
                connection.execute(f'ALTER INDEX {name} RENAME TO "{restored[-1][0]}"'.encode())
        await store["orders"].create_index("a")
        assert sorted(relations(own_schema, "orders")) == sorted(restored)
        assert [index.valid for index in await store["orders"].indexes()] == [True]
        assert await store["orders"].drop_index("a") is True
        assert relations(own_schema, "orders") == []


async def test_an_index_with_an_outdated_definition_is_rebuilt(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert_many([(str(n), {"a": [n] if n % 2 else n}) for n in range(10)])
        await store["orders"].create_index("a")
        with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
            for relation, _ in relations(own_schema, "orders"):
                name = f'"{own_schema["schema"]}"."{relation}"'
                comment = connection.execute("SELECT obj_description(%s::regclass)", [name]).fetchall()[0][0]
                older = comment.replace(', "format": 2', "")
                assert older != comment
                connection.execute(f"COMMENT ON INDEX {name} IS '{older}'".encode())
        assert [index.valid for index in await store["orders"].indexes()] == [False]
        store._connections.indexes.forget(store["orders"]._table.name)
        assert "sort_key" not in await store["orders"].explain({"a": 5})
        assert await store["orders"].create_index("a") == "a"
        assert [index.valid for index in await store["orders"].indexes()] == [True]
        assert "sort_key" in await store["orders"].explain({"a": 5})
        assert len(relations(own_schema, "orders")) == 3


async def test_a_unique_index_refuses_a_second_document(own_schema: dict[str, Any]) -> None:
    long = "x" * 300
    async with AsyncStore(**own_schema) as store:
        users = store["users"]
        await users.create_index("email", "team", unique=True)
        await users.insert("1", {"email": "a@b.c", "team": 1})
        await users.insert("2", {"email": "a@b.c", "team": 2})
        with pytest.raises(
            DuplicateDocument, match=r"the unique index 'email_team_[0-9a-f]*' allows no two documents with"
        ):
            await users.insert("3", {"email": "a@b.c", "team": 1.0})
        await users.insert("4", {})
        with pytest.raises(DuplicateDocument):
            await users.insert("5", {"email": None})
        await users.insert("6", {"email": long + "a"})
        await users.insert("7", {"email": long + "b"})
        with pytest.raises(DuplicateDocument):
            await users.insert("8", {"email": long + "a"})
        for number in range(3):
            await users.insert(f"array{number}", {"email": ["x"], "team": [{}]})
        with pytest.raises(DuplicateDocument):
            await users.update("2", {"$set": {"team": 1}})


async def test_documents_outside_of_where_may_be_equal(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        users = store["users"]
        where = {"email": {"$exists": True}, "team": {"$in": [1, "b'\\c", None]}, "n": {"$gte": -1.5, "$ne": 3}}
        name = await users.create_index("email", unique=True, where=where)
        for number in range(2):
            await users.insert(f"{number}", {"n": 1})
            await users.insert(f"three{number}", {"email": "a", "n": 3})
        await users.insert("first", {"email": "a", "n": 1})
        with pytest.raises(DuplicateDocument):
            await users.insert("second", {"email": "a", "n": 2, "team": "b'\\c"})
        assert [(index.name, index.where) for index in await users.indexes()] == [(name, where)]


async def test_a_unique_index_over_duplicates_leaves_nothing_behind(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        users = store["users"]
        await users.insert_many([("1", {"a": 1}), ("2", {"a": 1})])
        with pytest.raises(
            DuplicateDocument,
            match=r"^collection \S+ the unique index 'a_[0-9a-f]*' allows no two documents with the same",
        ):
            await users.create_index("a", unique=True)
        assert relations(own_schema, "users") == []


async def test_documents_with_long_values_can_be_indexed(own_schema: dict[str, Any]) -> None:
    odd = {
        "s": "🦉" * 5000,
        "n": 10**4000,
        "o": {"🦉" * 3000: [["🦉" * 3000]]},
        "l": [f"{n}{'🦉' * 900}" for n in range(50)],
    }
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    async with AsyncStore(**own_schema) as store:
        await store["odd"].create_index("s", "n", "-o", "l", "d", "a", "b", "c", unique=True)
        await store["odd"].insert("1", {**odd, **dict.fromkeys("abc", "🦉" * 700), "d": deep})
        await store["odd"].create_index("l", "d")
        for path, value in odd.items():
            assert [document.id async for document in store["odd"].find({path: value})] == ["1"]


@pytest.mark.parametrize(
    "paths",
    [
        [],
        [""],
        ["-"],
        ["a", "a"],
        ["a", "-a"],
        ["$**", "a"],
        ["-$**", "$**"],
        ["_id.a"],
        [7],
        ["a\0"],
        [".".join("a" * 17)],
        list("abcdefghi"),
    ],
)
async def test_invalid_index_paths_are_refused(own_schema: dict[str, Any], paths: list[Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidInput):
            await store["orders"].create_index(*paths)
        assert await store.collections() == []


@pytest.mark.parametrize("where", [{"$bad": 1}, {"a": {"b": 1}}, {"a.0": 1}, {"a": {"$in": list(range(99))}}, 7])
async def test_an_invalid_where_of_an_index_is_refused(own_schema: dict[str, Any], where: Any) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidFilter):
            await store["orders"].create_index("a", where=where)
        with pytest.raises(InvalidInput):
            await store["orders"].create_index("$**", unique=True)
        assert await store.collections() == []


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "a.b", "x" * 64, 7, "a;b"])
async def test_an_invalid_index_name_is_refused(own_schema: dict[str, Any], name: Any) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidName):
            await store["orders"].create_index("a", name=name)


async def test_index_paths_and_values_are_never_run_as_sql(own_schema: dict[str, Any]) -> None:
    odd = [
        "a'b",
        'a"b',
        "a}b",
        "%s",
        "{table}",
        "a$1",
        "a\\b",
        "'); DROP TABLE x; --",
        "\x01",
        "-",
        "é.ü",
        "a,b",
        "NULL",
    ]
    async with AsyncStore(**own_schema) as store:
        collection = store["odd"]
        for path in odd[:-4]:
            await collection.create_index(path, where={path: {"$gt": path}})
        await collection.create_index(*odd[-3:], unique=True)
        names = [index.name for index in await collection.indexes()]
        assert len(set(names)) == len(odd) - 3
        assert all(index.valid for index in await collection.indexes())
        data = {path: path + "x" for path in odd}
        await collection.insert("o", data)
        for path in odd:
            found = await collection.find_one({path: path + "x"}, sort=f"-{path}")
            assert (found is None) == (path == "é.ü")
        for name in names:
            assert await collection.drop_index(name)
        assert relations(own_schema, "odd") == []


async def test_index_names_have_bounded_length_and_are_unique(own_schema: dict[str, Any]) -> None:
    long = "x" * 63
    async with AsyncStore(**own_schema) as store:
        for collection in long, long[:-1] + "y":
            for name in long, long[:-1] + "y":
                await store[collection].create_index("a", name=name)
            assert await store[collection].create_index("a.b") != await store[collection].create_index("a_b")
            assert len(await store[collection].indexes()) == 4
        every = [relation for c in (long, long[:-1] + "y") for relation, _ in relations(own_schema, c)]
        assert len(set(every)) == 24
        assert max(len(relation) for relation in every) <= 63


async def test_another_index_of_the_same_name_is_refused(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].create_index("a", name="mine")
        for arguments in {"unique": True}, {"where": {"b": 1}}:
            with pytest.raises(DatabaseError, match="drop it first"):
                await store["orders"].create_index("a", name="mine", **arguments)
        with pytest.raises(DatabaseError, match="drop it first"):
            await store["orders"].create_index("-a", name="mine")


async def test_indexes_stay_with_a_collection_that_is_renamed(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].create_index("a")
        await store.rename_collection("orders", "old")
        await store["orders"].create_index("a")
        assert [index.name for index in await store["old"].indexes()] == ["a"]
        assert await store["old"].create_index("a") == "a"
        assert len(relations(own_schema, "old")) == 3
        assert await store["old"].drop_index("a")
        assert len(await store["orders"].indexes()) == 1


async def test_an_index_created_in_a_transaction_is_part_of_it(own_schema: dict[str, Any]) -> None:
    seen: list[IndexProgress] = []
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(EnoughError):
            await index_until_stopped(store, seen)
        assert await store["orders"].indexes() == []
        assert [item.phase for item in seen] == ["ready"]
        async with store.transaction() as tx:
            await tx["orders"].create_index("a")
        async with store.transaction() as tx:
            assert await tx["orders"].drop_index("a")
        assert await store["orders"].indexes() == []


async def test_progress_is_reported_while_writers_continue(own_schema: dict[str, Any]) -> None:
    seen: list[IndexProgress] = []
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("1", {"a": 1})
        async with store.transaction() as tx:  # the build waits for this transaction and reports that
            await tx["orders"].insert("2", {"a": 2})
            with pytest.raises(EnoughError):
                await store["orders"].create_index("a", progress=lambda progress: stop_at_once(seen, progress))
            await tx["orders"].insert("3", {"a": 3})
        assert [index.valid for index in await store["orders"].indexes()] in ([], [False])
        assert await store["orders"].create_index("a", progress=seen.append) == "a"
        assert [document.id async for document in store["orders"].find({"a": {"$gte": 1}}, sort="a")] == ["1", "2", "3"]
        assert [index.valid for index in await store["orders"].indexes()] == [True]
    assert seen[0].phase.startswith("waiting for writers")
    assert seen[-1] == IndexProgress("a", "ready", 1, 1)


class EnoughError(Exception):
    pass


async def index_until_stopped(store: AsyncStore, seen: list[IndexProgress]) -> None:
    async with store.transaction() as tx:
        await tx["orders"].insert("1", {"a": 1})
        await tx["orders"].create_index("a", progress=seen.append)
        assert [index.valid for index in await tx["orders"].indexes()] == [True]
        raise EnoughError


def stop_at_once(seen: list[IndexProgress], progress: IndexProgress) -> None:
    seen.append(progress)
    raise EnoughError


async def test_create_index_on_a_missing_collection_creates_it_or_fails(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, auto_create=False) as store:
        with pytest.raises(CollectionNotFound):
            await store["none"].create_index("a")
        with pytest.raises(CollectionNotFound):
            await store["none"].indexes()
        with pytest.raises(CollectionNotFound):
            await store["none"].drop_index("a")
    async with AsyncStore(**own_schema) as store:
        assert await store["none"].indexes() == []
        assert await store["none"].drop_index("a") is False
        assert await store.collections() == []
        assert await store["none"].create_index("$**") == await store["none"].create_index("$**")
        assert await store.collections() == ["none"]
