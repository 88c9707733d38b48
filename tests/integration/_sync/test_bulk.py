# Written by .ci/twins.py from tests/integration/_async/test_bulk.py: change that file, and run it.
"""Bulks: many writes in few round trips, all or nothing; an error carries the index of the failed write."""
# ruff: noqa: PT012 (a failing bulk is a block)

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Bulk, Store, BulkResult, metadata
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
    from collections.abc import Iterator, Callable
    from pathlib import Path


def data_of(store: Store, collection: str) -> dict[str, Any]:
    return {document.id: document.data for document in store[collection].find()}


def write_everything(b: Bulk) -> None:
    """Make every kind of write that changes something; each depends on the writes before it."""
    b["orders"].insert("o-1", {"n": 1})
    b["orders"].update("o-1", {"$inc": {"n": 1}})
    b["orders"].update("o-1", {"$inc": {"n": 1}}, if_version=2)
    b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=True)
    b["stock"].update("s-1", {"$inc": {"left": 5}, "$setOnInsert": {"new": True}}, upsert=True)
    b["stock"].replace("s-2", {"left": 1}, upsert=True)
    b["stock"].replace("s-2", {"left": 2}, upsert=True)
    b["stock"].replace("s-2", {"left": 3})
    b["stock"].replace("s-2", {"left": 4}, if_version=3)
    b["stock"].update_many({"left": {"$gte": 4}}, {"$inc": {"left": 10}})
    b["stock"].update_one({}, {"$set": {"first": True}}, sort="-left")
    b["orders"].insert("o-2", {"n": 9})
    b["orders"].insert("o-3", {"n": 8})
    b["orders"].insert("o-4", {"n": 7})
    b["orders"].insert("o-5", {"n": 7})
    b["orders"].delete("o-2")
    b["orders"].delete("o-3", if_version=1)
    b["orders"].delete_many({"n": 7})
    b["stock"].delete_one({"left": {"$lt": 15}}, sort="left")


def write_nothing(b: Bulk, missing: str) -> None:
    """Make every kind of write that finds nothing to change."""
    b["orders"].update("o-1", {"$set": {"n": 4}})
    b["orders"].update("o-1", {"$set": {"n": 4}}, if_version=4)
    b["orders"].update("o-1", {"$set": {"n": 4}}, upsert=True)
    b["orders"].update("o-1", {"$max": {"n": 3}}, upsert=True)
    for name in ("orders", missing):
        b[name].update("none", {"$set": {"n": 1}})
        b[name].replace("none", {"n": 1})
        b[name].delete("none")
        b[name].update_many({"n": 77}, {"$inc": {"n": 1}})
        b[name].update_one({"n": 77}, {"$inc": {"n": 1}})
        b[name].delete_many({"n": 77})
        b[name].delete_one({"n": 77})


