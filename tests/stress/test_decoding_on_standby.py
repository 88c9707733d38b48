"""Streams that read on a standby, while servers are killed, promoted, restarted, cut off and cleaned up."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import ResumeToken, Store
from pgdoc.errors import HistoryLost, InvalidResumeToken, PgdocError, SlotBlocked, WalLevelTooLow
from pgdoc.replication import recovery
from tests.clusters import ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc import ChangeEvent, ChangeStream
    from tests.clusters import Clusters

PATIENCE_S = 60.0


def take(stream: ChangeStream) -> ChangeEvent:
    event = stream.next(timeout=PATIENCE_S)
    assert event is not None
    return event


def read_until(stream: ChangeStream, last: str) -> list[ChangeEvent]:
    events = [take(stream)]
    while events[-1].document_id != last:
        events.append(take(stream))
    return events


def ids(events: list[ChangeEvent]) -> list[str | None]:
    return [event.document_id for event in events]


@contextmanager
def writing(conninfo: str) -> Iterator[list[str]]:
    """Insert documents one after another, in a thread; yields the ids of those that were stored."""
    stored: list[str] = []
    ends = threading.Event()

    def write() -> None:
        with Store(conninfo) as store:
            number = 0
            while not ends.is_set():
                number += 1
                try:
                    store["docs"].insert(f"w-{number:06}", {"n": number})
                except PgdocError:
                    return
                stored.append(f"w-{number:06}")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield stored
    finally:
        ends.set()
        thread.join()


@pytest.fixture
def open_store(clusters: Clusters) -> Iterator[Callable[[], Store]]:
    """Stores that write to whichever server is the primary, and read on the standby."""
    opened: list[Store] = []

    def open_store() -> Store:
        opened.append(Store(clusters.conninfo(), replication_conninfo=clusters.standby.conninfo))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def test_a_stream_goes_on_when_its_standby_is_promoted(clusters: Clusters, open_store: Callable[[], Store]) -> None:
    store = open_store()
    with store["docs"].watch() as stream:
        with writing(clusters.primary.conninfo) as stored:
            wait_until(lambda: len(stored) > 200)
            events = [take(stream)]
            clusters.wait_for_replay()
            clusters.promote()
            wait_until(lambda: len(stored) > 400)  # the old primary goes on: what it writes now is another history
        clusters.kill_primary()
        after = open_store()
        after["docs"].insert("after", {})
        events += read_until(stream, "after")
    found = ids(events)[:-1]
    assert found == stored[: len(found)]
    assert len(found) >= 200
    old, new = (ResumeToken.parse(str(events[n].resume_token)).timeline for n in (0, -1))
    assert (old, new) == (1, 2)
    for index in (0, len(events) - 2):  # any of them is part of the new history
        with after["docs"].watch(resume_after=events[index].resume_token) as resumed:
            assert ids(read_until(resumed, "after")) == ids(events)[index + 1 :]
    assert ask(clusters.standby, "SELECT count(*) FROM pgdoc.sessions WHERE task = 'history'") >= 1


def test_a_token_that_the_promoted_standby_never_had_is_refused(
    clusters: Clusters, open_store: Callable[[], Store]
) -> None:
    store = open_store()
    with store["docs"].watch() as stream, Store(clusters.primary.conninfo) as first:
        store["docs"].insert("a", {})
        assert take(stream).document_id == "a"
        clusters.cut_off()
        with first["docs"].watch() as ahead:
            first["docs"].insert("lost", {})
            token = take(ahead).resume_token
        with store["docs"].watch(resume_after=token) as waiting:  # the standby may still get there
            assert waiting.next(timeout=0.5) is None
            clusters.fail_over()
            with pytest.raises(InvalidResumeToken, match="timeline 1 is not part of this server's history"):
                take(waiting)
        after = open_store()
        after["docs"].insert("b", {})
        assert take(stream).document_id == "b"
        with pytest.raises(InvalidResumeToken):
            after["docs"].watch(resume_after=token)


def test_a_stream_waits_for_a_standby_that_is_behind(clusters: Clusters, open_store: Callable[[], Store]) -> None:
    store = open_store()
    with store["docs"].watch() as stream:
        ask(clusters.standby, "SELECT pg_wal_replay_pause()")
        wait_until(lambda: ask(clusters.standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'"))
        store["docs"].insert("a", {})
        with store["docs"].watch() as later:  # begins where the primary is, which the standby has yet to reach
            store["docs"].insert("b", {})
            assert stream.next(timeout=0.5) is None
            ask(clusters.standby, "SELECT pg_wal_replay_resume()")
            assert [take(stream).document_id for _ in range(2)] == ["a", "b"]
            assert take(later).document_id == "b"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stream_goes_on_after_its_standby_restarts(
    clusters: Clusters, open_store: Callable[[], Store], mode: Any
) -> None:
    store = open_store()
    with store["docs"].watch() as stream, writing(clusters.primary.conninfo) as stored:
        wait_until(lambda: len(stored) > 100)
        clusters.standby.restart(mode)
        wait_until(lambda: len(stored) > 200)
        last = stored[-1]
        assert ids(read_until(stream, last)) == stored[: stored.index(last) + 1]


def test_a_stream_goes_on_while_the_primary_is_away(clusters: Clusters, open_store: Callable[[], Store]) -> None:
    store = open_store()
    with store["docs"].watch() as stream:
        store["docs"].insert("a", {})
        clusters.wait_for_replay()
        with clusters.primary.stopped("fast"):
            assert take(stream).document_id == "a"
        store["docs"].insert("b", {})
        assert take(stream).document_id == "b"


def test_slots_that_conflict_with_recovery_end_streams_with_the_cause(
    clusters: Clusters, open_store: Callable[[], Store]
) -> None:
    ask(clusters.standby, "ALTER SYSTEM SET hot_standby_feedback = off")
    ask(clusters.standby, "SELECT pg_reload_conf()")
    store = open_store()
    with store["docs"].watch() as stream:
        store["docs"].insert("a", {})
        assert take(stream).document_id == "a"
        wait_until(lambda: ask(clusters.primary, "SELECT catalog_xmin IS NULL FROM pg_replication_slots"))
        for number in range(3):
            ask(clusters.primary, f"CREATE TABLE t{number} ()")
            ask(clusters.primary, f"DROP TABLE t{number}")
        ask(clusters.primary, "VACUUM pg_class")
        clusters.wait_for_replay()
        with pytest.raises(HistoryLost, match=r"primary removed rows of its catalog .* hot_standby_feedback = on"):
            take(stream)
    with store["docs"].watch() as stream:
        store["docs"].insert("b", {})
        assert take(stream).document_id == "b"


def test_a_slot_waits_for_the_writers_of_the_primary(
    clusters: Clusters, open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_CREATE_LIMIT_S", 5.0)
    with psycopg.connect(clusters.primary.conninfo) as writer:
        writer.execute("CREATE TABLE t ()")
        store = open_store()
        with Store(clusters.primary.conninfo) as first:
            first.create_collection("docs")
        with pytest.raises(SlotBlocked, match=f"pid {writer.info.backend_pid}"):
            store["docs"].watch()
    with store["docs"].watch() as stream:
        store["docs"].insert("b", {})
        assert take(stream).document_id == "b"


def test_a_primary_that_writes_too_little_is_named(clusters: Clusters, open_store: Callable[[], Store]) -> None:
    with Store(clusters.primary.conninfo) as first:
        first.create_collection("docs")
    ask(clusters.primary, "ALTER SYSTEM SET wal_level = 'replica'")
    clusters.primary.restart()
    clusters.wait_for_replay()
    with pytest.raises(WalLevelTooLow, match="primary"):
        open_store()["docs"].watch()


def test_history_is_kept_on_the_standby_by_one_of_several_hubs(
    clusters: Clusters, open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.1)
    bookmarks = (
        "SELECT array_agg(slot_name::text) FROM pg_replication_slots WHERE slot_name ~ '^pgdocb_' AND NOT synced"
    )
    first, second = open_store(), open_store()
    first.create_collection("docs")
    with first["docs"].watch() as stream, second["docs"].watch():
        first["docs"].insert("a", {})
        token = take(stream).resume_token
        first.set_history(time=timedelta(seconds=3))
        (oldest,) = ask(clusters.standby, bookmarks)
        seen: list[int] = []

        def is_replaced() -> bool:
            kept = ask(clusters.standby, bookmarks)
            seen.append(len(kept))
            return oldest not in kept

        wait_until(is_replaced)
        assert 2 <= max(seen) <= 5
        assert ask(clusters.primary, bookmarks) is None
        first.close()
        with pytest.raises(HistoryLost), second["docs"].watch(resume_after=token):
            pass
        before = ask(clusters.standby, bookmarks)
        wait_until(lambda: ask(clusters.standby, bookmarks) != before)  # the other hub goes on


def test_the_last_hub_leaves_no_slot_where_nothing_limits_the_wal(
    clusters: Clusters, open_store: Callable[[], Store]
) -> None:
    for server in (clusters.standby, clusters.primary):
        ask(server, "ALTER SYSTEM SET max_slot_wal_keep_size = -1")
        ask(server, "SELECT pg_reload_conf()")
    first, second = open_store(), open_store()
    slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^pgdoc' AND NOT synced"
    with first["docs"].watch(), second["docs"].watch():
        first.close()
        assert ask(clusters.standby, slots) >= 2
    second.close()
    wait_until(lambda: ask(clusters.standby, slots) == 0)
