"""Live queries: what they hand out, what they share, and how they end."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc import AsyncStore
from pgdoc.errors import CollectionNotFound, InvalidFilter, InvalidInput, StreamClosed, StreamError
from pgdoc.runtime.primitives import async_sleep
from tests.background import AsyncBackground

if TYPE_CHECKING:
    import psycopg

    from pgdoc import AsyncLiveQuery, LiveChange

PATIENCE_S = 20.0


def ids(query: AsyncLiveQuery) -> list[str]:
    return [document.id for document in query.documents]


def brief(changes: list[LiveChange]) -> list[tuple[str, str, int | None, int | None]]:
    return [(change.kind.value, change.document.id, change.old_index, change.new_index) for change in changes]


def queries_of(store: AsyncStore) -> int:
    """Return how many queries are kept up to date."""
    return sum(len(source.queries) for source in store._live._sources.values() if not source.is_over)


async def until_no_source(store: AsyncStore) -> None:
    for _ in range(500):
        if all(source.is_over for source in store._live._sources.values()):
            return
        await async_sleep(0.02)
    raise AssertionError("a source is left")


async def test_each_change_of_the_result_is_handed_out_with_its_event(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        for number in range(3):
            await orders.insert(f"o{number}", {"status": "new", "total": number})
        async with orders.live({"status": "new"}, sort="-total", limit=2) as query:
            assert ids(query) == ["o2", "o1"]
            inserted = await orders.insert("o9", {"status": "new", "total": 9})
            batch = await query.next_batch(PATIENCE_S)
            assert brief(batch) == [("removed", "o1", 1, None), ("added", "o9", None, 0)]
            assert [change.event and change.event.document_id for change in batch] == [None, "o9"]
            assert batch[1].document == inserted
            assert ids(query) == ["o9", "o2"]
            await orders.update("o9", {"$set": {"total": 1}})
            assert brief(await query.next_batch(PATIENCE_S)) == [
                ("removed", "o9", 0, None),
                ("added", "o1", None, 1),
            ]
            await orders.update("o2", {"$set": {"note": "!"}})
            change = await query.next(PATIENCE_S)
            assert change is not None
            assert brief([change]) == [("modified", "o2", 0, 0)]
            assert change.document["note"] == query.documents[0]["note"] == "!"
            await orders.update("o2", {"$set": {"status": "old"}})
            assert brief(await query.next_batch(PATIENCE_S)) == [("removed", "o2", 0, None), ("added", "o9", None, 1)]
            assert await query.try_next() is None
            assert ids(query) == ["o1", "o9"]


async def test_a_transaction_is_one_batch_at_one_place(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].live() as query:
        began = query.resume_token
        async with store.transaction() as tx:
            for number in range(600):  # more than the source takes at once
                await tx["orders"].insert(f"o{number:03d}", {})
            await tx["orders"].delete("o000")
            await tx["others"].insert("last", {})
        first = await query.next(PATIENCE_S)
        assert first is not None
        assert first.document.id == "o001"
        assert len(query.documents) == 599
        assert query.resume_token > began
        assert len(await query.next_batch(PATIENCE_S)) == 598
        assert await query.next_batch(0) == []


async def test_it_begins_with_what_was_committed_before(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].live() as first:
        for number in range(10):
            await store["orders"].insert(f"o{number}", {})
            async with store["orders"].live() as query:
                assert len(query.documents) == number + 1
        assert len(first.documents) == 0  # its reader has not asked for a change


async def test_equal_queries_are_kept_up_to_date_once(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        one = await orders.live({"n": 1}, sort="n", limit=3)
        other = await store.live("orders", {"n": 1}, sort=["n"], limit=3, fields=["n"])
        assert queries_of(store) == 1
        different = await orders.live({"n": 1}, sort="-n", limit=3)
        assert queries_of(store) == 2
        await orders.insert("a", {"n": 1, "m": 2})
        for query, data in ((one, {"n": 1, "m": 2}), (other, {"n": 1}), (different, {"n": 1, "m": 2})):
            change = await query.next(PATIENCE_S)
            assert change is not None
            assert change.document.data == data
            change.document.data["n"] = 99  # of this handle alone
        assert [one.documents[0]["n"], other.documents[0]["n"]] == [99, 99]
        async with orders.live({"n": 1}, sort="n", limit=3) as late:
            assert late.documents[0].data == {"n": 1, "m": 2}
        await one.close()
        assert queries_of(store) == 2
        await other.close()
        assert queries_of(store) == 1
        await different.close()
        await until_no_source(store)


async def test_a_query_on_a_value_is_not_told_of_others(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    apply = pgdoc.live.window.LiveWindow.apply  # type: ignore[attr-defined]

    def note(window: Any, before: Any, after: Any, event: Any) -> Any:
        told.append((after or before).id)
        return apply(window, before, after, event)

    monkeypatch.setattr("pgdoc.live.window.LiveWindow.apply", note)
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        async with orders.live({"customer": "c-7"}) as query, orders.live({"customer": {"$in": ["c-8"]}}):
            await orders.insert("a", {"customer": "c-1"})
            await orders.insert("b", {"customer": "c-7"})
            await orders.update("b", {"$set": {"customer": "c-1"}})
            await orders.insert("c", {"customer": ["c-7", "x"]})
            assert brief([await query.next(PATIENCE_S) or pytest.fail("too late") for _ in range(3)]) == [
                ("added", "b", None, 0),
                ("removed", "b", 0, None),
                ("added", "c", None, 0),
            ]
    assert told == ["b", "b", "c"]


async def test_a_slow_handle_goes_on_with_the_difference(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BATCHES", 5)
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        await orders.insert_many((f"o{number:02d}", {"n": number}) for number in range(20))
        async with orders.live(sort="n") as slow, orders.live(sort="n") as quick:
            for number in range(20):
                await orders.update(f"o{number:02d}", {"$set": {"n": 40 - number}})
            await orders.delete("o05")
            await orders.insert("new", {"n": 0})
            while "new" not in ids(quick):
                await quick.next_batch(PATIENCE_S)
            rows, changes = ids(slow), await slow.next_batch(PATIENCE_S)
            assert len(changes) == 21
            assert all(change.event is None for change in changes)
            for change in changes:
                if change.old_index is not None:
                    assert rows.pop(change.old_index) == change.document.id
                if change.new_index is not None:
                    rows.insert(change.new_index, change.document.id)
            assert rows == ids(slow) == ids(quick) == [each.id async for each in orders.find(sort="n")]
            assert slow.resume_token >= quick.resume_token
            await orders.delete("new")
            assert brief(await slow.next_batch(PATIENCE_S)) == [("removed", "new", 0, None)]


async def test_many_documents_are_read(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        await orders.insert_many((f"o{number:04d}", {"n": number % 7}) for number in range(2_500))
        async with orders.live({"n": {"$lt": 5}}) as query, orders.live(sort="-n", limit=2_000) as part:
            assert ids(query) == [each.id async for each in orders.find({"n": {"$lt": 5}}, sort="_id")]
            assert ids(part) == [each.id async for each in orders.find(sort="-n", limit=2_000)]
            await orders.delete_many({"n": 6})
            while len(await part.next_batch(PATIENCE_S)) == 0:
                pass
            assert ids(part) == [each.id async for each in orders.find(sort="-n", limit=2_000)]


async def test_a_truncation_empties_the_result(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["orders"].insert("a", {})
        async with store["orders"].live(limit=5) as query:
            sql.execute("TRUNCATE orders")
            (change,) = await query.next_batch(PATIENCE_S)
            assert (change.kind, change.event and change.event.event_type) == ("removed", "truncate")
            await store["orders"].insert("b", {})
            assert brief(await query.next_batch(PATIENCE_S)) == [("added", "b", None, 0)]


@pytest.mark.parametrize("renames", [False, True])
async def test_a_dropped_or_renamed_collection_ends_its_queries(shared_dsn: str, schema: str, renames: bool) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        query = await store["orders"].live()
        await store["orders"].insert("a", {})
        if renames:
            await store.rename_collection("orders", "former")
        else:
            await store.drop_collection("orders")
        assert brief(await query.next_batch(PATIENCE_S)) == [("added", "a", None, 0)]
        with pytest.raises(CollectionNotFound, match='is called "former" now' if renames else "was dropped"):
            await query.next(PATIENCE_S)
        assert query.closed
        assert ids(query) == ["a"]
        await query.close()
        async with store["orders"].live() as another:
            assert another.documents == []


async def test_a_closed_query_hands_out_nothing(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["orders"].insert("a", {})
        query = await store["orders"].live()
        await store["orders"].insert("b", {})
        await query.close()
        await query.close()
        with pytest.raises(StreamClosed):
            await query.next(PATIENCE_S)
        assert [change async for change in query] == []
        assert (ids(query), query.closed, query.resume_token.lsn > 0) == (["a"], True, True)


async def test_closing_the_store_ends_a_handle_that_waits(shared_dsn: str, schema: str) -> None:
    store = AsyncStore(shared_dsn, schema=schema)
    query = await store["orders"].live()

    async def read() -> None:
        assert [change async for change in query] == []

    async with AsyncBackground(read):
        await async_sleep(0.05)
        await store.close()
    with pytest.raises(StreamClosed):
        await query.next()


async def test_a_handle_that_is_dropped_is_forgotten(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        query = await store["orders"].live()
        assert query.documents == []
        del query
        gc.collect()
        await until_no_source(store)
        async with store["orders"].live() as another:
            assert another.documents == []


async def test_invalid_arguments_open_nothing(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        for arguments, error in (
            ({"filter": {"$oops": 1}}, InvalidFilter),
            ({"sort": "a..b"}, InvalidInput),
            ({"limit": -1}, InvalidInput),
            ({"fields": 5}, InvalidInput),
            ({"collation": "fr"}, InvalidInput),
        ):
            with pytest.raises(error):
                await store["orders"].live(**arguments)
        for name in ("no collection", "*"):
            with pytest.raises(pgdoc.InvalidName):
                await store.live(name)
            with pytest.raises(pgdoc.InvalidName):
                await store.live_count(name)
            with pytest.raises(pgdoc.InvalidName):
                await store.mirror(name)
        with pytest.raises(pgdoc.TableRefused):
            await store.live("public.nothing")
        async with store.transaction() as tx:
            with pytest.raises(StreamError, match="inside a transaction"):
                tx["orders"].live()
        async with store["orders"].live() as query:
            with pytest.raises(InvalidInput):
                await query.next(timeout="soon")  # type: ignore[arg-type]
    async with AsyncStore(shared_dsn, schema=schema, auto_create=False) as store:
        with pytest.raises(CollectionNotFound):
            await store["missing"].live()
        assert queries_of(store) == 0


async def test_texts_compare_under_a_collation(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        people = store["people"]
        await people.insert("a", {"name": "ANNA"})
        async with people.live({"name": "anna"}, sort="name", collation="ci") as query:
            await people.insert("b", {"name": "Anna"})
            assert brief(await query.next_batch(PATIENCE_S)) == [("added", "b", None, 1)]


@dataclass
class Order:
    total: int
    note: str = ""


async def test_a_typed_collection_has_typed_live_queries(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store.collection("orders", Order)
        await orders.insert("a", Order(1))
        await store["orders"].insert("odd", {"total": "many"})
        part: AsyncLiveQuery[Any] = await orders.live(fields=["total"])
        async with orders.live(sort="total") as query, part:
            assert query.documents[0].data == Order(1)
            assert [each.data for each in part.documents] == [{"total": 1}, {"total": "many"}]
            with pytest.raises(pgdoc.InvalidModel, match="odd"):
                _ = query.documents[1].data
            await orders.insert("b", Order(2, "!"))
            change = await query.next(PATIENCE_S)
            assert change is not None
            assert change.document.data == Order(2, "!")
            assert change.event is not None
            assert change.event.full_document is not None
            assert change.event.full_document.data == Order(2, "!")
            assert [each.document.data for each in await part.next_batch(PATIENCE_S)] == [{"total": 2}]
            async with store["orders"].live(sort="total") as plain:
                assert plain.documents[0].data == {"total": 1, "note": ""}
                assert queries_of(store) == 2
