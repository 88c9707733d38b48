"""What DDL does to a watched table is recorded in the registry in the same transaction, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN cents AS int;
CREATE TYPE pair AS (id int, b text);
CREATE TABLE public.orders (id bigint PRIMARY KEY, total numeric, mood mood, price cents, payload jsonb);
CREATE TABLE public.typed OF pair (PRIMARY KEY (id));
CREATE TABLE public.root (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE public.leaf PARTITION OF public.root FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE public.parent (id int PRIMARY KEY, a text);
CREATE TABLE public.child (PRIMARY KEY (id)) INHERITS (public.parent);
CREATE SCHEMA shop;
"""
WATCHED = ("public.orders", "public.typed", "public.leaf", "public.parent", "public.child")
CLOSED = """
SELECT schema_name || '.' || name, closed_by FROM pgdoc.registry
WHERE kind = 'table' AND until IS NOT NULL ORDER BY since, schema_name || '.' || name
"""
FAULTY = "SELECT count(*) FROM pgdoc.registry WHERE kind = 'table' AND NOT exact"


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection, pgdoc.Store(dsn) as store:
        connection.execute(SCHEMA)
        for name in WATCHED:
            store.add_table(name, document="payload" if name == "public.orders" else None)
        yield connection


@pytest.mark.parametrize(
    ("ddl", "closed"),
    [
        ("ALTER TABLE orders ADD COLUMN note text DEFAULT 'x'", [("public.orders", "alter")]),
        ("ALTER TABLE orders DROP COLUMN total", [("public.orders", "alter")]),
        ("ALTER TABLE orders RENAME COLUMN total TO amount", [("public.orders", "alter")]),
        ("ALTER TABLE orders ALTER COLUMN total TYPE float8", [("public.orders", "alter")]),
        ("ALTER TABLE orders RENAME COLUMN id TO key", [("public.orders", "alter")]),
        ("ALTER TABLE orders ADD UNIQUE (total)", []),
        ("ALTER TABLE orders ALTER COLUMN total SET DEFAULT 1", []),
        ("ALTER TABLE orders RENAME TO sales", [("public.orders", "rename")]),
        ("ALTER INDEX orders RENAME TO sales", [("public.orders", "rename")]),
        ("ALTER TABLE orders SET SCHEMA shop", [("public.orders", "move")]),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey, ALTER total SET NOT NULL, ADD PRIMARY KEY (total)",
            [("public.orders", "alter")],
        ),
        ("DROP TABLE orders", [("public.orders", "drop")]),
        ("DROP TABLE orders; CREATE TABLE orders (id int PRIMARY KEY)", [("public.orders", "drop")]),
        ("ALTER TYPE mood RENAME TO feeling", [("public.orders", "alter")]),
        ("ALTER TYPE mood ADD VALUE 'angry'", []),
        ("ALTER DOMAIN cents RENAME TO euros", [("public.orders", "alter")]),
        ("DROP TYPE mood CASCADE", [("public.orders", "alter")]),
        ("ALTER TYPE pair ADD ATTRIBUTE c int CASCADE", [("public.typed", "alter")]),
        ("ALTER TABLE root ADD COLUMN note text", [("public.leaf", "alter")]),
        ("ALTER TABLE root RENAME COLUMN day TO at", [("public.leaf", "alter")]),
        ("ALTER TABLE root DETACH PARTITION leaf", []),
        ("ALTER TABLE root RENAME TO trunk", []),
        ("ALTER TABLE parent ADD COLUMN note text", [("public.child", "alter"), ("public.parent", "alter")]),
        ("ALTER TABLE ONLY parent REPLICA IDENTITY FULL", []),
        (
            "ALTER SCHEMA public RENAME TO everything",
            [
                (name, "move")
                for name in ("public.child", "public.leaf", "public.orders", "public.parent", "public.typed")
            ],
        ),
    ],
)
def test_a_change_of_its_table_closes_a_span(sql: psycopg.Connection[Any], ddl: str, closed: list[Any]) -> None:
    sql.execute(ddl.encode())
    assert sorted(sql.execute(CLOSED).fetchall()) == closed
    assert sql.execute(FAULTY).fetchone() == (0,)


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("ALTER TABLE orders REPLICA IDENTITY DEFAULT", "without REPLICA IDENTITY FULL"),
        ("ALTER TABLE orders REPLICA IDENTITY NOTHING", "without REPLICA IDENTITY FULL"),
        ("ALTER TABLE orders DROP CONSTRAINT orders_pkey", "it has no primary key"),
        ("ALTER TABLE orders DROP COLUMN id", "it has no primary key"),
        ("ALTER TABLE orders DROP COLUMN payload", 'it has no column "payload"'),
        ("ALTER TABLE orders RENAME COLUMN payload TO body", 'it has no column "payload"'),
        ("ALTER TABLE orders ALTER COLUMN payload TYPE text", 'its column "payload" has neither'),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id) DEFERRABLE",
            "its primary key is deferrable",
        ),
        ("ALTER TABLE root DROP CONSTRAINT root_pkey", "it has no primary key"),
        ("ALTER TYPE pair DROP ATTRIBUTE id CASCADE", "it has no primary key"),
        ('CREATE SCHEMA "a.b"; ALTER TABLE orders SET SCHEMA "a.b"', "its schema has a dot"),
    ],
)
def test_ddl_that_would_make_changes_unreadable_is_refused(sql: psycopg.Connection[Any], ddl: str, reason: str) -> None:
    with pytest.raises(psycopg.Error, match=reason) as caught:
        sql.execute(ddl.encode())
    assert caught.value.sqlstate == "PGD03"
    assert "remove_table" in str(caught.value.diag.message_hint)
    assert sql.execute(CLOSED).fetchall() == []


