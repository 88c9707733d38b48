"""Every call of the library that reads or writes the documents of a collection, for stores that must refuse them."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from pgdoc import AsyncChangeStream, AsyncStore, BulkError, ChangeStream, CollectionNotFound, Store

if TYPE_CHECKING:
    from collections.abc import Callable


# `x` is a collection of a store or of a transaction, sync or async.
DOCUMENT_CALLS: dict[str, Callable[[Any], Any]] = {
    "insert": lambda x: x.insert("1", {"a": 1}),
    "insert_many": lambda x: x.insert_many([("1", {}), ("2", {})]),
    "insert_many of nothing": lambda x: x.insert_many([]),
    "get": lambda x: x.get("1"),
    "find": lambda x: x.find(),
    "find sorted": lambda x: x.find({"a": {"$gt": 1}}, sort="-a", limit=3),
    "find_one": lambda x: x.find_one({"a": 1}),
    "count": lambda x: x.count(),
    "count of a filter": lambda x: x.count({"a": 1}),
    "distinct": lambda x: x.distinct("a"),
    "distinct ids": lambda x: x.distinct("_id"),
    "explain": lambda x: x.explain({"a": 1}),
    "update": lambda x: x.update("1", {"$set": {"a": 2}}),
    "update of a version": lambda x: x.update("1", {"$set": {"a": 2}}, if_version=1),
    "upsert": lambda x: x.update("1", {"$set": {"a": 2}}, upsert=True),
    "update_many": lambda x: x.update_many({}, {"$set": {"a": 2}}),
    "update_one": lambda x: x.update_one({}, {"$set": {"a": 2}}),
    "update_one sorted": lambda x: x.update_one({}, {"$set": {"a": 2}}, sort="a"),
    "update_one or insert": lambda x: x.update_one({"_id": "1"}, {"$set": {"a": 2}}, upsert=True),
    "replace_one": lambda x: x.replace_one({}, {}, return_document="before"),
    "replace_one or insert": lambda x: x.replace_one({"_id": "1"}, {}, upsert=True),
    "replace": lambda x: x.replace("1", {}),
    "replace of a version": lambda x: x.replace("1", {}, if_version=1),
    "replace or insert": lambda x: x.replace("1", {}, upsert=True),
    "delete": lambda x: x.delete("1"),
    "delete of a version": lambda x: x.delete("1", if_version=1),
    "delete_many": lambda x: x.delete_many({}),
    "delete_many of a filter": lambda x: x.delete_many({"a": {"$exists": False}}),
    "delete_one": lambda x: x.delete_one({}),
    "delete_one sorted": lambda x: x.delete_one({}, sort="a"),
    "create_index": lambda x: x.create_index("a"),
    "create_index of everything": lambda x: x.create_index("$**"),
    "indexes": lambda x: x.indexes(),
    "drop_index": lambda x: x.drop_index("a"),
}

# `x` is a collection of a bulk.
BULK_CALLS: dict[str, Callable[[Any], Any]] = {
    "bulk insert": lambda x: x.insert("1", {}),
    "bulk update": lambda x: x.update("1", {"$set": {"a": 2}}),
    "bulk upsert": lambda x: x.update("1", {"$set": {"a": 2}}, upsert=True),
    "bulk update_many": lambda x: x.update_many({}, {"$set": {"a": 2}}),
    "bulk update_one": lambda x: x.update_one({}, {"$set": {"a": 2}}),
    "bulk update_one or insert": lambda x: x.update_one({"_id": "1"}, {"$set": {"a": 2}}, upsert=True),
    "bulk replace_one": lambda x: x.replace_one({}, {}),
    "bulk replace": lambda x: x.replace("1", {}),
    "bulk replace or insert": lambda x: x.replace("1", {}, upsert=True),
    "bulk delete": lambda x: x.delete("1"),
    "bulk delete_many": lambda x: x.delete_many({}),
    "bulk delete_one": lambda x: x.delete_one({}),
}

# `x` is a store.
STORE_CALLS: dict[str, Callable[[Any, str], Any]] = {
    "create_collection": lambda x, name: x.create_collection(name),
    "create_collection with partitions": lambda x, name: x.create_collection(name, partitions=2),
    "drop_collection": lambda x, name: x.drop_collection(name),
    "rename_collection": lambda x, name: x.rename_collection(name, "elsewhere"),
    "watch": lambda x, name: x[name].watch(),
    "watch with a snapshot": lambda x, name: x[name].watch(snapshot=True),
    "watch by name": lambda x, name: x.watch(name),
}


async def _finish(result: Any) -> None:
    """Wait for the result of a call, and read it to its end; close a stream."""
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, AsyncChangeStream):
        await result.close()
    elif isinstance(result, ChangeStream):
        result.close()
    elif inspect.isasyncgen(result):
        async for _ in result:
            pass
    elif inspect.isgenerator(result):
        list(result)


async def attempt(store: Any, name: str) -> dict[str, BaseException | None]:
    """Make every call on a collection of a store; return what each one raised."""
    raised: dict[str, BaseException | None] = {}
    for what, call in DOCUMENT_CALLS.items():
        raised[what] = await _raised(call, store[name])
    for what, store_call in STORE_CALLS.items():
        raised[what] = await _raised(lambda x, call=store_call: call(x, name), store)  # type: ignore[misc]
    for what, call in DOCUMENT_CALLS.items():
        raised[f"{what} in a transaction"] = await _raised_in(store.transaction(), call, name)
    for what, call in BULK_CALLS.items():
        raised[what] = await _raised_in(store.bulk(), call, name)
    return raised


async def _raised(call: Callable[[Any], Any], target: Any) -> BaseException | None:
    try:
        await _finish(call(target))
    except Exception as exc:  # noqa: BLE001 (the caller judges it)
        return exc
    return None


async def _raised_in(block: Any, call: Callable[[Any], Any], name: str) -> BaseException | None:
    try:
        if hasattr(block, "__aenter__"):
            async with block as opened:
                await _finish(call(opened[name]))
        else:
            with block as opened:
                await _finish(call(opened[name]))
    except Exception as exc:  # noqa: BLE001 (as above)
        return exc
    return None


def attempt_all(dsn: str, name: str, *, schema: str, is_async: bool, **options: Any) -> list[str]:
    """Make every call on a table that is no collection; return those that were not refused as such."""

    async def run() -> dict[str, BaseException | None]:
        if is_async:
            async with AsyncStore(dsn, schema=schema, **options) as async_store:
                return await attempt(async_store, name)
        with Store(dsn, schema=schema, **options) as store:
            return await attempt(store, name)

    raised = asyncio.run(run())
    return [f"{what}: {error!r}" for what, error in raised.items() if not _is_refusal(error)]


def _is_refusal(error: BaseException | None) -> bool:
    """A bulk's error names the write; its cause is why the write failed."""
    return isinstance(error.__cause__ if isinstance(error, BulkError) else error, CollectionNotFound)
