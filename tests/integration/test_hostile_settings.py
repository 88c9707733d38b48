"""No setting of a session changes an answer, wherever it is set: `docs/reference/session-settings.md`."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import Store
from pgdoc.database.migrate import migrate
from pgdoc.database.session_settings import SESSION
from pgdoc.errors import DatabaseError
from pgdoc.replication.connection import connect
from pgdoc.runtime.deadline import deadline_scope
from tests.document_tour import take_stream_tour, take_tour
from tests.fixtures.fix_server import PLUGIN, _connect_admin
from tests.hostile_settings import HARMLESS, REFUSING, as_options, known, set_for, together

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures.fix_server import Server

ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "German, DMY",
    "PGTZ": "America/St_Johns",
    "PGGEQO": "off",
}


@pytest.fixture(scope="module")
def expected(server: Server, shared_database: str) -> tuple[list[Any], list[Any]]:
    """The answers with the settings of a new server."""
    with Store(server.conninfo_for(shared_database), schema="expected", plugin=PLUGIN) as store:
        return take_tour(store), take_stream_tour(store)


@pytest.fixture
def hostile_role(server: Server) -> Iterator[str]:
    name = f"hostile_{os.getpid()}"
    with _connect_admin(server) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@contextmanager
def role_with(server: Server, dsn: str, role: str, settings: dict[str, str]) -> Iterator[str]:
    """Yield a conninfo of a role that has the settings; its objects are reassigned at the end."""
    with _connect_admin(server) as admin:
        set_for(admin, sql.SQL("ROLE {}").format(sql.Identifier(role)), settings)
    try:
        yield make_conninfo(dsn, user=role)
    finally:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(role)))


def check(conninfo: str, plugin: str, expected: tuple[list[Any], list[Any]]) -> None:
    documents, events = expected
    with Store(conninfo, schema="tour", plugin=plugin) as store:
        assert take_tour(store) == documents
        assert take_stream_tour(store) == events


@pytest.mark.parametrize("group", HARMLESS)
def test_a_setting_of_the_role_changes_no_answer(
    server: Server, dsn: str, hostile_role: str, expected: tuple[list[Any], list[Any]], group: str
) -> None:
    with role_with(server, dsn, hostile_role, HARMLESS[group]) as conninfo:
        check(conninfo, PLUGIN, expected)


@pytest.mark.parametrize("plugin", sorted({PLUGIN, "pgoutput"}))
def test_settings_of_the_database_change_no_answer(
    dsn: str, plugin: str, expected: tuple[list[Any], list[Any]]
) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        database = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        set_for(owner, sql.SQL("DATABASE {}").format(database), together())
    check(dsn, plugin, expected)


@pytest.mark.parametrize("plugin", sorted({PLUGIN, "pgoutput"}))
def test_settings_in_the_conninfo_change_no_answer(
    dsn: str, plugin: str, expected: tuple[list[Any], list[Any]]
) -> None:
    check(make_conninfo(dsn, options=options(dsn), client_encoding="LATIN1"), plugin, expected)


@pytest.mark.parametrize("plugin", sorted({PLUGIN, "pgoutput"}))
def test_settings_in_the_environment_change_no_answer(
    dsn: str, plugin: str, expected: tuple[list[Any], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(dsn)
    for name, value in {**ENVIRONMENT, "PGOPTIONS": given}.items():
        monkeypatch.setenv(name, value)
    check(dsn, plugin, expected)


def options(dsn: str, without: str = "") -> str:
    """Return `options` with all settings but JIT: for that, the user's own options count, and it takes minutes."""
    settings = {name: value for name, value in together().items() if name != without and not name.startswith("jit")}
    with psycopg.connect(dsn) as connection:
        return as_options(known(connection, settings))


def test_a_role_that_may_only_read_is_refused_and_reads(server: Server, dsn: str, hostile_role: str) -> None:
    with Store(dsn) as store:
        store["docs"].insert("a", {})
    with role_with(server, dsn, hostile_role, REFUSING) as conninfo, Store(conninfo) as store:
        assert store["docs"].count() == 1
        with pytest.raises(DatabaseError, match="read-only transaction") as caught:
            store["docs"].insert("b", {})
        assert caught.value.sqlstate == "25006"


CATALOG = """
SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) FROM pg_proc p
WHERE p.pronamespace = 'pgdoc'::regnamespace AND p.prokind = 'f'
UNION ALL
SELECT c.oid::regclass::text, string_agg(concat_ws(' ', attname, atttypid::regtype, atttypmod), ' ' ORDER BY attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'pgdoc'::regnamespace GROUP BY c.oid
ORDER BY 1
"""


def test_settings_during_a_migration_change_no_part_of_the_catalog(bare_dsn: str, dsn: str) -> None:
    given = options(bare_dsn, without="exit_on_error")  # a migration goes on after some errors
    migrate(make_conninfo(bare_dsn, options=given, client_encoding="LATIN1"))
    with psycopg.connect(bare_dsn) as hostile, psycopg.connect(dsn) as plain:
        assert hostile.execute(CATALOG).fetchall() == plain.execute(CATALOG).fetchall()


SHOWN = "SELECT current_setting('jit') AS jit, current_setting('client_connection_check_interval') AS check"


def test_the_sessions_of_a_store_do_not_compile_and_notice_a_dead_client(dsn: str) -> None:
    with Store(dsn) as store:
        with store._connections.connection() as connection:
            assert connection.execute(SHOWN).fetchall() == [("off", "10s")]
        with store._connections.keep("a test") as connection:
            assert connection.execute(SHOWN).fetchall() == [("off", "10s")]
    with deadline_scope(), connect(dsn, replication=False) as side:
        assert side.execute(SHOWN).fetchall() == [("off", "10s")]


def test_the_users_own_options_decide_what_changes_no_answer(dsn: str) -> None:
    options = "-c jit=on -c client_connection_check_interval=3s -c gin_fuzzy_search_limit=7"
    with Store(make_conninfo(dsn, options=options)) as store, store.transaction() as tx:
        assert tx.connection.execute(SHOWN).fetchall() == [("on", "3s")]
        assert tx.connection.execute("SHOW gin_fuzzy_search_limit").fetchall() == [("0",)]


def test_the_statement_of_a_dead_client_ends(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SESSION, "client_connection_check_interval", "50ms")
    with Store(dsn) as store, store._connections.connection() as connection:
        connection.pgconn.send_query(b"SELECT pg_catalog.pg_sleep(600)")
        connection.pgconn.finish()
    # The fixture `dsn` fails if the session is still there.


def test_options_of_a_service_file_stay(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "services"
    words = conninfo_to_dict(make_conninfo(dsn, options="-c geqo_threshold=7"))
    file.write_text("[here]\n" + "".join(f"{name}={value}\n" for name, value in words.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    with Store("service=here") as store, store.transaction() as tx:
        assert tx.connection.execute("SHOW geqo_threshold").fetchall() == [("7",)]
        assert tx.connection.execute(SHOWN).fetchall() == [("off", "10s")]
    with deadline_scope(), connect("service=here", replication=False) as side:
        assert side.execute("SHOW geqo_threshold").fetchone() == ("7",)


def test_a_program_that_changes_the_encoding_is_refused_by_copy(dsn: str) -> None:
    with Store(dsn) as store, store.transaction() as tx:
        tx.connection.execute("SET LOCAL client_encoding = 'LATIN1'")
        with pytest.raises(DatabaseError, match="client_encoding is LATIN1"):
            tx["docs"].insert_many([("é", {})])
