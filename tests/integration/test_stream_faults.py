"""Streams on a server that restarts, crashes, loses WAL, or becomes silent."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import HistoryLost
from pgdoc.streams.bookmarks import BookmarkKeeper
from tests.integration.own_server.words import wait_until
from tests.replica import Replica, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, ChangeStream
    from pgdoc.server import LocalServer

PATIENCE_S = 60.0
SHUTDOWN_LIMIT_S = 30.0
_WALSENDERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'"


def _admin(dsn: str) -> psycopg.Connection:
    return psycopg.connect(dsn, autocommit=True)


class Writer:
    """Inserts one document per transaction, through all server faults; the last one is the end mark."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.acknowledged: list[str] = []
        self._dsn = dsn
        self._insert = f"INSERT INTO {schema}.orders (id, data) VALUES (%s, '{{}}')"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until `more` further documents are committed."""
        goal = len(self.acknowledged) + more
        while len(self.acknowledged) < goal:
            time.sleep(0.01)

    def _run(self) -> None:
        numbers = itertools.count(1)
        while not self._over.is_set():
            with suppress(psycopg.OperationalError), _admin(self._dsn) as connection:
                while not self._over.is_set():
                    self._write(connection, str(next(numbers)))
        with _admin(self._dsn) as connection:
            self._write(connection, "end")

    def _write(self, connection: psycopg.Connection, document_id: str) -> None:
        connection.execute(self._insert, [document_id])
        self.acknowledged.append(document_id)


def _to_end(stream: ChangeStream) -> Iterator[ChangeEvent]:
    while True:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, "no event within the timeout"
        yield event
        if event.document_id == "end":
            return


def _check(events: list[ChangeEvent], writer: Writer, dsn: str, schema: str) -> None:
    """Check that every committed document arrived once, in order; after an unknown outcome, the table decides."""
    replica = Replica()
    for event in events:
        replica.apply(event)
    assert replica.collections["orders"] == table(dsn, schema, "orders")
    ids = [event.document_id for event in events]
    committed = set(writer.acknowledged)
    assert [each for each in ids if each in committed] == writer.acknowledged


@contextmanager
def _reading(stream: ChangeStream) -> Iterator[list[ChangeEvent]]:
    """Read a stream up to the end mark on a thread; the yielded list is complete after the block."""
    events: list[ChangeEvent] = []
    thread = threading.Thread(target=lambda: events.extend(_to_end(stream)))
    thread.start()
    yield events
    thread.join()


def test_streams_go_on_after_restarts_and_crashes(rough_server: LocalServer, rough_dsn: str, rough_schema: str) -> None:
    with Store(rough_dsn, schema=rough_schema) as store, store["orders"].watch() as stream:
        small = store["orders"].watch(buffer_size=3)
        with _reading(stream) as events, _reading(small) as others, Writer(rough_dsn, rough_schema) as writer:
            for mode in ("fast", "immediate", "immediate", "fast"):
                writer.wait_for(50)
                rough_server.restart(mode)
            writer.wait_for(50)
        _check(events, writer, rough_dsn, rough_schema)
        _check(others, writer, rough_dsn, rough_schema)


def test_a_stream_waits_for_its_server(rough_server: LocalServer, rough_dsn: str, rough_schema: str) -> None:
    with Store(rough_dsn, schema=rough_schema) as store, store["orders"].watch() as stream:
        store["orders"].insert("before", {})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.document_id == "before"
        with rough_server.stopped():
            while stream.stats().mode != "reconnecting":
                assert stream.next(timeout=0.05) is None
            assert stream.next(timeout=0.05) is None
            token = stream.resume_token
            assert stream.next(timeout=0.5) is None
            assert stream.resume_token == token
            assert not stream.closed
        with _admin(rough_dsn) as admin:
            admin.execute(f"INSERT INTO {rough_schema}.orders (id, data) VALUES ('end', '{{}}')")
        assert [event.document_id for event in _to_end(stream)] == ["end"]
        assert stream.stats().mode == "live"


def test_terminated_walsenders_lose_nothing(rough_dsn: str, rough_schema: str) -> None:
    with Store(rough_dsn, schema=rough_schema) as store, store["orders"].watch() as stream, _admin(rough_dsn) as admin:
        slow = store["orders"].watch(buffer_size=3)
        with _reading(stream) as events, Writer(rough_dsn, rough_schema) as writer:
            for _ in range(5):
                writer.wait_for(100)
                admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({_WALSENDERS}) AS walsender")
        _check(events, writer, rough_dsn, rough_schema)
        _check(list(_to_end(slow)), writer, rough_dsn, rough_schema)


@pytest.mark.parametrize("pace_s", [None, 0.002], ids=["full", "slow"])
def test_streams_do_not_hold_up_the_servers_shutdown(
    rough_server: LocalServer, rough_dsn: str, rough_schema: str, pace_s: float | None
) -> None:
    """One stream is idle, the other has a backlog that it does not read, or reads slowly."""
    with Store(rough_dsn, schema=rough_schema) as store, store["users"].watch() as idle, _admin(rough_dsn) as admin:
        stream = store["orders"].watch(buffer_size=50)
        admin.execute(
            f"INSERT INTO {rough_schema}.orders (id, data) SELECT n, jsonb_build_object('x', repeat('x', 1000)) "
            "FROM generate_series(1, 40000) AS n"
        )
        for _ in range(500):
            assert stream.next(timeout=PATIENCE_S) is not None
        over = threading.Event()
        reading = threading.Thread(target=_read_slowly, args=(stream, pace_s, over))
        reading.start()
        started = time.monotonic()
        with rough_server.stopped("fast"):
            took_s = time.monotonic() - started
        over.set()
        reading.join()
        assert took_s < SHUTDOWN_LIMIT_S
        with _admin(rough_dsn) as again:
            again.execute(f"INSERT INTO {rough_schema}.users (id, data) VALUES ('end', '{{}}')")
        assert [event.document_id for event in _to_end(idle)] == ["end"]


def _read_slowly(stream: ChangeStream, pace_s: float | None, over: threading.Event) -> None:
    while pace_s is not None and not over.wait(pace_s):
        stream.try_next()


def test_lost_bookmarks_end_only_the_streams_that_need_history(
    rough_dsn: str, rough_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(rough_dsn, schema=rough_schema) as store, _admin(rough_dsn) as admin:
        live, full = store["orders"].watch(), store["orders"].watch(buffer_size=5)
        token = live.resume_token
        monkeypatch.setattr(BookmarkKeeper, "keep", lambda *_: None)  # makes no new bookmarks
        admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'pgdocb%'"
        )
        with Writer(rough_dsn, rough_schema) as writer:
            writer.wait_for(50)
        _check(list(_to_end(live)), writer, rough_dsn, rough_schema)
        with pytest.raises(HistoryLost):
            list(_to_end(full))
        assert full.stats().delivered == 5
        with pytest.raises(HistoryLost):
            store["orders"].watch(resume_after=token)
        with store["orders"].watch() as fresh:
            store["orders"].delete("end")
            assert [event.event_type for event in _to_end(fresh)] == ["delete"]


def test_a_slot_that_loses_its_wal_raises_history_lost(rough_dsn: str, rough_schema: str) -> None:
    """An open transaction pins all slots until the server removes their WAL."""
    with Store(rough_dsn, schema=rough_schema) as store, _admin(rough_dsn) as admin, psycopg.connect(rough_dsn) as pin:
        stream = store["orders"].watch()
        pin.execute("SELECT pg_current_xact_id()")
        admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        admin.execute("SELECT pg_reload_conf()")
        store["orders"].insert("before", {})
        with pytest.raises(HistoryLost) as raised:
            _lose_wal(stream, admin)
        assert raised.value.oldest_available is None
        assert stream.closed
        pin.rollback()
        with store["orders"].watch() as fresh:
            store["orders"].insert("end", {})
            assert [event.document_id for event in _to_end(fresh)] == ["end"]
            assert fresh.stats().mode == "live"


def _lose_wal(stream: ChangeStream, admin: psycopg.Connection) -> None:
    """Write WAL until the stream raises an error."""
    event = stream.next(timeout=PATIENCE_S)
    assert event is not None
    assert event.document_id == "before"
    for _ in range(50):
        for _ in range(3):
            admin.execute("SELECT pg_switch_wal()")
            admin.execute("SELECT pg_logical_emit_message(true, 'filler', '')")
        admin.execute("CHECKPOINT")
        assert stream.next(timeout=0.2) is None


def test_the_live_reader_reconnects_to_a_silent_server(rough_dsn: str, rough_schema: str) -> None:
    with _admin(rough_dsn) as admin:
        admin.execute("ALTER SYSTEM SET wal_sender_timeout = '2s'")
        admin.execute("SELECT pg_reload_conf()")
        with Store(rough_dsn, schema=rough_schema) as store, store["orders"].watch() as stream:
            (pid,) = (row[0] for row in admin.execute(_WALSENDERS))
            os.kill(pid, signal.SIGSTOP)
            try:
                with Writer(rough_dsn, rough_schema) as writer:
                    writer.wait_for(50)
                _check(list(_to_end(stream)), writer, rough_dsn, rough_schema)
            finally:
                os.kill(pid, signal.SIGCONT)


def test_a_walsender_that_is_busy_is_waited_for(
    rough_dsn: str, rough_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walsender is silent while it decodes the changes of others; restarting it each time would never end."""
    asked: list[int] = []

    def is_decoding(_conninfo: str, pid: int) -> bool:
        asked.append(pid)
        return True

    monkeypatch.setattr("pgdoc.replication.session.is_decoding", is_decoding)
    with _admin(rough_dsn) as admin:
        admin.execute("ALTER SYSTEM SET wal_sender_timeout = '1s'")
        admin.execute("SELECT pg_reload_conf()")
        with Store(rough_dsn, schema=rough_schema) as store, store["orders"].watch() as stream:
            (pid,) = (row[0] for row in admin.execute(_WALSENDERS))
            os.kill(pid, signal.SIGSTOP)
            try:
                wait_until(lambda: len(asked) > 1)
            finally:
                os.kill(pid, signal.SIGCONT)
            store["orders"].insert("o-1", {})
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-1"
            assert set(asked) == {pid}


def test_a_store_is_closed_while_its_server_is_away(
    rough_server: LocalServer, rough_dsn: str, rough_schema: str
) -> None:
    """The threads that read, catch up and keep history all end, which the fixtures check."""
    store = Store(rough_dsn, schema=rough_schema)
    stream, full = store["orders"].watch(), store["orders"].watch(buffer_size=5)
    store["orders"].insert_many((str(number), {}) for number in range(2000))
    assert full.next(timeout=PATIENCE_S) is not None
    with rough_server.stopped("immediate"):
        while stream.stats().mode != "reconnecting":
            stream.next(timeout=0.05)
        store.close()
    assert stream.closed
    assert full.closed
