"""Copies of a database: by template, which keeps the oids of tables, and by a dump, which changes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc import RegistryUnbound
from pgdoc.database.migrate import migrate
from tests.fixtures.fix_leftovers import what_is_left
from tests.fixtures.fix_server import _connect_admin, _database
from tests.security.readers import PATIENCE_S
from tests.security.test_data_loss import SIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server
    from tests.security.conftest import SharedDatabase

HOW = ("template", "dump", "dump without owners")
REBIND = ("SELECT pgdoc.rebind()", "pgdoc init")


@pytest.fixture(params=HOW)
def copy(request: pytest.FixtureRequest, db: SharedDatabase, server: Server) -> Iterator[str]:
    """The conninfo, as the catalog's owner, of a copy of `db`, which has collections, a plain table and a consumer."""
    with psycopg.connect(db.dsn(), autocommit=True) as owner, pgdoc.Store(db.dsn()) as store:
        owner.execute(f"CREATE TABLE docs.plain ({SIX})".encode())
        owner.execute("INSERT INTO docs.plain (id, data) VALUES ('p-1', '{}')")
        store["orders"].insert("o-1", {"a": 1})
        store["users"].insert("u-1", {})
        store["gone"].insert("g-1", {})
        store.drop_collection("gone")
        store.rename_collection("users", "people")
    is_template = request.param == "template"
    with (
        _connect_admin(server) as admin,
        _database(server, admin, db.name if is_template else "template0", "copy") as name,
    ):
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), db.identifier("owner")))
        conninfo = db.server.conninfo_for(name, user=None if db.catalog == "superuser" else db.roles["owner"])
        if not is_template:
            _restore(server, db, conninfo, keeps_owners="without" not in request.param)
        yield conninfo
        left = what_is_left(admin, name)
    assert not left, f"left behind at the server: {left}"


def _programs(server: Server) -> tuple[str, str]:
    bin_dir = getattr(server, "bin_dir", None)
    if bin_dir is None:
        return "pg_dump", "psql"
    programs = str(bin_dir / "pg_dump"), str(bin_dir / "psql")
    if not all(os.access(program, os.X_OK) for program in programs):
        pytest.skip("this server has no pg_dump")
    return programs


def _restore(server: Server, db: SharedDatabase, target: str, *, keeps_owners: bool) -> None:
    dump_program, restore_program = _programs(server)
    options = [] if keeps_owners else ["--no-owner"]
    dump = subprocess.run(
        [dump_program, *options, "--inserts", "-d", db.dsn("superuser")], capture_output=True, text=True, check=True
    )
    as_role = (
        target if not keeps_owners else db.server.conninfo_for(str(psycopg.conninfo.conninfo_to_dict(target)["dbname"]))
    )
    subprocess.run(
        [restore_program, "-q", "-v", "ON_ERROR_STOP=0", "-d", as_role],
        input=dump.stdout,
        capture_output=True,
        text=True,
        check=True,
    )


def _calls(store: pgdoc.Store) -> dict[str, Any]:
    return {
        "count": store["orders"].count,
        "insert": lambda: store["orders"].insert("o-2", {}),
        "insert elsewhere": lambda: store["new"].insert("n-1", {}),
        "delete_many": lambda: store["orders"].delete_many({}),
        "collections": store.collections,
        "create": lambda: store.create_collection("new"),
        "drop": lambda: store.drop_collection("orders"),
        "rename": lambda: store.rename_collection("orders", "x"),
    }


def test_a_copy_is_refused_and_not_touched_until_its_owner_rebinds_it(copy: str) -> None:
    with pgdoc.Store(copy) as store:
        for call in _calls(store).values():
            with pytest.raises(RegistryUnbound):
                call()
    with psycopg.connect(copy, autocommit=True) as owner:
        tables = owner.execute("SELECT tablename::text FROM pg_tables WHERE schemaname = 'docs' ORDER BY 1").fetchall()
        assert [name for (name,) in tables] == ["orders", "people", "plain"]
        assert owner.execute("SELECT id FROM docs.orders").fetchall() == [("o-1",)]


