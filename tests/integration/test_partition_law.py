"""A collection with partitions behaves as one without; and what plugins, copies and roles make of its partitions."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from pgdoc.cli.app import run_cli
from pgdoc.database.migrate import downgrade, migrate
from tests.fixtures.fix_server import _connect_admin, _database
from tests.partition_law import PATIENCE_S, Twins
from tests.plugins import compare

if TYPE_CHECKING:
    from pgdoc import ChangeStream, ResumeToken
    from tests.fixtures.fix_server import Server

MANY = [(f"{number:03}", {"n": number}) for number in range(60)]


@pytest.mark.parametrize("partitions", [1, 3, 16])
@pytest.mark.parametrize("seed", range(2))
def test_partitions_change_nothing_for_callers_and_streams(
    shared_dsn: str, schema: str, seed: int, partitions: int
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        twins = Twins(store, seed, partitions)
        with psycopg.connect(shared_dsn, options=f"-c search_path={schema}", autocommit=True) as connection:
            twins.check(connection, calls=150)


def now(dsn: str, schema: str) -> ResumeToken:
    with Store(dsn, schema=schema) as store, store.watch() as stream:
        return stream.resume_token


@pytest.mark.usefixtures("both_plugins")
def test_both_plugins_give_the_same_events_also_of_a_published_root(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    start = now(shared_dsn, schema)
    with Store(shared_dsn, schema=schema) as store:
        for through_root in ("false", "true"):
            sql.execute(f"ALTER PUBLICATION pgdoc SET (publish_via_partition_root = {through_root})".encode())
            try:
                orders = store.create_collection("orders", partitions=4)
                orders.insert_many(MANY)
                orders.update_many({"n": {"$lt": 20}}, {"$set": {"text": "x" * 10_000}})
                orders.update_many({"n": {"$lt": 10}}, {"$inc": {"n": 1}})  # the text stays in TOAST
                sql.execute("TRUNCATE orders")
                store.rename_collection("orders", "sold")
                store["sold"].insert("after", {})
                store.drop_collection("sold")
            finally:
                sql.execute("ALTER PUBLICATION pgdoc SET (publish_via_partition_root = false)")
        store["end"].insert("end", {})
    assert len(compare(shared_dsn, schema, start)) == 2 * (1 + 60 + 20 + 10 + 1 + 1 + 1 + 1)


def read(stream: ChangeStream, count: int) -> list[tuple[str, str | None]]:
    events = [stream.next(timeout=PATIENCE_S) for _ in range(count)]
    return [(str(event.event_type), event.document_id) for event in events if event is not None]


def test_a_consumer_goes_on_where_it_was(dsn: str) -> None:
    with Store(dsn) as store:
        store.create_collection("orders", partitions=4)
        with store["orders"].watch(consumer="billing") as stream:
            store["orders"].insert_many(MANY)
            assert len(read(stream, 30)) == 30
        with store["orders"].watch(consumer="billing") as stream:
            assert len(set(read(stream, 30))) == 30
        store.drop_consumer("billing")


def test_a_downgrade_leaves_partitioned_tables_that_an_upgrade_finds_again(dsn: str) -> None:
    with Store(dsn) as store:
        store.create_collection("orders", partitions=4).insert_many(MANY)
    for revision in ("0012", "base"):
        downgrade(dsn, revision)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE docs.orders ADD CONSTRAINT odd CHECK (id <> 'odd')")
            connection.execute("ALTER TABLE docs.orders DROP CONSTRAINT odd")
            connection.execute("UPDATE docs.orders SET version = 5")
        migrate(dsn)
        with Store(dsn) as store, store["orders"].watch() as stream:
            assert store.collections() == ["orders"]
            store["orders"].update("001", {"$inc": {"n": 1}})
            assert read(stream, 1) == [("update", "001")]
            stored = store["orders"].get("001")
            assert stored is not None
            assert stored.version == 6


@pytest.mark.parametrize("with_partitions", [True, False])
def test_a_restored_dump_has_the_collection(server: Server, dsn: str, with_partitions: bool) -> None:
    bin_dir = getattr(server, "bin_dir", None)
    if bin_dir is None or not os.access(bin_dir / "pg_dump", os.X_OK):
        pytest.skip("this server has no pg_dump")
    with Store(dsn) as store:
        store.create_collection("orders", partitions=4 if with_partitions else None).insert_many(MANY)
        store["orders"].create_index("n")
    dump = subprocess.run([bin_dir / "pg_dump", "--dbname", dsn], capture_output=True, check=True)
    with _connect_admin(server) as admin, _database(server, admin, "template0", "copy") as name:
        copy = server.conninfo_for(name)
        subprocess.run([bin_dir / "psql", "-q", "-d", copy], input=dump.stdout, capture_output=True, check=True)
        migrate(copy)
        with Store(copy) as store, store["orders"].watch() as stream:
            assert store["orders"].count() == 60
            store["orders"].update("001", {"$inc": {"n": 1}})
            assert read(stream, 1) == [("update", "001")]
            assert store["orders"].create_index("n") == "n"
            assert [index.valid for index in store["orders"].indexes()] == [True]
            assert store["orders"].drop_index("n")
        with psycopg.connect(copy, autocommit=True) as connection:
            assert connection.execute("SELECT pgdoc.is_equipped('docs.orders')").fetchone() == (True,)


def test_doctor_finds_what_a_partition_has_lost(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(dsn) as store:
        store.create_collection("orders", partitions=2)
    assert run_cli(["doctor", "--dsn", dsn, "--json"]) in {0, 1}
    assert "orders$" not in capsys.readouterr().out
    with psycopg.connect(dsn, autocommit=True, options="-c session_replication_role=replica") as connection:
        ((part,), _) = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'docs.orders'::regclass"
        ).fetchall()
        connection.execute(f"ALTER TABLE {part} DISABLE TRIGGER pgdoc_before_update".encode())
        run_cli(["doctor", "--dsn", dsn, "--json"])
        assert "collection-equipment" in capsys.readouterr().out
        connection.execute("SELECT pgdoc.register('docs.orders')")
        connection.execute(f"ALTER TABLE {part} RENAME TO other".encode())
        run_cli(["doctor", "--dsn", dsn, "--json"])
        assert "collection-form" in capsys.readouterr().out