def test_postgresql_itself_refuses_to_make_it_unlogged(sql: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.Error, match="publication"):
        sql.execute("ALTER TABLE orders SET UNLOGGED")


def test_a_key_that_goes_with_its_type_ends_the_watching(sql: psycopg.Connection[Any], dsn: str) -> None:
    sql.execute("CREATE TABLE public.moods (mood mood PRIMARY KEY)")
    with pgdoc.Store(dsn) as store:
        store.add_table("public.moods")
    sql.execute("DROP TYPE mood CASCADE")
    assert ("public.moods", "unregister") in sql.execute(CLOSED).fetchall()


def test_a_new_shape_has_its_columns_and_key(sql: psycopg.Connection[Any], dsn: str) -> None:
    sql.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (total, id), DROP COLUMN mood")
    with pgdoc.Store(dsn) as store:
        (orders,) = [table for table in store.tables() if table.name == "public.orders"]
    assert (orders.key, orders.document) == (("total", "id"), "payload")
    assert orders.columns == {"id": "bigint", "total": "numeric", "price": "public.cents", "payload": "jsonb"}


def test_a_transaction_that_rolls_back_changes_no_span(sql: psycopg.Connection[Any]) -> None:
    with sql.transaction(force_rollback=True):
        sql.execute("ALTER TABLE orders ADD COLUMN note text")
        sql.execute("ALTER TABLE orders RENAME TO sales")
    assert sql.execute(CLOSED).fetchall() == []


def test_changes_in_one_transaction_are_spans_one_after_the_other(sql: psycopg.Connection[Any]) -> None:
    with sql.transaction():
        sql.execute("ALTER TABLE orders ADD COLUMN note text")
        sql.execute("INSERT INTO orders (id) VALUES (1)")
        sql.execute("ALTER TABLE orders RENAME TO sales")
        sql.execute("INSERT INTO sales (id) VALUES (2)")
        sql.execute("DROP TABLE sales")
    watched = "SELECT oid FROM pgdoc.registry WHERE name = 'sales'"
    spans = f"SELECT name, since, until FROM pgdoc.registry WHERE oid = ANY ({watched}) ORDER BY since"
    (first, since, until), (second, since2, until2), (third, since3, until3) = sql.execute(spans.encode()).fetchall()
    assert (first, second, third) == ("orders", "orders", "sales")
    assert (until, until2) == (since2, since3)
    assert since < until < until2 < until3


