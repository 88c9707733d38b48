"""Partitions, prepared transactions, inheritance, triggers and foreign keys of watched tables, through both plugins."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from tests.plugins import END, compare, read

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def add(dsn: str, *names: str) -> str:
    """Add tables, and return a position before what follows."""
    with Store(dsn) as store:
        for name in names:
            store.add_table(name)
        with store.watch(tables=True) as stream:
            return str(stream.resume_token)


def events(dsn: str, start: str) -> list[tuple[str, str, str | None]]:
    """Return the events since `start`, the same through both plugins."""
    with Store(dsn) as store:
        store.create_collection(END)
    is_embedded = os.environ.get("PGDOC_TEST_SERVER") == "embedded"
    found = (
        read(dsn, "docs", "pgoutput", start, tables=True) if is_embedded else compare(dsn, "docs", start, tables=True)
    )
    loaded = map(json.loads, found)
    return [(event["event_type"], event["collection"], event["document_id"]) for event in loaded]


def test_partitions_are_watched_by_their_own_names(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE root (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10)")
    sql.execute("CREATE TABLE high (n int, id int PRIMARY KEY)")
    sql.execute("ALTER TABLE root ATTACH PARTITION high FOR VALUES FROM (10) TO (20)")
    start = add(dsn, "public.low", "public.high")
    sql.execute("INSERT INTO root VALUES (1, 1), (11, 1), (2, 2)")
    sql.execute("UPDATE root SET id = 12 WHERE id = 2")
    sql.execute("UPDATE root SET n = 7 WHERE id = 12")
    sql.execute("TRUNCATE root")
    sql.execute("ALTER TABLE root DETACH PARTITION high")
    sql.execute("INSERT INTO high VALUES (3, 13)")
    sql.execute("ALTER TABLE root ATTACH PARTITION high FOR VALUES FROM (10) TO (20)")
    sql.execute("DELETE FROM root")
    found = events(dsn, start)
    assert found[:6] == [
        ("insert", "public.low", "1"),
        ("insert", "public.high", "11"),
        ("insert", "public.low", "2"),
        ("delete", "public.low", "2"),
        ("insert", "public.high", "12"),
        ("update", "public.high", "12"),
    ]
    assert sorted(found[6:8]) == [("truncate", "public.high", None), ("truncate", "public.low", None)]
    assert found[8:] == [("insert", "public.high", "13"), ("delete", "public.high", "13")]


def test_rows_of_prepared_transactions_come_when_they_commit(prepared_server: str) -> None:
    with psycopg.connect(prepared_server, autocommit=True) as sql, psycopg.connect(prepared_server) as other:
        sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
        sql.execute("CREATE TABLE late (id int PRIMARY KEY)")
        start = add(prepared_server, "public.t")
        other.execute("INSERT INTO t VALUES (1)")
        other.execute("SELECT pgdoc.add_table('late')")
        other.execute("INSERT INTO late VALUES (1)")
        other.execute("PREPARE TRANSACTION 'first'")
        sql.execute("INSERT INTO t VALUES (2)")
        other.rollback()
        sql.execute("COMMIT PREPARED 'first'")
        assert events(prepared_server, start) == [
            ("insert", "public.t", "2"),
            ("insert", "public.t", "1"),
            ("create", "public.late", None),
            ("insert", "public.late", "1"),
        ]


@pytest.fixture
def prepared_server() -> Iterator[str]:
    """The conninfo of a database on a server that allows prepared transactions."""
    from pgdoc.database.migrate import migrate  # noqa: PLC0415 (tests that need no catalog do not import alembic)
    from tests.fixtures.fix_server import NOT_DURABLE, local_server  # noqa: PLC0415 (as above)

    with local_server(settings={**NOT_DURABLE, "max_prepared_transactions": 5}) as server:
        migrate(server.conninfo)
        yield server.conninfo


def test_children_foreign_keys_and_triggers_write_rows_of_their_own(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE parent (id int PRIMARY KEY, n int)")
    sql.execute("CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)")
    sql.execute("CREATE TABLE line (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)")
    sql.execute("CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text)")
    sql.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.log (what) VALUES (tg_op); RETURN NULL; END $$"
    )
    sql.execute("CREATE TRIGGER t AFTER INSERT OR UPDATE ON line FOR EACH ROW EXECUTE FUNCTION note()")
    start = add(dsn, "public.parent", "public.line", "public.log")
    sql.execute("INSERT INTO parent VALUES (1, 1)")
    sql.execute("INSERT INTO child VALUES (2, 2)")
    sql.execute("INSERT INTO line VALUES (5, 1)")
    sql.execute("UPDATE parent SET id = id + 10")
    sql.execute("INSERT INTO parent VALUES (11, 3) ON CONFLICT (id) DO UPDATE SET n = 3")
    sql.execute("DELETE FROM parent")
    sql.execute("ALTER TABLE parent ADD COLUMN more text DEFAULT 'x'")
    sql.execute("TRUNCATE parent CASCADE")
    found = events(dsn, start)
    assert found[:-2] == [
        ("insert", "public.parent", "1"),
        ("insert", "public.line", "5"),
        ("insert", "public.log", "1"),
        ("delete", "public.parent", "1"),
        ("insert", "public.parent", "11"),
        ("update", "public.line", "5"),
        ("insert", "public.log", "2"),
        ("update", "public.parent", "11"),
        ("delete", "public.parent", "11"),
        ("delete", "public.line", "5"),
        ("schema", "public.parent", None),
    ]
    assert sorted(found[-2:]) == [("truncate", "public.line", None), ("truncate", "public.parent", None)]


def test_columns_that_exchange_their_names_keep_their_values(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b text)")
    start = add(dsn, "public.t")
    with sql.transaction():
        sql.execute("INSERT INTO t VALUES (1, 2, 'x')")
        for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
            sql.execute(f"ALTER TABLE t RENAME COLUMN {old} TO {new}".encode())
        sql.execute("UPDATE t SET b = 3")
        sql.execute("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (b, id)")
        sql.execute("UPDATE t SET a = 'y'")
    assert events(dsn, start) == [
        ("insert", "public.t", "1"),
        ("schema", "public.t", None),
        ("schema", "public.t", None),
        ("schema", "public.t", None),
        ("update", "public.t", "1"),
        ("schema", "public.t", None),
        ("update", "public.t", '["3","1"]'),
    ]
