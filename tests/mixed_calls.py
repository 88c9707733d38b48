"""Document calls of every kind, for many threads or tasks at once, each on documents of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc.errors import BulkError, BulkIncomplete

if TYPE_CHECKING:
    from pgdoc import AsyncStore, Bulk, Store

STORED, FEW, MANY = 300, 100, 150
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def prepare(store: Store) -> None:
    store.create_collection("docs", json_schema=SCHEMA)
    store["many"].insert_many((f"{n:03}", {"n": n, "tags": [n % 3]}) for n in range(STORED))


def call(store: Store, who: int, number: int) -> None:
    """Make one call, or the few that belong together, and check what came of it."""
    KINDS[number % len(KINDS)](store, f"{who}-{number}")


def _insert(store: Store, key: str) -> None:
    store["docs"].insert(key, {"n": 1})
    assert store["docs"].get(key) is not None


def _copy(store: Store, key: str) -> None:
    store["docs"].insert_many([(f"{key}-{n}", {"n": n}) for n in range(MANY)])
    assert store["docs"].delete_many({"_id": {"$regex": f"^{key}-"}}) == MANY


def _find_stream_of_rows(store: Store, _key: str) -> None:
    assert [document.data["n"] for document in store["many"].find(sort="n")] == list(range(STORED))


def _read(store: Store, _key: str) -> None:
    many = store["many"]
    assert many.count({"tags": 1}) == STORED / 3
    assert sorted(many.distinct("tags")) == [0, 1, 2]
    assert many.indexes() == []
    assert [found.id for found in many.find({"n": {"$in": [1, 2]}}, sort="n", fields=["n"])] == ["001", "002"]


def _update(store: Store, key: str) -> None:
    docs = store["docs"]
    assert docs.update(key, {"$set": {"n": 1}}, upsert=True) is not None
    assert docs.update_many({"_id": key}, {"$inc": {"n": 1}}) == 1
    assert docs.update_one({"n": -1}, {"$set": {"n": 1}}, sort="-n", skip_locked=True) is None
    assert docs.replace(key, {"n": 0}) is not None
    assert docs.delete(key)


def _transact(store: Store, key: str) -> None:
    with store.transaction({"by": key}) as tx:
        tx["docs"].insert(key, {"n": 1})
        assert next(iter(tx["many"].find(sort="n"))).data["n"] == 0  # a cursor of the server
        tx["docs"].update(key, {"$inc": {"n": 1}})


def _undo_savepoint(store: Store, key: str) -> None:
    with store.transaction(isolation="repeatable read") as tx:
        bulk = tx.bulk()
        with pytest.raises(BulkError):
            _insert_twice(bulk, key)
        tx["docs"].insert(key, {"n": 3})
        tx["docs"].insert_many([(f"{key}-{n}", {"n": n}) for n in range(MANY)])


def _insert_twice(bulk: Bulk, key: str) -> None:
    with bulk:
        bulk["docs"].insert(key, {"n": 1})
        bulk["docs"].insert(key, {"n": 2})


def _bulk(store: Store, key: str) -> None:
    with store.bulk() as bulk:
        bulk["docs"].insert(key, {"n": 0})
        bulk["docs"].update(key, {"$inc": {"n": 1}})
    with pytest.raises(BulkIncomplete):
        _insert_twice(store.bulk(ordered=False), f"{key}-x")


def _create_and_drop(store: Store, key: str) -> None:
    name = f"of_{key}"
    assert store.create_collection(name, max_size=None).count() == 0
    assert name in store.collections()
    assert store.drop_collection(name)


def _run(store: Store, _key: str) -> None:
    assert store.run(lambda tx: tx["many"].count()) == STORED


def _validate(store: Store, _key: str) -> None:
    store["docs"].set_limits(json_schema=SCHEMA)
    assert store["many"].explain({"n": 1}) is not None


KINDS = [
    _insert,
    _copy,
    _find_stream_of_rows,
    _read,
    _update,
    _transact,
    _undo_savepoint,
    _bulk,
    _create_and_drop,
    _run,
    _validate,
]


async def async_call(store: AsyncStore, who: int, number: int) -> None:
    """Make one of several kinds of calls in a task."""
    docs, many, key = store["docs"], store["many"], f"async-{who}-{number}"
    match number % 5:
        case 0:
            await docs.insert_many([(f"{key}-{n}", {"n": n}) for n in range(MANY)])
            assert await docs.count({"_id": {"$regex": f"^{key}-"}}) == MANY
        case 1:
            assert [document.data["n"] async for document in many.find(sort="n")] == list(range(STORED))
        case 2:
            async with store.transaction({"by": who}) as tx:
                await tx["docs"].insert(key, {"n": 1})
                await tx["docs"].update(key, {"$inc": {"n": 1}})
        case 3:
            async with store.bulk() as bulk:
                await bulk["docs"].insert(key, {"n": 0})
                await bulk["docs"].update(key, {"$inc": {"n": 1}})
        case _:
            found = await docs.update(key, {"$set": {"n": number}}, upsert=True)
            assert found is not None
            assert found.data == {"n": number}
