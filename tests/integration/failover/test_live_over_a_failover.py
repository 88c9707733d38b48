"""Live queries go on at a promoted standby, also without what the standby did not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import Store
from tests.integration.failover.effects import insert

if TYPE_CHECKING:
    from pgdoc import LiveQuery
    from tests.clusters import Clusters

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep history more often than every five seconds."""
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.5)


def until(query: LiveQuery, *ids: str) -> None:
    while [document.id for document in query.documents] != [*ids]:
        assert query.next_batch(PATIENCE_S)


def test_a_result_loses_what_a_failover_has_lost(clusters: Clusters) -> None:
    with Store(clusters.conninfo()) as store, store["orders"].live() as query, store["orders"].live(limit=1) as first:
        insert(store, "b", "c")
        until(query, "b", "c")
        clusters.wait_for_synced("pgdocb_")
        clusters.wait_for_replay()
        clusters.cut_off()
        insert(store, "a", "lost")
        until(query, "a", "b", "c", "lost")
        until(first, "a")
        before = query.resume_token
        clusters.fail_over()
        insert(store, "d")
        until(query, "b", "c", "d")
        until(first, "b")
        assert (before.timeline, query.resume_token.timeline) == (1, 2)
        with store["orders"].live() as another:
            until(another, "b", "c", "d")
