"""The store: checks at the first call, collections, and closing."""

from __future__ import annotations

from typing import Any
from unittest import mock

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import AsyncStore
from pgdoc.errors import (
    CatalogMissing,
    CatalogVersionMismatch,
    CollectionNotFound,
    DatabaseError,
    InvalidName,
    ServerUnreachable,
    StoreClosed,
    UnsupportedServer,
    WalLevelTooLow,
)


async def test_creating_a_store_does_no_io() -> None:
    store = AsyncStore("host=127.0.0.1 port=1")
    assert store["orders"].name == "orders"
    await store.close()


async def test_an_unreachable_server_is_named(own_schema: dict[str, Any]) -> None:
    async with AsyncStore("host=127.0.0.1 port=1 dbname=x user=y") as store:
        with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1.*port 1"):
            await store["orders"].insert("o-1", {})


async def test_a_database_without_the_catalog_says_what_to_run(bare_dsn: str) -> None:
    async with AsyncStore(bare_dsn) as store:
        with pytest.raises(CatalogMissing, match="pgdoc init"):
            await store["orders"].insert("o-1", {})
        await store.migrate()
        await store["orders"].insert("o-1", {})


async def test_a_call_on_a_consumer_names_the_missing_catalog_first(
    bare_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A takeover would report that the server does not decode."""
    monkeypatch.setattr("pgdoc.consumers.ownership.preflight", mock.Mock(side_effect=WalLevelTooLow("wal_level")))
    async with AsyncStore(bare_dsn) as store:
        for call in (store.drop_consumer, store.recreate_consumer):
            with pytest.raises(CatalogMissing, match="pgdoc init"):
                await call("billing")


@pytest.mark.parametrize(("revision", "cure"), [("0000", "pgdoc init"), ("9999", "newer pgdoc")])
async def test_a_catalog_of_another_version_says_what_to_do(dsn: str, revision: str, cure: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE pgdoc.alembic_version SET version_num = %s", [revision])
    async with AsyncStore(dsn) as store:
        with pytest.raises(CatalogVersionMismatch, match=cure) as raised:
            await store["orders"].get("o-1")
    assert raised.value.found_version == revision


async def test_a_database_in_another_encoding_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE pgdoc_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        async with AsyncStore(make_conninfo(dsn, dbname="pgdoc_latin1")) as store:
            with pytest.raises(UnsupportedServer, match="LATIN1"):
                await store["orders"].get("o-1")
            with pytest.raises(UnsupportedServer, match="LATIN1"):
                await store.migrate()
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP DATABASE pgdoc_latin1 WITH (FORCE)")


async def test_collections_are_created_listed_renamed_and_dropped(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        for name in ("users", "Orders", "orders"):
            assert (await store.create_collection(name)).name == name
        await (await store.create_collection("orders")).insert("o-1", {})
        assert await store.collections() == ["Orders", "orders", "users"]
        renamed = await store.rename_collection("orders", "old-orders")
        assert await renamed.count() == 1
        assert await store.drop_collection("users") is True
        assert await store.drop_collection("users") is False
        assert await store.collections() == ["Orders", "old-orders"]
        assert await store["orders"].count() == 0


async def test_renaming_refuses_a_missing_collection_and_a_taken_name(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("a")
        await store.create_collection("b")
        with pytest.raises(CollectionNotFound, match="missing"):
            await store.rename_collection("missing", "c")
        with pytest.raises(InvalidName, match="taken"):
            await store.rename_collection("a", "b")
        assert await store.collections() == ["a", "b"]


async def test_a_table_that_is_not_a_collection_is_left_alone(own_schema: dict[str, Any]) -> None:
    schema = own_schema["schema"]
    with psycopg.connect(own_schema["conninfo"]) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        connection.execute(f"CREATE TABLE {schema}.plain (id text PRIMARY KEY, n int)".encode())
    async with AsyncStore(**own_schema) as store:
        assert await store.collections() == []
        with pytest.raises(CollectionNotFound, match="not a collection"):
            await store.create_collection("plain")
        with pytest.raises(CollectionNotFound) as raised:
            await store.create_collection("plain")
        assert str(raised.value).startswith(
            f'table "{schema}.plain" is not a collection. Use another collection name: it can\'t become one, because '
        )
        with pytest.raises(CollectionNotFound, match="not a collection"):
            await store.drop_collection("plain")
        with pytest.raises(CollectionNotFound):
            await store["plain"].update("o-1", {"$set": {"a": 1}}, upsert=True)


async def test_every_call_on_a_closed_store_raises_store_closed(own_schema: dict[str, Any]) -> None:
    store = AsyncStore(**own_schema)
    await store["orders"].insert("o-1", {})
    await store.close()
    await store.close()
    with pytest.raises(StoreClosed):
        await store["orders"].get("o-1")
    with pytest.raises(StoreClosed):
        assert [d async for d in store["orders"].find()]
    with pytest.raises(StoreClosed):
        await store.collections()


async def test_a_store_replaces_a_lost_connection(own_schema: dict[str, Any]) -> None:
    terminate = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s"
    name = own_schema["schema"]
    conninfo = make_conninfo(own_schema["conninfo"], application_name=name)
    async with AsyncStore(**{**own_schema, "conninfo": conninfo}) as store:
        await store["orders"].insert("o-1", {})
        with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
            connection.execute(terminate, [name])
        assert await store["orders"].count() == 1


async def test_a_server_error_carries_its_sqlstate(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        with psycopg.connect(own_schema["conninfo"]) as connection:
            table = f"{own_schema['schema']}.orders"
            connection.execute(f"ALTER TABLE {table} ADD CHECK (NOT data ? 'forbidden')".encode())
        with pytest.raises(DatabaseError, match="orders") as raised:
            await store["orders"].insert("o-2", {"forbidden": 1})
        assert raised.value.sqlstate == "23514"
        assert isinstance(raised.value.__cause__, psycopg.errors.CheckViolation)


async def test_an_invalid_pool_size_or_plugin_is_refused() -> None:
    invalid: list[Any] = [0, -1, 1.5, "3", None, True]
    for pool_size in invalid:
        with pytest.raises(ValueError, match="pool_size must be a whole number of at least 1, got "):
            AsyncStore("", pool_size=pool_size)
    without: list[Any] = [(None, "None"), (b"password=SECRET", "bytes")]
    for given, found in without:
        with pytest.raises(ValueError, match=f"conninfo must be a str such as .*, got {found}") as raised:
            AsyncStore(given)
        assert "SECRET" not in str(raised.value)
    with pytest.raises(ValueError, match="plugin must be one of auto, wal2json, pgoutput, got 'wal2jsonn'"):
        AsyncStore("", plugin="wal2jsonn")
