"""No stream or consumer counts as a synchronous standby. No test has a real one.

A commit that is released has been vouched for by a client of pgdoc. So the tests count released commits: `sync_state`
looks right while a flush position counts for an instant.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Self

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from pgdoc.cli.doctor import examine_server
from pgdoc.database.migrate import migrate
from pgdoc.replication.reader import Reader
from tests.fixtures.fix_server import NOT_DURABLE, _connect_admin, local_server
from tests.integration.own_server.words import wait_until
from tests.synchronous import is_released, set_standby_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgdoc import ChangeEvent, ChangeStream
    from pgdoc.server import LocalServer

PATIENCE_S = 30.0
WAIT_S = 2.5
"""How long a commit waits before it is canceled: over two status intervals, each a third of `wal_sender_timeout`."""

SETTINGS = {
    **NOT_DURABLE,
    "wal_sender_timeout": "3s",
    "max_replication_slots": 20,
    "max_wal_senders": 12,
    "max_slot_wal_keep_size": "400MB",
    "max_wal_size": "2GB",
}
LOCAL = "-c synchronous_commit=local"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalServer]:
    with local_server(settings=SETTINGS) as cluster:
        migrate(cluster.conninfo)
        yield cluster


@pytest.fixture
def admin(cluster: LocalServer) -> Iterator[psycopg.Connection]:
    with _connect_admin(cluster) as admin:
        yield admin


@pytest.fixture
def listing(cluster: LocalServer) -> Iterator[Callable[[str], None]]:
    """Set `synchronous_standby_names`, until the end of the test."""

    def list_(names: str) -> None:
        set_standby_names(cluster.conninfo, names)

    yield list_
    list_("")


@pytest.fixture
def schema(cluster: LocalServer, admin: psycopg.Connection) -> Iterator[str]:
    """A schema with an empty collection `orders`. Its consumers, and all bookmarks, are dropped at the end."""
    name = f"docs_{next(_numbers)}"
    with Store(make_conninfo(cluster.conninfo, options=LOCAL), schema=name) as store:
        store.create_collection("orders")
        yield name
        for consumer in store.consumers():
            store.drop_consumer(consumer.name)
    admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")


@pytest.fixture
def store(cluster: LocalServer, schema: str) -> Iterator[Store]:
    """A store as its users have it: the server's synchronous_commit."""
    with Store(cluster.conninfo, schema=schema) as store:
        yield store


@pytest.fixture
def writer(cluster: LocalServer, schema: str) -> Iterator[Writer]:
    with Writer(cluster.conninfo, schema) as writer:
        yield writer


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers renew themselves, and consumers confirm, much more often."""
    monkeypatch.setattr("pgdoc.streams.renewal.RENEW_BYTES", 2 << 20)
    monkeypatch.setattr("pgdoc.streams.renewal._PAUSE_FACTOR", 1)
    monkeypatch.setattr("pgdoc.streams.renewal._RETRY_S", 0.1)
    monkeypatch.setattr("pgdoc.consumers.owned_slot._REOPEN_S", 0.3)
    monkeypatch.setattr("pgdoc.consumers.owned_slot._REOPEN_PAUSE_FACTOR", 1)


class Writer:
    """Inserts documents whose ids are numbers; its commits wait for no standby."""

    def __init__(self, conninfo: str, schema: str) -> None:
        self.count = 0
        self._table = f'"{schema}".orders'
        self._connection = psycopg.connect(conninfo, autocommit=True, options=LOCAL)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.stop()
        self._connection.close()

    def insert(self, count: int = 1, filler_bytes: int = 0) -> None:
        """Insert documents in one transaction, after a message of this size that no stream receives."""
        with self._connection.transaction():
            if filler_bytes:
                self._connection.execute(
                    "SELECT pg_logical_emit_message(false, 'filler', repeat('x', %s))", [filler_bytes]
                )
            self._connection.execute(
                f"INSERT INTO {self._table} (id, data) SELECT n::text, '{{}}' FROM generate_series(%s::int, %s) AS n",
                [self.count, self.count + count - 1],
            )
        self.count += count

    def start(self) -> None:
        """Insert a document every few milliseconds, on a thread."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(0.005):
            self.insert()


