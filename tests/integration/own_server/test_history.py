"""History on a real server: bookmarks are created and dropped, streams resume from them, and WAL is released."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import DatabaseError
from pgdoc.model.positions import Lsn
from pgdoc.replication import session, slot_start, slots
from pgdoc.streams.bookmarks import BookmarkKeeper
from pgdoc.streams.keeper_session import KeeperSession
from tests.fixtures.fix_server import _connect_admin, _database
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from pgdoc.replication.slots import Bookmark
    from pgdoc.server import LocalServer

MB = 1 << 20
HOUR_S = 3600


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the keeper thread: history is only kept when the test calls `keep`."""
    monkeypatch.setattr(BookmarkKeeper, "start", lambda _: None)


def keep(store: Store, owner: psycopg.Connection, session: KeeperSession | None = None) -> list[Bookmark]:
    """Run the keeper once after the hub has advanced, by default in a session of its own; return the bookmarks."""
    hub = store._streams.hub
    ((place,),) = owner.execute("SELECT pg_logical_emit_message(true, 'noise', '')::text").fetchall()
    wait_until(lambda: hub.watermark > Lsn.parse(place))
    with contextlib.closing(session or KeeperSession(hub.source)) as entered:
        BookmarkKeeper(hub.source, hub).keep(entered)
        return slots.bookmarks(owner, lost=True)


def write(owner: psycopg.Connection, segments: int) -> None:
    """Fill segments (16 MB) of WAL without any document change."""
    for _ in range(segments):
        owner.execute("SELECT pg_logical_emit_message(true, 'noise', '')")
        owner.execute("SELECT pg_switch_wal()")


