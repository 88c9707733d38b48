"""Streams and stores end in time, whatever the server or the network does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import AsyncStore, Store
from pgdoc.errors import PgdocError, ServerUnreachable, StoreClosed, StreamClosed
from pgdoc.replication.connection import connect
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.streams.bookmarks import BookmarkKeeper
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ChangeStream
    from pgdoc.server import LocalServer
    from pgdoc.streams.keeper_session import KeeperSession
    from tests.proxy import Proxy

CLOSE_LIMIT_S = 20.0  # four times the documented limit, for a busy machine
SHUTDOWN_LIMIT_S = 30.0
INSERT = "INSERT INTO docs.orders (id, data) SELECT n, '{}' FROM generate_series(%s::int, %s::int) AS n"


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeouts of the library."""
    monkeypatch.setattr("pgdoc.streams.hub._CLOSE_S", 1.5)
    monkeypatch.setattr("pgdoc.replication.reader._SILENCE_LIMIT", 2)


def closed_in_time(store: Store) -> None:
    """Close a store on a thread that may hang; check that it returns in time and leaves no library thread."""
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(CLOSE_LIMIT_S)
    assert not closing.is_alive(), f"close() has not returned after {CLOSE_LIMIT_S:.0f} s"
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("pgdoc-")]
    assert left in ([], ["pgdoc-closing"])  # pgdoc-closing is about to end


def _live(store: Store, proxy: Proxy) -> None:
    stream = store["orders"].watch()
    store["orders"].insert("o-1", {})
    assert stream.next(timeout=PATIENCE_S) is not None


def _silent(store: Store, proxy: Proxy) -> None:
    _live(store, proxy)
    proxy.stall()


def _silent_while_reconnecting(store: Store, proxy: Proxy) -> None:
    stream = store["orders"].watch()
    proxy.stall()
    proxy.cut()
    wait_until(lambda: stream.stats().mode == "reconnecting")


def _refused_while_reconnecting(store: Store, proxy: Proxy) -> None:
    stream = store["orders"].watch()
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: stream.stats().mode == "reconnecting")


def _silent_while_catching_up(store: Store, proxy: Proxy) -> None:
    stream = store["orders"].watch(buffer_size=5)
    store["orders"].insert_many((str(number), {}) for number in range(2000))
    assert stream.next(timeout=PATIENCE_S) is not None
    wait_until(lambda: stream.stats().mode == "catching_up")
    proxy.stall()


def _silent_while_starting(store: Store, proxy: Proxy) -> None:
    store["orders"].insert("o-1", {})
    proxy.stall()
    store._streams.hub.start()


def _silent_while_history_is_kept(store: Store, proxy: Proxy) -> None:
    store["orders"].insert("o-1", {})
    store._streams.hub.keep_history()
    proxy.stall()


@pytest.mark.parametrize(
    "bring_to",
    [
        _live,
        _silent,
        _silent_while_reconnecting,
        _refused_while_reconnecting,
        _silent_while_catching_up,
        _silent_while_starting,
        _silent_while_history_is_kept,
    ],
)
def test_a_store_is_closed_in_any_state(
    proxied_dsn: str, proxy: Proxy, bring_to: Callable[[Store, Proxy], None]
) -> None:
    store = Store(proxied_dsn)
    bring_to(store, proxy)
    closed_in_time(store)
    closed_in_time(store)
    proxy.resume()


async def test_an_async_store_is_closed_at_a_silent_server(proxied_dsn: str, proxy: Proxy) -> None:
    store = AsyncStore(proxied_dsn)
    stream = await store["orders"].watch()
    await store["orders"].insert("o-1", {})
    assert await stream.next(timeout=PATIENCE_S) is not None
    waiting = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    proxy.stall()
    await asyncio.wait_for(store.close(), CLOSE_LIMIT_S)
    with pytest.raises(StreamClosed):
        await waiting
    proxy.resume()


def test_a_store_is_closed_while_it_is_opened(proxied_dsn: str, proxy: Proxy) -> None:
    store = Store(proxied_dsn)
    proxy.stall()
    raised: list[BaseException] = []

    def watch() -> None:
        with pytest.raises(StoreClosed) as caught:
            store["orders"].watch()
        raised.append(caught.value)

    watching = threading.Thread(target=watch)
    watching.start()
    closed_in_time(store)
    watching.join(CLOSE_LIMIT_S)
    assert len(raised) == 1
    proxy.resume()


