"""History on a real server: bookmarks come and go, streams resume from them, and the WAL is let go."""

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
from pgdoc.history import Keeper
from pgdoc.migrate import migrate
from pgdoc.replication import slots
from pgdoc.server import LocalServer
from pgdoc.tokens import Lsn
from tests.fixtures.fix_leftovers import what_is_left
from tests.fixtures.fix_server import NOT_DURABLE, _connect_admin, _database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.replication.slots import Bookmark

PATIENCE_S = 20.0
MB = 1 << 20
HOUR_S = 3600
SETTINGS = {**NOT_DURABLE, "max_replication_slots": 10, "wal_sender_timeout": "3s", "max_wal_size": "4GB"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalServer]:
    """A server whose streams report their place each second."""
    with LocalServer(settings=SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def catalog(cluster: LocalServer) -> Iterator[str]:
    with _connect_admin(cluster) as admin, _database(cluster, admin, "template1", "template") as name:
        migrate(cluster.conninfo_for(name))
        yield name


@pytest.fixture
def dsn(cluster: LocalServer, catalog: str) -> Iterator[str]:
    """A database with the catalog and without a bookmark."""
    with _connect_admin(cluster) as admin, _database(cluster, admin, catalog, "test") as name:
        yield cluster.conninfo_for(name)
        left = what_is_left(admin, name)
    assert not left, f"left behind at the server: {left}"


@pytest.fixture
def admin(dsn: str) -> Iterator[psycopg.Connection]:
    """The administrator, in the database; rows have names."""
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.namedtuple_row) as admin:
        yield admin


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """History is kept when the test says so, and not else."""
    monkeypatch.setattr(Keeper, "start", lambda _: None)


@pytest.fixture
def unlimited(admin: psycopg.Connection) -> Iterator[None]:
    """The server keeps WAL for slots until its disk is full."""
    admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '-1'")
    admin.execute("SELECT pg_reload_conf()")
    wait_until(lambda: slots.is_unlimited(admin))
    yield
    admin.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    admin.execute("SELECT pg_reload_conf()")


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def keep(store: Store, admin: psycopg.Connection) -> list[Bookmark]:
    """Do once what the keeper does each few seconds; give the bookmarks as they are then."""
    Keeper(store._streams.hub).keep(admin)
    return slots.bookmarks(admin, lost=True)


def write(admin: psycopg.Connection, segments: int) -> None:
    """Fill 16 MB of WAL, several times; none of it is a document's."""
    for _ in range(segments):
        admin.execute("SELECT pg_logical_emit_message(true, 'noise', '')")
        admin.execute("SELECT pg_switch_wal()")