class Follower:
    """Reads a stream on a thread, and keeps the ids."""

    def __init__(self, stream: ChangeStream, pause_s: float = 0.0) -> None:
        self.ids: list[int] = []
        self.error: BaseException | None = None
        self._stream = stream
        self._pause_s = pause_s
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._stream.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            for event in self._stream:
                if event.event_type == "insert":
                    self.ids.append(int(event.document_id or -1))
                    if self._pause_s:
                        time.sleep(self._pause_s)
        except BaseException as exc:  # noqa: BLE001 (`check` raises it)
            self.error = exc

    def check(self, first: int, last: int) -> None:
        """Wait for the last event; check that none is missing or repeated."""
        self._pause_s = 0.0  # a slow one would need longer for all than the writer took
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.error or len(self.ids) >= last - first)
        assert self.error is None
        assert self.ids == list(range(first, last))


class Committers:
    """Sessions that commit one transaction after another. A commit that nobody releases is canceled after `WAIT_S`."""

    def __init__(self, conninfo: str, sessions: int = 2) -> None:
        self.released = self.canceled = 0
        self._conninfo = conninfo
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(sessions)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._ending.is_set():
            released = is_released(self._conninfo, f"committer_{number}", wait_s=WAIT_S)
            with self._lock:
                self.released += released
                self.canceled += not released


def walsenders(admin: psycopg.Connection, like: str) -> set[int]:
    rows = admin.execute(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name LIKE %s AND active", [f"{like}%"]
    ).fetchall()
    return {row[0] for row in rows}


def confirmed(admin: psycopg.Connection, like: str) -> int:
    rows = admin.execute(
        "SELECT coalesce(max(confirmed_flush_lsn - '0/0'), 0)::bigint FROM pg_replication_slots"
        " WHERE slot_name LIKE %s",
        [f"{like}%"],
    ).fetchall()
    return int(rows[0][0])


def wal_end(admin: psycopg.Connection) -> int:
    return int(admin.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint").fetchall()[0][0])


def open_everything(store: Store, stack: contextlib.ExitStack) -> list[Follower]:
    """Open a stream, a slow one that a catch-up reader feeds, a busy consumer, and one that wants nothing."""
    fast = stack.enter_context(Follower(store["orders"].watch()))
    slow = stack.enter_context(Follower(store["orders"].watch(buffer_size=8), pause_s=0.01))
    busy = stack.enter_context(Follower(store["orders"].watch(consumer="busy")))
    stack.enter_context(Follower(store["orders"].watch(consumer="idle", where={"event_type": "delete"})))
    return [fast, slow, busy]


@pytest.mark.parametrize("names", ["*", "ANY 1 (*)", "FIRST 1 (a, *)"])
def test_no_commit_is_released(
    cluster: LocalServer, store: Store, writer: Writer, listing: Callable[[str], None], names: str
) -> None:
    """Streams and consumers that are busy, and later at rest, release none; all events still arrive."""
    listing(names)
    with contextlib.ExitStack() as stack:
        followers = open_everything(store, stack)
        writer.start()
        with Committers(cluster.conninfo) as busy:
            time.sleep(2 * WAIT_S)
        writer.stop()
        for follower in followers:
            follower.check(0, writer.count)
        with Committers(cluster.conninfo) as resting:
            time.sleep(WAIT_S)
    assert (busy.released, resting.released) == (0, 0)
    assert busy.canceled >= 4
    assert resting.canceled >= 2


@pytest.mark.parametrize(
    ("application_name", "names"),
    [
        ("", '"pgdoc hub {schema}", "PGDOC Consumer busy"'),
        ("shop", 'ANY 1 ("shop: pgdoc hub {schema}", "shop: pgdoc catch-up {schema}", "Shop: pgdoc consumer busy")'),
        ("*", "FIRST 2 (shop, *)"),
    ],
)
def test_no_commit_is_released_if_the_list_has_our_own_name(  # noqa: PLR0917 (fixtures)
    cluster: LocalServer,
    schema: str,
    writer: Writer,
    listing: Callable[[str], None],
    application_name: str,
    names: str,
) -> None:
    listing(names.format(schema=schema))
    named = make_conninfo(cluster.conninfo, application_name=application_name)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(named, schema=schema))
        followers = open_everything(store, stack)
        writer.start()
        with Committers(cluster.conninfo) as committers:
            time.sleep(WAIT_S)
        writer.stop()
        for follower in followers:
            follower.check(0, writer.count)
    assert committers.released == 0
    assert committers.canceled >= 2