def test_a_store_is_closed_while_its_keeper_waits_for_a_lock(dsn: str, owner: psycopg.Connection) -> None:
    owner.execute("BEGIN")
    owner.execute("LOCK TABLE pgdoc.sessions")
    store = Store(dsn)
    store._streams.hub.keep_history()
    wait_until(lambda: owner.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall())
    closed_in_time(store)
    owner.execute("ROLLBACK")


def test_a_store_is_closed_at_a_server_that_stands_still(dsn: str, owner: psycopg.Connection) -> None:
    """SIGSTOP stops all server processes, so that no new connection is accepted either."""
    store = Store(dsn)
    stream = store["orders"].watch()
    store["orders"].insert("o-1", {})
    assert stream.next(timeout=PATIENCE_S) is not None
    ((postmaster,),) = owner.execute(
        "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int"  # its first line
    ).fetchall()
    stopped = [postmaster, *(row[0] for row in owner.execute("SELECT pid FROM pg_stat_activity"))]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        closed_in_time(store)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_many_close_a_store_at_once(dsn: str) -> None:
    store = Store(dsn)
    stream = store["orders"].watch()
    closing = [threading.Thread(target=store.close) for _ in range(5)]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(CLOSE_LIMIT_S)
    assert not any(thread.is_alive() for thread in closing)
    assert stream.closed


def test_watching_races_with_closing(dsn: str) -> None:
    """Each stream is either refused, or opened and closed with the store."""
    with Store(dsn) as first:
        first.create_collection("orders")
    for number in range(12):
        store = Store(dsn)
        store["orders"].get("o-1")
        streams: list[ChangeStream] = []

        def watch(store: Store = store, streams: list[ChangeStream] = streams) -> None:
            with contextlib.suppress(PgdocError):
                streams.append(store["orders"].watch())

        watching = [threading.Thread(target=watch) for _ in range(3)]
        for thread in watching:
            thread.start()
        time.sleep(number * 0.004)  # from before the hub starts until after it did
        closed_in_time(store)
        for thread in watching:
            thread.join(CLOSE_LIMIT_S)
        assert not any(thread.is_alive() for thread in watching)
        assert all(stream.closed for stream in streams)
        with pytest.raises(StoreClosed):
            store["orders"].watch()


def test_a_finalizer_on_a_library_thread_closes_the_streams(dsn: str) -> None:
    """The garbage collector may run there, while the thread holds the lock that closing needs."""
    store = Store(dsn)
    hub, stream = store._streams.hub, store["orders"].watch()
    fanout = hub.subscriptions._fanout
    dispatch = fanout.dispatch
    done = threading.Event()

    def close_during_dispatch(burst: object) -> object:
        assert hub.subscriptions._lock.locked()
        store._streams.close()
        done.set()
        return dispatch(burst)  # type: ignore[arg-type]

    fanout.dispatch = close_during_dispatch  # type: ignore[method-assign, assignment]
    store["orders"].insert("o-1", {})
    assert done.wait(PATIENCE_S)
    wait_until(lambda: stream.closed)
    closed_in_time(store)


def test_opening_a_stream_at_a_silent_server_times_out(proxied_dsn: str, proxy: Proxy) -> None:
    with Store(proxied_dsn) as store:
        store["orders"].insert("o-1", {})  # gives the pool a connection, which then goes silent
        proxy.stall()
        with deadline_scope(0.5), pytest.raises(ServerUnreachable, match="did not answer in time"):
            store["orders"].watch()
        proxy.resume()
        with store["orders"].watch() as stream:
            assert stream.try_next() is None


async def test_opening_an_async_stream_at_a_silent_server_times_out(proxied_dsn: str, proxy: Proxy) -> None:
    async with AsyncStore(proxied_dsn) as store:
        await store["orders"].insert("o-1", {})
        proxy.stall()
        with deadline_scope(0.5), pytest.raises(ServerUnreachable, match="did not answer in time"):
            await store["orders"].watch()
        proxy.resume()
        async with store["orders"].watch() as stream:
            assert await stream.try_next() is None


def test_what_goes_silent_is_noticed(proxied_dsn: str, proxy: Proxy, dsn: str) -> None:
    with Store(proxied_dsn) as store, store["orders"].watch() as stream, psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute(INSERT, [1, 10])
        seen = [_id(stream) for _ in range(10)]
        proxy.half_open()  # the server sees the disconnect, the client does not
        sql.execute(INSERT, [11, 20])
        seen += [_id(stream) for _ in range(10)]
        proxy.stall()  # neither side sees a disconnect
        sql.execute(INSERT, [21, 30])
        wait_until(lambda: stream.stats().mode == "reconnecting")
        proxy.resume()
        seen += [_id(stream) for _ in range(10)]
        assert seen == [str(number) for number in range(1, 31)]