def test_mixed_writes_are_done_in_their_order(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.bulk() as b:
            write_everything(b)
            assert b.result == BulkResult()
        assert b.result == BulkResult(inserted=7, changed=9, deleted=5)
        assert data_of(store, "orders") == {"o-1": {"n": 4}}
        assert data_of(store, "stock") == {"s-1": {"left": 15, "new": True, "first": True}}


def test_the_events_of_a_bulk_come_in_the_order_of_its_writes(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        store.create_collection("stock")
        with recorded(own_schema["conninfo"]) as changes:
            with store.bulk() as b:
                write_everything(b)
            kinds = "insert update update update insert insert update update update update update update"
            assert changes() == [*kinds.split(), *["insert"] * 4, *["delete"] * 5, "end"]


def test_bulk_writes_that_change_nothing_write_nothing(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.bulk() as b:
            write_everything(b)
        with recorded(own_schema["conninfo"]) as changes:
            with store.bulk() as b:
                write_nothing(b, "missing")
            assert b.result == BulkResult()
            assert changes() == []
        assert store.collections() == ["orders", "stock"]


def test_an_exception_in_the_block_stores_nothing(own_schema: dict[str, Any]) -> None:
    for count in (2, 2 * CHUNK_STATEMENTS):
        with Store(**own_schema) as store:
            with pytest.raises(LookupError, match="out of the block"):
                with store.bulk() as b:
                    for n in range(count):
                        b["orders"].insert(f"o-{n}", {})
                    raise LookupError("out of the block")
            assert b.result == BulkResult()
            assert store.collections() == []


def test_rollback_discards_a_bulk(own_schema: dict[str, Any]) -> None:
    for count in (2, 2 * CHUNK_STATEMENTS):
        with Store(**own_schema) as store:
            with store.bulk() as b:
                for n in range(count):
                    b["orders"].insert(f"o-{n}", {})
                raise psycopg.Rollback
            assert store.collections() == []


def fail_insert(b: Bulk) -> None:
    b["orders"].insert("o-1", {})


def fail_at_unique(b: Bulk) -> None:
    b["orders"].insert("o-2", {"key": "k"})


def fail_version(b: Bulk) -> None:
    b["orders"].update("o-1", {"$set": {"x": 1}}, if_version=5)


def fail_version_of_replace(b: Bulk) -> None:
    b["orders"].replace("o-1", {}, if_version=5)


def fail_version_of_delete(b: Bulk) -> None:
    b["orders"].delete("o-1", if_version=5)


def fail_version_of_none(b: Bulk) -> None:
    b["orders"].delete("o-9", if_version=5)


def fail_version_in_no_collection(b: Bulk) -> None:
    b["missing"].update("o-9", {"$set": {"x": 1}}, if_version=5)


def fail_update(b: Bulk) -> None:
    b["orders"].update("o-1", {"$set": {"x": 1}, "$inc": {"key": 1}})


def fail_update_at_version(b: Bulk) -> None:
    b["orders"].update("o-1", {"$inc": {"key": 1}}, if_version=1)


def fail_upsert(b: Bulk) -> None:
    b["orders"].update("o-1", {"$inc": {"key": 1}}, upsert=True)


def fail_upsert_of_elements(b: Bulk) -> None:
    b["orders"].update("o-9", {"$inc": {"list.$[]": 1}}, upsert=True)


def fail_update_many(b: Bulk) -> None:
    b["orders"].update_many({}, {"$inc": {"key": 1}})


def fail_update_one(b: Bulk) -> None:
    b["orders"].update_one({"key": "k"}, {"$inc": {"key": 1}}, sort="key")


def fail_check(b: Bulk) -> None:
    b["orders"].update("o-1", {"$set": {"x": "refused"}})


FEW = 20  # statements in a chunk where each failure is tried in several places
FAILURES: dict[Callable[[Bulk], Any], tuple[type[PgdocError], str | None, dict[str, Any]]] = {
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
def test_a_failure_names_the_write(own_schema: dict[str, Any], place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc._sync.bulk_queue.CHUNK_STATEMENTS", FEW)
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {"key": "k"})
        store["orders"].create_index("key", unique=True)
        with store.transaction() as tx:
            tx.connection.execute(
                f"ALTER TABLE {own_schema['schema']}.orders ADD CHECK (data ->> 'x' <> 'refused')".encode()
            )
        for fail, (cause, key, fields) in FAILURES.items():
            with pytest.raises(BulkError) as raised:
                with store.bulk() as b:
                    for n in range(place):
                        b["other"].insert(f"n-{n}", {})
                    fail(b)
                    for n in range(3):  # later writes must neither hide nor change the error
                        b["orders"].replace("o-1", {"key": n})
                        b["orders"].insert("o-1", {})
            error = raised.value
            assert (error.index, error.document_id) == (place, key), fail
            assert error.collection == ("missing" if "no_collection" in fail.__name__ else "orders")
            assert isinstance(error.__cause__, cause), fail
            assert {name: getattr(error.__cause__, name) for name in fields} == fields, fail
            assert f"write {place} of the bulk" in str(error)
            assert str(error.__cause__) in str(error)
            assert b.result == BulkResult()
        assert data_of(store, "orders") == {"o-1": {"key": "k"}}
        assert store.collections() == ["orders"]


def test_versions_and_misfits_are_those_that_the_bulk_made(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {"n": "text"})
        with pytest.raises(BulkError) as raised:
            with store.bulk() as b:
                b["orders"].replace("o-1", {"n": 1})
                b["orders"].update("o-1", {"$inc": {"n": 1}}, if_version=2)
                b["orders"].update("o-1", {"$inc": {"n": 1}}, if_version=1)
        assert isinstance(raised.value.__cause__, VersionConflict)
        assert (raised.value.index, raised.value.__cause__.found_version) == (2, 3)
        for upsert in (False, True):
            with pytest.raises(BulkError, match="the value is 'later'") as raised:
                with store.bulk() as b:
                    b["orders"].replace("o-1", {"n": 1})
                    b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=upsert)
                    b["orders"].replace("o-1", {"n": "later"})
                    b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=upsert)
                    b["orders"].replace("o-1", {"n": 1})
            assert raised.value.index == 3


def test_an_upsert_with_positional_operators_changes_an_existing_document(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.bulk() as b:
            b["orders"].insert("o-1", {"list": [1, 2]})
            b["orders"].update("o-1", {"$inc": {"list.$[]": 1}}, upsert=True)
        assert data_of(store, "orders") == {"o-1": {"list": [2, 3]}}


def test_an_invalid_write_is_refused_by_its_call(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.bulk() as b:
            b["orders"].insert("o-1", {})
            with pytest.raises(InvalidDocument):
                b["orders"].insert("", {})
            with pytest.raises(InvalidDocument, match="x"):
                b["orders"].replace("o-2", {"x": object()})
            with pytest.raises(InvalidUpdate):
                b["orders"].update("o-1", {"total": 1})
            with pytest.raises(InvalidFilter):
                b["orders"].delete_many({"$what": 1})
            with pytest.raises(InvalidFilter):
                b["orders"].update_one({"$what": 1}, {"$inc": {"n": 1}})
            with pytest.raises(InvalidName):
                b["or ders"]
            with pytest.raises(ValueError, match="exclude"):
                b["orders"].update("o-1", {"$inc": {"n": 1}}, upsert=True, if_version=1)
            b["orders"].insert("o-2", {})
        assert b.result == BulkResult(inserted=2)
        with pytest.raises(InvalidDocument, match="user"):
            store.bulk(metadata={"user": object()})


def test_a_bulk_creates_collections_only_with_auto_create(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema, auto_create=False) as store:
        store.create_collection("orders")
        with pytest.raises(BulkError) as raised:
            with store.bulk() as b:
                b["orders"].insert("o-1", {})
                b["orders"].insert("o-2", {})
                b["missing"].delete("o-1")
        assert (raised.value.index, raised.value.collection) == (2, "missing")
        assert isinstance(raised.value.__cause__, CollectionNotFound)
        assert store["orders"].count() == 0
        with pytest.raises(BulkError) as raised:
            with store.bulk() as b:
                b["orders"].insert("o-1", {})
                b["orders"].insert("o-1", {})
                b["missing"].delete("o-1")
        assert raised.value.index == 1  # the first failure, although the second is detected before anything is sent


def test_dropping_a_collection_fails_at_most_one_bulk(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, Store(**own_schema) as other:
        with store.bulk() as b:
            b["orders"].insert("o-1", {})
        other.drop_collection("orders")
        with pytest.raises(BulkError) as raised:
            with store.bulk() as b:
                b["orders"].insert("o-1", {})
        assert isinstance(raised.value.__cause__, CollectionNotFound)
        with store.bulk() as b:
            b["orders"].insert("o-1", {})
        assert b.result == BulkResult(inserted=1)


def test_each_write_of_a_bulk_carries_the_metadata_of_its_call(own_schema: dict[str, Any]) -> None:
    outer, inner = {"user": "bob", "app": "shop"}, {"user": "bob", "app": "shop", "step": 2}
    with Store(**own_schema) as store:
        store.create_collection("orders")
        bulk = store.bulk(metadata={"user": "bob"})
        with recorded(own_schema["conninfo"]) as changes:
            with metadata(user="alice", app="shop"):
                with bulk as b:
                    b["orders"].insert("o-1", {})
                    b["orders"].update("o-1", {"$inc": {"n": 1}})
            assert changes() == [outer, "insert", "update", "end"]
            with store.bulk() as b:
                b["orders"].insert("o-2", {})
            assert changes() == ["insert", "end"]
            with metadata(app="shop"):
                with store.bulk(metadata={"user": "bob"}) as b:
                    b["orders"].insert("o-3", {})
                    with metadata(step=2):
                        b["orders"].insert("o-4", {})
                        b["orders"].update("o-4", {"$inc": {"n": 1}}, upsert=True)
                    b["orders"].delete("o-3")
            assert changes() == [outer, "insert", inner, "insert", inner, "update", outer, "delete", "end"]


def test_a_bulk_sent_inside_a_metadata_block_keeps_its_own_metadata(own_schema: dict[str, Any]) -> None:
    """The first send begins the transaction, but does not take the metadata of the block around it."""
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            with store.bulk(metadata={"user": "bob"}) as b:
                b["orders"].insert("first", {})
                with metadata(step=2):
                    for n in range(CHUNK_STATEMENTS):
                        b["orders"].update(f"{n}", {"$inc": {"n": 1}})
            assert changes() == [{"user": "bob"}, "insert", "end"]


@contextmanager
def traced(store: Store, path: Path) -> Iterator[Callable[[], int]]:
    """Yield a function that counts the round trips on the store's only connection since its last call."""
    with path.open("w+b", buffering=0) as file:
        with store.transaction() as tx:
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


def test_a_bulk_takes_few_round_trips(own_schema: dict[str, Any], tmp_path: Path) -> None:
    with Store(**own_schema, pool_size=1) as store:
        with store.bulk() as b:
            write_everything(b)
        store["orders"].delete_many({})
        store["stock"].delete_many({})
        with traced(store, tmp_path / "trace") as round_trips:
            with store.bulk(metadata={"user": "u"}) as b:
                write_everything(b)
                assert round_trips() == 0
            assert round_trips() == 2
            with store.bulk() as b:
                for n in range(3 * CHUNK_STATEMENTS):
                    b["other"].update(f"{n}", {"$inc": {"n": 1}}, upsert=True)
            # Look up the schema; begin; look up, create and look up the collection; send; commit.
            assert round_trips() == 1 + 1 + 3 + 3 + 1
            with store.bulk() as b:
                for n in range(4):
                    b["other"].insert(f"large-{n}", {"x": "x" * (CHUNK_BYTES // 2)})
            assert round_trips() == 2 + 1
            with store.bulk():
                pass
            assert round_trips() == 0


def test_an_error_suppressed_inside_a_bulk_still_fails_it(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {})
        with pytest.raises(BulkError) as raised:
            with store.bulk() as b:
                b["orders"].insert("o-1", {})
                with pytest.raises(BulkError):
                    for n in range(CHUNK_STATEMENTS):
                        b["orders"].insert(f"n-{n}", {})
                with pytest.raises(TransactionClosed, match="failed"):
                    b["orders"].insert("o-2", {})
        assert raised.value.index == 0
        assert store["orders"].count() == 1


def test_outside_its_block_a_bulk_is_closed(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        bulk = store.bulk()
        with pytest.raises(TransactionClosed):
            bulk["orders"].insert("o-1", {})
        with bulk as b:
            b["orders"].insert("o-1", {})
        with pytest.raises(TransactionClosed):
            b["orders"].insert("o-2", {})
        with pytest.raises(TransactionClosed, match="another"):
            with bulk:
                pass
        assert store["orders"].count() == 1
    with pytest.raises(StoreClosed):
        with store.bulk() as b:
            b["orders"].insert("o-2", {})


def test_a_lost_connection_is_no_fault_of_a_write(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, Store(**own_schema) as other:
        store.create_collection("orders")
        with pytest.raises(ServerUnreachable):
            with store.bulk() as b:
                for n in range(CHUNK_STATEMENTS + 1):
                    b["orders"].insert(f"o-{n}", {})
                with other.transaction() as tx:
                    ended = tx.connection.execute(
                        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND state = 'idle in transaction'"
                    )
                    assert ended.fetchall() == [(True,)]
        assert store["orders"].count() == 0


def test_a_missing_catalog_is_not_reported_as_a_failed_write(bare_dsn: str) -> None:
    with Store(bare_dsn) as store:
        with pytest.raises(CatalogMissing):
            with store.bulk() as b:
                b["orders"].insert("o-1", {})


@pytest.mark.parametrize(
    ("other", "cause"), [("VIEW {} AS SELECT 1 AS id", CollectionNotFound), ("TYPE {} AS ENUM ()", DatabaseError)]
)
def test_a_collection_that_cannot_be_created_is_named(
    own_schema: dict[str, Any], other: str, cause: type[PgdocError]
) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with store.transaction() as tx:
            tx.connection.execute(f"CREATE {other.format(own_schema['schema'] + '.totals')}".encode())
        with pytest.raises(BulkError) as raised:
            with store.bulk() as b:
                b["orders"].insert("o-1", {})
                b["totals"].insert("t-1", {})
        assert (raised.value.index, raised.value.collection) == (1, "totals")
        assert type(raised.value.__cause__) is cause
        assert store["orders"].count() == 0


def test_an_error_at_the_commit_is_of_pgdoc(own_schema: dict[str, Any]) -> None:
    table = f"{own_schema['schema']}.orders"
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with store.transaction() as tx:
            unique = "EXCLUDE USING btree ((data -> 'n') WITH =) DEFERRABLE INITIALLY DEFERRED"
            tx.connection.execute(f"ALTER TABLE {table} ADD {unique}".encode())
        with pytest.raises(DuplicateDocument, match="commit"):
            with store.bulk() as b:
                b["orders"].replace("o-1", {"n": 1}, upsert=True)
                b["orders"].replace("o-2", {"n": 1}, upsert=True)
        assert b.result == BulkResult()
        assert store["orders"].count() == 0
