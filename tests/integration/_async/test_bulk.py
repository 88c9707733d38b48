"""Bulks: many writes in few round trips, all or nothing; an error carries the index of the failed write."""
# ruff: noqa: PT012 (a failing bulk is a block)

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import AsyncBulk, AsyncStore, BulkResult, metadata
from pgdoc.crud.bulk_results import CHUNK_BYTES, CHUNK_STATEMENTS
from pgdoc.errors import (
    BulkError,
    CatalogMissing,
    CollectionNotFound,
    DatabaseError,
    DuplicateDocument,
    InvalidDocument,
    InvalidFilter,
    InvalidName,
    InvalidUpdate,
    PgdocError,
    ServerUnreachable,
    StoreClosed,
    TransactionClosed,
    VersionConflict,
)
from tests.integration.wal import recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


async def data_of(store: AsyncStore, collection: str) -> dict[str, Any]:
    return {document.id: document.data async for document in store[collection].find()}


async def write_everything(b: AsyncBulk) -> None:
    """Make every kind of write that changes something; each depends on the writes before it."""
    await b["orders"].insert("o-1", {"n": 1})
    await b["orders"].update("o-1", {"$inc": {"n": 1}})
    await b["orders"].update("o-1", {"$inc": {"n": 1}}, if_version=2)
    await b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=True)
    await b["stock"].update("s-1", {"$inc": {"left": 5}, "$setOnInsert": {"new": True}}, upsert=True)
    await b["stock"].replace("s-2", {"left": 1}, upsert=True)
    await b["stock"].replace("s-2", {"left": 2}, upsert=True)
    await b["stock"].replace("s-2", {"left": 3})
    await b["stock"].replace("s-2", {"left": 4}, if_version=3)
    await b["stock"].update_many({"left": {"$gte": 4}}, {"$inc": {"left": 10}})
    await b["stock"].update_one({}, {"$set": {"first": True}}, sort="-left")
    await b["orders"].insert("o-2", {"n": 9})
    await b["orders"].insert("o-3", {"n": 8})
    await b["orders"].insert("o-4", {"n": 7})
    await b["orders"].insert("o-5", {"n": 7})
    await b["orders"].delete("o-2")
    await b["orders"].delete("o-3", if_version=1)
    await b["orders"].delete_many({"n": 7})
    await b["stock"].delete_one({"left": {"$lt": 15}}, sort="left")


async def write_nothing(b: AsyncBulk, missing: str) -> None:
    """Make every kind of write that finds nothing to change."""
    await b["orders"].update("o-1", {"$set": {"n": 4}})
    await b["orders"].update("o-1", {"$set": {"n": 4}}, if_version=4)
    await b["orders"].update("o-1", {"$set": {"n": 4}}, upsert=True)
    await b["orders"].update("o-1", {"$max": {"n": 3}}, upsert=True)
    for name in ("orders", missing):
        await b[name].update("none", {"$set": {"n": 1}})
        await b[name].replace("none", {"n": 1})
        await b[name].delete("none")
        await b[name].update_many({"n": 77}, {"$inc": {"n": 1}})
        await b[name].update_one({"n": 77}, {"$inc": {"n": 1}})
        await b[name].delete_many({"n": 77})
        await b[name].delete_one({"n": 77})


