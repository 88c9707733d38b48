# Written by .ci/twins.py from tests/integration/_async/test_bulk_unordered.py: change that file, and run it.
"""Unordered bulks: a write that fails leaves the others alone, and the result lists it. Bulks inside a transaction."""
# ruff: noqa: PT012 (a failing bulk is a block)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store, BulkResult
from pgdoc.crud.bulk_results import CHUNK_STATEMENTS
from pgdoc.errors import (
    BulkError,
    BulkIncomplete,
    CollectionNotFound,
    DatabaseError,
    InvalidDocument,
    ServerUnreachable,
    TransactionClosed,
)
from tests.integration._sync.streams import take
from tests.integration._sync.test_bulk import FAILURES, data_of, traced, write_everything, write_nothing
from tests.integration._sync.test_zero_rows import BULK_WRITES, filled, trigger

if TYPE_CHECKING:
    from pathlib import Path


def prepare(store: Store, schema: str) -> None:
    """Create a collection with a document, a unique index and a constraint."""
    store["orders"].insert("o-1", {"key": "k"})
    store["orders"].create_index("key", unique=True)
    with store.transaction() as tx:
        tx.connection.execute(f"ALTER TABLE {schema}.orders ADD CHECK (data ->> 'x' <> 'refused')".encode())


@pytest.mark.parametrize("place", [0, CHUNK_STATEMENTS - 1, CHUNK_STATEMENTS])
def test_each_write_that_fails_leaves_the_others_alone(own_schema: dict[str, Any], place: int) -> None:
    with Store(**own_schema) as store:
        prepare(store, own_schema["schema"])
        with pytest.raises(BulkIncomplete) as raised:
            with store.bulk(ordered=False) as b:
                for n in range(place):
                    b["other"].insert(f"n-{n}", {})
                for n, fail in enumerate(FAILURES):
                    fail(b)
                    b["other"].insert(f"m-{n}", {})
                b["orders"].update("o-1", {"$set": {"done": True}}, if_version=1)
        count = len(FAILURES)
        assert b.result == BulkResult(inserted=place + count, changed=1, failures=raised.value.failures)
        assert [failure.index for failure in raised.value.failures] == list(range(place, place + 2 * count, 2))
        for (fail, (kind, key, fields)), failure in zip(FAILURES.items(), raised.value.failures, strict=True):
            assert isinstance(failure.error, kind), fail
            assert {name: getattr(failure.error, name) for name in fields} == fields, fail
            assert failure.document_id == key
            assert failure.operation in fail.__name__ or fail.__name__ not in str(failure)
            assert failure.collection == ("missing" if "no_collection" in fail.__name__ else "orders")
        assert f"{count} writes" in str(raised.value)
        assert f"write {place}, insert of 'o-1': " in str(raised.value)
        assert data_of(store, "orders") == {"o-1": {"key": "k", "done": True}}
        assert store["other"].count() == place + count


