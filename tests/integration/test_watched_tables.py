"""Tables of any form become sources of events, and stop being some."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

_CREATE = "CREATE TABLE public.orders (id bigint PRIMARY KEY, total numeric, tags text[])"


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(dsn: str) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(dsn) as store:
        yield store


def _spans(sql: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return sql.execute(
        "SELECT schema_name || '.' || name, opened_by, closed_by, exact FROM pgdoc.registry WHERE kind = 'table' "
        "ORDER BY since"
    ).fetchall()


def test_adding_and_removing_a_table_is_idempotent(store: pgdoc.Store, sql: psycopg.Connection[Any]) -> None:
    sql.execute(_CREATE)
    assert [store.add_table("public.orders"), store.add_table("public.orders")] == [True, False]
    assert [table.name for table in store.tables()] == ["public.orders"]
    assert [store.remove_table("public.orders"), store.remove_table("public.orders")] == [True, False]
    assert store.tables() == []


def test_removing_a_table_gives_it_its_replica_identity_back(store: pgdoc.Store, sql: psycopg.Connection[Any]) -> None:
    sql.execute(_CREATE)
    sql.execute("CREATE TABLE public.full_before (id int PRIMARY KEY)")
    sql.execute("ALTER TABLE public.full_before REPLICA IDENTITY FULL")
    for name in ("public.orders", "public.full_before"):
        store.add_table(name)
        store.remove_table(name)
    found = sql.execute(
        "SELECT relname, relreplident FROM pg_class WHERE oid = ANY ('{public.orders, public.full_before}'::regclass[])"
    ).fetchall()
    assert dict(found) == {"orders": "d", "full_before": "f"}


def test_a_table_is_followed_when_ddl_changes_it(store: pgdoc.Store, sql: psycopg.Connection[Any]) -> None:
    sql.execute(_CREATE)
    store.add_table("public.orders")
    for ddl in (
        "ALTER TABLE public.orders ADD COLUMN note text",
        "ALTER TABLE public.orders RENAME COLUMN note TO remark",
        "ALTER TABLE public.orders ALTER COLUMN total TYPE float8",
        "ALTER TABLE public.orders ADD CONSTRAINT positive CHECK (total > 0)",
        "ALTER TABLE public.orders RENAME TO sales",
        "CREATE SCHEMA shop",
        "ALTER TABLE public.sales SET SCHEMA shop",
        "DROP TABLE shop.sales",
    ):
        sql.execute(ddl.encode())
    assert _spans(sql) == [
        ("public.orders", "create", "alter", True),
        ("public.orders", "alter", "alter", True),
        ("public.orders", "alter", "alter", True),
        ("public.orders", "alter", "rename", True),
        ("public.sales", "rename", "move", True),
        ("shop.sales", "move", "drop", True),
    ]


def test_a_partition_is_followed_when_its_partitioned_table_is_changed(
    store: pgdoc.Store, sql: psycopg.Connection[Any]
) -> None:
    for ddl in (
        "CREATE TABLE public.readings (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
        "CREATE TABLE public.rest PARTITION OF public.readings DEFAULT PARTITION BY RANGE (day)",
        "CREATE TABLE public.january PARTITION OF public.rest FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
    ):
        sql.execute(ddl.encode())
    store.add_table("public.january")
    with store.watch("public.january") as stream:
        sql.execute("ALTER TABLE public.readings ADD COLUMN degrees numeric NOT NULL DEFAULT 1.50")
        sql.execute("INSERT INTO public.readings VALUES (1, '2026-01-05', 2.50)")
        altered, inserted = stream.next(timeout=30), stream.next(timeout=30)
        assert altered is not None
        assert inserted is not None
        assert (altered.event_type, inserted.event_type) == ("schema", "insert")
        assert altered.columns is not None
        assert altered.columns["after"] == {**altered.columns["before"], "degrees": "numeric"}
        assert inserted.full_document is not None
        assert inserted.full_document.data == {"id": 1, "day": "2026-01-05", "degrees": 2.5}
        with pytest.raises(psycopg.Error, match="can't be changed like this: it has no primary key"):
            sql.execute("ALTER TABLE public.readings DROP CONSTRAINT readings_pkey")


@pytest.mark.parametrize(
    ("ddl", "name", "reason"),
    [
        ("CREATE TABLE public.x (id int)", "public.x", "it has no primary key"),
        ("CREATE TABLE public.x (id int PRIMARY KEY DEFERRABLE)", "public.x", "its primary key is deferrable"),
        ("CREATE UNLOGGED TABLE public.x (id int PRIMARY KEY)", "public.x", "it is unlogged"),
        ("CREATE VIEW public.x AS SELECT 1", "public.x", "it is a view"),
        ("CREATE MATERIALIZED VIEW public.x AS SELECT 1", "public.x", "it is a materialized view"),
        ("CREATE TABLE public.x (id int PRIMARY KEY) PARTITION BY LIST (id)", "public.x", "it is a partitioned table"),
        ("SELECT 1", "pg_catalog.pg_class", "it belongs to the system"),
        ("SELECT 1", "pgdoc.registry", "it belongs to the system"),
        ("SELECT pgdoc.create_collection('docs', 'x')", "docs.x", "it is a collection"),
        ("SELECT 1", "public.missing", "it does not exist"),
        ('CREATE SCHEMA "a.b" CREATE TABLE x (id int PRIMARY KEY)', "a.b.x", "it does not exist"),
    ],
)
def test_a_table_that_cannot_be_watched_is_refused(
    store: pgdoc.Store, sql: psycopg.Connection[Any], ddl: str, name: str, reason: str
) -> None:
    sql.execute(ddl.encode())
    with pytest.raises(pgdoc.TableRefused) as caught:
        store.add_table(name)
    assert caught.value.reason.startswith(reason)
    assert caught.value.cure
    assert store.tables() == []


@pytest.mark.parametrize(
    ("ddl", "document", "reason"),
    [
        ("CREATE TABLE public.x (id int PRIMARY KEY, payload jsonb)", "paylod", 'it has no column "paylod"'),
        ("CREATE TABLE public.x (id int PRIMARY KEY, payload text)", "payload", 'its column "payload" has neither'),
    ],
)
def test_a_document_that_is_not_json_is_refused(
    store: pgdoc.Store, sql: psycopg.Connection[Any], ddl: str, document: str, reason: str
) -> None:
    sql.execute(ddl.encode())
    with pytest.raises(pgdoc.TableRefused, match=reason):
        store.add_table("public.x", document=document)


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE public.orders REPLICA IDENTITY DEFAULT",
        "ALTER TABLE public.orders DROP CONSTRAINT orders_pkey",
        "ALTER TABLE public.orders DROP COLUMN id",
        "ALTER TABLE public.orders ALTER CONSTRAINT orders_pkey DEFERRABLE",
    ],
)
def test_ddl_that_would_make_changes_unreadable_is_refused(
    store: pgdoc.Store, sql: psycopg.Connection[Any], ddl: str
) -> None:
    sql.execute(_CREATE)
    store.add_table("public.orders")
    with pytest.raises(psycopg.Error):
        sql.execute(ddl.encode())
    assert _spans(sql) == [("public.orders", "create", None, True)]


@pytest.mark.parametrize("name", ["orders", "", ".orders", "public.", None, 7, "public." + "x" * 64])
def test_a_name_without_its_schema_is_refused(store: pgdoc.Store, name: Any) -> None:
    with pytest.raises(pgdoc.InvalidName):
        store.add_table(name)


def test_only_its_owner_adds_a_table(dsn: str, store: pgdoc.Store, sql: psycopg.Connection[Any]) -> None:
    sql.execute(_CREATE)
    store.add_table("public.orders")
    store.remove_table("public.orders")
    sql.execute("ALTER TABLE public.orders REPLICA IDENTITY FULL")
    sql.execute("CREATE ROLE table_stranger LOGIN")
    try:
        sql.execute("GRANT EXECUTE ON FUNCTION pgdoc.enter_table(regclass, text, text) TO table_stranger")
        stranger = psycopg.conninfo.make_conninfo(dsn, user="table_stranger")
        with psycopg.connect(stranger, autocommit=True) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute("SELECT pgdoc.enter_table('public.orders', NULL, NULL)")
        assert store.tables() == []
    finally:
        sql.execute("DROP OWNED BY table_stranger; DROP ROLE table_stranger")


def test_a_number_that_no_float_holds_is_not_rounded(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql, pgdoc.Store(dsn, plugin="pgoutput") as store:
        sql.execute("CREATE TABLE public.sums (id int PRIMARY KEY, n numeric)")
        store.add_table("public.sums")
        with store.watch("public.sums") as stream:
            sql.execute("INSERT INTO public.sums VALUES (1, 9007199254740993.010), (2, 1.50)")
            sql.execute("UPDATE public.sums SET n = 9007199254740993.020 WHERE id = 1")
            events = [stream.next(timeout=30) for _ in range(3)]
    data = [event.full_document.data["n"] for event in events if event is not None and event.full_document is not None]
    assert data == [Decimal("9007199254740993.010"), 1.5, Decimal("9007199254740993.020")]
    update = events[2] and events[2].update_description
    assert update is not None
    assert update.updated_fields == {"n": Decimal("9007199254740993.020")}


def test_a_collection_is_not_watched_by_the_name_of_its_table(dsn: str) -> None:
    with pgdoc.Store(dsn) as store:
        store.create_collection("orders")
        with pytest.raises(pgdoc.TableRefused, match="it is a collection: watch it as 'orders'"):
            store.watch("docs.orders")
