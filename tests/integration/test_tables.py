"""Collections are plain tables, whose triggers and constraints hold for every writer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc.database.migrate import migrate
from pgdoc.errors import CatalogError, CollectionNotFound, DatabaseError, PgdocError
from tests.integration.wal import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server


@pytest.fixture
def table(own_schema: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose search_path has a collection `orders` with one document."""
    with pgdoc.Store(**own_schema) as store:
        store["orders"].insert("o-1", {"n": 1})
    options = f"-c search_path={own_schema['schema']}"
    with psycopg.connect(own_schema["conninfo"], options=options, autocommit=True) as connection:
        yield connection


def row(connection: psycopg.Connection[Any], document_id: str = "o-1") -> Any:
    query = "SELECT data, version, replaced_version, created_at, updated_at FROM orders WHERE id = %s"
    return connection.execute(query, [document_id]).fetchone()


def test_a_plain_insert_makes_a_document(table: psycopg.Connection[Any]) -> None:
    table.execute("INSERT INTO orders (id, data) VALUES ('o-2', '{\"n\": 1}')")
    with table.cursor().copy("COPY orders (id, data) FROM STDIN") as copy:
        copy.write("o-3\t{}\no-4\t{}\n")
    for document_id in ("o-2", "o-3", "o-4"):
        _, version, replaced_version, created_at, updated_at = row(table, document_id)
        assert (version, replaced_version) == (1, 1)
        assert created_at == updated_at


@pytest.mark.parametrize(
    ("column", "value"),
    [("version", "2"), ("replaced_version", "0"), ("created_at", "'2001-01-01'"), ("updated_at", "'infinity'")],
)
def test_an_insert_that_sets_version_or_timestamps_is_refused(
    table: psycopg.Connection[Any], column: str, value: str
) -> None:
    with pytest.raises(psycopg.errors.IntegrityError, match="sets a version or timestamp column"):
        table.execute(f"INSERT INTO orders (id, data, {column}) VALUES ('o-2', '{{}}', {value})".encode())