def test_a_copy_is_refused_to_streams(db: SharedDatabase, copy: str) -> None:
    role = psycopg.conninfo.make_conninfo(copy, user=db.roles["streamer"])
    with pgdoc.Store(role, auto_create=False) as store:
        for names in ([], ["orders"]):
            with pytest.raises(RegistryUnbound):
                store.watch(*names)


@pytest.mark.parametrize("rebind", REBIND)
def test_a_rebound_copy_has_the_collections_and_only_these(db: SharedDatabase, copy: str, rebind: str) -> None:
    _rebind(copy, rebind)
    with pgdoc.Store(copy) as store:
        assert store.collections() == ["orders", "people"]
        assert [document.id for document in store["orders"].find()] == ["o-1"]
        store["orders"].update("o-1", {"$inc": {"a": 1}})
        store["new"].insert("n-1", {})
        with pytest.raises(pgdoc.CollectionNotFound):
            store["plain"].count()
    with pgdoc.Store(db.dsn()) as original:
        assert original.collections() == ["orders", "people"]
        document = original["orders"].get("o-1")
        assert document is not None
        assert document.data == {"a": 1}


@pytest.mark.parametrize(("catalog", "plugin"), [("superuser", "wal2json"), ("owner", "pgoutput")], indirect=True)
@pytest.mark.parametrize("rebind", REBIND)
def test_a_rebound_copy_streams(db: SharedDatabase, copy: str, plugin: str, rebind: str) -> None:
    _rebind(copy, rebind)
    role = psycopg.conninfo.make_conninfo(copy, user=db.roles["streamer"])
    with psycopg.connect(copy, autocommit=True) as owner:
        for grant in ("USAGE ON SCHEMA docs", "SELECT ON ALL TABLES IN SCHEMA docs"):
            owner.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(grant), db.identifier("streamer")))
        with pgdoc.Store(role, auto_create=False, plugin=plugin) as store, store.watch() as stream:
            owner.execute("INSERT INTO docs.plain (id, data) VALUES ('p-2', '{}')")
            owner.execute("INSERT INTO docs.people (id, data) VALUES ('u-2', '{}')")
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert (event.collection, event.document_id) == ("people", "u-2")


def _rebind(copy: str, how: str) -> None:
    if how == "pgdoc init":
        migrate(copy)
        return
    with psycopg.connect(copy, autocommit=True) as owner:
        owner.execute(how.encode())


@pytest.mark.parametrize("rebind", REBIND)
def test_a_dump_that_is_restored_over_its_own_database_is_rebound(
    db: SharedDatabase, server: Server, tmp_path: Path, rebind: str
) -> None:
    """Cluster and database stay the same, and every table has another oid."""
    db.store()["orders"].insert("o-1", {"a": 1})
    dump, restore = (str(Path(_programs(server)[0]).with_name(name)) for name in ("pg_dump", "pg_restore"))
    file = str(tmp_path / "dump")
    subprocess.run([dump, "-Fc", "-f", file, "-d", db.dsn("superuser")], check=True)
    db.close()
    subprocess.run([restore, "--clean", "--if-exists", "-d", db.dsn("superuser"), file], check=True)
    with pgdoc.Store(db.dsn()) as store:
        with pytest.raises(RegistryUnbound):
            store["orders"].count()
        _rebind(db.dsn(), rebind)
        assert store.collections() == ["orders"]
        assert [document.id for document in store["orders"].find()] == ["o-1"]


def test_a_copy_takes_no_table_for_a_collection_of_the_original(copy: str) -> None:
    with psycopg.connect(copy, autocommit=True) as owner:
        owner.execute(
            "UPDATE pgdoc.registry SET oid = 'docs.plain'::regclass WHERE name = 'orders'"
        )  # as a restore can do
        owner.execute("ALTER TABLE docs.plain ADD COLUMN more int")
        owner.execute("DROP TABLE docs.plain")
