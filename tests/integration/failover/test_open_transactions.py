"""History outlasts a failover although a transaction was open when its bookmark was made, or some always is."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.streams.bookmarks import BookmarkKeeper
from tests.integration.failover.effects import insert, slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeStream, ResumeToken
    from tests.clusters import Clusters

PATIENCE_S = 60.0
PASSES = 4  # of the keeper, beside an open transaction


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep history more often than every five seconds."""
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.2)


@pytest.fixture
def idle(clusters: Clusters) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(clusters.primary.conninfo) as connection:
        yield connection


def next_id(stream: ChangeStream) -> str | None:
    event = stream.next(timeout=PATIENCE_S)
    return event and event.document_id


def check_resume(clusters: Clusters, store: Store, token: ResumeToken) -> None:
    """Fail over, and resume behind the token: the standby must have what was written since."""
    insert(store, "before")
    clusters.wait_for_replay()
    clusters.fail_over()
    insert(store, "after")
    with store["orders"].watch(resume_after=token) as resumed:
        assert [next_id(resumed) for _ in range(2)] == ["before", "after"]


def test_a_bookmark_that_was_made_beside_an_open_transaction_outlasts_a_failover(
    clusters: Clusters, idle: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, passes = threading.Event(), threading.Semaphore(0)
    keep, copy = BookmarkKeeper._keep_for_standbys, BookmarkKeeper._copy_hub_slot

    def keep_once_begun(keeper: BookmarkKeeper, session: Any) -> None:
        if begun.is_set():
            keep(keeper, session)
            if idle.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                passes.release()

    def copy_beside_a_transaction(keeper: BookmarkKeeper, session: Any, slot: str) -> None:
        idle.execute("SELECT pg_current_xact_id()")
        copy(keeper, session, slot)

    monkeypatch.setattr(BookmarkKeeper, "_keep_for_standbys", keep_once_begun)
    monkeypatch.setattr(BookmarkKeeper, "_copy_hub_slot", copy_beside_a_transaction)
    with Store(clusters.conninfo()) as store, store["orders"].watch() as stream:
        insert(store, "a", "b")
        clusters.wait_for_replay()
        begun.set()  # so the first bookmark is too old for the standby, and another is due
        for _ in range(PASSES):
            assert passes.acquire(timeout=PATIENCE_S), "the keeper made no bookmark, or waits for the transaction"
        beside = {name for name in slots(clusters.primary.conninfo) if name.startswith("pgdocb_")}
        assert len(beside) == 2
        assert not [name for name in clusters.synced() if name.startswith("pgdocb_")]
        idle.commit()
        clusters.wait_for_synced("pgdocb_")
        assert [next_id(stream) for _ in range(2)] == ["a", "b"]
        insert(store, "c")
        assert next_id(stream) == "c"
        check_resume(clusters, store, stream.resume_token)


@contextlib.contextmanager
def overlapping_transactions(conninfo: str) -> Iterator[None]:
    """Keep a transaction that writes open at any time: each ends when the next one has written."""
    closing = threading.Event()

    def write(mine: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
        while not closing.is_set():
            mine.execute("INSERT INTO busy VALUES (1)")
            other.commit()
            closing.wait(0.3)
            mine, other = other, mine

    with psycopg.connect(conninfo) as one, psycopg.connect(conninfo) as two:
        one.execute("CREATE TABLE busy (n integer)")
        one.commit()
        thread = threading.Thread(target=write, args=(one, two), name="tests-busy")
        thread.start()
        try:
            yield
        finally:
            closing.set()
            thread.join()


def test_a_server_where_a_transaction_is_always_open_has_history_after_a_failover(clusters: Clusters) -> None:
    with Store(clusters.conninfo()) as store, store["orders"].watch() as stream:
        with overlapping_transactions(clusters.primary.conninfo):
            insert(store, "a", "b")
            assert [next_id(stream) for _ in range(2)] == ["a", "b"]
            clusters.wait_for_synced("pgdocb_")
            insert(store, "c")
            assert next_id(stream) == "c"
        check_resume(clusters, store, stream.resume_token)