def test_an_unordered_bulk_without_failures_does_what_an_ordered_one_does(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        results = []
        for ordered in True, False:
            with store.bulk(ordered=ordered) as b:
                write_everything(b)
            with store.bulk(ordered=ordered) as c:
                write_nothing(c, "missing")
            found = [(d.id, d.data, d.version) for name in ("orders", "stock") for d in store[name].find(sort="_id")]
            results.append((b.result, c.result, found, store.collections()))
            store["orders"].delete_many({})
            store["stock"].delete_many({})
        assert results[0] == results[1]


def test_only_what_an_unordered_bulk_stores_is_an_event(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        prepare(store, own_schema["schema"])
        with store.watch() as stream:
            with pytest.raises(BulkIncomplete):
                with store.bulk({"user": "u"}, ordered=False) as b:
                    b["orders"].update("o-1", {"$set": {"x": "refused"}})
                    b["orders"].insert("o-2", {"key": "k"})
                    b["orders"].insert("o-3", {"key": "m"})
                    b["orders"].insert("o-1", {})
                    b["orders"].update("o-1", {"$inc": {"key": 1}}, upsert=True)
                    b["orders"].update("o-4", {"$set": {"key": "n"}}, upsert=True)
            store["orders"].insert("last", {"key": "z"})
            events = take(stream, 3)
        assert [(e.document_id, e.metadata) for e in events] == [
            ("o-3", {"user": "u"}),
            ("o-4", {"user": "u"}),
            ("last", {}),
        ]
        assert len({e.transaction_id for e in events}) == 2


def test_failures_that_change_nothing_cost_no_round_trip_each(own_schema: dict[str, Any], tmp_path: Path) -> None:
    with Store(**own_schema, pool_size=1) as store:
        prepare(store, own_schema["schema"])
        with store.bulk(ordered=False) as b:
            b["orders"].insert("o-2", {"key": "m"})
        with traced(store, tmp_path / "trace") as round_trips:
            with pytest.raises(BulkIncomplete):
                with store.bulk(ordered=False) as b:
                    for n in range(300):
                        b["orders"].insert("o-1", {})
                        b["orders"].update(f"n-{n}", {"$set": {"key": n}}, upsert=True)
            assert round_trips() == 4  # two look once whether a trigger is new
            with pytest.raises(BulkIncomplete) as raised:
                with store.bulk(ordered=False) as b:
                    for n in range(300):
                        b["orders"].insert(f"m-{n}", {"key": n if n % 2 else -n})
            assert round_trips() == 1 + (300 + 1) + 1  # sent together; sent apart, in one pipeline; committed
        assert [failure.index for failure in raised.value.failures] == [0, *range(1, 300, 2)]
        for n in range(30):  # psycopg prepares statements again that the server forgot
            store["orders"].update(f"n-{n}", {"$set": {"key": 1000 + n}}, upsert=True)
            with store.bulk(ordered=False) as b:
                b["orders"].insert(f"l-{n}", {"key": 2000 + n})


def test_an_unordered_bulk_that_an_exception_leaves_stores_nothing(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.bulk(ordered=False) as b:
            for n in range(CHUNK_STATEMENTS + 1):
                b["orders"].insert(f"o-{n}", {})
            raise psycopg.Rollback
        assert b.result == BulkResult()
        with pytest.raises(InvalidDocument):
            with store.bulk(ordered=False) as b:
                b["orders"].insert("o-1", {})
                b["orders"].insert("", {})
        assert store.collections() == []


def test_a_lost_connection_leaves_nothing_of_an_unordered_bulk(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, Store(**own_schema) as other:
        store["orders"].insert("o-1", {})
        with pytest.raises(ServerUnreachable):
            with store.bulk(ordered=False) as b:
                for n in range(CHUNK_STATEMENTS + 1):
                    b["orders"].insert(f"o-{n}", {})
                with other.transaction() as tx:
                    ended = tx.connection.execute(
                        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND state = 'idle in transaction'"
                    )
                    assert ended.fetchall() == [(True,)]
        assert b.result == BulkResult()
        assert store["orders"].count() == 1


def test_a_collection_that_can_not_be_used_fails_its_writes_alone(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, Store(**own_schema, auto_create=False) as strict:
        store["orders"].insert("o-1", {})
        with store.transaction() as tx:
            tx.connection.execute(f"CREATE TABLE {own_schema['schema']}.foreign_one (id text)".encode())
        with pytest.raises(BulkIncomplete) as raised:
            with strict.bulk(ordered=False) as b:
                b["missing"].insert("m-1", {})
                b["foreign_one"].insert("m-1", {})
                b["missing"].update("m-1", {"$set": {"n": 1}})
                b["orders"].insert("o-2", {})
        assert [(failure.index, type(failure.error)) for failure in raised.value.failures] == [
            (0, CollectionNotFound),
            (1, CollectionNotFound),
            (2, CollectionNotFound),
        ]
        assert store["orders"].count() == 2
        assert store.collections() == ["orders"]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_bulk_inside_a_transaction_is_a_part_of_it(own_schema: dict[str, Any], ordered: bool) -> None:
    with Store(**own_schema) as store:
        prepare(store, own_schema["schema"])
        with store.transaction({"user": "u"}) as tx:
            tx["orders"].insert("o-2", {"key": "m"})
            with tx.bulk(ordered=ordered) as b:
                b["orders"].update("o-2", {"$set": {"n": 1}})
                b["stock"].insert("s-1", {})
            assert b.result == BulkResult(inserted=1, changed=1)
            assert store["orders"].get("o-2") is None
            raise psycopg.Rollback
        assert store.collections() == ["orders"]
        with store.transaction({"user": "u"}) as tx:
            with tx.bulk(ordered=ordered) as b:
                b["orders"].insert("o-2", {"key": "m"})
            with tx.bulk(ordered=ordered):
                pass
            tx["orders"].update("o-2", {"$set": {"n": 1}})
        assert (data_of(store, "orders"))["o-2"] == {"key": "m", "n": 1}
        with pytest.raises(TransactionClosed):
            with tx.bulk(ordered=ordered):
                pass


def test_a_bulk_that_fails_inside_a_transaction_leaves_it_usable(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        prepare(store, own_schema["schema"])
        for n, (fail, (kind, _, _)) in enumerate(FAILURES.items()):
            with store.transaction() as tx:
                tx["other"].insert(f"before-{n}", {})
                cursor = tx["other"].find(sort="_id")
                assert [document.id for document in cursor]
                with pytest.raises(BulkError) as raised:
                    with tx.bulk() as b:
                        b["new"].insert(f"x-{n}", {})
                        tx["other"].insert(f"inside-{n}", {})
                        fail(b)
                assert isinstance(raised.value.__cause__, kind)
                tx["other"].insert(f"after-{n}", {})
                assert tx["new"].get(f"x-{n}") is None
                with pytest.raises(BulkIncomplete) as incomplete:
                    with tx.bulk(ordered=False) as b:
                        b["new"].insert(f"n-{n}", {})
                        fail(b)
                assert [type(failure.error) for failure in incomplete.value.failures] == [kind]
                tx["other"].insert(f"last-{n}", {})
        found = data_of(store, "other")
        assert sorted({name.partition("-")[0] for name in found}) == ["after", "before", "last"]
        assert store["new"].count() == len(FAILURES)
        assert data_of(store, "orders") == {"o-1": {"key": "k"}}


def test_the_metadata_of_a_transaction_and_of_a_block_go_with_an_unordered_bulk(
    own_schema: dict[str, Any],
) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {"n": 1})
        with store.watch() as stream:
            with store.transaction({"user": "u"}) as tx:
                with pytest.raises(BulkIncomplete):
                    with tx.bulk(ordered=False) as b:
                        b["orders"].insert("o-1", {})
                        b["orders"].insert("o-2", {})
                        b["orders"].update("o-1", {"$inc": {"n": 1}}, if_version=5)
                tx["orders"].insert("o-3", {})
            events = take(stream, 2)
        assert [(e.document_id, e.metadata) for e in events] == [("o-2", {"user": "u"}), ("o-3", {"user": "u"})]


def test_a_write_that_a_trigger_drops_fails_alone(own_schema: dict[str, Any]) -> None:
    with filled(own_schema, *trigger("INSERT OR UPDATE OR DELETE", "RETURN NULL;")) as store:
        with pytest.raises(BulkIncomplete) as raised:
            with store.bulk(ordered=False) as b:
                for write in BULK_WRITES.values():
                    write(b["orders"])
                b["other"].insert("o-1", {})
        assert [type(failure.error) for failure in raised.value.failures] == [DatabaseError] * len(BULK_WRITES)
        assert all("was not written" in str(failure.error) for failure in raised.value.failures)
        assert b.result.inserted == 1
        assert data_of(store, "orders") == {"o-1": {"n": 1}}
