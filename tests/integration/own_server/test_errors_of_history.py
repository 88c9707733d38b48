"""Errors of streams whose WAL is no longer available."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import HistoryLost, InvalidResumeToken, ServerUnreachable
from pgdoc.replication.session import open_reader
from pgdoc.streams.subscriptions import Subscriptions
from tests.integration.own_server.faults import drop_slots
from tests.integration.own_server.words import (
    PATIENCE_S,
    check_streams,
    said,
    wait_until,
)

if TYPE_CHECKING:
    from pgdoc.server import LocalServer


def end_walsenders(admin: psycopg.Connection) -> None:
    admin.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")


def test_dropping_the_bookmarks_under_a_stream_raises_history_lost(
    cluster: LocalServer, dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 3600)
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
    """An open transaction pins all slots until the server exceeds its WAL limit and removes their WAL."""
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 3600)
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
        expected = f"the token belongs to cluster {elsewhere.system_id}, but this server is cluster {token.system_id}: "
        assert expected in message
        message = said(InvalidResumeToken, lambda: store.watch(resume_after="7F/0"))
        assert message.startswith("position 7F/0 lies beyond the end of this server's WAL, ")


def test_token_lies_past_the_point_where_its_timeline_was_left(private_server: LocalServer, private_dsn: str) -> None:
    """Recovery to the end of the WAL starts a new timeline, as promoting a standby does."""
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


def test_an_open_stream_ends_if_the_disk_of_the_server_is_set_back(
    private_server: LocalServer, private_dsn: str
) -> None:
    """Its new WAL has the LSNs of what the stream was given already, and would be dropped as repeated."""
    assert private_server.folder is not None
    data, kept = private_server.folder / "data", private_server.folder / "kept"
    with Store(private_dsn) as store:
        with store["orders"].watch():  # history begins
            store["orders"].insert("o-1", {})
        with store["orders"].watch() as stream, store["orders"].watch(consumer="back", on_lost="recreate") as back:
            for each in (stream, back):
                each.next(timeout=0)  # they are open
            with private_server.stopped():
                subprocess.run(["cp", "-a", data, kept], check=True)
            store["orders"].insert("o-2", {"text": "x" * 100_000})
            assert stream.next(timeout=PATIENCE_S) is not None
            assert back.next(timeout=PATIENCE_S) is not None
            back.ack()
            store.wait_for("back")
            with private_server.stopped("immediate"):
                subprocess.run(["rm", "-r", data], check=True)
                subprocess.run(["mv", kept, data], check=True)
            store["orders"].insert("o-3", {})
            message = said(InvalidResumeToken, lambda: stream.next(timeout=PATIENCE_S))
            assert "lies beyond the end of this server's WAL" in message
            assert "was set back to an older state" in said(HistoryLost, lambda: back.next(timeout=PATIENCE_S))
        with store["orders"].watch(consumer="back") as back:
            event = back.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-3"
        check_streams(private_dsn)


def test_a_stream_that_is_opened_during_a_failover_follows_to_the_new_timeline(
    private_server: LocalServer, private_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents are read from the promoted server already, while the hub is not connected again yet."""
    may_reconnect = threading.Event()

    def reopen(*args: Any, **options: Any) -> Any:
        if not may_reconnect.is_set():
            raise ServerUnreachable("not yet")
        return open_reader(*args, **options)

    def begin_at(subscriptions: Subscriptions, *args: Any) -> Any:
        try:
            return real_begin_at(subscriptions, *args)
        finally:
            may_reconnect.set()

    real_begin_at = Subscriptions.begin_at
    assert private_server.folder is not None
    with Store(private_dsn) as store, store["orders"].watch() as before:
        monkeypatch.setattr("pgdoc.streams.live_reader.open_reader", reopen)
        monkeypatch.setattr(Subscriptions, "begin_at", begin_at)
        with private_server.stopped():
            signal_file = private_server.folder / "data" / "standby.signal"
            signal_file.touch()
            private_server._hand_over(signal_file)
        with psycopg.connect(private_dsn, autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        with store["orders"].watch() as stream:
            store["orders"].insert("o-1", {})
            for each in (before, stream):
                event = each.next(timeout=PATIENCE_S)
                assert event is not None
                assert event.document_id == "o-1"
                assert event.resume_token.timeline == 2