@pytest.mark.parametrize("data", ["[]", "1", "null", '{"_id": "o-2"}'])
def test_data_is_an_object_without_an_id(table: psycopg.Connection[Any], data: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        table.execute("INSERT INTO orders (id, data) VALUES ('o-2', %s)", [data])


@pytest.mark.parametrize("document_id", ["", "é" * 513])
def test_an_id_is_neither_empty_nor_too_long(table: psycopg.Connection[Any], document_id: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        table.execute("INSERT INTO orders (id, data) VALUES (%s, '{}')", [document_id])


def test_a_plain_update_counts_even_if_the_data_is_equal(table: psycopg.Connection[Any]) -> None:
    _, _, _, created_at, first = row(table)
    table.execute("UPDATE orders SET data = data")
    data, version, replaced_version, created_again, second = row(table)
    assert (data, version, replaced_version, created_again) == ({"n": 1}, 2, 1, created_at)
    assert second > first


def test_an_update_cant_set_version_and_times(table: psycopg.Connection[Any]) -> None:
    _, _, _, created_at, _ = row(table)
    table.execute(
        "UPDATE orders SET version = 9, created_at = '2001-01-01', updated_at = '2001-01-01', replaced_version = 7"
    )
    _, version, replaced_version, created_again, updated_at = row(table)
    assert (version, replaced_version, created_again) == (2, 1, created_at)
    assert updated_at > created_at


def test_replaced_version_is_set_by_a_writer_that_knows_the_new_version(table: psycopg.Connection[Any]) -> None:
    table.execute("UPDATE orders SET data = '{}', replaced_version = version + 1")
    assert row(table)[:3] == ({}, 2, 2)
    table.execute("UPDATE orders SET data = '{}'")
    assert row(table)[:3] == ({}, 3, 2)


def test_the_id_cant_be_changed(table: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.IntegrityError, match="id of document o-1"):
        table.execute("UPDATE orders SET id = 'o-2'")
    table.execute("UPDATE orders SET id = 'o-1'")
    assert row(table)[1] == 2


def test_an_upsert_in_sql_is_right_too(table: psycopg.Connection[Any]) -> None:
    table.execute(
        "INSERT INTO orders AS o (id, data) VALUES ('o-1', '{\"n\": 5}'), ('o-2', '{\"n\": 5}') "
        "ON CONFLICT (id) DO UPDATE SET data = o.data || excluded.data"
    )
    assert row(table, "o-1")[:2] == ({"n": 5}, 2)
    assert row(table, "o-2")[:2] == ({"n": 5}, 1)


def test_the_table_carries_what_streams_need(table: psycopg.Connection[Any]) -> None:
    identity = "SELECT relreplident::text FROM pg_class WHERE oid = 'orders'::regclass"
    published = (
        "SELECT pubname FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid "
        "WHERE prrelid = 'orders'::regclass"
    )
    assert table.execute(identity).fetchone() == ("f",)
    assert table.execute(published).fetchall() == [("pgdoc",)]


def test_the_publication_publishes_everything(table: psycopg.Connection[Any]) -> None:
    query = (
        "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, puballtables FROM pg_publication WHERE pubname = 'pgdoc'"
    )
    assert table.execute(query).fetchone() == (True, True, True, True, False)


def test_registering_again_restores_what_a_collection_lost(
    table: psycopg.Connection[Any], own_schema: dict[str, Any]
) -> None:
    table.execute("DROP TRIGGER pgdoc_before_update ON orders")
    table.execute("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
    table.execute("ALTER PUBLICATION pgdoc DROP TABLE orders")
    with pgdoc.Store(**own_schema) as store:
        with pytest.raises(pgdoc.CollectionNotFound, match=r"SELECT pgdoc\.register"):
            store.create_collection("orders")
        table.execute("SELECT pgdoc.register('orders')")
        table.execute("SELECT pgdoc.register('orders')")
        store["orders"].update("o-1", {"$inc": {"n": 1}})
    test_the_table_carries_what_streams_need(table)
    assert row(table)[:2] == ({"n": 2}, 2)


def test_set_metadata_applies_to_the_changes_after_it(
    table: psycopg.Connection[Any], own_schema: dict[str, Any]
) -> None:
    with recorded(own_schema["conninfo"]) as changes:
        with table.transaction():
            table.execute("DELETE FROM orders")
            table.execute('SELECT pgdoc.set_metadata(\'{"user": "bob"}\')')
            table.execute("INSERT INTO orders (id, data) VALUES ('o-2', '{}')")
        assert changes() == ["delete", {"user": "bob"}, "insert", "end"]


@pytest.mark.parametrize("metadata", ["[]", "1", None])
def test_set_metadata_takes_an_object(table: psycopg.Connection[Any], metadata: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="metadata must be a JSON object"):
        table.execute("SELECT pgdoc.set_metadata(%s)", [metadata])


@contextmanager
def role(connection: psycopg.Connection[Any], name: str) -> Iterator[None]:
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    try:
        yield
    finally:
        connection.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


def test_a_role_that_may_not_create_collections_is_told_how(server: Server, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin, role(admin, "pgdoc_test_app"):
        admin.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO pgdoc_test_app").format(sql.Identifier(admin.info.dbname))
        )
        with pgdoc.Store(server.conninfo_for(admin.info.dbname, user="pgdoc_test_app")) as store:
            with pytest.raises(CollectionNotFound, match=r"`pgdoc grant pgdoc_test_app --as owner`") as raised:
                store["orders"].insert("o-1", {})
            assert "may not register collections" in str(raised.value)
            assert store.collections() == []
            admin.execute("GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO pgdoc_test_app")
            store["orders"].insert("o-1", {})
            assert store.collections() == ["orders"]
            assert store.drop_collection("orders")
            admin.execute("DROP SCHEMA docs")


def test_a_role_with_rights_on_the_table_needs_no_others(server: Server, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin, role(admin, "pgdoc_test_app"):
        admin.execute("SELECT pgdoc.create_collection('docs', 'orders')")
        admin.execute("GRANT USAGE ON SCHEMA docs TO pgdoc_test_app; GRANT ALL ON docs.orders TO pgdoc_test_app")
        with pgdoc.Store(server.conninfo_for(admin.info.dbname, user="pgdoc_test_app")) as store:
            with pgdoc.metadata(user="app"):
                store["orders"].insert("o-1", {"a": {"b": [1, {"c": 2}]}})
            store["orders"].update("o-1", {"$inc": {"a.b.1.c": 1}})
            assert store["orders"].count({"a.b.1.c": 3}) == 1
            assert store.collections() == ["orders"]


def test_a_role_that_may_not_enter_the_schema_is_told_what_writers_need(server: Server, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin, role(admin, "pgdoc_test_app"):
        admin.execute("SELECT pgdoc.create_collection('docs', 'orders')")
        with pgdoc.Store(server.conninfo_for(admin.info.dbname, user="pgdoc_test_app")) as store:
            with pytest.raises(DatabaseError, match=r"USAGE on its schema.*`pgdoc grant pgdoc_test_app --as writer`"):
                store["orders"].insert("o-1", {})
            with pytest.raises(DatabaseError, match=r"`pgdoc grant pgdoc_test_app --as reader`"):
                store["orders"].get("o-1")
            admin.execute("GRANT USAGE ON SCHEMA docs TO pgdoc_test_app")
            with pytest.raises(DatabaseError, match=r"SELECT, INSERT, UPDATE and DELETE on it"):
                store["orders"].insert("o-1", {})


def test_a_role_that_may_not_create_the_catalog_is_told_who_may(server: Server, bare_dsn: str) -> None:
    with psycopg.connect(bare_dsn, autocommit=True) as admin, role(admin, "pgdoc_test_app"):
        conninfo = server.conninfo_for(admin.info.dbname, user="pgdoc_test_app")
        with pytest.raises(DatabaseError, match=r"GRANT CREATE ON DATABASE") as raised:
            migrate(conninfo)
        assert raised.value.sqlstate == "42501"


def test_an_inaccessible_catalog_raises_an_error_of_pgdoc(server: Server, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin, role(admin, "pgdoc_test_app"):
        admin.execute("REVOKE ALL ON SCHEMA pgdoc FROM PUBLIC")
        with pgdoc.Store(server.conninfo_for(admin.info.dbname, user="pgdoc_test_app")) as store:
            with pytest.raises(PgdocError, match="permission denied") as raised:
                store["orders"].get("o-1")
            assert not isinstance(raised.value, CatalogError)