def test_an_empty_application_name_counts_no_more(  # noqa: PLR0917 (fixtures)
    cluster: LocalServer,
    schema: str,
    writer: Writer,
    listing: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a service file can make the name empty."""
    (tmp_path / "services").write_text("[shop]\napplication_name=\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    listing(f'ANY 1 ("", "pgdoc hub {schema}", "pgdoc consumer busy")')
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(make_conninfo(cluster.conninfo, service="shop"), schema=schema))
        followers = open_everything(store, stack)
        writer.start()
        with Committers(cluster.conninfo) as committers:
            time.sleep(WAIT_S)
        writer.stop()
        for follower in followers:
            follower.check(0, writer.count)
    assert committers.released == 0


def test_the_setting_may_change_while_they_are_open(
    cluster: LocalServer,
    admin: psycopg.Connection,
    store: Store,
    writer: Writer,
    listing: Callable[[str], None],
) -> None:
    """Nothing is released from the reload on; when the setting is gone, slots advance without being replaced."""
    with contextlib.ExitStack() as stack:
        followers = open_everything(store, stack)
        writer.start()
        place = wal_end(admin)
        wait_until(lambda: min(confirmed(admin, "pgdoch"), confirmed(admin, "pgdoc\\_")) > place)
        listing("*")
        with Committers(cluster.conninfo) as committers:
            time.sleep(2 * WAIT_S)
        stands_at = confirmed(admin, "pgdoch")
        listing("")
        place, hub = wal_end(admin), walsenders(admin, "pgdoch")
        wait_until(lambda: confirmed(admin, "pgdoch") > place)
        assert walsenders(admin, "pgdoch") == hub
        assert is_released(cluster.conninfo, wait_s=WAIT_S)
        writer.stop()
        for follower in followers:
            follower.check(0, writer.count)
    assert committers.released == 0
    assert committers.canceled >= 4
    assert stands_at < place


def test_a_commit_that_waits_when_the_setting_changes_is_not_released(
    cluster: LocalServer, store: Store, writer: Writer, listing: Callable[[str], None]
) -> None:
    """A flush position that was reported under a list that did not match must not count under the next one."""
    with contextlib.ExitStack() as stack:
        open_everything(store, stack)
        writer.start()
        for _ in range(4):
            listing("nobody")
            with Committers(cluster.conninfo) as committers:
                time.sleep(WAIT_S - 0.5)  # the commits are read, and two status updates are sent
                listing("*")
            assert committers.released == 0
            assert committers.canceled >= 2


def test_a_list_that_does_not_match_changes_nothing(
    admin: psycopg.Connection, store: Store, writer: Writer, listing: Callable[[str], None], restless: None
) -> None:
    """Slots are confirmed by their own readers, which stay."""
    listing("ANY 1 (a, b, pgdo, pgdocs, hub)")
    with contextlib.ExitStack() as stack:
        followers = open_everything(store, stack)
        readers = walsenders(admin, "pgdoc")
        writer.start()
        place = wal_end(admin)
        wait_until(lambda: min(confirmed(admin, "pgdoch"), confirmed(admin, "pgdoc\\_")) > place)
        writer.stop()
        for follower in followers:
            follower.check(0, writer.count)
        assert {pid for pid in readers if pid in walsenders(admin, "pgdoch") | walsenders(admin, "pgdoc\\_")} >= (
            walsenders(admin, "pgdoch") | walsenders(admin, "pgdoc\\_")
        )


def test_a_stream_keeps_a_bounded_amount_of_wal(
    admin: psycopg.Connection, store: Store, writer: Writer, listing: Callable[[str], None], restless: None
) -> None:
    """It moves on from slot to slot over 600 MB, more than `max_slot_wal_keep_size`, and loses or repeats nothing."""
    listing("*")
    slots: set[str] = set()
    most = 0
    with Follower(store["orders"].watch()) as follower:
        for _ in range(60):
            for _ in range(10):
                writer.insert(5, filler_bytes=1 << 20)
            admin.execute("CHECKPOINT")  # logs the running transactions: a slot moves on from there only
            rows = admin.execute(
                "SELECT slot_name, pg_current_wal_lsn() - restart_lsn, wal_status FROM pg_replication_slots"
                " WHERE slot_name LIKE 'pgdoch%'"
            ).fetchall()
            assert all(status in {"reserved", "extended"} for _, _, status in rows)
            slots |= {name for name, _, _ in rows}
            most = max(most, *(int(held) for _, held, _ in rows))
            wait_until(lambda: follower.error or len(follower.ids) >= writer.count - 50)
        follower.check(0, writer.count)
    assert len(slots) >= 5
    assert most < 200 << 20  # a third of what was written; how soon a slot moves on depends on the machine


def test_a_catch_up_reader_keeps_a_bounded_amount_of_wal(
    store: Store,
    writer: Writer,
    listing: Callable[[str], None],
    restless: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It moves on, too, while a stream reads what it has missed."""
    caplog.set_level(logging.INFO, "pgdoc")
    listing("*")
    with store["orders"].watch() as stream:
        writer.insert()
        first = stream.next(timeout=PATIENCE_S)
        assert first is not None
        for _ in range(100):
            writer.insert(20, filler_bytes=1 << 20)
        caplog.clear()
        slow = store["orders"].watch(resume_after=first.resume_token, buffer_size=50)
        with Follower(slow, pause_s=0.001) as follower:
            follower.check(1, writer.count)
    moved = [record for record in caplog.records if "moved to a new slot" in record.getMessage()]
    assert [record for record in moved if record.threadName == "pgdoc-catchup"]


def test_a_consumer_confirms_what_was_acknowledged(  # noqa: PLR0917 (fixtures)
    cluster: LocalServer,
    admin: psycopg.Connection,
    store: Store,
    writer: Writer,
    listing: Callable[[str], None],
    restless: None,
) -> None:
    """It closes and opens its reader again and again; no event is lost or repeated, and no commit released."""
    listing("*")
    readers: set[int] = set()
    with Follower(store["orders"].watch(consumer="busy")) as follower:
        writer.start()
        with Committers(cluster.conninfo) as committers:
            for _ in range(5):
                place = wal_end(admin)
                wait_until(lambda: confirmed(admin, "pgdoc\\_") > place)  # noqa: B023
                wait_until(lambda: walsenders(admin, "pgdoc\\_") - readers)  # noqa: B023
                readers |= walsenders(admin, "pgdoc\\_")
        writer.stop()
        follower.check(0, writer.count)
        last = wal_end(admin)
    assert len(readers) >= 3
    assert committers.released == 0
    assert committers.canceled >= 2
    assert confirmed(admin, "pgdoc\\_") <= last
    with Follower(store["orders"].watch(consumer="busy")) as follower:
        first = writer.count
        writer.insert(3)
        follower.check(first, writer.count)


def test_an_unacknowledged_event_is_not_confirmed(
    admin: psycopg.Connection, store: Store, writer: Writer, listing: Callable[[str], None], restless: None
) -> None:
    listing("*")
    with store["orders"].watch(consumer="busy", auto_ack=False) as stream:
        events: list[ChangeEvent | None] = []
        for _ in range(6):
            writer.insert()
            events.append(stream.next(timeout=PATIENCE_S))
        for event in events[:3]:
            assert event is not None
            stream.ack(event)
        third, fourth = events[2], events[3]
        assert third is not None
        assert fourth is not None
        wait_until(lambda: confirmed(admin, "pgdoc\\_") > third.resume_token.lsn)
        assert confirmed(admin, "pgdoc\\_") <= fourth.resume_token.lsn
        admin.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
        writer.insert()
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.document_id == "6"
    with store["orders"].watch(consumer="busy") as stream:
        again = [stream.next(timeout=PATIENCE_S) for _ in range(4)]
    assert [event and event.document_id for event in again] == ["3", "4", "5", "6"]


def test_a_consumer_at_rest_keeps_its_reader(
    admin: psycopg.Connection, store: Store, writer: Writer, listing: Callable[[str], None], restless: None
) -> None:
    """Until the WAL that others write has grown enough."""
    listing("*")
    with Follower(store["orders"].watch(consumer="idle", where={"event_type": "delete"})):
        reader = walsenders(admin, "pgdoc\\_")
        for _ in range(20):
            admin.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 100000))")
            time.sleep(0.1)
        assert walsenders(admin, "pgdoc\\_") == reader
        place = wal_end(admin)
        admin.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 17 << 20))")
        wait_until(lambda: confirmed(admin, "pgdoc\\_") > place)