def make_older(owner: psycopg.Connection, bookmark: Bookmark, age_s: int) -> str:
    """Replace a bookmark with one that claims to be older; return its name."""
    parts = bookmark.name.split("_")
    parts[2] = f"{int(parts[2], 16) - age_s:x}"
    older = "_".join([*parts[:3], f"{age_s:x}"])
    slots.copy_slot(owner, bookmark.name, older, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
    owner.execute("SELECT pg_drop_replication_slot(%s)", [bookmark.name])
    return older


def test_history_begins_with_the_catalog(cluster: LocalServer) -> None:
    with (
        _connect_admin(cluster) as admin,
        _database(cluster, admin, "template1", "bare") as name,
        Store(cluster.conninfo_for(name)) as store,
    ):
        store.migrate()
        first = store.history()
        assert first.bookmarks == 1
        assert first.oldest is not None
        assert (first.time, first.size, first.pinned_by) == (timedelta(hours=1), 1 << 30, ())
        store.migrate()
        assert store.history().oldest == first.oldest
        store["orders"].insert("o-1", {})
        with store["orders"].watch(resume_after=first.oldest) as stream:
            events = [stream.next(timeout=PATIENCE_S) for _ in range(2)]
            assert [event and (event.event_type, event.document_id) for event in events] == [
                ("create", None),
                ("insert", "o-1"),
            ]


def test_status_without_history_creates_none(dsn: str) -> None:
    with Store(dsn) as store:
        assert store.status().problem is None
        assert store.history() == store.history()
        assert (store.history().oldest, store.history().bookmarks, store.history().retained_bytes) == (None, 0, 0)


def test_a_stream_resumes_in_another_store(dsn: str) -> None:
    with Store(dsn) as store, store["orders"].watch() as stream:
        store["orders"].insert("o-1", {})
        stream.next(timeout=PATIENCE_S)
        token = str(stream.resume_token)
    seen = []
    for number in range(2, 5):
        with Store(dsn) as store:
            store["orders"].insert(f"o-{number}", {})
        with Store(dsn) as store, store["orders"].watch(resume_after=token) as stream:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            seen.append(event.document_id)
            token = str(event.resume_token)
    assert seen == ["o-2", "o-3", "o-4"]


@pytest.mark.usefixtures("by_hand")
def test_bookmarks_leave_with_the_time_asked_for(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store, store.watch():
        (first,) = slots.bookmarks(owner)
        assert keep(store, owner) == [first]
        oldest = make_older(owner, first, age_s=2 * HOUR_S)
        _, second = keep(store, owner)
        assert second.confirmed >= first.confirmed
        hour_old = make_older(owner, second, age_s=HOUR_S - 60)
        assert [bookmark.name for bookmark in keep(store, owner)[:2]] == [oldest, hour_old]
        *_, newest = slots.bookmarks(owner)
        older = make_older(owner, slots.bookmarks(owner)[1], age_s=62)
        kept = keep(store, owner)
        assert [bookmark.name for bookmark in kept] == [older, newest.name]
        assert store.history().oldest == second.confirmed
        store.set_history(time=timedelta(minutes=1))
        make_older(owner, kept[1], age_s=61)
        assert all(bookmark.name != older for bookmark in keep(store, owner))


@pytest.mark.usefixtures("by_hand")
def test_the_wal_held_back_is_bounded(dsn: str, owner: psycopg.Connection) -> None:
    """The test writes far more than may be retained, some of it in a burst; restart_lsn must advance."""
    with Store(dsn) as store, store["orders"].watch() as stream:
        store.set_history(size=96 * MB)
        seen: list[Bookmark] = []
        for number in range(14):
            store["orders"].insert(f"o-{number}", {})
            stream.next(timeout=PATIENCE_S)
            write(owner, segments=4 if number == 7 else 1)
            kept = keep(store, owner)
            assert 1 <= len(kept) <= 4
            seen += [bookmark for bookmark in kept if bookmark.name not in {each.name for each in seen}]
            assert store.history().retained_bytes <= (96 + 32) * MB
        assert len(seen) > 4
        places = [bookmark.restart or 0 for bookmark in seen]
        assert places == sorted(set(places))
        oldest = store.history().oldest
        assert oldest is not None
        with store["orders"].watch(resume_after=oldest) as resumed:
            event = resumed.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.resume_token.lsn >= oldest


@pytest.mark.usefixtures("by_hand")
def test_the_last_two_free_slots_are_left_to_others(dsn: str, owner: psycopg.Connection, cluster: LocalServer) -> None:
    ((free,),) = owner.execute(
        "SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots"
    ).fetchall()
    taken = [f"taken_{number}" for number in range(free - 4)]
    for name in taken:
        owner.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
    try:
        with Store(dsn) as store, store.watch():  # takes two slots (hub and first bookmark), leaves two
            make_older(owner, slots.bookmarks(owner)[0], age_s=HOUR_S)
            assert len(keep(store, owner)) == 1
            owner.execute("SELECT pg_drop_replication_slot(%s)", [taken.pop()])
            assert len(keep(store, owner)) == 2
    finally:
        for name in taken:
            owner.execute("SELECT pg_drop_replication_slot(%s)", [name])


@pytest.mark.usefixtures("by_hand")
def test_an_open_transaction_pins_the_wal_and_costs_no_history(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._NUDGE_WAIT_S", 0.1)
    with Store(dsn) as store, store["orders"].watch(), psycopg.connect(dsn) as writer:
        store.set_history(size=48 * MB)
        ((first),) = keep(store, owner)
        writer.execute("CREATE TABLE ledger ()")
        for _ in range(5):
            write(owner, segments=1)
            kept = keep(store, owner)
        ((pid, age_s),) = store.history().pinned_by
        assert pid == writer.info.backend_pid
        assert age_s is not None
        assert 0 <= age_s < PATIENCE_S
        assert kept[0] == first
        assert len(kept) > 2
        assert store.history().retained_bytes > 64 * MB
        writer.rollback()
        wait_until(lambda: keep(store, owner)[0] not in kept)
        assert store.history().retained_bytes <= 32 * MB
        assert store.history().pinned_by == ()


@pytest.mark.usefixtures("by_hand")
def test_bookmarks_that_lost_their_wal_are_dropped(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store:
        with store.watch() as stream:
            token = stream.resume_token
        owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        owner.execute("SELECT pg_reload_conf()")
        try:
            with store.watch(resume_after=token):
                owner.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
        finally:
            owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            owner.execute("SELECT pg_reload_conf()")
    with Store(dsn) as store:
        owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        owner.execute("SELECT pg_reload_conf()")
        try:
            write(owner, segments=4)
            owner.execute("CHECKPOINT")
            (lost,) = slots.bookmarks(owner, lost=True)
            assert lost.wal_status == "lost"
            with store["orders"].watch() as stream:
                (kept,) = keep(store, owner)
                assert kept.wal_status == "reserved"
                assert kept.confirmed > lost.confirmed
                store["orders"].insert("o-1", {})
                assert stream.next(timeout=PATIENCE_S) is not None
        finally:
            owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            owner.execute("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("by_hand")
def test_two_hubs_do_not_fight(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as one, one.watch(), Store(dsn) as other, other.watch():
        make_older(owner, slots.bookmarks(owner)[0], age_s=HOUR_S // 2)
        barrier = threading.Barrier(2)

        def keep_from(store: Store) -> None:
            session = KeeperSession(store._streams.hub.source)
            barrier.wait()
            keep(store, session.connection, session)

        threads = [threading.Thread(target=keep_from, args=(store,)) for store in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(slots.bookmarks(owner)) == 2


@pytest.mark.usefixtures("by_hand")
def test_the_newest_bookmark_that_is_not_past_the_position_is_read(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []
    copy = slots.copy_slot

    def note(connection: Any, source: str, target: str, **how: Any) -> None:
        copied.append(source)
        copy(connection, source, target, **how)

    with Store(dsn) as store, store["orders"].watch() as stream:
        names, tokens = [], []
        for number in range(3):
            store["orders"].insert(f"o-{number}", {})
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            tokens.append(event.resume_token)
            *_, newest = slots.bookmarks(owner)
            names.append(make_older(owner, newest, age_s=HOUR_S // 3 * (3 - number)))
            keep(store, owner)
        monkeypatch.setattr(slot_start, "copy_slot", note)
        for token, name in zip(tokens, names, strict=True):
            with Store(dsn) as another:
                session.open_reader(another._streams.hub.source, token.lsn).reader.close()
            assert copied == [name]
            copied.clear()


def end_connections(owner: psycopg.Connection) -> bool:
    """End the keeper's connection if there is one; return True, for use in a condition."""
    owner.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'pgdoc bookmarks%%' "
        "AND backend_type = 'client backend' AND datname = current_database()"
    )
    return True


def test_the_history_keeper_survives_a_lost_connection(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.05)
    caplog.set_level("INFO", "pgdoc.history")
    with Store(dsn) as store, store.watch():
        wait_until(lambda: end_connections(owner) and "history is not kept at the moment" in caplog.text)
        wait_until(lambda: "history is kept again" in caplog.text)
        old = make_older(owner, slots.bookmarks(owner)[0], age_s=HOUR_S)
        wait_until(lambda: len(slots.bookmarks(owner)) == 2)
        assert slots.bookmarks(owner)[0].name == old
    assert [record for record in caplog.records if "\n" in record.getMessage()] == []


def test_set_history_stores_valid_values_and_refuses_others(dsn: str) -> None:
    with Store(dsn) as store:
        store.set_history(time=timedelta(days=2))
        store.set_history(size=5 << 30)
        history = store.history()
        assert (history.time, history.size) == (timedelta(days=2), 5 << 30)
        wrong: list[dict[str, Any]] = [
            {"time": 60},
            {"time": timedelta(-1)},
            {"size": -1},
            {"size": 1.5},
            {"size": True},
        ]
        for values in wrong:
            with pytest.raises(ValueError, match=f"{next(iter(values))} must be a .*at least 0"):
                store.set_history(**values)
        with pytest.raises(DatabaseError, match="out of range"):
            store.set_history(size=1 << 63)
        assert store.history() == history


def test_only_the_owner_may_set_history(dsn: str, cluster: LocalServer, owner: psycopg.Connection) -> None:
    owner.execute("CREATE ROLE app LOGIN")
    try:
        database = owner.info.dbname
        with Store(cluster.conninfo_for(database, "app")) as store:
            assert store.history().bookmarks == 0
            with pytest.raises(DatabaseError, match="permission denied for table settings"):
                store.set_history(size=0)
    finally:
        owner.execute("DROP ROLE app")


def test_a_quiet_stream_in_a_busy_database_pins_no_wal(dsn: str, owner: psycopg.Connection) -> None:
    """Although none of its collections change, the server may remove the WAL that the stream has passed."""
    with Store(dsn) as store, store["quiet"].watch() as stream:
        owner.execute("CREATE TABLE noise (n int)")
        for _ in range(3):
            write(owner, segments=1)
            owner.execute("INSERT INTO noise SELECT generate_series(1, 1000)")
            ((place,),) = owner.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
            wait_until(lambda place=place: stream.resume_token.lsn >= Lsn.parse(place))  # type: ignore[misc]
            wait_until(
                lambda place=place: owner.execute(  # type: ignore[misc]
                    "SELECT FROM pg_replication_slots WHERE slot_name LIKE 'pgdoch%%' AND confirmed_flush_lsn >= %s",
                    [place],
                ).fetchall()
            )
            owner.execute("CHECKPOINT")  # writes a running-transactions record, up to which restart_lsn can move
            wait_until(
                lambda place=place: owner.execute(  # type: ignore[misc]
                    "SELECT FROM pg_replication_slots WHERE slot_name LIKE 'pgdoch%%' AND restart_lsn >= %s", [place]
                ).fetchall()
            )
        assert stream.try_next() is None


def test_frequent_reports_do_not_stop_the_check_whether_the_server_is_alive(dsn: str) -> None:
    with Store(dsn) as store, contextlib.closing(session.open_reader(store._streams.hub.source, None).reader) as reader:
        reader._interval_s = 0.25
        until = time.monotonic() + 8 * reader._interval_s
        while time.monotonic() < until:
            reader.report_soon()
            reader.read(0.02)  # raises if the server is silent for four intervals