def test_a_generated_column_leaves_updates_working(sql: psycopg.Connection[Any], server: Any) -> None:
    sql.execute("ALTER TABLE orders ADD COLUMN twice numeric GENERATED ALWAYS AS (total * 2) STORED")
    sql.execute("INSERT INTO orders (id, total) VALUES (1, 2)")
    sql.execute("UPDATE orders SET total = 3")
    assert sql.execute(CLOSED).fetchall() == []
    if sql.info.server_version >= 180000:
        with pytest.raises(psycopg.Error, match="virtual generated column"):
            sql.execute("ALTER TABLE orders ADD COLUMN thrice numeric GENERATED ALWAYS AS (total * 3) VIRTUAL")
        sql.execute("UPDATE orders SET total = 4")


def test_an_open_change_of_a_table_holds_up_no_other_registration(sql: psycopg.Connection[Any], dsn: str) -> None:
    """The commits of both are put in order: none gives up after waiting for the other."""
    with psycopg.connect(dsn) as migration:
        migration.execute("ALTER TABLE orders ADD COLUMN note text")
        sql.execute("SET lock_timeout = '100ms'")
        with sql.transaction():
            sql.execute("SELECT pgdoc.create_collection('docs', 'users')")
            sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
            lock = "relation = 'pgdoc.identity'::regclass AND mode = 'ExclusiveLock' AND granted"
            assert sql.execute(f"SELECT FROM pg_locks WHERE {lock}".encode()).fetchone() is not None
        migration.rollback()


@pytest.mark.parametrize(
    ("ddl", "closed"),
    [
        ("ALTER TABLE orders ADD COLUMN note text", [("public.orders", "alter")]),
        ("ALTER TABLE orders RENAME COLUMN total TO amount", [("public.orders", "alter")]),
        ("ALTER TABLE orders ALTER COLUMN price TYPE bigint", [("public.orders", "alter")]),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey, ALTER total SET NOT NULL, ADD PRIMARY KEY (total)",
            [("public.orders", "alter")],
        ),
        ("ALTER TABLE orders RENAME TO sales; ALTER TABLE sales DROP mood", [("public.orders", "rename")]),
        ("ALTER TABLE orders SET SCHEMA shop", [("public.orders", "move")]),
        ('CREATE SCHEMA "a.b"; ALTER TABLE orders SET SCHEMA "a.b"', [("public.orders", "unregister")]),
        ("DROP TABLE orders; CREATE TABLE orders (id int PRIMARY KEY)", [("public.orders", "drop")]),
        ("ALTER TABLE orders DROP CONSTRAINT orders_pkey", [("public.orders", "unregister")]),
        ("ALTER TABLE orders DROP COLUMN payload", [("public.orders", "unregister")]),
        ("ALTER TABLE root ADD COLUMN note text", [("public.leaf", "alter")]),
        ("ALTER TYPE mood RENAME TO feeling", []),  # nothing in a row is different
        ("ALTER TABLE orders RENAME TO away; ALTER TABLE away RENAME TO orders", []),
    ],
)
def test_without_event_triggers_a_change_is_found_later(
    sql: psycopg.Connection[Any], dsn: str, ddl: str, closed: list[Any]
) -> None:
    sql.execute("ALTER EVENT TRIGGER pgdoc_alters DISABLE; ALTER EVENT TRIGGER pgdoc_drops DISABLE")
    sql.execute(ddl.encode())
    assert sql.execute(CLOSED).fetchall() == []
    assert sql.execute("SELECT pgdoc.is_followed()").fetchone() == (not closed,)
    sql.execute("SELECT pgdoc.follow_tables()")
    assert sql.execute(CLOSED).fetchall() == closed
    inexact = "SELECT count(*) > 0 FROM pgdoc.registry WHERE kind = 'table' AND NOT exact"
    assert sql.execute(inexact).fetchone() == (bool(closed),)
    assert sql.execute("SELECT pgdoc.is_followed()").fetchone() == (True,)
    with pgdoc.Store(dsn) as store:
        assert len(store.tables()) == len(WATCHED) - sum(change in {"drop", "unregister"} for _, change in closed)