def make_older(admin: psycopg.Connection, bookmark: Bookmark, age_s: int) -> str:
    """Replace a bookmark by one that was made earlier; give the new one's name."""
    parts = bookmark.name.split("_")
    parts[2] = f"{int(parts[2], 16) - age_s:x}"
    older = "_".join([*parts[:3], f"{age_s:x}"])
    slots.copy_slot(admin, bookmark.name, older, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
    admin.execute("SELECT pg_drop_replication_slot(%s)", [bookmark.name])
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
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-1"


def test_without_history_status_makes_none(dsn: str) -> None:
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
def test_bookmarks_leave_with_the_time_asked_for(dsn: str, admin: psycopg.Connection) -> None:
    with Store(dsn) as store, store.watch():
        (first,) = slots.bookmarks(admin)
        assert keep(store, admin) == [first]
        oldest = make_older(admin, first, age_s=2 * HOUR_S)
        _, second = keep(store, admin)
        assert second.confirmed >= first.confirmed
        hour_old = make_older(admin, second, age_s=HOUR_S - 60)
        assert [bookmark.name for bookmark in keep(store, admin)[:2]] == [oldest, hour_old]
        *_, newest = slots.bookmarks(admin)
        older = make_older(admin, slots.bookmarks(admin)[1], age_s=62)
        kept = keep(store, admin)
        assert [bookmark.name for bookmark in kept] == [older, newest.name]
        assert store.history().oldest == second.confirmed
        store.set_history(time=timedelta(minutes=1))
        make_older(admin, kept[1], age_s=61)
        assert all(bookmark.name != older for bookmark in keep(store, admin))


@pytest.mark.usefixtures("by_hand")
def test_the_wal_held_back_is_bounded(dsn: str, admin: psycopg.Connection) -> None:
    """Far more is written than may be held back, and some of it in a hurry; restart_lsn really moves."""
    with Store(dsn) as store, store["orders"].watch() as stream:
        store.set_history(size=96 * MB)
        seen: list[Bookmark] = []
        for number in range(14):
            store["orders"].insert(f"o-{number}", {})
            stream.next(timeout=PATIENCE_S)
            write(admin, segments=4 if number == 7 else 1)
            kept = keep(store, admin)
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
def test_the_last_two_free_slots_are_left_to_others(dsn: str, admin: psycopg.Connection, cluster: LocalServer) -> None:
    ((free,),) = admin.execute(
        "SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots"
    ).fetchall()
    taken = [f"taken_{number}" for number in range(free - 4)]
    for name in taken:
        admin.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
    try:
        with Store(dsn) as store, store.watch():  # the hub's slot and the first bookmark: two are left
            make_older(admin, slots.bookmarks(admin)[0], age_s=HOUR_S)
            assert len(keep(store, admin)) == 1
            admin.execute("SELECT pg_drop_replication_slot(%s)", [taken.pop()])
            assert len(keep(store, admin)) == 2
    finally:
        for name in taken:
            admin.execute("SELECT pg_drop_replication_slot(%s)", [name])


@pytest.mark.usefixtures("by_hand")
def test_an_open_transaction_pins_the_wal_and_costs_no_history(
    dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.history._NUDGE_WAIT_S", 0.1)
    with Store(dsn) as store, store["orders"].watch(), psycopg.connect(dsn) as writer:
        store.set_history(size=48 * MB)
        ((first),) = keep(store, admin)
        writer.execute("CREATE TABLE ledger ()")
        for _ in range(5):
            write(admin, segments=1)
            kept = keep(store, admin)
        ((pid, age_s),) = store.history().pinned_by
        assert pid == writer.info.backend_pid
        assert age_s is not None
        assert 0 <= age_s < PATIENCE_S
        assert kept[0] == first
        assert len(kept) > 2
        assert store.history().retained_bytes > 64 * MB
        writer.rollback()
        wait_until(lambda: keep(store, admin)[0] not in kept)
        assert store.history().retained_bytes <= 32 * MB
        assert store.history().pinned_by == ()


@pytest.mark.usefixtures("by_hand")
def test_bookmarks_that_lost_their_wal_are_dropped(dsn: str, admin: psycopg.Connection) -> None:
    with Store(dsn) as store:
        with store.watch() as stream:
            token = stream.resume_token
        admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            with store.watch(resume_after=token):
                admin.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
        finally:
            admin.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            admin.execute("SELECT pg_reload_conf()")
    with Store(dsn) as store:
        admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            write(admin, segments=4)
            admin.execute("CHECKPOINT")
            (lost,) = slots.bookmarks(admin, lost=True)
            assert lost.wal_status == "lost"
            with store["orders"].watch() as stream:
                (kept,) = keep(store, admin)
                assert kept.wal_status == "reserved"
                assert kept.confirmed > lost.confirmed
                store["orders"].insert("o-1", {})
                assert stream.next(timeout=PATIENCE_S) is not None
        finally:
            admin.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            admin.execute("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("by_hand")
def test_two_hubs_do_not_fight(dsn: str, admin: psycopg.Connection) -> None:
    with Store(dsn) as one, one.watch(), Store(dsn) as other, other.watch():
        make_older(admin, slots.bookmarks(admin)[0], age_s=HOUR_S // 2)
        barrier = threading.Barrier(2)

        def keep_from(store: Store) -> None:
            with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.namedtuple_row) as connection:
                barrier.wait()
                keep(store, connection)

        threads = [threading.Thread(target=keep_from, args=(store,)) for store in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(slots.bookmarks(admin)) == 2


@pytest.mark.usefixtures("by_hand")
def test_the_newest_bookmark_that_is_not_past_the_place_is_read(
    dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
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
            *_, newest = slots.bookmarks(admin)
            names.append(make_older(admin, newest, age_s=HOUR_S // 3 * (3 - number)))
            keep(store, admin)
        monkeypatch.setattr(slots, "copy_slot", note)
        for token, name in zip(tokens, names, strict=True):
            with Store(dsn) as another:
                slots.open_reader(another._streams.hub.source, token.lsn).reader.close()
            assert copied == [name]
            copied.clear()


@pytest.mark.usefixtures("unlimited")
def test_on_a_server_without_limit_the_last_store_leaves_no_bookmark(dsn: str, admin: psycopg.Connection) -> None:
    with Store(dsn) as store:
        store.migrate()
        assert slots.bookmarks(admin) == []
        with Store(dsn) as other:
            store.watch()
            other.watch()
            assert len(slots.bookmarks(admin)) == 1
        assert len(slots.bookmarks(admin)) == 1
    assert slots.bookmarks(admin) == []


@pytest.mark.usefixtures("unlimited")
def test_stores_that_close_at_once_leave_no_bookmark(dsn: str, admin: psycopg.Connection) -> None:
    for _ in range(5):
        stores = [Store(dsn) for _ in range(3)]
        for store in stores:
            store.watch()
        threads = [threading.Thread(target=store.close) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert slots.bookmarks(admin) == []


@pytest.mark.usefixtures("unlimited")
def test_the_owner_may_keep_history_on_a_server_without_limit(dsn: str, admin: psycopg.Connection) -> None:
    with Store(dsn) as store:
        store.set_history(time=timedelta(hours=2))
        store.watch()
    assert len(slots.bookmarks(admin)) == 1


def end_connections(admin: psycopg.Connection) -> bool:
    """End the keeper's connection, if it has one at present."""
    admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pgdoc' "
        "AND backend_type = 'client backend' AND datname = current_database()"
    )
    return True


def test_the_keeper_survives_its_connection(
    dsn: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pgdoc.history._INTERVAL_S", 0.05)
    caplog.set_level("WARNING", "pgdoc.history")
    with Store(dsn) as store, store.watch():
        wait_until(lambda: end_connections(admin) and "history is not kept at the moment" in caplog.text)
        old = make_older(admin, slots.bookmarks(admin)[0], age_s=HOUR_S)
        wait_until(lambda: len(slots.bookmarks(admin)) == 2)
        assert slots.bookmarks(admin)[0].name == old


def test_set_history(dsn: str) -> None:
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
            with pytest.raises(ValueError, match=f"{next(iter(values))} is .*that is not negative"):
                store.set_history(**values)
        with pytest.raises(DatabaseError, match="out of range"):
            store.set_history(size=1 << 63)
        assert store.history() == history


def test_set_history_is_the_owner_s(dsn: str, cluster: LocalServer, admin: psycopg.Connection) -> None:
    admin.execute("CREATE ROLE app LOGIN")
    try:
        database = admin.info.dbname
        with Store(cluster.conninfo_for(database, "app")) as store:
            assert store.history().bookmarks == 0
            with pytest.raises(DatabaseError, match="permission denied for table settings"):
                store.set_history(size=0)
    finally:
        admin.execute("DROP ROLE app")


def test_a_quiet_stream_in_a_busy_database_pins_no_wal(dsn: str, admin: psycopg.Connection) -> None:
    """Nothing of its collections is written, and still the server may forget what it has passed."""
    with Store(dsn) as store, store["quiet"].watch() as stream:
        admin.execute("CREATE TABLE noise (n int)")
        for _ in range(3):
            write(admin, segments=1)
            admin.execute("INSERT INTO noise SELECT generate_series(1, 1000)")
            ((place,),) = admin.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
            wait_until(lambda place=place: stream.resume_token.lsn >= Lsn.parse(place))  # type: ignore[misc]
            wait_until(
                lambda place=place: admin.execute(  # type: ignore[misc]
                    "SELECT FROM pg_replication_slots WHERE slot_name LIKE 'pgdoch%%' AND confirmed_flush_lsn >= %s",
                    [place],
                ).fetchall()
            )
            admin.execute("CHECKPOINT")  # its record of running transactions lets the WAL before it go
            wait_until(
                lambda place=place: admin.execute(  # type: ignore[misc]
                    "SELECT FROM pg_replication_slots WHERE slot_name LIKE 'pgdoch%%' AND restart_lsn >= %s", [place]
                ).fetchall()
            )
        assert stream.try_next() is None


def test_reports_in_a_hurry_leave_room_for_the_question_whether_the_server_is_there(dsn: str) -> None:
    with Store(dsn) as store, contextlib.closing(slots.open_reader(store._streams.hub.source, None).reader) as reader:
        reader._interval_s = 0.25
        until = time.monotonic() + 8 * reader._interval_s
        while time.monotonic() < until:
            reader.report_soon()
            reader.read(0.02)  # raises where the server was not heard for four intervals
