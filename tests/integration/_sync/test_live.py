# Written by .ci/twins.py from tests/integration/_async/test_live.py: change that file, and run it.
"""Live queries: what they hand out, what they share, and how they end."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import CollectionNotFound, InvalidFilter, InvalidInput, StreamClosed, StreamError
from pgdoc.runtime.primitives import sleep
from tests.background import Background

if TYPE_CHECKING:
    import psycopg

    from pgdoc import LiveQuery, LiveChange

PATIENCE_S = 20.0


def ids(query: LiveQuery) -> list[str]:
    return [document.id for document in query.documents]


def brief(changes: list[LiveChange]) -> list[tuple[str, str, int | None, int | None]]:
    return [(change.kind.value, change.document.id, change.old_index, change.new_index) for change in changes]


def queries_of(store: Store) -> int:
    """Return how many queries are kept up to date."""
    return sum(len(source.queries) for source in store._live._sources.values() if not source.is_over)


def until_no_source(store: Store) -> None:
    for _ in range(500):
        if all(source.is_over for source in store._live._sources.values()):
            return
        sleep(0.02)
    raise AssertionError("a source is left")


def test_each_change_of_the_result_is_handed_out_with_its_event(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        for number in range(3):
            orders.insert(f"o{number}", {"status": "new", "total": number})
        with orders.live({"status": "new"}, sort="-total", limit=2) as query:
            assert ids(query) == ["o2", "o1"]
            inserted = orders.insert("o9", {"status": "new", "total": 9})
            batch = query.next_batch(PATIENCE_S)
            assert brief(batch) == [("removed", "o1", 1, None), ("added", "o9", None, 0)]
            assert [change.event and change.event.document_id for change in batch] == [None, "o9"]
            assert batch[1].document == inserted
            assert ids(query) == ["o9", "o2"]
            orders.update("o9", {"$set": {"total": 1}})
            assert brief(query.next_batch(PATIENCE_S)) == [
                ("removed", "o9", 0, None),
                ("added", "o1", None, 1),
            ]
            orders.update("o2", {"$set": {"note": "!"}})
            change = query.next(PATIENCE_S)
            assert change is not None
            assert brief([change]) == [("modified", "o2", 0, 0)]
            assert change.document["note"] == query.documents[0]["note"] == "!"
            orders.update("o2", {"$set": {"status": "old"}})
            assert brief(query.next_batch(PATIENCE_S)) == [("removed", "o2", 0, None), ("added", "o9", None, 1)]
            assert query.try_next() is None
            assert ids(query) == ["o1", "o9"]


def test_a_transaction_is_one_batch_at_one_place(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as query:
        began = query.resume_token
        with store.transaction() as tx:
            for number in range(600):  # more than the source takes at once
                tx["orders"].insert(f"o{number:03d}", {})
            tx["orders"].delete("o000")
            tx["others"].insert("last", {})
        first = query.next(PATIENCE_S)
        assert first is not None
        assert first.document.id == "o001"
        assert len(query.documents) == 599
        assert query.resume_token > began
        assert len(query.next_batch(PATIENCE_S)) == 598
        assert query.next_batch(0) == []


def test_it_begins_with_what_was_committed_before(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].live() as first:
        for number in range(10):
            store["orders"].insert(f"o{number}", {})
            with store["orders"].live() as query:
                assert len(query.documents) == number + 1
        assert len(first.documents) == 0  # its reader has not asked for a change


def test_equal_queries_are_kept_up_to_date_once(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        one = orders.live({"n": 1}, sort="n", limit=3)
        other = store.live("orders", {"n": 1}, sort=["n"], limit=3, fields=["n"])
        assert queries_of(store) == 1
        different = orders.live({"n": 1}, sort="-n", limit=3)
        assert queries_of(store) == 2
        orders.insert("a", {"n": 1, "m": 2})
        for query, data in ((one, {"n": 1, "m": 2}), (other, {"n": 1}), (different, {"n": 1, "m": 2})):
            change = query.next(PATIENCE_S)
            assert change is not None
            assert change.document.data == data
            change.document.data["n"] = 99  # of this handle alone
        assert [one.documents[0]["n"], other.documents[0]["n"]] == [99, 99]
        with orders.live({"n": 1}, sort="n", limit=3) as late:
            assert late.documents[0].data == {"n": 1, "m": 2}
        one.close()
        assert queries_of(store) == 2
        other.close()
        assert queries_of(store) == 1
        different.close()
        until_no_source(store)


def test_a_query_on_a_value_is_not_told_of_others(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    apply = pgdoc.live.window.LiveWindow.apply  # type: ignore[attr-defined]

    def note(window: Any, before: Any, after: Any, event: Any) -> Any:
        told.append((after or before).id)
        return apply(window, before, after, event)

    monkeypatch.setattr("pgdoc.live.window.LiveWindow.apply", note)
    with Store(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        with orders.live({"customer": "c-7"}) as query, orders.live({"customer": {"$in": ["c-8"]}}):
            orders.insert("a", {"customer": "c-1"})
            orders.insert("b", {"customer": "c-7"})
            orders.update("b", {"$set": {"customer": "c-1"}})
            orders.insert("c", {"customer": ["c-7", "x"]})
            assert brief([query.next(PATIENCE_S) or pytest.fail("too late") for _ in range(3)]) == [
                ("added", "b", None, 0),
                ("removed", "b", 0, None),
                ("added", "c", None, 0),
            ]
    assert told == ["b", "b", "c"]


def test_a_slow_handle_goes_on_with_the_difference(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BATCHES", 5)
    with Store(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        orders.insert_many((f"o{number:02d}", {"n": number}) for number in range(20))
        with orders.live(sort="n") as slow, orders.live(sort="n") as quick:
            for number in range(20):
                orders.update(f"o{number:02d}", {"$set": {"n": 40 - number}})
            orders.delete("o05")
            orders.insert("new", {"n": 0})
            while "new" not in ids(quick):
                quick.next_batch(PATIENCE_S)
            rows, changes = ids(slow), slow.next_batch(PATIENCE_S)
            assert len(changes) == 21
            assert all(change.event is None for change in changes)
            for change in changes:
                if change.old_index is not None:
                    assert rows.pop(change.old_index) == change.document.id
                if change.new_index is not None:
                    rows.insert(change.new_index, change.document.id)
            assert rows == ids(slow) == ids(quick) == [each.id for each in orders.find(sort="n")]
            assert slow.resume_token >= quick.resume_token
            orders.delete("new")
            assert brief(slow.next_batch(PATIENCE_S)) == [("removed", "new", 0, None)]


def test_many_documents_are_read(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        orders.insert_many((f"o{number:04d}", {"n": number % 7}) for number in range(2_500))
        with orders.live({"n": {"$lt": 5}}) as query, orders.live(sort="-n", limit=2_000) as part:
            assert ids(query) == [each.id for each in orders.find({"n": {"$lt": 5}}, sort="_id")]
            assert ids(part) == [each.id for each in orders.find(sort="-n", limit=2_000)]
            orders.delete_many({"n": 6})
            while len(part.next_batch(PATIENCE_S)) == 0:
                pass
            assert ids(part) == [each.id for each in orders.find(sort="-n", limit=2_000)]


def test_a_truncation_empties_the_result(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store["orders"].insert("a", {})
        with store["orders"].live(limit=5) as query:
            sql.execute("TRUNCATE orders")
            (change,) = query.next_batch(PATIENCE_S)
            assert (change.kind, change.event and change.event.event_type) == ("removed", "truncate")
            store["orders"].insert("b", {})
            assert brief(query.next_batch(PATIENCE_S)) == [("added", "b", None, 0)]


@pytest.mark.parametrize("renames", [False, True])
def test_a_dropped_or_renamed_collection_ends_its_queries(shared_dsn: str, schema: str, renames: bool) -> None:
    with Store(shared_dsn, schema=schema) as store:
        query = store["orders"].live()
        store["orders"].insert("a", {})
        if renames:
            store.rename_collection("orders", "former")
        else:
            store.drop_collection("orders")
        assert brief(query.next_batch(PATIENCE_S)) == [("added", "a", None, 0)]
        with pytest.raises(CollectionNotFound, match='is called "former" now' if renames else "was dropped"):
            query.next(PATIENCE_S)
        assert query.closed
        assert ids(query) == ["a"]
        query.close()
        with store["orders"].live() as another:
            assert another.documents == []


def test_a_closed_query_hands_out_nothing(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store["orders"].insert("a", {})
        query = store["orders"].live()
        store["orders"].insert("b", {})
        query.close()
        query.close()
        with pytest.raises(StreamClosed):
            query.next(PATIENCE_S)
        assert [change for change in query] == []
        assert (ids(query), query.closed, query.resume_token.lsn > 0) == (["a"], True, True)


def test_closing_the_store_ends_a_handle_that_waits(shared_dsn: str, schema: str) -> None:
    store = Store(shared_dsn, schema=schema)
    query = store["orders"].live()

    def read() -> None:
        assert [change for change in query] == []

    with Background(read):
        sleep(0.05)
        store.close()
    with pytest.raises(StreamClosed):
        query.next()


def test_a_handle_that_is_dropped_is_forgotten(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        query = store["orders"].live()
        assert query.documents == []
        del query
        gc.collect()
        until_no_source(store)
        with store["orders"].live() as another:
            assert another.documents == []


def test_invalid_arguments_open_nothing(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        for arguments, error in (
            ({"filter": {"$oops": 1}}, InvalidFilter),
            ({"sort": "a..b"}, InvalidInput),
            ({"limit": -1}, InvalidInput),
            ({"fields": 5}, InvalidInput),
            ({"collation": "fr"}, InvalidInput),
        ):
            with pytest.raises(error):
                store["orders"].live(**arguments)
        for name in ("no collection", "*"):
            with pytest.raises(pgdoc.InvalidName):
                store.live(name)
            with pytest.raises(pgdoc.InvalidName):
                store.live_count(name)
            with pytest.raises(pgdoc.InvalidName):
                store.mirror(name)
        with pytest.raises(pgdoc.TableRefused):
            store.live("public.nothing")
        with store.transaction() as tx:
            with pytest.raises(StreamError, match="inside a transaction"):
                tx["orders"].live()
        with store["orders"].live() as query:
            with pytest.raises(InvalidInput):
                query.next(timeout="soon")  # type: ignore[arg-type]
    with Store(shared_dsn, schema=schema, auto_create=False) as store:
        with pytest.raises(CollectionNotFound):
            store["missing"].live()
        assert queries_of(store) == 0


def test_texts_compare_under_a_collation(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        people = store["people"]
        people.insert("a", {"name": "ANNA"})
        with people.live({"name": "anna"}, sort="name", collation="ci") as query:
            people.insert("b", {"name": "Anna"})
            assert brief(query.next_batch(PATIENCE_S)) == [("added", "b", None, 1)]


@dataclass
class Order:
    total: int
    note: str = ""


def test_a_typed_collection_has_typed_live_queries(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        orders = store.collection("orders", Order)
        orders.insert("a", Order(1))
        store["orders"].insert("odd", {"total": "many"})
        part: LiveQuery[Any] = orders.live(fields=["total"])
        with orders.live(sort="total") as query, part:
            assert query.documents[0].data == Order(1)
            assert [each.data for each in part.documents] == [{"total": 1}, {"total": "many"}]
            with pytest.raises(pgdoc.InvalidModel, match="odd"):
                _ = query.documents[1].data
            orders.insert("b", Order(2, "!"))
            change = query.next(PATIENCE_S)
            assert change is not None
            assert change.document.data == Order(2, "!")
            assert change.event is not None
            assert change.event.full_document is not None
            assert change.event.full_document.data == Order(2, "!")
            assert [each.document.data for each in part.next_batch(PATIENCE_S)] == [{"total": 2}]
            with store["orders"].live(sort="total") as plain:
                assert plain.documents[0].data == {"total": 1, "note": ""}
                assert queries_of(store) == 2
