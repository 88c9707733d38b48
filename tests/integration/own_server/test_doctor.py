"""`pgdoc doctor` reports each fault that a server can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row

from pgdoc.cli import doctor, sizes
from pgdoc.cli.collations import find_changed_collations
from tests.integration.own_server.consumers import NAME, slot, status
from tests.integration.own_server.faults import altered
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc import Store
    from pgdoc.server import LocalServer


def found(dsn: str, subject: str) -> list[str]:
    return [f"{each.verdict}: {each.text}" for each in doctor.examine_server(dsn) if each.subject == subject]


@pytest.fixture
def small_slots(owner: psycopg.Connection) -> Iterator[Callable[[], None]]:
    """Make slots lose their WAL."""

    def lose() -> None:
        owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        owner.execute("SELECT pg_reload_conf()")
        for _ in range(5):
            owner.execute("SELECT pg_logical_emit_message(true, 'noise', '')")
            owner.execute("SELECT pg_switch_wal()")
        owner.execute("CHECKPOINT")

    yield lose
    owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    owner.execute("SELECT pg_reload_conf()")


def test_lost_slots_are_named_once_with_what_to_do(
    dsn: str, store: Store, owner: psycopg.Connection, small_slots: Callable[[], None]
) -> None:
    store.watch(consumer=NAME).close()
    bookmark = "pgdocb_16384_1"
    owner.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [bookmark])
    small_slots()
    wait_until(lambda: status(store).wal_status == "lost")
    lines = found(dsn, "slots")
    assert not [line for line in lines if slot(owner) in line]
    (of_bookmark,) = [line for line in lines if bookmark in line]
    assert of_bookmark.startswith(f"warn: slot {bookmark} has lost its WAL")
    assert f"pg_drop_replication_slot('{bookmark}')" in of_bookmark
    (of_consumer,) = found(dsn, "consumers")
    assert of_consumer.startswith(
        f"wrong: consumer {NAME} has lost its slot or its WAL: drop it with `pgdoc consumers drop"
    )


def test_a_slot_that_holds_back_much_is_named(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.watch(consumer=NAME).close()
    assert not [line for line in found(dsn, "slots") if slot(owner) in line]
    monkeypatch.setattr(doctor, "_MUCH_WAL_BYTES", 0)
    (line,) = [line for line in found(dsn, "slots") if slot(owner) in line]
    assert "of WAL: open its consumer so that it catches up, or drop the consumer" in line


def test_a_consumer_that_nobody_has_open_is_named(dsn: str, store: Store) -> None:
    with store.watch(consumer=NAME):
        (line,) = found(dsn, "consumers")
        assert line.startswith(f"ok: consumer {NAME} is open in pid ")
        assert line.endswith(" behind")
    (line,) = found(dsn, "consumers")
    assert line.startswith(f"warn: consumer {NAME} is not open, and retains ")


def test_transactions_that_keep_wal_are_named(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LONG_TRANSACTION_S", -1.0)
    store.create_collection("orders")
    with owner.transaction():
        owner.execute("INSERT INTO docs.orders (id, data) VALUES ('o-1', '{}')")
        pid = owner.info.backend_pid
        (line,) = found(dsn, "transactions")
        assert line.startswith(f"warn: pid {pid} has a write transaction open for ")
        assert line.endswith(f": end it with SELECT pg_terminate_backend({pid})")
    owner.execute("BEGIN; UPDATE docs.orders SET data = '{\"n\": 1}'; PREPARE TRANSACTION 'parked'")
    (line,) = found(dsn, "transactions")
    owner.execute("ROLLBACK PREPARED 'parked'")
    assert line.startswith("warn: prepared transaction 'parked', ")


def test_an_index_that_was_not_finished_is_named(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    store["orders"].create_index("status")
    assert not [line for line in found(dsn, "tables") if "unfinished" in line]
    owner.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indrelid = 'docs.orders'::regclass AND NOT indisprimary"
    )
    lines = [line for line in found(dsn, "tables") if "unfinished" in line]
    assert lines
    assert all(line.startswith("warn: index ") for line in lines)
    assert all('of "orders" is unfinished: create it again or drop it' in line for line in lines)


def test_an_index_whose_collation_has_changed_is_named(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    store.create_collection("orders")
    assert found(dsn, "collations") == ["ok: no collation has changed since indexes were built"]
    row = owner.execute(
        "SELECT oid, quote_ident(collname) FROM pg_collation "
        "WHERE collversion IS NOT NULL AND collencoding IN (-1, 6) ORDER BY oid LIMIT 1"
    ).fetchone()
    assert row is not None, "the server has no collation with a version"
    oid, name = row
    owner.execute(f"CREATE INDEX by_name ON docs.orders ((data ->> 'name') COLLATE pg_catalog.{name})".encode())
    owner.execute("UPDATE pg_collation SET collversion = '0' WHERE oid = %s", [oid])
    (line,) = found(dsn, "collations")
    assert line.startswith('wrong: collation "pg_catalog".')
    assert "had version 0 when its indexes were built" in line
    _, _, cure = line.rpartition(": run ")
    for command in cure.split("; "):
        owner.execute(command.encode())
    assert found(dsn, "collations") == ["ok: no collation has changed since indexes were built"]


def test_a_database_whose_collation_has_changed_is_named(dsn: str, owner: psycopg.Connection) -> None:
    has_builtin = owner.info.server_version >= 170000
    provider = "builtin BUILTIN_LOCALE 'C.UTF-8'" if has_builtin else "icu ICU_LOCALE 'und'"
    owner.execute(f"CREATE DATABASE elsewhere TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER {provider}".encode())
    owner.execute("UPDATE pg_database SET datcollversion = '0' WHERE datname = 'elsewhere'")
    conninfo = make_conninfo(dsn, dbname="elsewhere")
    with psycopg.connect(conninfo, autocommit=True, row_factory=namedtuple_row) as connection:
        ((verdict, text),) = find_changed_collations(connection, "docs")
        assert verdict == "wrong"
        assert text.startswith('the collation of database "elsewhere" had version 0 when its indexes were built')
        _, _, cure = text.rpartition(": run ")
        for command in cure.split(", then "):
            connection.execute(command.encode())
        assert list(find_changed_collations(connection, "docs")) == [
            ("ok", "no collation has changed since indexes were built")
        ]


def test_settings_that_stop_streams_are_named(dsn: str, cluster: LocalServer) -> None:
    with altered(cluster, wal_level="replica", max_replication_slots="1", max_wal_senders="0"):
        lines = found(dsn, "replication")
        assert "wrong: wal_level is replica: set it to logical and restart the server" in lines
        assert "warn: 1 of 1 replication slots free: raise max_replication_slots and restart the server" in lines
        assert "wrong: 0 of 0 walsenders free: raise max_wal_senders and restart the server" in lines
        assert [line for line in found(dsn, "streams") if line.startswith("wrong: ")]


def test_a_role_that_may_not_replicate_is_named(dsn: str, owner: psycopg.Connection) -> None:
    owner.execute("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    try:
        lines = found(f"{dsn} user=clerk password=x", "replication")
    finally:
        owner.execute("DROP ROLE clerk")
    advice = 'run ALTER ROLE "clerk" REPLICATION as a superuser; `pgdoc grant clerk --as streamer` prints'
    assert any(line.startswith(f'wrong: role "clerk" may not replicate: {advice}') for line in lines)


def test_an_unlimited_max_slot_wal_keep_size_is_named(dsn: str, owner: psycopg.Connection) -> None:
    owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = -1")
    owner.execute("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: owner.execute("SHOW max_slot_wal_keep_size").fetchone() == ("-1",))
        (line,) = found(dsn, "disk")
    finally:
        owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        owner.execute("SELECT pg_reload_conf()")
    assert line.startswith("warn: max_slot_wal_keep_size is unlimited")


def test_missing_event_triggers_are_named(dsn: str, owner: psycopg.Connection) -> None:
    assert not [line for line in found(dsn, "streams") if "DDL in plain SQL" in line]
    names = owner.execute("SELECT evtname FROM pg_event_trigger").fetchall()
    for (name,) in names:
        owner.execute(f'DROP EVENT TRIGGER "{name}"')
    (line,) = [line for line in found(dsn, "streams") if "DDL in plain SQL" in line]
    assert line.startswith("warn: streams notice DDL in plain SQL late: `pgdoc init` by a superuser")


def test_collections_without_a_limit_and_their_large_documents_are_named(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_collection("limited", max_size=1000)
    assert found(dsn, "sizes") == []
    orders = store["orders"]
    orders.set_limits(max_size=None)
    orders.insert("o-1", {"n": 1})
    (line,) = found(dsn, "sizes")
    assert line.startswith('warn: no limit on the size of documents in "docs.orders"')
    assert line.endswith("set a limit with `pgdoc limit orders 64MiB`")
    monkeypatch.setattr(sizes, "DEFAULT_MAX_SIZE", 100_000)
    orders.insert("large", {"text": "x" * 200_000})
    owner.execute("INSERT INTO docs.orders (id, data) VALUES ('dense', '{\"n\": [1e131071, 0]}')")
    lines = found(dsn, "sizes")
    (large,) = [line for line in lines if "'large'" in line]
    assert large.startswith("warn: document 'large' of collection \"docs.orders\" has 195.3 KiB of JSON text, ")
    assert [line for line in lines if "'dense'" in line]
    assert len(lines) == 3
    orders.delete_many({})
    orders.set_limits(max_size=1000)
    assert found(dsn, "sizes") == []
