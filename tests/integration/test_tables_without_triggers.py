"""Watched tables where no event trigger follows DDL: what streams tell, and that they lose nothing in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import HistoryLost, ReplicaIdentityChanged
from tests.plugins import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, ChangeStream

_END = "END"


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP EVENT TRIGGER pgdoc_drops")
        connection.execute("DROP EVENT TRIGGER pgdoc_alters")
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, n int)")
        connection.execute("CREATE TABLE other (id int PRIMARY KEY)")
        connection.execute("CREATE SCHEMA shop")
        yield connection


def take(stream: ChangeStream, count: int) -> list[tuple[str, str, str | None]]:
    events: list[ChangeEvent] = []
    while len(events) < count:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, events
        events.append(event)
    return [(str(event.event_type), event.collection, event.renamed_to or event.document_id) for event in events]


def follow(store: Store) -> None:
    """Open a stream, which looks what became of tables."""
    with store.watch("end"):
        pass


@pytest.mark.parametrize(
    ("ddl", "now", "expected"),
    [
        ("ALTER TABLE orders RENAME TO sales", "sales", [("rename", "public.orders", "public.sales")]),
        (
            "ALTER TABLE orders SET SCHEMA shop",
            "shop.orders",
            [("drop", "public.orders", None), ("create", "shop.orders", None)],
        ),
        (
            "ALTER TABLE orders RENAME TO sales; CREATE TABLE orders AS SELECT 9 AS id",
            "sales",
            [("rename", "public.orders", "public.sales")],
        ),
    ],
)
def test_rows_of_a_table_with_another_name_are_not_lost(
    dsn: str, sql: psycopg.Connection, ddl: str, now: str, expected: list[Any]
) -> None:
    with Store(dsn, plugin="auto") as store:
        store.add_table("public.orders")
        store.create_collection("end")
        with store.watch(tables=True) as stream:
            start = stream.resume_token
            sql.execute("INSERT INTO orders VALUES (1)")
            sql.execute(ddl.encode())
            sql.execute(f"INSERT INTO {now} VALUES (2)".encode())
            follow(store)
            sql.execute(f"INSERT INTO {now} VALUES (3)".encode())
            name = now if "." in now else f"public.{now}"
            wanted = [
                ("insert", "public.orders", "1"),
                ("insert", "public.orders", "2"),
                *expected,
                ("insert", name, "3"),
            ]
            assert take(stream, len(wanted)) == wanted
        with store.watch(tables=True, resume_after=start) as stream:
            assert take(stream, len(wanted)) == wanted


def test_a_table_that_is_dropped_and_created_again_is_another_one(dsn: str, sql: psycopg.Connection) -> None:
    with Store(dsn, plugin="auto") as store:
        store.add_table("public.orders")
        with store.watch("public.orders") as stream:
            sql.execute("INSERT INTO orders VALUES (1)")
            sql.execute("DROP TABLE orders")
            sql.execute("CREATE TABLE orders (id int PRIMARY KEY, x text)")
            sql.execute("INSERT INTO orders VALUES (2)")
            follow(store)
            assert take(stream, 3) == [
                ("insert", "public.orders", "1"),
                ("drop", "public.orders", None),
                ("invalidate", "public.orders", None),
            ]
        assert store.tables() == []


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE orders ADD COLUMN more int DEFAULT 7",
        "ALTER TABLE orders DROP COLUMN n",
        "ALTER TABLE orders RENAME COLUMN n TO m",
        "ALTER TABLE orders ALTER COLUMN n TYPE text",
    ],
)
def test_other_columns_end_the_streams_of_the_table_only(dsn: str, sql: psycopg.Connection, ddl: str) -> None:
    with Store(dsn, plugin="auto") as store:
        store.add_table("public.orders")
        store.add_table("public.other")
        with store.watch("public.orders") as stream, store.watch("public.other") as other:
            sql.execute("INSERT INTO orders VALUES (1, 2)")
            assert take(stream, 1) == [("insert", "public.orders", "1")]
            sql.execute(ddl.encode())
            follow(store)
            sql.execute("INSERT INTO orders VALUES (2)")
            sql.execute("INSERT INTO other VALUES (1)")
            with pytest.raises(HistoryLost, match=r'"public\.orders" got other columns'):
                take(stream, 1)
            assert take(other, 1) == [("insert", "public.other", "1")]
        with store.watch("public.orders") as stream:
            sql.execute("UPDATE orders SET id = 3 WHERE id = 2")
            assert take(stream, 2) == [("delete", "public.orders", "2"), ("insert", "public.orders", "3")]


def test_a_table_without_before_images_ends_its_streams_only(dsn: str, sql: psycopg.Connection) -> None:
    with Store(dsn, plugin="auto") as store:
        store.add_table("public.orders")
        store.add_table("public.other")
        with store.watch("public.orders") as stream, store.watch("public.other") as other:
            sql.execute("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
            sql.execute("INSERT INTO orders VALUES (1, 2)")
            sql.execute("UPDATE orders SET n = 3")
            sql.execute("INSERT INTO other VALUES (1)")
            assert take(stream, 1) == [("insert", "public.orders", "1")]
            with pytest.raises(ReplicaIdentityChanged, match=r"public\.orders"):
                take(stream, 1)
            assert take(other, 1) == [("insert", "public.other", "1")]
        with pytest.raises(ReplicaIdentityChanged, match=r'ALTER TABLE "public"\."orders" REPLICA IDENTITY FULL'):
            store.watch("public.orders").next(timeout=0)
        assert store.add_table("public.orders") is True
        with store.watch("public.orders") as stream:
            sql.execute("UPDATE orders SET n = 4")
            assert take(stream, 1) == [("update", "public.orders", "1")]


def test_a_table_without_its_key_is_watched_no_more(dsn: str, sql: psycopg.Connection) -> None:
    with Store(dsn, plugin="auto") as store:
        store.add_table("public.orders")
        with store.watch("public.orders") as stream:
            sql.execute("INSERT INTO orders VALUES (1, 2)")
            sql.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
            sql.execute("INSERT INTO orders VALUES (1, 3)")
            follow(store)
            sql.execute("INSERT INTO orders VALUES (1, 4)")
            found = take(stream, 4)
            assert [kind for kind, *_ in found] == ["insert", "insert", "drop", "invalidate"]
        assert store.tables() == []
