"""Migrations: upgrade, downgrade, repetition, and concurrent processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import pgdoc
from pgdoc.database.catalog import REVISION
from pgdoc.database.migrate import downgrade, migrate
from pgdoc.errors import CatalogMissing, CatalogNotTrusted, DatabaseError, ServerUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 10

IN_SCHEMA = """
SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass
  AND refobjid = (SELECT oid FROM pg_namespace WHERE nspname = 'pgdoc')
"""


def execute(dsn: str, query: str, *params: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []


def test_the_newest_revision_is_the_one_that_the_store_requires() -> None:
    migrations = Path(__file__).parents[2] / "migrations"
    assert ScriptDirectory(migrations).get_current_head() == REVISION


def test_migrating_again_changes_nothing(bare_dsn: str) -> None:
    migrate(bare_dsn)
    before = execute(bare_dsn, IN_SCHEMA)
    migrate(bare_dsn)
    assert execute(bare_dsn, IN_SCHEMA) == before
    assert execute(bare_dsn, "SELECT * FROM pgdoc.alembic_version") == [(REVISION,)]


def test_downgrade_leaves_plain_tables_with_their_data(dsn: str) -> None:
    with pgdoc.Store(dsn) as store:
        store["orders"].insert("o-1", {"n": 1})
    downgrade(dsn)
    assert execute(dsn, "SELECT FROM pg_namespace WHERE nspname = 'pgdoc'") == []
    assert execute(dsn, "SELECT FROM pg_publication") == []
    execute(dsn, "UPDATE docs.orders SET data = '{\"n\": 2}', version = 7")
    assert execute(dsn, "SELECT id, data, version FROM docs.orders") == [("o-1", {"n": 2}, 7)]
    with pgdoc.Store(dsn) as store, pytest.raises(CatalogMissing):
        store["orders"].get("o-1")


def test_upgrade_after_downgrade_turns_tables_into_collections_again(dsn: str) -> None:
    with pgdoc.Store(dsn) as store:
        store["orders"].insert("o-1", {"n": 1})
    downgrade(dsn)
    migrate(dsn)
    with pgdoc.Store(dsn) as store:
        updated = store["orders"].update("o-1", {"$inc": {"n": 1}})
    assert updated is not None
    assert (updated.data, updated.version) == ({"n": 2}, 2)
    published = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'pgdoc' ORDER BY tablename"
    assert execute(dsn, published) == [("messages",), ("orders",), ("registry",)]


def test_repeated_downgrade_and_upgrade_leave_nothing_behind(dsn: str) -> None:
    first = execute(dsn, IN_SCHEMA)
    downgrade(dsn)
    migrate(dsn)
    assert execute(dsn, IN_SCHEMA) == first


def test_ten_processes_may_migrate_at_once(bare_dsn: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=migrate, args=(bare_dsn,)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert execute(bare_dsn, "SELECT * FROM pgdoc.alembic_version") == [(REVISION,)]


def test_the_settings_table_holds_one_row(dsn: str) -> None:
    query = "SELECT history_time::text, history_size, history_bookmarks, history_chosen FROM pgdoc.settings"
    assert execute(dsn, query) == [("01:00:00", 1 << 30, 4, False)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(dsn, "INSERT INTO pgdoc.settings DEFAULT VALUES")


def test_a_failed_migration_leaves_nothing(bare_dsn: str) -> None:
    execute(bare_dsn, "CREATE PUBLICATION pgdoc")
    with pytest.raises(DatabaseError, match="publication") as raised:
        migrate(bare_dsn)
    assert raised.value.sqlstate == "42710"
    assert execute(bare_dsn, "SELECT FROM pg_namespace WHERE nspname = 'pgdoc'") == []


def test_migrating_without_a_server_names_the_address() -> None:
    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1"):
        migrate("host=127.0.0.1 port=1")


def test_a_catalog_of_revision_0001_can_be_upgraded_and_downgraded(dsn: str) -> None:
    downgrade(dsn, "0001")
    execute(dsn, "SELECT pgdoc.create_collection('docs', 'orders')")
    execute(dsn, "INSERT INTO docs.orders (id, data) VALUES ('o-1', '{}')")
    migrate(dsn)
    with pgdoc.Store(dsn) as store:
        assert store.status().follows_ddl
        assert store["orders"].count() == 1
        with store["orders"].watch() as stream:
            execute(dsn, "ALTER TABLE docs.orders RENAME TO sold")
            assert [str(event.event_type) for event in stream] == ["rename", "invalidate"]
    downgrade(dsn, "0001")
    assert execute(dsn, "SELECT evtname FROM pg_event_trigger") == []
    execute(dsn, "SELECT pgdoc.rename_collection('docs', 'sold', 'orders'), pgdoc.drop_collection('docs', 'orders')")


def test_a_catalog_of_revision_0004_can_be_upgraded_and_downgraded(dsn: str) -> None:
    downgrade(dsn, "0004")
    execute(dsn, "SELECT pgdoc.create_collection('docs', 'orders')")
    ((before,),) = execute(dsn, "SELECT pg_current_wal_insert_lsn()::text")
    migrate(dsn)
    since = "SELECT pgdoc.published_since('docs', '{orders}') > %s::pg_lsn, pgdoc.publication_fault('docs')"
    assert execute(dsn, since, before) == [(True, None)]
    with pgdoc.Store(dsn, plugin="pgoutput") as store, store["orders"].watch() as stream:
        store["orders"].insert("o-1", {})
        assert next(stream).document_id == "o-1"
    downgrade(dsn, "0004")
    execute(dsn, "SELECT pgdoc.create_collection('docs', 'users'), pgdoc.drop_collection('docs', 'orders')")
    assert execute(dsn, "SELECT tablename FROM pg_publication_tables WHERE pubname = 'pgdoc'") == [("users",)]


@pytest.fixture
def owner_dsn(bare_dsn: str) -> Iterator[str]:
    """A database, accessed by its owner, who may not create event triggers."""
    database = conninfo_to_dict(bare_dsn)["dbname"]
    role = f"owner_of_{database}"
    execute(bare_dsn, f"CREATE ROLE {role} LOGIN")
    execute(bare_dsn, f"ALTER DATABASE {database} OWNER TO {role}")
    yield make_conninfo(bare_dsn, user=role)
    execute(bare_dsn, f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
    execute(bare_dsn, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
    execute(bare_dsn, f"DROP OWNED BY {role}")
    execute(bare_dsn, f"DROP ROLE {role}")


def test_a_superuser_does_not_touch_the_catalog_of_another_role(owner_dsn: str, bare_dsn: str) -> None:
    migrate(owner_dsn)
    follows = "SELECT pgdoc.follows_ddl()"
    for command in (migrate, downgrade):
        with pytest.raises(CatalogNotTrusted, match="owns the pgdoc catalog"):
            command(bare_dsn)
    assert execute(owner_dsn, follows) == [(False,)]
    downgrade(owner_dsn)
    migrate(bare_dsn)
    assert execute(bare_dsn, follows) == [(True,)]


def test_the_owner_upgrades_a_catalog_to_which_a_superuser_added_event_triggers(owner_dsn: str, bare_dsn: str) -> None:
    migrate(owner_dsn)
    downgrade(owner_dsn, "0006")
    assert execute(bare_dsn, "SELECT pgdoc.follow_ddl()") == [(True,)]
    execute(owner_dsn, "SELECT pgdoc.create_collection('docs', 'orders')")
    migrate(owner_dsn)
    assert execute(bare_dsn, "SELECT FROM pg_event_trigger") == []
    assert execute(owner_dsn, "SELECT pgdoc.create_collection('docs', 'users')") == [(True,)]
    assert execute(owner_dsn, "SELECT pgdoc.publish('docs'), pgdoc.collections('docs')") == [
        (None, "orders"),
        (None, "users"),
    ]
    downgrade(owner_dsn)
