"""Documents that Python can't read, in live queries and mirrors: they disturb nobody else."""

from __future__ import annotations

import psycopg
import pytest

from pgdoc import AsyncStore
from pgdoc.errors import UnreadableDocument

PATIENCE_S = 30.0
DEEP = '{"total": 1, "deep": ' + "[" * 1100 + "]" * 1100 + "}"


@pytest.mark.parametrize("sort", ["total", "-total"])
async def test_an_unreadable_document_comes_first_and_raises_its_error_when_it_is_read(
    shared_dsn: str, schema: str, sort: str
) -> None:
    insert = f'INSERT INTO "{schema}".orders (id, data) VALUES (%s, %s)'.encode()
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        await psycopg.AsyncConnection.connect(shared_dsn, autocommit=True) as connection,
    ):
        orders = store["orders"]
        await orders.insert("a", {"total": 5})
        async with orders.live({"total": {"$gt": 2}}, sort=sort, limit=1) as query, orders.mirror() as mirror:
            await connection.execute(insert, ["x", DEEP])
            changes = [(str(each.kind), each.document.id) for each in await query.next_batch(timeout=PATIENCE_S)]
            assert changes == [("removed", "a"), ("added", "x")]
            with pytest.raises(UnreadableDocument, match="'x'"):
                _ = query.documents[0].data
            await mirror.wait_for()
            assert sorted(mirror) == ["a", "x"]
            with pytest.raises(UnreadableDocument, match="'x'"):
                _ = mirror["x"].data
            await orders.delete("x")
            changes = [(str(each.kind), each.document.id) for each in await query.next_batch(timeout=PATIENCE_S)]
            assert changes == [("removed", "x"), ("added", "a")]


async def test_a_query_on_another_id_does_not_have_an_unreadable_document(shared_dsn: str, schema: str) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        await psycopg.AsyncConnection.connect(shared_dsn, autocommit=True) as connection,
    ):
        orders = store["orders"]
        await orders.insert("a", {"total": 5})
        async with orders.live({"_id": "a"}) as query:
            await connection.execute(f'INSERT INTO "{schema}".orders (id, data) VALUES (%s, %s)'.encode(), ["x", DEEP])
            await orders.update("a", {"$inc": {"total": 1}})
            (change,) = await query.next_batch(timeout=PATIENCE_S)
            assert (str(change.kind), change.document.id) == ("modified", "a")


async def test_a_group_that_python_can_not_read_is_named_as_the_reason(shared_dsn: str, schema: str) -> None:
    update = f"UPDATE \"{schema}\".orders SET data = jsonb_build_object('n', trunc(10::numeric ^ 5000))".encode()
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        await psycopg.AsyncConnection.connect(shared_dsn, autocommit=True) as connection,
    ):
        await store["orders"].insert("a", {"n": 1})
        async with store["orders"].live_count(by="n") as count:
            await connection.execute(update)
            with pytest.raises(UnreadableDocument, match="can't read"):
                await count.next(timeout=PATIENCE_S)