def _id(stream: ChangeStream) -> str | None:
    event = stream.next(timeout=PATIENCE_S)
    assert event is not None
    return event.document_id


def test_a_client_that_vanished_is_let_go_by_the_server(
    proxied_dsn: str, proxy: Proxy, owner: psycopg.Connection
) -> None:
    with contextlib.closing(connect(proxied_dsn, replication=False)) as connection:
        found = connection.execute(
            "SELECT current_setting('tcp_keepalives_idle')::int + current_setting('tcp_keepalives_interval')::int "
            "* current_setting('tcp_keepalives_count')::int, current_setting('tcp_user_timeout')"
        ).fetchone()
        assert found == (25, "25000")


@pytest.mark.parametrize("replication", [False, True])
def test_statements_and_connections_at_a_silent_server_time_out(
    proxied_dsn: str, proxy: Proxy, *, replication: bool
) -> None:
    with contextlib.closing(connect(proxied_dsn, replication=replication)) as connection, deadline_scope(0.3):
        connection.execute("SELECT 1")
        proxy.stall()
        with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
            connection.execute("SELECT 2")
        assert connection.closed
        with pytest.raises(ServerUnreachable, match="did not answer in time"):
            connect(proxied_dsn, replication=replication)
    closing = threading.Event()
    with deadline_scope(closing=closing):
        raising = threading.Timer(0.2, closing.set)
        raising.start()
        with pytest.raises(ServerUnreachable, match="canceled, because the store is being closed"):
            connect(proxied_dsn, replication=replication)
        raising.join()
    proxy.resume()


def test_a_shutdown_is_not_held_up_by_any_stream(cluster: LocalServer, dsn: str) -> None:
    """One stream is idle, the others are full or catch up on history; none of them is being read."""
    with Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as sql:
        with store["orders"].watch() as idle:
            token = idle.resume_token
        sql.execute(INSERT, [1, 10_000])
        streams = [
            store["users"].watch(),
            store["orders"].watch(buffer_size=20),
            store["orders"].watch(resume_after=token),
            store["orders"].watch(resume_after=token, buffer_size=20),
        ]
        sql.execute("UPDATE docs.orders SET data = '{\"n\": 1}'")
        assert [stream.next(timeout=PATIENCE_S) is not None for stream in streams[1:]] == [True] * 3
        began = time.monotonic()
        with cluster.stopped("fast"):
            took_s = time.monotonic() - began
        assert took_s < SHUTDOWN_LIMIT_S
        assert [_id(streams[2]) for _ in range(9_999)] == [str(number) for number in range(2, 10_001)]


def test_two_threads_on_one_stream_do_not_disturb_another_stream(dsn: str) -> None:
    """Which of the two threads receives an event is undefined."""
    with Store(dsn) as store, store["orders"].watch() as shared, store["orders"].watch() as own:
        over = threading.Event()

        def take() -> None:
            while not over.is_set():
                with contextlib.suppress(Exception):
                    shared.next(timeout=0.01)

        taking = [threading.Thread(target=take) for _ in range(2)]
        for thread in taking:
            thread.start()
        with psycopg.connect(dsn, autocommit=True) as sql:
            sql.execute(INSERT, [1, 3000])
        assert [_id(own) for _ in range(3000)] == [str(number) for number in range(1, 3001)]
        over.set()
        for thread in taking:
            thread.join(CLOSE_LIMIT_S)
        assert not any(thread.is_alive() for thread in taking)


def test_the_history_keeper_logs_no_warning_when_its_store_closes(
    proxied_dsn: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "pgdoc.history")
    began = threading.Event()
    keep = BookmarkKeeper.keep

    def keep_in_silence(keeper: BookmarkKeeper, session: KeeperSession) -> None:
        proxy.stall()
        began.set()
        keep(keeper, session)

    monkeypatch.setattr(BookmarkKeeper, "keep", keep_in_silence)
    store = Store(proxied_dsn)
    store._streams.hub.keep_history()
    assert began.wait(PATIENCE_S)
    closed_in_time(store)
    assert "history is not kept" not in caplog.text
    proxy.resume()