def test_nothing_of_pgdoc_s_own_waits_for_a_standby(
    store: Store, schema: str, writer: Writer, admin: psycopg.Connection, listing: Callable[[str], None]
) -> None:
    """Streams open, deliver snapshots and resume behind a standby that is gone."""
    writer.insert(3)
    listing("nobody")
    admin.execute("SET synchronous_commit = off")
    admin.execute("SELECT pg_logical_emit_message(true, 'unflushed', '')")
    with store["orders"].watch(snapshot=True) as stream:
        events = [stream.next(timeout=PATIENCE_S) for _ in range(3)]
    assert [event and event.event_type for event in events] == ["snapshot"] * 3
    last = events[-1]
    assert last is not None
    writer.insert()
    with store["orders"].watch(resume_after=last.resume_token) as stream:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.document_id == "3"
    assert store.status().problem is None


@pytest.mark.parametrize(
    ("names", "verdicts"),
    [
        ("*", ["warn"]),
        ("ANY 1 (replica, *)", ["warn"]),
        ('"pgdoc hub docs"', ["warn"]),
        ("ANY 1 (replica_1, replica_2)", ["ok"]),
        ("", []),
    ],
)
def test_doctor_reports_a_setting_that_matches(
    cluster: LocalServer, listing: Callable[[str], None], names: str, verdicts: list[str]
) -> None:
    listing(names)
    found = [finding for finding in examine_server(cluster.conninfo) if finding.subject == "standbys"]
    assert [finding.verdict for finding in found] == verdicts
    assert all(names in finding.text for finding in found)


