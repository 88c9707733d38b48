"""What a store says where the server, the role or the way there is not what it needs.

Each fault is made for real where that can be done. After each test no thread, slot or session is left.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgdoc
from pgdoc import AsyncStore, Store
from pgdoc.catalog import REVISION
from pgdoc.errors import (
    CatalogMissing,
    CatalogVersionMismatch,
    DatabaseError,
    DirectRouteNeeded,
    HistoryLost,
    InvalidResumeToken,
    PgdocError,
    PluginMissing,
    PluginNotAllowed,
    ReplicaIdentityChanged,
    ReplicationNotPermitted,
    ServerUnreachable,
    SlotBlocked,
    SlotsExhausted,
    UnsupportedServer,
    WalLevelTooLow,
)
from pgdoc.migrate import migrate
from pgdoc.replication import slots
from pgdoc.server import LocalServer
from tests.fixtures.fix_leftovers import what_is_left
from tests.fixtures.fix_server import NOT_DURABLE, _connect_admin, _database
from tests.integration.faults import altered, answering, drop_slots, greeting, pooling, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 20.0
SETTINGS = {**NOT_DURABLE, "max_replication_slots": 6, "max_wal_senders": 6, "max_prepared_transactions": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalServer]:
    """A server for the tests of this file to break; it also listens on TCP, where it wants a password."""
    with LocalServer(port=0, settings=SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def catalog(cluster: LocalServer) -> str:
    """The name of a database with the catalog."""
    with _connect_admin(cluster) as admin:
        admin.execute("CREATE DATABASE catalog")
    migrate(cluster.conninfo_for("catalog"))
    return "catalog"


@pytest.fixture
def database(cluster: LocalServer, catalog: str) -> Iterator[str]:
    """The name of a database with the catalog and without a bookmark; the server may restart meanwhile."""
    with _connect_admin(cluster) as admin:
        admin.execute(f"CREATE DATABASE test TEMPLATE {catalog}")
    yield "test"
    with _connect_admin(cluster) as admin:
        left = what_is_left(admin, "test")
        drop_slots(cluster)
        admin.execute("DROP DATABASE test WITH (FORCE)")
    assert not left, f"left behind at the server: {left}"


@pytest.fixture
def dsn(cluster: LocalServer, database: str) -> str:
    return cluster.conninfo_for(database)


@pytest.fixture
def admin(cluster: LocalServer, database: str) -> Iterator[psycopg.Connection]:
    """The administrator, somewhere else."""
    with _connect_admin(cluster) as admin:
        yield admin


def said(error: type[PgdocError], call: Callable[[], Any]) -> str:
    """Give the message of the error that a call raises: one line, not in psycopg's words alone."""
    with pytest.raises(error) as raised:
        call()
    assert raised.type is error
    message = str(raised.value)
    assert "\n" not in message
    assert not message.endswith((".", ":"))
    return message


def said_by_documents(error: type[PgdocError], conninfo: str) -> str:
    with Store(conninfo) as store:
        return said(error, lambda: store["orders"].get("o-1"))


def said_by_streams(error: type[PgdocError], conninfo: str, direct: str | None = None) -> str:
    with Store(conninfo, replication_conninfo=direct) as store:
        return said(error, store.watch)


def said_by_both(error: type[PgdocError], conninfo: str) -> str:
    message = said_by_documents(error, conninfo)
    assert said_by_streams(error, conninfo) == message
    return message


def check_streams(conninfo: str) -> None:
    """See that streams do work."""
    with Store(conninfo) as store, store["orders"].watch() as stream:
        store["orders"].insert(pgdoc.new_id(), {})
        assert stream.next(timeout=PATIENCE_S) is not None


# The way to the server


@pytest.mark.parametrize(
    ("conninfo", "place"), [("host=127.0.0.1 port=1", "port 1 "), ("host=/nonexistent", "/nonexistent/.s.PGSQL")]
)
def test_nobody_answers(conninfo: str, place: str, dsn: str) -> None:
    message = said_by_both(ServerUnreachable, f"{conninfo} dbname=app")
    assert message.startswith("no connection to the server: ")
    assert place in message
    assert message.endswith("check the conninfo, and that the server runs there")
    assert said_by_streams(ServerUnreachable, dsn, f"{conninfo} dbname=app") == message


