"""`pgdoc doctor` reports each fault that a server can have, and its commands mend it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc.cli.doctor import examine_server, server, slots
from pgdoc.database import examination
from tests.doctoring import finding, findings, left, mend, standby
from tests.integration.own_server.consumers import NAME, slot, status
from tests.integration.own_server.faults import altered, pooling
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc import Store
    from pgdoc.server import LocalServer

ODD_ROLE = 'o\'dd "one" -- ;'
BOOKMARK = "pgdocb_16384_1_a"


@pytest.fixture
def restored(owner: psycopg.Connection) -> Iterator[None]:
    """Take back what a test sets for the server."""
    yield
    owner.execute("ALTER SYSTEM RESET ALL")
    owner.execute("SELECT pg_reload_conf()")


def set_for_server(owner: psycopg.Connection, setting: str, value: str) -> None:
    owner.execute(f"ALTER SYSTEM SET {setting} = {value}".encode())
    owner.execute("SELECT pg_reload_conf()")
    wait_until(lambda: current(owner, setting) == value.strip("'"))


def current(owner: psycopg.Connection, setting: str) -> str:
    ((value,),) = owner.execute("SELECT current_setting(%s)", [setting]).fetchall()
    return str(value)


def is_known(owner: psycopg.Connection, setting: str) -> bool:
    return bool(owner.execute("SELECT FROM pg_settings WHERE name = %s", [setting]).fetchall())


@pytest.fixture
def lose_wal(owner: psycopg.Connection, restored: None) -> Callable[[], None]:
    """Return a function that makes slots lose their WAL."""

    def lose() -> None:
        owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        owner.execute("SELECT pg_reload_conf()")
        for _ in range(5):
            owner.execute("SELECT pg_logical_emit_message(true, 'noise', '')")
            owner.execute("SELECT pg_switch_wal()")
        owner.execute("CHECKPOINT")

    return lose


@pytest.fixture
def physical_slot(owner: psycopg.Connection) -> Iterator[str]:
    """The slot of a standby that is gone."""
    owner.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    yield "gone"
    with contextlib.suppress(psycopg.errors.UndefinedObject):
        owner.execute("SELECT pg_drop_replication_slot('gone')")


def test_lost_slots_are_named_once_with_what_to_do(
    dsn: str, store: Store, owner: psycopg.Connection, lose_wal: Callable[[], None], physical_slot: str
) -> None:
    store.watch(consumer=NAME).close()
    owner.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [BOOKMARK])
    lose_wal()
    wait_until(lambda: status(store).wal_status == "lost")
    checked = ["slots", "consumers"]
    assert not left(dsn, "slot-lost", only=checked, about=slot(owner))
    for finding_id, name in (("slot-lost", BOOKMARK), ("other-slot-lost", physical_slot)):
        mend(owner, dsn, finding(dsn, finding_id, only=checked, about=name))
        assert not left(dsn, finding_id, only=checked, about=name)
    mend(owner, dsn, finding(dsn, "consumer-lost", only=checked, about=NAME))
    assert status(store).wal_status == "reserved"
    assert not left(dsn, "consumer-lost", only=checked)


def test_slots_that_hold_back_wal_or_ids_are_named(
    dsn: str, store: Store, owner: psycopg.Connection, physical_slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.watch(consumer=NAME).close()
    owner.execute("SELECT pg_current_xact_id()")
    assert not left(dsn, "slot-retains-wal", only=["slots"])
    assert not left(dsn, "slot-holds-ids", only=["ids"])
    monkeypatch.setattr(slots, "_MUCH_WAL_BYTES", -1)
    monkeypatch.setattr(slots, "_HELD_IDS_FACTOR", -1)
    assert finding(dsn, "slot-holds-ids", only=["ids"], about=slot(owner)).fix == (f"pgdoc consumers drop {NAME}",)
    mend(owner, dsn, finding(dsn, "other-slot-retains-wal", only=["slots"], about=physical_slot))
    assert not left(dsn, "other-slot-retains-wal", only=["slots"], about=physical_slot)
    mend(owner, dsn, finding(dsn, "slot-retains-wal", only=["slots"], about=slot(owner)))
    assert not left(dsn, "slot-retains-wal", only=["slots"], about=slot(owner))


def test_old_rows_are_named_before_the_server_refuses_writes(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not left(dsn, "wraparound", only=["ids"])
    monkeypatch.setattr(slots, "_OLD_IDS_FACTOR", -1)
    found = finding(dsn, "wraparound", only=["ids"], about="test")
    assert found.verdict == "warn"
    assert found.fix == ("vacuumdb --freeze --dbname=test",)
    monkeypatch.setattr(slots, "_LAST_IDS", -1)
    assert finding(dsn, "wraparound", only=["ids"], about="test").verdict == "wrong"


def test_transactions_that_keep_wal_are_named(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_LONG_TRANSACTION_S", -1.0)
    with psycopg.connect(dsn) as open_for_long:
        open_for_long.execute("INSERT INTO docs.orders (id, data) VALUES ('o-1', '{}')")
        pid = open_for_long.info.backend_pid
        mend(owner, dsn, finding(dsn, "long-transaction", only=["transactions"], about=str(pid)))
        wait_until(lambda: not left(dsn, "long-transaction", only=["transactions"]))
        open_for_long.close()
    gid = "parked'; SELECT 1; --\n"
    owner.execute("BEGIN")
    owner.execute("INSERT INTO docs.orders (id, data) VALUES ('o-2', '{}')")
    owner.execute(psycopg.sql.SQL("PREPARE TRANSACTION {}").format(gid))
    mend(owner, dsn, finding(dsn, "prepared-transaction", only=["transactions"]))
    assert not left(dsn, "prepared-transaction", only=["transactions"])


@pytest.mark.usefixtures("restored")
def test_limits_that_fit_badly_are_named(dsn: str, owner: psycopg.Connection) -> None:
    owner.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [BOOKMARK])
    set_for_server(owner, "max_slot_wal_keep_size", "-1")
    set_for_server(owner, "wal_sender_timeout", "0")
    mend(owner, dsn, finding(dsn, "wal-sender-timeout", only=["replication"]))
    mend(owner, dsn, finding(dsn, "slot-wal-limit", only=["disk"]))
    mend(owner, dsn, finding(dsn, "idle-in-transaction", only=["timeouts"]))
    mend(owner, dsn, finding(dsn, "tcp-keepalives", only=["timeouts"]))
    wait_until(lambda: current(owner, "tcp_keepalives_idle") == "60")
    kept = [each for each in examine_server(dsn, only=["timeouts", "disk"]) if each.verdict != "ok"]
    assert kept == []
    set_for_server(owner, "wal_sender_timeout", "'3s'")
    assert finding(dsn, "wal-sender-timeout", only=["replication"]).value == "3s"
    if is_known(owner, "idle_replication_slot_timeout"):
        set_for_server(owner, "idle_replication_slot_timeout", "'1min'")
        mend(owner, dsn, finding(dsn, "idle-slot-timeout", only=["timeouts"]))
        wait_until(lambda: not left(dsn, "idle-slot-timeout", only=["timeouts"]))
    if is_known(owner, "output_plugin_libraries"):
        set_for_server(owner, "output_plugin_libraries", "test_decoding")
        mend(owner, dsn, finding(dsn, "output-plugins", only=["replication"]))
        wait_until(lambda: not left(dsn, "output-plugins", only=["replication"]))


def test_settings_of_a_role_or_database_are_reset_where_they_are_set(dsn: str, owner: psycopg.Connection) -> None:
    name = psycopg.sql.Identifier(ODD_ROLE)
    owner.execute(psycopg.sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'x'").format(name))
    try:
        for place in (
            psycopg.sql.SQL("ROLE {}").format(name),
            psycopg.sql.SQL("DATABASE test"),
            psycopg.sql.SQL("ROLE {} IN DATABASE test").format(name),
        ):
            for finding_id, setting, value in (
                ("short-timeout", "statement_timeout", "1s"),
                ("role-read-only", "default_transaction_read_only", "on"),
                ("role-exit-on-error", "exit_on_error", "on"),
            ):
                alter = psycopg.sql.SQL("ALTER {} SET {} = {}").format(place, psycopg.sql.Identifier(setting), value)
                owner.execute(alter)
                dsn_of_role = make_conninfo(dsn, user=ODD_ROLE, password="x")  # noqa: S106
                only = ["timeouts", "settings"]
                mend(owner, dsn, finding(dsn_of_role, finding_id, only=only, about=setting))
                assert not left(dsn_of_role, finding_id, only=only)
    finally:
        owner.execute(psycopg.sql.SQL("DROP ROLE {}").format(name))


def test_what_a_pooler_keeps_from_sessions_is_named(dsn: str, cluster: LocalServer, owner: psycopg.Connection) -> None:
    with pooling(cluster, "options") as pooled:
        mend(owner, dsn, finding(pooled, "session-setting", only=["settings"], about="jit"))
        try:
            assert not left(pooled, "session-setting", only=["settings"], about="jit")
            owner.execute("ALTER DATABASE postgres SET gin_fuzzy_search_limit = 1")
            found = finding(pooled, "gin-limit", only=["settings"])
            mend(owner, dsn, found)
            assert not left(pooled, "gin-limit", only=["settings"])
        finally:
            owner.execute("ALTER ROLE postgres RESET ALL")
            owner.execute("ALTER DATABASE postgres RESET ALL")


def test_a_server_that_is_not_set_up_for_streams_is_reported(dsn: str, cluster: LocalServer) -> None:
    settings = {
        "wal_level": "replica",
        "max_replication_slots": "1",
        "max_wal_senders": "0",
        "archive_mode": "on",
        "archive_command": "false",
    }
    with altered(cluster, **settings):
        found = finding(dsn, "wal-level", only=["replication"])
        assert found.fix == ("ALTER SYSTEM SET wal_level = 'logical'",)
        rooms = {each.object: each.verdict for each in findings(dsn, "room", only=["replication"])}
        assert rooms == {"max_replication_slots": "warn", "max_wal_senders": "wrong"}
        assert "stream" in [each.id for each in examine_server(dsn, only=["streams"]) if each.verdict == "wrong"]
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute("SELECT pg_logical_emit_message(true, 'noise', ''), pg_switch_wal()")
            wait_until(lambda: bool(left(dsn, "archiver", only=["disk"])))
            assert finding(dsn, "archiver", only=["disk"]).verdict == "warn"
            for command in finding(dsn, "wal-level", only=["replication"]).fix:
                owner.execute(command.encode())
            for each in findings(dsn, "room", only=["replication"]):
                mend(owner, dsn, each)
        cluster.restart()
        assert not left(dsn, "wal-level", only=["replication"])
        assert not left(dsn, "room", only=["replication"])
        assert finding(dsn, "stream", only=["streams"]).verdict == "wrong" if left(dsn, "stream") else True


def test_few_connections_and_a_wrong_clock_are_named(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not left(dsn, "free-connections", only=["connections"])
    assert not left(dsn, "clock", only=["clock"])
    monkeypatch.setattr(server, "_FEW_FREE", 10_000)
    monkeypatch.setattr(server, "_MUCH_SKEW_S", -1.0)
    assert finding(dsn, "free-connections", only=["connections"]).fix[0].startswith("ALTER SYSTEM SET max_connections")
    assert finding(dsn, "clock", only=["clock"]).verdict == "warn"


@pytest.mark.usefixtures("restored")
def test_a_setting_that_takes_streams_for_standbys_is_named(dsn: str, owner: psycopg.Connection) -> None:
    owner.execute("SET synchronous_commit = local")
    set_for_server(owner, "synchronous_standby_names", "'ANY 1 (*)'")
    with standby(dsn, "replica_1"):
        mend(owner, dsn, finding(dsn, "synchronous-names", only=["standbys"]))
        wait_until(lambda: not left(dsn, "synchronous-names", only=["standbys"]))
        assert current(owner, "synchronous_standby_names") == 'ANY 1 ("replica_1")'


def test_a_weak_role_is_told_what_it_could_not_see(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    store["orders"].set_limits(max_size=None)
    owner.execute("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    weak = make_conninfo(dsn, user="clerk", password="x")  # noqa: S106
    try:
        with psycopg.connect(dsn) as writing:
            writing.execute("SELECT pg_current_xact_id()")
            verdicts = {each.id: each.verdict for each in examine_server(weak)}
            assert "check-failed" not in verdicts
            assert finding(weak, "role-replication", only=["replication"]).verdict == "wrong"
            for finding_id, fixed in (
                ("role-sees-little", "rights"),
                ("transactions-unseen", "transactions"),
                ("wal-size", "disk"),
                ("consumers-unseen", "consumers"),
                ("dead-letters-unseen", "workers"),
                ("groups-unseen", "groups"),
                ("documents-unseen", "sizes"),
            ):
                found = finding(weak, finding_id, only=[fixed])
                assert found.verdict == "unseen"
                mend(owner, dsn, found)
                assert not left(weak, finding_id, only=[fixed])
                owner.execute("REVOKE pg_monitor, pg_read_all_stats FROM clerk")
        owner.execute("GRANT pg_monitor TO clerk")
        monitored = [each for each in examine_server(weak) if each.verdict in {"wrong", "unseen"}]
        assert [(each.id, each.verdict) for each in monitored] == [("role-replication", "unseen"), ("stream", "unseen")]
        owner.execute("REVOKE USAGE ON SCHEMA pgdoc FROM PUBLIC")
        assert {each.verdict for each in findings(weak, "check-refused", only=["catalog"])} == {"unseen"}
    finally:
        owner.execute("DROP OWNED BY clerk; DROP ROLE clerk")


def test_a_check_that_fails_is_a_finding_and_the_others_run(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "_STATEMENT_S", 0.1)
    monkeypatch.setattr(slots, "_LONG_TRANSACTION_S", None)
    with owner.transaction():
        owner.execute("LOCK TABLE pgdoc.settings IN ACCESS EXCLUSIVE MODE")
        owner.execute("SELECT pg_current_xact_id()")
        found = findings(dsn, "check-failed", only=["transactions", "history"])
        assert [each.subject for each in found] == ["transactions", "history"]
        assert "TypeError" in found[0].text
        assert "canceling statement due to" in found[1].text
        assert "run it again" in found[1].text
    assert left(dsn, "check-failed", only=["history"]) == []


def test_many_locked_collections_do_not_add_up(
    dsn: str, owner: psycopg.Connection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "_LOCK_S", 0.05)
    for number in range(6):
        store.create_collection(f"c{number}", max_size=None)
    with owner.transaction():
        owner.execute("LOCK TABLE docs.c0, docs.c1, docs.c2, docs.c3, docs.c4, docs.c5 IN ACCESS EXCLUSIVE MODE")
        found = findings(dsn, "documents-unseen", only=["sizes"])
    assert [each.text.partition(" of ")[0] for each in found] == ["not all documents"] * 3 + ["the documents"] * 3
    assert not left(dsn, "documents-unseen", only=["sizes"])


def test_a_server_that_stops_meanwhile_is_reported(dsn: str, cluster: LocalServer) -> None:
    checks = examine_server(dsn)
    assert next(checks).id == "server"
    with cluster.stopped():
        rest = list(checks)
        assert {each.id for each in rest if each.verdict != "ok"} >= {"check-failed"}
        assert finding(dsn, "connection").verdict == "wrong"


def test_nothing_is_changed(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    def state() -> list[tuple[object, ...]]:
        return owner.execute(
            "SELECT oid, xmin::text, relname FROM pg_class UNION ALL SELECT oid, xmin::text, proname FROM pg_proc "
            "UNION ALL SELECT 0, '', slot_name FROM pg_replication_slots "
            "UNION ALL SELECT 0, '', r::text FROM pgdoc.registry r ORDER BY 1, 3"
        ).fetchall()

    store.watch(consumer=NAME).close()
    before = state()
    list(examine_server(dsn))
    with contextlib.suppress(AssertionError):
        wait_until(lambda: state() == before)  # the server drops a temporary slot after its session has ended
    assert state() == before


def test_a_database_in_another_encoding_is_reported(dsn: str, owner: psycopg.Connection) -> None:
    owner.execute("CREATE DATABASE \"o'ther\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    other = make_conninfo(dsn, dbname="o'ther")
    assert "LATIN1" in finding(other, "server", only=["server"]).text
    owner.execute('DROP DATABASE "o\'ther"')