def test_doctor_knows_the_names_of_open_streams(
    cluster: LocalServer, schema: str, listing: Callable[[str], None]
) -> None:
    service = make_conninfo(cluster.conninfo, application_name="replica" + "x" * 60)
    listing("Replica" + "x" * 56)
    with Store(service, schema=schema) as store, store.watch():
        (found,) = [finding for finding in examine_server(cluster.conninfo) if finding.subject == "standbys"]
    assert found.verdict == "warn"


def test_a_walsender_without_a_timeout_gets_one(
    admin: psycopg.Connection, store: Store, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `wal_sender_timeout = 0`, the walsender of a client that hangs would hold up the shutdown for ever."""
    monkeypatch.setattr("pgdoc.replication.reader._WAL_SENDER_TIMEOUT_MS", 1000)
    admin.execute("ALTER SYSTEM SET wal_sender_timeout = 0")
    admin.execute("SELECT pg_reload_conf()")
    try:
        with store["orders"].watch():
            (pid,) = walsenders(admin, "pgdoch")
            with monkeypatch.context() as hanging:
                hanging.setattr(Reader, "read", _read_nothing)
                wait_until(lambda: pid not in walsenders(admin, "pgdoch"))
    finally:
        admin.execute("ALTER SYSTEM RESET wal_sender_timeout")
        admin.execute("SELECT pg_reload_conf()")


def _read_nothing(_reader: Reader, timeout_s: float) -> list[bytes]:
    time.sleep(timeout_s)
    return []
