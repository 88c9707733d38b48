"""No role gets a superuser to run its code by way of pgdoc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc.cli.doctor import examine_server
from pgdoc.consumers.dropping import drop_consumer
from pgdoc.database.catalog import REVISION, check_owner
from pgdoc.database.migrate import downgrade, migrate
from pgdoc.errors import CatalogNotTrusted, PgdocError
from tests.commands import pgdoc_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.security.conftest import SharedDatabase

only_owner = pytest.mark.parametrize("catalog", ["owner"])
only_superuser = pytest.mark.parametrize("catalog", ["superuser"])

_TRAPS = f"""
CREATE SEQUENCE pgdoc.sprung;
CREATE FUNCTION pgdoc.trap() RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_catalog.nextval('pgdoc.sprung'); RETURN '{REVISION}'; END $$;
ALTER TABLE pgdoc.alembic_version RENAME TO real_version;
CREATE VIEW pgdoc.alembic_version AS SELECT pgdoc.trap() AS version_num;
ALTER TABLE pgdoc.settings RENAME TO real_settings;
CREATE VIEW pgdoc.settings AS SELECT s.*, pgdoc.trap() FROM pgdoc.real_settings s;
CREATE OR REPLACE FUNCTION pgdoc.follows_ddl() RETURNS boolean LANGUAGE sql AS $$ SELECT pgdoc.trap() = '' $$;
CREATE OR REPLACE FUNCTION pgdoc.is_bound() RETURNS boolean LANGUAGE sql AS $$ SELECT pgdoc.trap() <> '' $$;
CREATE OR REPLACE FUNCTION pgdoc.rebind() RETURNS text[] LANGUAGE sql AS $$ SELECT ARRAY[pgdoc.trap()] $$;
CREATE OR REPLACE FUNCTION pgdoc.before_update() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pgdoc.trap(); RETURN NEW; END $$;
"""

CALLS: dict[str, Callable[[pgdoc.Store], Any]] = {
    "watch": lambda store: store.watch(),
    "watch with a consumer": lambda store: store.watch(consumer="billing"),
    "consumers": lambda store: store.consumers(),
    "drop_consumer": lambda store: store.drop_consumer("billing"),
    "history": lambda store: store.history(),
    "status": lambda store: store.status(),
    "collections": lambda store: store.collections(),
    "drop_collection": lambda store: store.drop_collection("orders"),
    "update": lambda store: store["orders"].update("o-1", {"$set": {"a": 2}}),
    "migrate": lambda store: store.migrate(),
}


def sprung(db: SharedDatabase) -> bool:
    return db.connect().execute("SELECT is_called FROM pgdoc.sprung").fetchone() == (True,)


@only_owner
def test_a_superuser_runs_nothing_of_a_catalog_that_another_role_owns(db: SharedDatabase) -> None:
    db.store()["orders"].insert("o-1", {"a": 1})
    db.connect().execute(_TRAPS)
    refused = rf'superuser is connected, but role "{db.roles["owner"]}" owns the pgdoc catalog.*: connect as "'
    for name, call in CALLS.items():
        with pytest.raises(CatalogNotTrusted, match=refused):
            call(db.store("superuser"))
        assert not sprung(db), name
    for command in (migrate, downgrade):
        with pytest.raises(CatalogNotTrusted, match=refused):
            command(db.dsn("superuser"))
    findings = list(examine_server(db.dsn("superuser")))
    assert (findings[-1].verdict, findings[-1].subject) == ("wrong", "catalog")
    assert "owns the pgdoc catalog" in findings[-1].text
    assert not sprung(db)
    db.store().history()
    assert sprung(db)  # the traps are no dead ones


@only_owner
def test_a_superuser_cannot_be_brought_in_by_set_role_or_by_the_replication_conninfo(db: SharedDatabase) -> None:
    db.connect().execute(_TRAPS)
    lowered = f"{db.dsn('superuser')} options='-c role={db.roles['writer']}'"
    with pgdoc.Store(lowered) as store, pytest.raises(CatalogNotTrusted):
        store.collections()
    by_streams = pgdoc.Store(db.dsn("streamer"), replication_conninfo=db.dsn("superuser"))
    with by_streams as store, pytest.raises(CatalogNotTrusted):
        drop_consumer(store._streams.hub.source, "billing")  # the store itself looks at the catalog first
    assert not sprung(db)


@only_owner
def test_init_as_a_superuser_changes_nothing_in_the_catalog_of_another_role(db: SharedDatabase) -> None:
    done = pgdoc_command("init", "--dsn", db.dsn("superuser"))
    assert done.returncode == 1
    assert f'role "{db.roles["owner"]}" owns the pgdoc catalog' in done.stderr
    triggers = db.connect("superuser").execute("SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'pgdoc%'")
    assert triggers.fetchone() == (0,)


@only_superuser
def test_the_catalog_of_a_superuser_is_used_by_every_superuser(db: SharedDatabase) -> None:
    other = f"{db.roles['superuser']}_too"
    admin = db.connect("superuser")
    admin.execute(f'CREATE ROLE "{other}" SUPERUSER LOGIN')
    try:
        migrate(db.server.conninfo_for(db.name, user=other))
        with pgdoc.Store(db.server.conninfo_for(db.name, user=other)) as store:
            assert store.collections() == ["orders"]
    finally:
        admin.execute(f'REASSIGN OWNED BY "{other}" TO CURRENT_USER')
        admin.execute(f'DROP ROLE "{other}"')


_SHADOWS = """
CREATE SEQUENCE public.called;
GRANT USAGE ON SEQUENCE public.called TO PUBLIC;
CREATE FUNCTION public.hashtextextended(text, integer) RETURNS bigint LANGUAGE sql
  AS $$ SELECT pg_catalog.nextval('public.called') $$;
