# Written by .ci/twins.py from tests/integration/_async/test_live_unreadable.py: change that file, and run it.
"""Documents that Python can't read, in live queries and mirrors: they disturb nobody else."""

from __future__ import annotations

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import UnreadableDocument

PATIENCE_S = 30.0
DEEP = '{"total": 1, "deep": ' + "[" * 1100 + "]" * 1100 + "}"


@pytest.mark.parametrize("sort", ["total", "-total"])
def test_an_unreadable_document_comes_first_and_raises_its_error_when_it_is_read(
    shared_dsn: str, schema: str, sort: str
) -> None:
    insert = f'INSERT INTO "{schema}".orders (id, data) VALUES (%s, %s)'.encode()
    with (
        Store(shared_dsn, schema=schema) as store,
        psycopg.Connection.connect(shared_dsn, autocommit=True) as connection,
    ):
        orders = store["orders"]
        orders.insert("a", {"total": 5})
        with orders.live({"total": {"$gt": 2}}, sort=sort, limit=1) as query, orders.mirror() as mirror:
            connection.execute(insert, ["x", DEEP])
            changes = [(str(each.kind), each.document.id) for each in query.next_batch(timeout=PATIENCE_S)]
            assert changes == [("removed", "a"), ("added", "x")]
            with pytest.raises(UnreadableDocument, match="'x'"):
                _ = query.documents[0].data
            mirror.wait_for()
            assert sorted(mirror) == ["a", "x"]
            with pytest.raises(UnreadableDocument, match="'x'"):
                _ = mirror["x"].data
            orders.delete("x")
            changes = [(str(each.kind), each.document.id) for each in query.next_batch(timeout=PATIENCE_S)]
            assert changes == [("removed", "x"), ("added", "a")]


def test_a_query_on_another_id_does_not_have_an_unreadable_document(shared_dsn: str, schema: str) -> None:
    with (
        Store(shared_dsn, schema=schema) as store,
        psycopg.Connection.connect(shared_dsn, autocommit=True) as connection,
    ):
        orders = store["orders"]
        orders.insert("a", {"total": 5})
        with orders.live({"_id": "a"}) as query:
            connection.execute(f'INSERT INTO "{schema}".orders (id, data) VALUES (%s, %s)'.encode(), ["x", DEEP])
            orders.update("a", {"$inc": {"total": 1}})
            (change,) = query.next_batch(timeout=PATIENCE_S)
            assert (str(change.kind), change.document.id) == ("modified", "a")


def test_a_group_that_python_can_not_read_is_named_as_the_reason(shared_dsn: str, schema: str) -> None:
    update = f"UPDATE \"{schema}\".orders SET data = jsonb_build_object('n', trunc(10::numeric ^ 5000))".encode()
    with (
        Store(shared_dsn, schema=schema) as store,
        psycopg.Connection.connect(shared_dsn, autocommit=True) as connection,
    ):
        store["orders"].insert("a", {"n": 1})
        with store["orders"].live_count(by="n") as count:
            connection.execute(update)
            with pytest.raises(UnreadableDocument, match="can't read"):
                count.next(timeout=PATIENCE_S)