async def test_mixed_writes_are_done_in_their_order(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.bulk() as b:
            await write_everything(b)
            assert b.result == BulkResult()
        assert b.result == BulkResult(inserted=7, changed=9, deleted=5)
        assert await data_of(store, "orders") == {"o-1": {"n": 4}}
        assert await data_of(store, "stock") == {"s-1": {"left": 15, "new": True, "first": True}}


async def test_the_events_of_a_bulk_come_in_the_order_of_its_writes(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        await store.create_collection("stock")
        with recorded(own_schema["conninfo"]) as changes:
            async with store.bulk() as b:
                await write_everything(b)
            kinds = "insert update update update insert insert update update update update update update"
            assert changes() == [*kinds.split(), *["insert"] * 4, *["delete"] * 5, "end"]


async def test_bulk_writes_that_change_nothing_write_nothing(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.bulk() as b:
            await write_everything(b)
        with recorded(own_schema["conninfo"]) as changes:
            async with store.bulk() as b:
                await write_nothing(b, "missing")
            assert b.result == BulkResult()
            assert changes() == []
        assert await store.collections() == ["orders", "stock"]


async def test_an_exception_in_the_block_stores_nothing(own_schema: dict[str, Any]) -> None:
    for count in (2, 2 * CHUNK_STATEMENTS):
        async with AsyncStore(**own_schema) as store:
            with pytest.raises(LookupError, match="out of the block"):
                async with store.bulk() as b:
                    for n in range(count):
                        await b["orders"].insert(f"o-{n}", {})
                    raise LookupError("out of the block")
            assert b.result == BulkResult()
            assert await store.collections() == []


async def test_rollback_discards_a_bulk(own_schema: dict[str, Any]) -> None:
    for count in (2, 2 * CHUNK_STATEMENTS):
        async with AsyncStore(**own_schema) as store:
            async with store.bulk() as b:
                for n in range(count):
                    await b["orders"].insert(f"o-{n}", {})
                raise psycopg.Rollback
            assert await store.collections() == []


async def fail_insert(b: AsyncBulk) -> None:
    await b["orders"].insert("o-1", {})


async def fail_at_unique(b: AsyncBulk) -> None:
    await b["orders"].insert("o-2", {"key": "k"})


async def fail_version(b: AsyncBulk) -> None:
    await b["orders"].update("o-1", {"$set": {"x": 1}}, if_version=5)


async def fail_version_of_replace(b: AsyncBulk) -> None:
    await b["orders"].replace("o-1", {}, if_version=5)


async def fail_version_of_delete(b: AsyncBulk) -> None:
    await b["orders"].delete("o-1", if_version=5)


async def fail_version_of_none(b: AsyncBulk) -> None:
    await b["orders"].delete("o-9", if_version=5)


async def fail_version_in_no_collection(b: AsyncBulk) -> None:
    await b["missing"].update("o-9", {"$set": {"x": 1}}, if_version=5)


async def fail_update(b: AsyncBulk) -> None:
    await b["orders"].update("o-1", {"$set": {"x": 1}, "$inc": {"key": 1}})


async def fail_update_at_version(b: AsyncBulk) -> None:
    await b["orders"].update("o-1", {"$inc": {"key": 1}}, if_version=1)


async def fail_upsert(b: AsyncBulk) -> None:
    await b["orders"].update("o-1", {"$inc": {"key": 1}}, upsert=True)


async def fail_upsert_of_elements(b: AsyncBulk) -> None:
    await b["orders"].update("o-9", {"$inc": {"list.$[]": 1}}, upsert=True)


async def fail_update_many(b: AsyncBulk) -> None:
    await b["orders"].update_many({}, {"$inc": {"key": 1}})


async def fail_update_one(b: AsyncBulk) -> None:
    await b["orders"].update_one({"key": "k"}, {"$inc": {"key": 1}}, sort="key")


async def fail_check(b: AsyncBulk) -> None:
    await b["orders"].update("o-1", {"$set": {"x": "refused"}})


FEW = 20  # statements in a chunk where each failure is tried in several places
FAILURES: dict[Callable[[AsyncBulk], Any], tuple[type[PgdocError], str | None, dict[str, Any]]] = {
    fail_insert: (DuplicateDocument, "o-1", {"document_id": "o-1"}),
    fail_at_unique: (DuplicateDocument, "o-2", {}),
    fail_version: (VersionConflict, "o-1", {"found_version": 1}),
    fail_version_of_replace: (VersionConflict, "o-1", {"found_version": 1}),
    fail_version_of_delete: (VersionConflict, "o-1", {"found_version": 1}),
    fail_version_of_none: (VersionConflict, "o-9", {"found_version": None}),
    fail_version_in_no_collection: (VersionConflict, "o-9", {"found_version": None}),
    fail_update: (InvalidUpdate, "o-1", {"path": "key", "operator": "$inc"}),
    fail_update_at_version: (InvalidUpdate, "o-1", {"path": "key", "operator": "$inc"}),
    fail_upsert: (InvalidUpdate, "o-1", {"path": "key", "operator": "$inc"}),
    fail_upsert_of_elements: (InvalidUpdate, "o-9", {}),
    fail_update_many: (InvalidUpdate, None, {"path": "key", "operator": "$inc"}),
    fail_update_one: (InvalidUpdate, None, {"path": "key", "operator": "$inc"}),
    fail_check: (DatabaseError, "o-1", {"sqlstate": "23514"}),
}


@pytest.mark.parametrize("place", [0, 3, FEW - 1, FEW, 2 * FEW + 7])
async def test_a_failure_names_the_write(
    own_schema: dict[str, Any], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc._async.bulk_queue.CHUNK_STATEMENTS", FEW)
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"key": "k"})
        await store["orders"].create_index("key", unique=True)
        async with store.transaction() as tx:
            await tx.connection.execute(
                f"ALTER TABLE {own_schema['schema']}.orders ADD CHECK (data ->> 'x' <> 'refused')".encode()
            )
        for fail, (cause, key, fields) in FAILURES.items():
            with pytest.raises(BulkError) as raised:
                async with store.bulk() as b:
                    for n in range(place):
                        await b["other"].insert(f"n-{n}", {})
                    await fail(b)
                    for n in range(3):  # later writes must neither hide nor change the error
                        await b["orders"].replace("o-1", {"key": n})
                        await b["orders"].insert("o-1", {})
            error = raised.value
            assert (error.index, error.document_id) == (place, key), fail
            assert error.collection == ("missing" if "no_collection" in fail.__name__ else "orders")
            assert isinstance(error.__cause__, cause), fail
            assert {name: getattr(error.__cause__, name) for name in fields} == fields, fail
            assert f"write {place} of the bulk" in str(error)
            assert str(error.__cause__) in str(error)
            assert b.result == BulkResult()
        assert await data_of(store, "orders") == {"o-1": {"key": "k"}}
        assert await store.collections() == ["orders"]


async def test_versions_and_misfits_are_those_that_the_bulk_made(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {"n": "text"})
        with pytest.raises(BulkError) as raised:
            async with store.bulk() as b:
                await b["orders"].replace("o-1", {"n": 1})
                await b["orders"].update("o-1", {"$inc": {"n": 1}}, if_version=2)
                await b["orders"].update("o-1", {"$inc": {"n": 1}}, if_version=1)
        assert isinstance(raised.value.__cause__, VersionConflict)
        assert (raised.value.index, raised.value.__cause__.found_version) == (2, 3)
        for upsert in (False, True):
            with pytest.raises(BulkError, match="the value is 'later'") as raised:
                async with store.bulk() as b:
                    await b["orders"].replace("o-1", {"n": 1})
                    await b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=upsert)
                    await b["orders"].replace("o-1", {"n": "later"})
                    await b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=upsert)
                    await b["orders"].replace("o-1", {"n": 1})
            assert raised.value.index == 3