CREATE FUNCTION public.quote_ident(varchar) RETURNS text LANGUAGE sql
  AS $$ SELECT pg_catalog.nextval('public.called')::text $$;
CREATE FUNCTION public.to_regclass(varchar) RETURNS regclass LANGUAGE sql
  AS $$ SELECT pg_catalog.nextval('public.called')::regclass $$;
CREATE FUNCTION public.format(text, oid, text) RETURNS text LANGUAGE sql
  AS $$ SELECT pg_catalog.nextval('public.called')::text $$;
CREATE FUNCTION public.equals(bigint, oid) RETURNS boolean LANGUAGE sql
  AS $$ SELECT pg_catalog.nextval('public.called') > 0 $$;
CREATE OPERATOR public.= (FUNCTION = public.equals, LEFTARG = bigint, RIGHTARG = oid);
"""


@only_superuser
def test_functions_in_public_are_not_called_by_a_superuser(db: SharedDatabase, plugin: str) -> None:
    db.connect("superuser").execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    db.connect("stranger").execute(_SHADOWS)
    superuser = db.connect("superuser")
    superuser.execute("SELECT hashtextextended('a', 0)")
    assert superuser.execute("SELECT is_called FROM public.called").fetchone() == (True,)
    superuser.execute("ALTER SEQUENCE public.called RESTART")
    store = db.store("superuser", plugin=plugin)
    with store["orders"].watch() as stream:
        store["orders"].insert("o-1", {})
        assert next(stream).document_id == "o-1"
    with store.watch(consumer="billing") as stream:
        store["orders"].insert("o-2", {})
        stream.ack(next(stream))
        store.consumers()
    list(examine_server(db.dsn("superuser")))
    store["orders"].create_index("a")
    store.migrate()
    store.drop_collection("orders")
    store.drop_consumer("billing")
    assert superuser.execute("SELECT is_called FROM public.called").fetchone() == (False,)


@only_superuser
def test_a_plain_role_cannot_replace_what_runs_inside_the_ddl_of_a_superuser(db: SharedDatabase) -> None:
    functions = db.connect("superuser").execute(
        "SELECT p.oid::regprocedure::text, r.rolsuper FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid "
        "JOIN pg_roles r ON r.oid = p.proowner WHERE t.evtname LIKE 'pgdoc%'"
    )
    for name, by_superuser in functions.fetchall():
        assert by_superuser
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect("writer").execute(f"ALTER FUNCTION {name} RESET ALL")


def test_the_error_is_one_of_the_catalog() -> None:
    assert issubclass(CatalogNotTrusted, PgdocError)
    assert not CatalogNotTrusted.resumable


@only_superuser
def test_a_schema_that_another_role_creates_during_init_is_refused(
    db: SharedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    superuser, creator = db.connect("superuser"), db.connect("creator")
    downgrade(db.dsn("superuser"))
    grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(db.name), db.identifier("creator"))
    superuser.execute(grant)

    def check_too_early(row: tuple[str, ...] | None) -> None:
        check_owner(row)
        creator.execute("CREATE SCHEMA pgdoc")

    monkeypatch.setattr("pgdoc.database.migrate.check_owner", check_too_early)
    with pytest.raises(CatalogNotTrusted):
        migrate(db.dsn("superuser"))
    found = superuser.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'pgdoc'::regnamespace").fetchone()
    assert found == (0,)


NEAR = """
CREATE TABLE docs.evil (
  id text COLLATE "C" PRIMARY KEY CONSTRAINT pgdoc_id CHECK (id <> ''),
  data jsonb NOT NULL CONSTRAINT pgdoc_data CHECK (jsonb_typeof(data) = 'object'), {}
  replaced_version bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now())
"""


@pytest.mark.parametrize("version", ["", "version bigint NOT NULL DEFAULT 1,"])
def test_a_table_that_looks_like_a_collection_stops_no_installation(db: SharedDatabase, version: str) -> None:
    """As for a catalog that is dropped and created again, which the reference describes."""
    db.connect("creator").execute(NEAR.format(version).encode())
    with db.store("owner") as store:
        store["orders"].insert("o-1", {})
    db.connect("owner").execute("DROP SCHEMA pgdoc CASCADE; DROP PUBLICATION pgdoc")
    migrate(db.dsn("owner"))
    with db.store("owner") as store:
        assert store["orders"].count() == 1
        assert store["orders"].update("o-1", {"$set": {"n": 1}}).version == 2  # type: ignore[union-attr]
