"""Live counts, sums and averages: their values, groups and changes."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import AsyncStore
from pgdoc.errors import CollectionNotFound, InvalidFilter, InvalidInput, StreamClosed, StreamError, TableRefused

if TYPE_CHECKING:
    from pgdoc import AsyncLiveAggregate, LiveAggregateChange

PATIENCE_S = 30.0
DEEP = '{"total": 1, "deep": ' + "[" * 1100 + "]" * 1100 + "}"


async def take(query: AsyncLiveAggregate[Any], count: int) -> list[LiveAggregateChange[Any]]:
    changes: list[LiveAggregateChange[Any]] = []
    while len(changes) < count:
        batch = await query.next_batch(timeout=PATIENCE_S)
        assert batch, f"no change after {changes}"
        changes += batch
    return changes


def brief(changes: list[LiveAggregateChange[Any]]) -> list[tuple[Any, ...]]:
    return [(str(change.kind), change.group, change.old_value, change.value) for change in changes]


async def test_a_count_begins_with_what_is_there_and_follows_the_documents_that_match(
    shared_dsn: str, schema: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        await orders.insert("a", {"status": "new"})
        async with orders.live_count({"status": "new"}) as query:
            assert (query.value, query.closed) == (1, False)
            began = query.resume_token
            with pgdoc.metadata(user="alice"):
                await orders.insert("b", {"status": "new"})
            await orders.insert("c", {"status": "old"})
            await orders.update("a", {"$set": {"status": "old"}})
            first, second = await take(query, 2)
            assert brief([first, second]) == [("modified", None, 1, 2), ("modified", None, 2, 1)]
            assert first.event is not None
            assert (first.event.document_id, first.event.metadata) == ("b", {"user": "alice"})
            assert query.value == 1
            assert query.resume_token > began
            assert await query.try_next() is None
        assert (query.value, query.closed) == (1, True)
        with pytest.raises(StreamClosed):
            await query.next()


async def test_a_group_comes_with_its_first_document_and_goes_with_its_last(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        await orders.insert("a", {"status": "new", "total": 1.5})
        async with orders.live_sum("total", by="status") as query:
            assert query.groups == {"new": Decimal("1.5")}
            async with store.transaction() as tx:
                await tx["orders"].insert("b", {"total": Decimal("0.1")})
                await tx["orders"].insert("c", {"status": None, "total": Decimal("0.2")})
                await tx["orders"].update("a", {"$set": {"status": True}})
            batch = await query.next_batch(timeout=PATIENCE_S)
            assert brief(batch) == [
                ("added", None, None, Decimal("0.3")),
                ("removed", "new", Decimal("1.5"), None),
                ("added", True, None, Decimal("1.5")),
            ]
            assert query.groups == {None: Decimal("0.3"), True: Decimal("1.5")}
            await orders.delete_many({})
            assert [change.kind for change in await take(query, 2)] == ["removed", "removed"]
            assert query.groups == {}


async def test_only_numbers_count_in_a_sum_and_an_average(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        async with orders.live_sum("total") as total, orders.live_average("total", by="status") as average:
            assert total.value == 0
            assert average.groups == {}
            for key, value in {"a": "1", "b": True, "c": [5], "d": None}.items():
                await orders.insert(key, {"total": value})
            await orders.insert("e", {"total": 2, "status": "new"})
            assert brief(await take(total, 1)) == [("modified", None, 0, 2)]
            await take(average, 2)
            assert average.groups == {None: None, "new": 2}
            await orders.insert("f", {"total": 1, "status": "new"})
            await take(average, 1)
            assert average.groups["new"] == Decimal("1.5")
            await orders.insert("g", {"total": 1, "status": "new"})
            await take(average, 1)
            assert str(average.groups["new"]) == "1.333333333333333333333333333"


async def test_equal_aggregates_share_what_they_compute(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        async with orders.live_count() as one, orders.live_count() as other:
            assert one._query is other._query
            await orders.insert("a", {})
            (first,), (second,) = await take(one, 1), await take(other, 1)
            assert first == second
            assert first.event is not second.event


async def test_a_truncation_empties_all_groups(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        for key in "abc":
            await orders.insert(key, {"of": key})
        async with orders.live_count(by="of") as groups, orders.live_count() as count:
            async with await psycopg.AsyncConnection.connect(shared_dsn, autocommit=True) as connection:
                await connection.execute(f'TRUNCATE "{schema}".orders'.encode())
            assert [change.kind for change in await take(groups, 3)] == ["removed"] * 3
            (change,) = await take(count, 1)
            assert change.event is not None
            assert (change.value, change.event.event_type) == (0, "truncate")


async def test_a_document_that_python_can_not_read_is_counted_by_the_server(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        await orders.insert("a", {"total": 5})
        async with orders.live_sum("total", {"total": {"$gt": 0}}) as query:
            async with await psycopg.AsyncConnection.connect(shared_dsn, autocommit=True) as connection:
                await connection.execute(
                    f'INSERT INTO "{schema}".orders (id, data) VALUES (%s, %s)'.encode(), ["b", DEEP]
                )
                assert brief(await take(query, 1)) == [("modified", None, 5, 6)]
                await orders.insert("c", {"total": 1})
                assert brief(await take(query, 1)) == [("modified", None, 6, 7)]
                await connection.execute(f"""DELETE FROM "{schema}".orders WHERE id = 'b'""".encode())
            (change,) = await take(query, 1)
            assert (change.value, change.event) == (6, None)


async def test_an_aggregate_ends_with_its_collection(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders")
        async with store["orders"].live_count() as query:
            await store["orders"].insert("a", {})
            await store.drop_collection("orders")
            assert (await take(query, 1))[0].value == 1
            with pytest.raises(CollectionNotFound, match="dropped"):
                await query.next(timeout=PATIENCE_S)
            assert query.value == 1


async def test_the_figures_of_a_watched_table_are_those_of_its_rows(dsn: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        AsyncStore(dsn) as store,
    ):
        await connection.execute("CREATE TABLE public.bids (id int PRIMARY KEY, item text, amount numeric)")
        await connection.execute("INSERT INTO public.bids VALUES (1, 'vase', 0.1), (2, 'vase', 0.2), (3, 'lamp', 15)")
        with pytest.raises(TableRefused):
            await store.live_count("public.bids")
        await store.add_table("public.bids")
        async with (
            store.live_count("public.bids", {"item": "vase"}) as count,
            store.live_sum("public.bids", "amount", by="item") as total,
            store.live_average("public.bids", "amount") as average,
        ):
            assert (count.value, average.value) == (2, Decimal("5.1"))
            assert total.groups == {"vase": Decimal("0.3"), "lamp": 15}
            await connection.execute("UPDATE public.bids SET item = 'vase', amount = 0.6 WHERE id = 3")
            await take(count, 1)
            await take(average, 1)
            await take(total, 2)
            assert (count.value, average.value) == (3, Decimal("0.3"))
            assert total.groups == {"vase": Decimal("0.9")}


async def test_wrong_arguments_are_refused(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        for path in ("", "-total", "a..b", 5):
            with pytest.raises(InvalidInput):
                await orders.live_sum(path)  # type: ignore[arg-type]
            with pytest.raises(InvalidInput):
                await orders.live_count(by=path)  # type: ignore[arg-type]
        with pytest.raises(InvalidFilter):
            await orders.live_average("total", {"$no": 1})
        async with orders.live_count() as one, orders.live_count(by="a") as many:
            with pytest.raises(InvalidInput, match="read its value"):
                _ = one.groups
            with pytest.raises(InvalidInput, match="read its groups"):
                _ = many.value
        async with store.transaction() as tx:
            with pytest.raises(StreamError, match="inside a transaction"):
                await tx["orders"].live_count()
