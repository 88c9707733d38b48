"""Errors when slots or walsenders run out, or creating a slot has to wait."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import AsyncStore, Store
from pgdoc.errors import SlotBlocked, SlotsExhausted
from pgdoc.replication import slots
from tests.integration.own_server.faults import altered
from tests.integration.own_server.words import (
    PATIENCE_S,
    check_streams,
    said,
    said_by_streams,
    wait_until,
)

if TYPE_CHECKING:
    from pgdoc.server import LocalServer


def fill_slots(admin: psycopg.Connection) -> int:
    """Take all free slots; return the total number of slots."""
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


def test_opening_a_stream_without_a_free_slot_raises_slots_exhausted(dsn: str, admin: psycopg.Connection) -> None:
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


async def test_opening_an_async_stream_without_a_free_slot_raises_slots_exhausted(
    dsn: str, admin: psycopg.Connection
) -> None:
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


def test_losing_the_last_free_slot_while_opening_raises_slots_exhausted(
    dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session can take the last free slot between the check and the creation."""
    monkeypatch.setattr("pgdoc.replication.session.preflight", lambda _, **_options: fill_slots(admin))
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
def test_opening_a_stream_without_a_free_walsender_raises_slots_exhausted(
    cluster: LocalServer, database: str, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    with altered(cluster, max_wal_senders="1"):
        dsn = cluster.conninfo_for(database)
        if meanwhile:
            monkeypatch.setattr("pgdoc.replication.session.preflight", lambda _, **_options: None)
        with psycopg.connect(dsn, replication="database"):
            message = said_by_streams(SlotsExhausted, dsn)
        found = "exceeds max_wal_senders (currently 1)" if meanwhile else "all 1 walsenders of the server are in use"
        words = message.replace('"', "")  # PostgreSQL 18 quotes the setting
        assert f"{found}: raise max_wal_senders and restart the server, or close streams" in words
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
        assert re.search(rf'\(pid {pid} in database "postgres", open for \d+ s\): end them', str(raised.value))
        assert store.history().pinned_by[0][0] == pid
        store.migrate()  # logs that history cannot start yet
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
