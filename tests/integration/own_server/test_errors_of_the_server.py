"""Errors of an unsuitable server or role."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from pgdoc.cli.app import run_cli
from pgdoc.errors import PluginMissing, PluginNotAllowed, ReplicationNotPermitted, UnsupportedServer, WalLevelTooLow
from pgdoc.replication import slot_start, slots
from tests.integration.own_server.faults import altered, answering, greeting
from tests.integration.own_server.words import (
    PATIENCE_S,
    check_streams,
    said,
    said_by_both,
    said_by_streams,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from pgdoc.server import LocalServer


def test_a_server_that_is_too_old_is_refused(dsn: str) -> None:
    with answering(greeting("14.22")) as old:
        assert said_by_both(UnsupportedServer, old) == "the server is PostgreSQL 14.22: pgdoc needs version 15 or newer"
        assert "PostgreSQL 14: pgdoc needs version 15" in said_by_streams(UnsupportedServer, dsn, old)


def test_a_database_that_is_not_in_utf8_is_refused(cluster: LocalServer, dsn: str, admin: psycopg.Connection) -> None:
    admin.execute("CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        old = cluster.conninfo_for("old")
        for message in (said_by_both(UnsupportedServer, old), said_by_streams(UnsupportedServer, dsn, old)):
            assert "is encoded in LATIN1" in message
            assert "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0" in message
        with Store(old) as store:
            assert "LATIN1" in said(UnsupportedServer, store.migrate)
    finally:
        admin.execute("DROP DATABASE old WITH (FORCE)")


def test_watch_of_the_command_line_creates_nothing_if_the_wal_level_is_below_logical(
    cluster: LocalServer, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with altered(cluster, wal_level="replica"):
        for options in ([], ["--consumer", "billing"]):
            assert run_cli(["watch", "orders", "--create", *options, "--dsn", dsn]) == 1
            assert capsys.readouterr().err.startswith("pgdoc: wal_level is replica: ")
        with Store(dsn) as store:
            assert store.collections() == []
            assert store.consumers() == []


def test_a_wal_level_below_logical_is_refused(cluster: LocalServer, dsn: str) -> None:
    with altered(cluster, wal_level="replica"), Store(dsn) as store:
        store.migrate()
        store["orders"].insert("o-1", {})
        assert said(WalLevelTooLow, store.watch) == (
            "wal_level is replica: run ALTER SYSTEM SET wal_level = 'logical' and restart the server"
        )
        assert store.status().problem == said(WalLevelTooLow, store.watch)
    check_streams(dsn)


@contextmanager
def without_wal2json(cluster: LocalServer, admin: psycopg.Connection) -> Iterator[None]:
    """Make the server load libraries from a folder that lacks only wal2json."""
    ((libraries,),) = admin.execute("SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'").fetchall()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        for name in ("pgoutput", "plpgsql"):
            (library,) = Path(libraries).glob(f"{name}.*")
            shutil.copy(library, folder)
        admin.execute(f"ALTER SYSTEM SET dynamic_library_path = '{folder}'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            admin.execute("ALTER SYSTEM RESET dynamic_library_path")
            admin.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("bookmark", [False, True], ids=["first slot", "bookmark"])
def test_wal2json_is_missing(cluster: LocalServer, dsn: str, admin: psycopg.Connection, bookmark: bool) -> None:
    if bookmark:
        check_streams(dsn)
    with without_wal2json(cluster, admin):
        message = said_by_streams(PluginMissing, dsn, plugin="wal2json")
        check_auto(dsn, message)
    assert message.startswith("the server has no output plugin wal2json (")
    assert f"apt-get install postgresql-{admin.info.server_version // 10000}-wal2json" in message
    check_streams(dsn)


def test_wal2json_is_not_allowed(dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        if admin.execute("SELECT current_setting('output_plugin_libraries', true)").fetchone() == (None,):
            monkeypatch.setattr(slot_start, "create_slot", refuse_plugin(slots.create_slot))
            monkeypatch.setattr(slot_start, "copy_slot", refuse_plugin(slots.copy_slot))
            stack.callback(monkeypatch.undo)
        else:
            admin.execute("ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding'")
            admin.execute("SELECT pg_reload_conf()")
            stack.callback(admin.execute, "SELECT pg_reload_conf()")
            stack.callback(admin.execute, "ALTER SYSTEM RESET output_plugin_libraries")
        message = said_by_streams(PluginNotAllowed, dsn, plugin="wal2json")
        check_auto(dsn, message)
    assert message.startswith('library "wal2json" may not be used as an output plugin: run ALTER SYSTEM SET output_')
    check_streams(dsn)


def check_auto(dsn: str, refusal: str) -> None:
    """Check that with plugin="auto" streams use pgoutput, and that the status gives the reason."""
    with Store(dsn, plugin="auto") as store:
        status = store.status()
        assert (status.plugin, status.plugin_reason, status.problem) == ("pgoutput", refusal, None)
        with store["orders"].watch(consumer="passing") as durable, store["orders"].watch() as stream:
            assert store._streams.hub.plugin == "pgoutput"
            store["orders"].insert("auto", {})
            for each in (stream, durable):
                event = each.next(timeout=PATIENCE_S)
                assert event is not None
                assert event.document_id == "auto"
        store["orders"].delete("auto")
        assert store.drop_consumer("passing")


def refuse_plugin(make: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a call that creates a slot: it fails like a server with an allow-list, on a server without one."""

    def make_or_refuse(connection: psycopg.Connection, *args: str, **kwargs: Any) -> Any:
        if "wal2json" in (*args, *kwargs.values()):
            connection.execute(
                "DO $$ BEGIN RAISE insufficient_privilege "
                """USING MESSAGE = 'library "wal2json" may not be used as an output plugin'; END $$"""
            )
        return make(connection, *args, **kwargs)

    return make_or_refuse


def test_a_role_that_may_not_replicate_is_refused(
    cluster: LocalServer, database: str, admin: psycopg.Connection
) -> None:
    admin.execute("CREATE ROLE app LOGIN")
    try:
        app = cluster.conninfo_for(database, "app")
        assert said_by_streams(ReplicationNotPermitted, app) == (
            'role "app" may not replicate: run ALTER ROLE "app" REPLICATION as a superuser; '
            "`pgdoc grant app --as streamer` prints the SQL that gives all that streams need"
        )
        admin.execute("CREATE ROLE writer REPLICATION ROLE app")
        assert 'role "app" may not' in said_by_streams(
            ReplicationNotPermitted, make_conninfo(app, options="-c role=writer")
        )
        admin.execute("ALTER ROLE app REPLICATION")
        with Store(app) as store:
            store.watch().close()
    finally:
        admin.execute("DROP ROLE IF EXISTS app, writer")