def test_the_server_is_gone(private_server: LocalServer, private_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that has connections does not hope for long that others can be made."""
    monkeypatch.setattr("pgdoc._sync.connections._SOON_S", 0.1)
    with Store(private_dsn) as store:
        store["orders"].insert("o-1", {})
        with private_server.stopped():
            message = said(ServerUnreachable, lambda: store["orders"].get("o-1"))
            assert message.startswith("no connection to the server: ")
            assert said(ServerUnreachable, store.watch) == message
        assert store["orders"].get("o-1") is not None


def test_conninfo_is_none(dsn: str) -> None:
    message = said_by_both(DatabaseError, "host=localhost nonsense")
    assert message.startswith("the conninfo can't be read: ")
    assert said_by_streams(DatabaseError, dsn, "host=localhost nonsense") == message


def test_wrong_password(dsn: str) -> None:
    wrong = make_conninfo(dsn, password="guess")  # noqa: S106
    message = said_by_both(DatabaseError, wrong)
    assert 'password authentication failed for user "postgres": check the role and the password' in message
    assert said_by_streams(DatabaseError, dsn, wrong) == message


def test_no_password(dsn: str) -> None:
    without = make_conninfo(dsn, password="")
    message = said_by_both(DatabaseError, without)
    assert "no password supplied: check the role and the password" in message
    assert said_by_streams(DatabaseError, dsn, without) == message


def test_missing_database(cluster: LocalServer, dsn: str) -> None:
    wrong = cluster.conninfo_for("nowhere")
    message = said_by_both(DatabaseError, wrong)
    assert 'database "nowhere" does not exist: check the role and the database' in message
    assert said_by_streams(DatabaseError, dsn, wrong) == message


def test_refused_by_pg_hba(cluster: LocalServer, database: str, dsn: str, admin: psycopg.Connection) -> None:
    assert cluster.folder is not None
    rules = cluster.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    admin.execute("CREATE ROLE stranger LOGIN REPLICATION")
    rules.write_text(f"local all stranger reject\n{before}")
    admin.execute("SELECT pg_reload_conf()")
    try:
        stranger = cluster.conninfo_for(database, "stranger")
        advice = ": add a line for this role, database and address to pg_hba.conf"
        assert said_by_documents(DatabaseError, stranger).endswith(advice)
        assert said_by_streams(ReplicationNotPermitted, dsn, stranger).endswith(advice)
    finally:
        rules.write_text(before)
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("DROP ROLE stranger")


@pytest.mark.parametrize("refused", ["options", "replication"])
def test_through_a_pooler(cluster: LocalServer, database: str, dsn: str, refused: str) -> None:
    """PgBouncer 1.18 knows neither parameter, 1.20 knows `options`."""
    with pooling(cluster, refused) as route:
        through = make_conninfo(route, dbname=database)
        with Store(through) as store:
            store["orders"].insert("o-1", {})
            message = said(DirectRouteNeeded, store.watch)
        assert f"unsupported startup parameter: {refused}: conninfo leads to a pooler" in message
        assert "replication_conninfo" in message
        with Store(through, replication_conninfo=dsn) as store, store.watch() as stream:
            store["orders"].insert("o-2", {})
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-2"
            with store.transaction() as tx:
                assert tx.connection.prepare_threshold is None


def test_the_pooler_s_sessions_know_no_prepared_statement(dsn: str) -> None:
    """PgBouncer gives the next transaction of a connection to whichever session is free."""
    with Store(dsn, pool_size=1) as store:
        store["orders"].insert("o-1", {})
        for _ in range(6):
            store["orders"].get("o-1")
        with store.transaction() as tx:
            tx.connection.execute("DO 'BEGIN DEALLOCATE ALL; END'")  # as another session has none
        message = said(DatabaseError, lambda: store["orders"].get("o-1"))
        assert message.endswith("give the server's own host and port as replication_conninfo")


def test_refused_in_another_language(dsn: str) -> None:
    with answering(refusal("das Datenbanksystem startet", "57P03")) as elsewhere:
        message = said_by_both(ServerUnreachable, elsewhere)
        assert "FATAL: das Datenbanksystem startet; check the conninfo" in message
        assert said_by_streams(ServerUnreachable, dsn, elsewhere) == message


# The server


def test_server_is_too_old(dsn: str) -> None:
    with answering(greeting("14.22")) as old:
        assert said_by_both(UnsupportedServer, old) == "the server is PostgreSQL 14.22: pgdoc needs version 15 or newer"
        assert "PostgreSQL 14: pgdoc needs version 15" in said_by_streams(UnsupportedServer, dsn, old)


def test_database_is_not_in_utf8(cluster: LocalServer, dsn: str, admin: psycopg.Connection) -> None:
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


def test_wal_level_is_too_low(cluster: LocalServer, dsn: str) -> None:
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
    """Let the server look for libraries in a folder that has all that pgdoc needs but wal2json."""
    ((libraries,),) = admin.execute("SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'").fetchall()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        (library,) = Path(libraries).glob("pgoutput.*")
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
        message = said_by_streams(PluginMissing, dsn)
    assert message.startswith("the server has no output plugin wal2json (")
    assert f"apt-get install postgresql-{admin.info.server_version // 10000}-wal2json" in message
    check_streams(dsn)


def test_wal2json_is_not_allowed(dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        if admin.execute("SELECT current_setting('output_plugin_libraries', true)").fetchone() == (None,):
            monkeypatch.setattr(slots, "create_slot", refuse_plugin)
            stack.callback(monkeypatch.undo)
        else:
            admin.execute("ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding'")
            admin.execute("SELECT pg_reload_conf()")
            stack.callback(admin.execute, "SELECT pg_reload_conf()")
            stack.callback(admin.execute, "ALTER SYSTEM RESET output_plugin_libraries")
        message = said_by_streams(PluginNotAllowed, dsn)
    assert message.startswith('library "wal2json" may not be used as an output plugin: run ALTER SYSTEM SET output_')
    check_streams(dsn)


def refuse_plugin(connection: psycopg.Connection, *_: object) -> None:
    """Say what a server with an allow-list says, on one that has none."""
    connection.execute(
        "DO $$ BEGIN RAISE insufficient_privilege "
        """USING MESSAGE = 'library "wal2json" may not be used as an output plugin'; END $$"""
    )


def test_role_may_not_replicate(cluster: LocalServer, database: str, admin: psycopg.Connection) -> None:
    admin.execute("CREATE ROLE app LOGIN")
    try:
        app = cluster.conninfo_for(database, "app")
        assert said_by_streams(ReplicationNotPermitted, app) == (
            'role "app" may not replicate: run ALTER ROLE "app" REPLICATION as a superuser'
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


# Slots and walsenders


def fill_slots(admin: psycopg.Connection) -> int:
    """Leave no slot free; give how many there are."""
    ((total, free),) = admin.execute(
        "SELECT max, max - (SELECT count(*) FROM pg_replication_slots) "
        "FROM (SELECT current_setting('max_replication_slots')::int) AS m (max)"
    ).fetchall()
    for number in range(free):
        admin.execute("SELECT pg_create_physical_replication_slot(%s)", [f"taken_{number}"])
    return int(total)


def free_slots(admin: psycopg.Connection) -> None:
    taken = r"slot_name LIKE 'taken\_%'"
    admin.execute(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE {taken}")


def test_slots_are_used_up(dsn: str, admin: psycopg.Connection) -> None:
    total = fill_slots(admin)
    try:
        message = said_by_streams(SlotsExhausted, dsn)
    finally:
        free_slots(admin)
    assert message == (
        f"all {total} replication slots of the server are in use: raise max_replication_slots and restart the server, "
        "or drop slots that nobody reads"
    )
    check_streams(dsn)


async def test_slots_are_used_up_where_streams_are_awaited(dsn: str, admin: psycopg.Connection) -> None:
    fill_slots(admin)
    try:
        async with AsyncStore(dsn) as store:
            with pytest.raises(SlotsExhausted, match="raise max_replication_slots"):
                await store.watch()
            with pytest.raises(SlotsExhausted, match="raise max_replication_slots"):
                async with store["orders"].watch():
                    pass
            free_slots(admin)
            async with store["orders"].watch() as stream:
                await store["orders"].insert("o-1", {})
                assert await stream.next(timeout=PATIENCE_S) is not None
    finally:
        free_slots(admin)


def test_slots_are_used_up_meanwhile(dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last free slot can be taken between the look and the making."""
    monkeypatch.setattr("pgdoc.replication.slots.preflight", lambda _: fill_slots(admin))
    try:
        message = said_by_streams(SlotsExhausted, dsn)
    finally:
        free_slots(admin)
    assert message.startswith("all replication slots are in use: raise max_replication_slots")


def test_a_stream_waits_for_a_free_slot(dsn: str, admin: psycopg.Connection) -> None:
    with Store(dsn) as store, store["orders"].watch(buffer_size=1) as stream:
        fill_slots(admin)
        try:
            for number in range(9):
                store["orders"].insert(f"o-{number}", {})
            wait_until(lambda: stream.stats().mode == "catching_up")
            first = stream.next(timeout=PATIENCE_S)
            assert stream.next(timeout=1.5) is None
            assert stream.stats().mode == "catching_up"
        finally:
            free_slots(admin)
        events = [first, *(stream.next(timeout=PATIENCE_S) for _ in range(8))]
        assert [event.document_id for event in events if event] == [f"o-{number}" for number in range(9)]


@pytest.mark.parametrize("meanwhile", [False, True])
def test_walsenders_are_used_up(
    cluster: LocalServer, database: str, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    with altered(cluster, max_wal_senders="1"):
        dsn = cluster.conninfo_for(database)
        if meanwhile:
            monkeypatch.setattr("pgdoc.replication.slots.preflight", lambda _: None)
        with psycopg.connect(dsn, replication="database"):
            message = said_by_streams(SlotsExhausted, dsn)
        found = "exceeds max_wal_senders (currently 1)" if meanwhile else "all 1 walsenders of the server are in use"
        assert f"{found}: raise max_wal_senders and restart the server, or close streams" in message
        monkeypatch.undo()
        check_streams(dsn)


def test_the_first_slot_waits_for_transactions(
    cluster: LocalServer, database: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_BLOCKED_AFTER_S", 0.2)
    dsn = cluster.conninfo_for(database)
    admin.execute("CREATE TABLE IF NOT EXISTS public.ledger ()")
    with psycopg.connect(cluster.conninfo) as writer, Store(dsn) as store:
        writer.execute("INSERT INTO public.ledger DEFAULT VALUES")
        with pytest.raises(SlotBlocked) as raised:
            store.watch()
        ((pid, age_s),) = raised.value.blockers
        assert pid == writer.info.backend_pid
        assert age_s is not None
        assert 0 <= age_s < PATIENCE_S
        assert f'(pid {pid} in database "postgres", open for 0 s): end them' in str(raised.value)
        assert store.history().pinned_by[0][0] == pid
        store.migrate()  # its log says that history does not begin yet
        writer.rollback()
        store.watch().close()


def test_the_age_of_another_role_s_transaction_is_hidden(
    cluster: LocalServer, database: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_BLOCKED_AFTER_S", 0.2)
    admin.execute("CREATE ROLE app LOGIN REPLICATION")
    try:
        with psycopg.connect(cluster.conninfo) as writer, Store(cluster.conninfo_for(database, "app")) as store:
            writer.execute("CREATE TABLE t ()")
            with pytest.raises(SlotBlocked, match=r"open for a time that only pg_read_all_stats may see") as raised:
                store.watch()
            assert raised.value.blockers == ((writer.info.backend_pid, None),) == store.history().pinned_by
            writer.rollback()
    finally:
        admin.execute("DROP ROLE app")


def test_the_first_slot_waits_for_a_prepared_transaction(
    cluster: LocalServer, dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_BLOCKED_AFTER_S", 0.2)
    admin.execute("BEGIN")
    admin.execute("CREATE TABLE t ()")
    admin.execute("PREPARE TRANSACTION 'two-phase'")
    try:
        with Store(dsn) as store:
            message = said(SlotBlocked, store.watch)
            assert store.history().pinned_by[0][0] is None
    finally:
        admin.execute("ROLLBACK PREPARED 'two-phase'")
    assert 'prepared transaction "two-phase" in database "postgres", open for' in message
    check_streams(dsn)


# The catalog, and the tables


def test_catalog_is_missing(cluster: LocalServer, admin: psycopg.Connection) -> None:
    with _database(cluster, admin, "template1", "bare") as name:
        assert said_by_both(CatalogMissing, cluster.conninfo_for(name)) == (
            "the database has no pgdoc catalog: create it with `pgdoc init`, or `store.migrate()`"
        )


@pytest.mark.parametrize(("found", "cure"), [("0000", "run `pgdoc init`"), ("9999", "install a newer pgdoc")])
def test_catalog_is_of_another_version(dsn: str, found: str, cure: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE pgdoc.alembic_version SET version_num = %s", [found])
    with Store(dsn) as store:
        with pytest.raises(CatalogVersionMismatch) as raised:
            store.watch()
        assert (raised.value.found_version, raised.value.needed_version) == (found, REVISION)
    message = said_by_both(CatalogVersionMismatch, dsn)
    assert message == f"the pgdoc catalog is at revision {found}, this pgdoc needs {REVISION}: {cure}"


@pytest.mark.parametrize("identity", ["DEFAULT", "NOTHING"])
def test_replica_identity_was_changed(dsn: str, identity: str) -> None:
    with Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as owner:
        store.create_collection("orders")
        owner.execute(f"ALTER TABLE docs.orders REPLICA IDENTITY {identity}")
        for watch in (store.watch, store["orders"].watch):
            message = said(ReplicaIdentityChanged, watch)
            assert 'collection "docs.orders" is not REPLICA IDENTITY FULL' in message
            assert 'run ALTER TABLE "docs"."orders" REPLICA IDENTITY FULL' in message
        store["users"].watch().close()
        owner.execute("ALTER TABLE docs.orders REPLICA IDENTITY FULL")
        store.watch().close()


@pytest.mark.parametrize("change", ["UPDATE docs.orders SET data = '{}' WHERE id = 'o-2'", "DELETE FROM docs.orders"])
def test_replica_identity_is_changed_under_a_stream(dsn: str, change: str) -> None:
    with Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as owner, store.watch() as stream:
        store["orders"].insert("o-1", {})
        store["orders"].insert("o-2", {})
        owner.execute("ALTER TABLE docs.orders REPLICA IDENTITY DEFAULT")
        store["orders"].insert("o-3", {})
        owner.execute(change)
        store["orders"].insert("o-4", {})
        events = [stream.next(timeout=PATIENCE_S) for _ in range(3)]
        assert [event.document_id for event in events if event] == ["o-1", "o-2", "o-3"]
        message = said(ReplicaIdentityChanged, lambda: stream.next(timeout=PATIENCE_S))
        assert "'orders'" in message
        assert "REPLICA IDENTITY FULL" in message
        assert stream.closed
        assert stream.resume_token == events[-1].resume_token  # type: ignore[union-attr]


# History


def end_walsenders(admin: psycopg.Connection) -> None:
    admin.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")


def test_bookmarks_are_dropped_under_a_stream(
    cluster: LocalServer, dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.history._INTERVAL_S", 3600)
    with Store(dsn) as store, store["orders"].watch() as stream, store["orders"].watch() as other:
        store["orders"].insert("o-1", {})
        first = stream.next(timeout=PATIENCE_S)
        assert first is not None
        drop_slots(cluster)
        message = said(HistoryLost, lambda: stream.next(timeout=PATIENCE_S))
        assert "is no longer kept (no history is kept): rebuild from the collections" in message
        event = other.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.document_id == "o-1"
        assert said(HistoryLost, lambda: other.next(timeout=PATIENCE_S)) == message
        with pytest.raises(HistoryLost) as raised:
            store["orders"].watch(resume_after=first.resume_token)
        assert raised.value.oldest_available == str(store.history().oldest)
        with store["orders"].watch() as anew:
            assert anew.stats().mode == "live"
            store["orders"].insert("o-2", {})
            assert anew.next(timeout=PATIENCE_S) is not None


def test_wal_is_gone_under_a_stream(
    cluster: LocalServer, database: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that stays open pins all slots, until the server no longer keeps the WAL for them."""
    monkeypatch.setattr("pgdoc.history._INTERVAL_S", 3600)
    admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
    admin.execute("SELECT pg_reload_conf()")
    dsn = cluster.conninfo_for(database)
    try:
        with Store(dsn) as store, store["orders"].watch() as stream, psycopg.connect(dsn) as writer:
            writer.execute("CREATE TABLE t ()")
            store["orders"].insert("o-1", {})
            for _ in range(5):
                admin.execute("SELECT pg_logical_emit_message(false, 'noise', '')")
                admin.execute("SELECT pg_switch_wal()")
            admin.execute("CHECKPOINT")
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            message = said(HistoryLost, lambda: stream.next(timeout=PATIENCE_S))
            assert (
                "(no history is kept, as the server removed what exceeds its max_slot_wal_keep_size of 32MB)" in message
            )
            writer.rollback()
            assert said(HistoryLost, lambda: store["orders"].watch(resume_after=event.resume_token))
            with store["orders"].watch() as anew:
                store["orders"].insert("o-2", {})
                assert anew.next(timeout=PATIENCE_S) is not None
    finally:
        admin.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        admin.execute("SELECT pg_reload_conf()")


def test_token_is_older_than_history(dsn: str) -> None:
    with Store(dsn) as store:
        store["orders"].insert("o-1", {})
        with psycopg.connect(dsn) as connection:
            ((before,),) = connection.execute("SELECT pg_current_wal_lsn()::text").fetchall()
        store["orders"].insert("o-2", {})
        store.migrate()
        with pytest.raises(HistoryLost) as raised:
            store["orders"].watch(resume_after=before)
        oldest = raised.value.oldest_available
        assert oldest == str(store.history().oldest)
        assert f"position {before} is no longer kept (history reaches back to {oldest}): rebuild" in str(raised.value)
        store["orders"].insert("o-3", {})
        with store["orders"].watch(resume_after=oldest) as stream:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-3"


def test_token_is_of_another_cluster_or_beyond_the_end(dsn: str) -> None:
    with Store(dsn) as store:
        with store["orders"].watch() as stream:
            token = stream.resume_token
        elsewhere = pgdoc.ResumeToken(token.position, token.system_id + 1, token.timeline)
        message = said(InvalidResumeToken, lambda: store.watch(resume_after=elsewhere))
        assert f"the token is of cluster {elsewhere.system_id}, this server is cluster {token.system_id}: " in message
        message = said(InvalidResumeToken, lambda: store.watch(resume_after="7F/0"))
        assert message.startswith("position 7F/0 lies beyond the end of this server's WAL, ")


def test_token_lies_past_the_point_where_its_timeline_was_left(private_server: LocalServer, private_dsn: str) -> None:
    """Recovery to the end of the WAL gives the cluster a new timeline, as promoting a standby does."""
    with Store(private_dsn) as store:
        with store["orders"].watch() as stream:
            store["orders"].insert("o-1", {})
            token = stream.resume_token
        store["orders"].insert("o-2", {})
    assert private_server.folder is not None
    with private_server.stopped():
        data = private_server.folder / "data"
        (data / "recovery.signal").touch()
        (data / "postgresql.auto.conf").write_text("restore_command = 'false'\n")
    wait_for_end_of_recovery(private_dsn)
    with Store(private_dsn) as store:
        store["orders"].insert("o-3", {})
        with store["orders"].watch(resume_after=token) as stream:
            events = [stream.next(timeout=PATIENCE_S) for _ in range(3)]
            assert [event.document_id for event in events if event] == ["o-1", "o-2", "o-3"]
            later = stream.resume_token
        assert later.timeline > token.timeline
        lost = pgdoc.ResumeToken(later.position, token.system_id, token.timeline)
        message = said(InvalidResumeToken, lambda: store.watch(resume_after=lost))
        assert f"position {lost.lsn} on timeline {token.timeline} is not part of this server's history" in message


def wait_for_end_of_recovery(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        wait_until(lambda: connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
