"""History without an active hub: in a process with durable consumers only."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pgdoc import Store
from pgdoc.errors import StoreClosed
from pgdoc.replication import slots
from pgdoc.streams.bookmarks import BookmarkKeeper, _copy_newest_bookmark
from pgdoc.streams.keeper_session import KeeperSession
from tests.integration.own_server.test_history import HOUR_S, MB, make_older, write
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    import psycopg

    from pgdoc import ChangeStream
    from pgdoc.replication.slots import Bookmark

KEEPERS = "SELECT count(*) FROM pgdoc.sessions AS session WHERE task = 'history' AND pgdoc.is_open(session)"


def keep(store: Store, owner: psycopg.Connection) -> list[Bookmark]:
    hub = store._streams.hub
    with contextlib.closing(KeeperSession(hub.source)) as session:
        BookmarkKeeper(hub.source, hub).keep(session)
    return slots.bookmarks(owner, lost=True)


def flushed(owner: psycopg.Connection) -> int:
    return slots.flushed(owner)


def test_history_begins_and_a_stream_resumes_from_it(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store:
        store["orders"].insert("before", {})
        before = flushed(owner)
        (first,) = keep(store, owner)
        assert before <= first.confirmed
        store["orders"].insert("after", {})
        make_older(owner, first, age_s=HOUR_S // 2)
        store["orders"].insert("later", {})
        _, second = keep(store, owner)
        assert first.confirmed < second.confirmed <= flushed(owner)
        for place, expected in ((first, ["after", "later"]), (second, [])):
            with store["orders"].watch(resume_after=str(_lsn(place))) as stream:
                store["orders"].update("before", {"$inc": {"n": 1}})
                assert [_id(stream) for _ in expected] == expected
                while (event := stream.next(timeout=PATIENCE_S)) is not None and event.event_type != "update":
                    pass
                assert event is not None


def test_a_bookmark_that_another_process_just_made_is_used(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(dsn) as store:
        (first,) = keep(store, owner)
    monkeypatch.setattr(
        slots, "flushed", lambda _: first.confirmed - 8
    )  # as if asked just before that bookmark was created
    with contextlib.closing(KeeperSession(store._streams.hub.source)) as session:
        _copy_newest_bookmark(session)
    assert slots.bookmarks(owner) == [first]


def _lsn(bookmark: Bookmark) -> str:
    return f"{bookmark.confirmed >> 32:X}/{bookmark.confirmed & 0xFFFFFFFF:X}"


def _id(stream: ChangeStream) -> str | None:
    event = stream.next(timeout=PATIENCE_S)
    assert event is not None
    return event.document_id


def test_bookmarks_leave_with_the_time_asked_for(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store:
        (first,) = keep(store, owner)
        assert keep(store, owner) == [first]
        oldest = make_older(owner, first, age_s=2 * HOUR_S)
        write(owner, segments=1)
        _, second = keep(store, owner)
        assert second.confirmed > first.confirmed
        older = make_older(owner, second, age_s=HOUR_S + 2)
        kept = keep(store, owner)
        assert oldest not in {bookmark.name for bookmark in kept}
        assert kept[0].name == older
        store.set_history(time=timedelta(minutes=1))
        assert store.history().oldest == second.confirmed


def test_the_wal_held_back_is_bounded(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store:
        store.set_history(size=96 * MB)
        seen: list[Bookmark] = []
        for number in range(14):
            write(owner, segments=4 if number == 7 else 1)
            kept = keep(store, owner)
            assert 1 <= len(kept) <= 4
            seen += [bookmark for bookmark in kept if bookmark.name not in {each.name for each in seen}]
            assert store.history().retained_bytes <= (96 + 32) * MB
        assert len(seen) > 4
        places = [bookmark.restart or 0 for bookmark in seen]
        assert places == sorted(set(places))


def test_a_new_bookmark_retains_no_wal_from_before_it(dsn: str, owner: psycopg.Connection) -> None:
    """Advancing a slot once releases WAL only up to the first running-transactions record."""
    with Store(dsn) as store:
        (first,) = keep(store, owner)
        make_older(owner, first, age_s=HOUR_S // 2)
        for _ in range(4):
            write(owner, segments=1)
            owner.execute("CHECKPOINT")
        *_, newest = keep(store, owner)
        assert newest.restart is not None
        assert newest.confirmed - newest.restart < MB


def test_a_half_made_bookmark_does_no_harm(dsn: str, owner: psycopg.Connection) -> None:
    """As if a process was killed after it copied the newest bookmark and before it advanced the copy."""
    with Store(dsn) as store:
        (first,) = keep(store, owner)
        make_older(owner, first, age_s=HOUR_S // 2)
        name = slots.bookmark_name(owner)
        slots.copy_slot(owner, slots.bookmarks(owner)[0].name, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
        write(owner, segments=1)
        assert store.history().oldest == first.confirmed
        make_older(owner, slots.bookmarks(owner)[1], age_s=HOUR_S // 2 - 1)
        *_, newest = keep(store, owner)
        assert newest.confirmed > first.confirmed


def test_a_hub_can_start_and_close_while_history_is_kept(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.05)
    store = Store(dsn)
    hub = store._streams.hub
    hub.keep_history()
    hub.keep_history()
    wait_until(lambda: len(slots.bookmarks(owner)) == 1)
    keeper = hub._keeper.thread
    with store["orders"].watch() as stream:
        assert hub._keeper.thread is keeper
        make_older(owner, slots.bookmarks(owner)[0], age_s=HOUR_S // 2)
        wait_until(lambda: len(slots.bookmarks(owner)) == 2)
        store["orders"].insert("o-1", {})
        assert stream.next(timeout=PATIENCE_S) is not None
    store.close()
    with pytest.raises(StoreClosed):
        hub.keep_history()


def test_the_keeping_goes_over_to_another_process(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process is killed, one closes; there are never more bookmarks than allowed."""
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.05)
    code = (
        "import sys, signal, pgdoc; from pgdoc.streams import bookmarks; bookmarks._INTERVAL_S = 0.05; "
        "store = pgdoc.Store(sys.argv[1]); store._streams.hub.keep_history(); signal.pause()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, dsn])
    try:
        wait_until(lambda: len(slots.bookmarks(owner)) == 1)
        with Store(dsn) as last:
            last.set_history(size=64 * MB)
            with Store(dsn) as one:
                for store in (one, last):
                    store._streams.hub.keep_history()
                wait_until(lambda: owner.execute(KEEPERS).fetchone() == (3,))
                other.kill()
                wait_until(lambda: owner.execute(KEEPERS).fetchone() == (2,))
                _see_one_more(owner)
            wait_until(lambda: owner.execute(KEEPERS).fetchone() == (1,))
            for _ in range(6):
                _see_one_more(owner)
    finally:
        other.kill()
        other.wait()


def _see_one_more(owner: psycopg.Connection) -> None:
    before = slots.flushed(owner)
    write(owner, segments=2)  # more than a third of what may be retained
    wait_until(lambda: slots.bookmarks(owner)[-1].confirmed > before)
    assert len(slots.bookmarks(owner)) <= 4
