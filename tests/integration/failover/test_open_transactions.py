"""History outlasts a failover although a transaction was open when its bookmark was made, or some always is."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.streams.bookmarks import BookmarkKeeper
from tests.clusters import ask
from tests.integration.failover.effects import insert, slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    assert event is not None
    return event.document_id


def check_resume(clusters: Clusters, store: Store, token: ResumeToken) -> None:
    """Fail over, and resume behind the token: the standby must have what was written since."""
    insert(store, "before")
    clusters.wait_for_replay()
    clusters.fail_over()
    insert(store, "after")
    with store["orders"].watch(resume_after=token) as resumed:
        assert [next_id(resumed) for _ in range(2)] == ["before", "after"]


class BesideATransaction:
    """Has the keeper make the bookmark for the standby while `idle` is in a transaction, whatever else happens.

    The first bookmark is too old for the standby. The next one is due once the standby has said so. Until then the
    keeper is held up. Then the transaction begins, and the hub's slot moves to a record that names it.
    """

    def __init__(self, clusters: Clusters, idle: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_begin, self.passes = threading.Event(), threading.Semaphore(0)
        self._clusters, self._idle = clusters, idle
        self._is_flagged = self._has_begun = False
        keep = BookmarkKeeper._keep_for_standbys
        monkeypatch.setattr(BookmarkKeeper, "_keep_for_standbys", lambda *each: self._keep(keep, *each))

    def _keep(self, keep: Callable[..., None], keeper: BookmarkKeeper, session: Any) -> None:
        if not self.may_begin.is_set() or (self._is_flagged and not self._reports()):
            return
        if self._is_flagged and not self._has_begun:
            self._begin(keeper, session)
        keep(keeper, session)
        if self._has_begun:
            self.passes.release()
        self._is_flagged = True

    def _reports(self) -> bool:
        query = "SELECT catalog_xmin IS NOT NULL FROM pg_replication_slots WHERE slot_type = 'physical'"
        return bool(ask(self._clusters.primary, query))

    def _begin(self, keeper: BookmarkKeeper, session: Any) -> None:
        self._idle.execute("SELECT pg_current_xact_id()")
        self._has_begun = True
        slot, begun_at = keeper._hub.slot, ask(self._clusters.primary, "SELECT pg_current_wal_insert_lsn()")
        query = "SELECT restart_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        while slot and not ask(self._clusters.primary, query, begun_at, slot):
            keeper._advance_hub_slot(session, slot, wait_s=1)


def test_a_bookmark_that_was_made_beside_an_open_transaction_outlasts_a_failover(
    clusters: Clusters, idle: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = BesideATransaction(clusters, idle, monkeypatch)
    with Store(clusters.conninfo()) as store, store["orders"].watch() as stream:
        insert(store, "a", "b")
        clusters.wait_for_replay()
        beside.may_begin.set()
        for _ in range(PASSES):
            assert beside.passes.acquire(timeout=PATIENCE_S), "the keeper waits for the transaction"
        assert len([name for name in slots(clusters.primary.conninfo) if name.startswith("pgdocb_")]) == 2
        assert not clusters.synced()
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