async def test_an_upsert_with_positional_operators_changes_an_existing_document(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.bulk() as b:
            await b["orders"].insert("o-1", {"list": [1, 2]})
            await b["orders"].update("o-1", {"$inc": {"list.$[]": 1}}, upsert=True)
        assert await data_of(store, "orders") == {"o-1": {"list": [2, 3]}}


async def test_an_invalid_write_is_refused_by_its_call(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.bulk() as b:
            await b["orders"].insert("o-1", {})
            with pytest.raises(InvalidDocument):
                await b["orders"].insert("", {})
            with pytest.raises(InvalidDocument, match="x"):
                await b["orders"].replace("o-2", {"x": object()})
            with pytest.raises(InvalidUpdate):
                await b["orders"].update("o-1", {"total": 1})
            with pytest.raises(InvalidFilter):
                await b["orders"].delete_many({"$what": 1})
            with pytest.raises(InvalidFilter):
                await b["orders"].update_one({"$what": 1}, {"$inc": {"n": 1}})
            with pytest.raises(InvalidName):
                b["or ders"]
            with pytest.raises(ValueError, match="exclude"):
                await b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=True, if_version=1)
            await b["orders"].insert("o-2", {})
        assert b.result == BulkResult(inserted=2)
        with pytest.raises(InvalidDocument, match="user"):
            store.bulk(metadata={"user": object()})


async def test_a_bulk_creates_collections_only_with_auto_create(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema, auto_create=False) as store:
        await store.create_collection("orders")
        with pytest.raises(BulkError) as raised:
            async with store.bulk() as b:
                await b["orders"].insert("o-1", {})
                await b["orders"].insert("o-2", {})
                await b["missing"].delete("o-1")
        assert (raised.value.index, raised.value.collection) == (2, "missing")
        assert isinstance(raised.value.__cause__, CollectionNotFound)
        assert await store["orders"].count() == 0
        with pytest.raises(BulkError) as raised:
            async with store.bulk() as b:
                await b["orders"].insert("o-1", {})
                await b["orders"].insert("o-1", {})
                await b["missing"].delete("o-1")
        assert raised.value.index == 1  # the first failure, although the second is detected before anything is sent


async def test_dropping_a_collection_fails_at_most_one_bulk(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store, AsyncStore(**own_schema) as other:
        async with store.bulk() as b:
            await b["orders"].insert("o-1", {})
        await other.drop_collection("orders")
        with pytest.raises(BulkError) as raised:
            async with store.bulk() as b:
                await b["orders"].insert("o-1", {})
        assert isinstance(raised.value.__cause__, CollectionNotFound)
        async with store.bulk() as b:
            await b["orders"].insert("o-1", {})
        assert b.result == BulkResult(inserted=1)


async def test_each_write_of_a_bulk_carries_the_metadata_of_its_call(own_schema: dict[str, Any]) -> None:
    outer, inner = {"user": "bob", "app": "shop"}, {"user": "bob", "app": "shop", "step": 2}
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        bulk = store.bulk(metadata={"user": "bob"})
        with recorded(own_schema["conninfo"]) as changes:
            with metadata(user="alice", app="shop"):
                async with bulk as b:
                    await b["orders"].insert("o-1", {})
                    await b["orders"].update("o-1", {"$inc": {"n": 1}})
            assert changes() == [outer, "insert", "update", "end"]
            async with store.bulk() as b:
                await b["orders"].insert("o-2", {})
            assert changes() == ["insert", "end"]
            with metadata(app="shop"):
                async with store.bulk(metadata={"user": "bob"}) as b:
                    await b["orders"].insert("o-3", {})
                    with metadata(step=2):
                        await b["orders"].insert("o-4", {})
                        await b["orders"].update("o-4", {"$inc": {"n": 1}}, upsert=True)
                    await b["orders"].delete("o-3")
            assert changes() == [outer, "insert", inner, "insert", inner, "update", outer, "delete", "end"]


async def test_a_bulk_sent_inside_a_metadata_block_keeps_its_own_metadata(own_schema: dict[str, Any]) -> None:
    """The first send begins the transaction, but does not take the metadata of the block around it."""
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            async with store.bulk(metadata={"user": "bob"}) as b:
                await b["orders"].insert("first", {})
                with metadata(step=2):
                    for n in range(CHUNK_STATEMENTS):
                        await b["orders"].update(f"{n}", {"$inc": {"n": 1}})
            assert changes() == [{"user": "bob"}, "insert", "end"]


@asynccontextmanager
async def traced(store: AsyncStore, path: Path) -> AsyncIterator[Callable[[], int]]:
    """Yield a function that counts the round trips on the store's only connection since its last call."""
    with path.open("w+b", buffering=0) as file:
        async with store.transaction() as tx:
            pgconn = tx.connection.pgconn

        def count() -> int:
            pgconn.untrace()
            file.seek(0)
            found = len(re.findall(rb"\tF\t\d+\t(?:Sync|Query)\b", file.read()))
            file.truncate(0)
            file.seek(0)
            pgconn.trace(file.fileno())
            return found

        count()
        yield count
        pgconn.untrace()


async def test_a_bulk_takes_few_round_trips(own_schema: dict[str, Any], tmp_path: Path) -> None:
    async with AsyncStore(**own_schema, pool_size=1) as store:
        async with store.bulk() as b:
            await write_everything(b)
        await store["orders"].delete_many({})
        await store["stock"].delete_many({})
        async with traced(store, tmp_path / "trace") as round_trips:
            async with store.bulk(metadata={"user": "u"}) as b:
                await write_everything(b)
                assert round_trips() == 0
            assert round_trips() == 2
            async with store.bulk() as b:
                for n in range(3 * CHUNK_STATEMENTS):
                    await b["other"].update(f"{n}", {"$inc": {"n": 1}}, upsert=True)
            # Look up the schema; begin; look up, create and look up the collection; send; commit.
            assert round_trips() == 1 + 1 + 3 + 3 + 1
            async with store.bulk() as b:
                for n in range(4):
                    await b["other"].insert(f"large-{n}", {"x": "x" * (CHUNK_BYTES // 2)})
            assert round_trips() == 2 + 1
            async with store.bulk():
                pass
            assert round_trips() == 0


async def test_an_error_suppressed_inside_a_bulk_still_fails_it(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        with pytest.raises(BulkError) as raised:
            async with store.bulk() as b:
                await b["orders"].insert("o-1", {})
                with pytest.raises(BulkError):
                    for n in range(CHUNK_STATEMENTS):
                        await b["orders"].insert(f"n-{n}", {})
                with pytest.raises(TransactionClosed, match="failed"):
                    await b["orders"].insert("o-2", {})
        assert raised.value.index == 0
        assert await store["orders"].count() == 1


async def test_outside_its_block_a_bulk_is_closed(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        bulk = store.bulk()
        with pytest.raises(TransactionClosed):
            await bulk["orders"].insert("o-1", {})
        async with bulk as b:
            await b["orders"].insert("o-1", {})
        with pytest.raises(TransactionClosed):
            await b["orders"].insert("o-2", {})
        with pytest.raises(TransactionClosed, match="another"):
            async with bulk:
                pass
        assert await store["orders"].count() == 1
    with pytest.raises(StoreClosed):
        async with store.bulk() as b:
            await b["orders"].insert("o-2", {})


async def test_a_lost_connection_is_no_fault_of_a_write(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store, AsyncStore(**own_schema) as other:
        await store.create_collection("orders")
        with pytest.raises(ServerUnreachable):
            async with store.bulk() as b:
                for n in range(CHUNK_STATEMENTS + 1):
                    await b["orders"].insert(f"o-{n}", {})
                async with other.transaction() as tx:
                    ended = await tx.connection.execute(
                        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND state = 'idle in transaction'"
                    )
                    assert await ended.fetchall() == [(True,)]
        assert await store["orders"].count() == 0


async def test_a_missing_catalog_is_not_reported_as_a_failed_write(bare_dsn: str) -> None:
    async with AsyncStore(bare_dsn) as store:
        with pytest.raises(CatalogMissing):
            async with store.bulk() as b:
                await b["orders"].insert("o-1", {})


@pytest.mark.parametrize(
    ("other", "cause"), [("VIEW {} AS SELECT 1 AS id", CollectionNotFound), ("TYPE {} AS ENUM ()", DatabaseError)]
)
async def test_a_collection_that_cannot_be_created_is_named(
    own_schema: dict[str, Any], other: str, cause: type[PgdocError]
) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        async with store.transaction() as tx:
            await tx.connection.execute(f"CREATE {other.format(own_schema['schema'] + '.totals')}".encode())
        with pytest.raises(BulkError) as raised:
            async with store.bulk() as b:
                await b["orders"].insert("o-1", {})
                await b["totals"].insert("t-1", {})
        assert (raised.value.index, raised.value.collection) == (1, "totals")
        assert type(raised.value.__cause__) is cause
        assert await store["orders"].count() == 0


async def test_an_error_at_the_commit_is_of_pgdoc(own_schema: dict[str, Any]) -> None:
    table = f"{own_schema['schema']}.orders"
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        async with store.transaction() as tx:
            unique = "EXCLUDE USING btree ((data -> 'n') WITH =) DEFERRABLE INITIALLY DEFERRED"
            await tx.connection.execute(f"ALTER TABLE {table} ADD {unique}".encode())
        with pytest.raises(DuplicateDocument, match="commit"):
            async with store.bulk() as b:
                await b["orders"].replace("o-1", {"n": 1}, upsert=True)
                await b["orders"].replace("o-2", {"n": 1}, upsert=True)
        assert b.result == BulkResult()
        assert await store["orders"].count() == 0
