"""Live queries on a server whose history is lost, and beside commits that become visible late."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc import Store
from pgdoc.live.changes import applied
from pgdoc.live.queries import LiveQueries
from tests.background import Background
from tests.integration.own_server.faults import drop_slots
from tests.integration.own_server.words import PATIENCE_S, wait_until
from tests.synchronous import no_standby

if TYPE_CHECKING:
    import pytest

    from pgdoc import LiveQuery
    from pgdoc.server import LocalServer


def ids(query: LiveQuery) -> list[str]:
    return [document.id for document in query.documents]


def test_a_query_goes_on_with_the_difference_where_history_is_lost(
    cluster: LocalServer, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 3600)
    with Store(dsn) as store:
        orders = store["orders"]
        orders.insert_many((f"o{number}", {"n": number}) for number in range(5))
        with orders.live(sort="-n", limit=3) as query, orders.live({"n": {"$gte": 3}}) as other:
            began = query.resume_token
            drop_slots(cluster)  # the hub finds no history where it wants to go on
            orders.delete("o4")
            orders.insert("o9", {"n": 9})
            rows = ids(query)
            while rows != ["o9", "o3", "o2"]:
                for each in query.next_batch(PATIENCE_S):
                    applied(rows, each, each.document.id)
                assert rows == ids(query)
            assert query.resume_token > began
            while ids(other) != ["o3", "o9"]:
                assert other.next_batch(PATIENCE_S)
            orders.delete("o9")
            change = query.next(PATIENCE_S)
            assert change is not None
            assert (change.kind, change.document.id) == ("removed", "o9")


def test_a_query_survives_a_restart_of_the_server(cluster: LocalServer, dsn: str) -> None:
    with Store(dsn) as store, store["orders"].live() as query:
        store["orders"].insert("a", {})
        cluster.restart()
        store["orders"].insert("b", {})
        while ids(query) != ["a", "b"]:
            assert query.next_batch(PATIENCE_S)


def test_a_read_that_misses_what_the_stream_has_taken_is_repeated(
    dsn: str, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that waits for a synchronous standby is in the WAL, and so in the stream, before statements see it."""
    accepted: list[bool] = []
    end_read = LiveQueries.end_read

    def note(queries: LiveQueries, *args: Any) -> bool:
        accepted.append(end_read(queries, *args))
        return accepted[-1]

    monkeypatch.setattr(LiveQueries, "end_read", note)
    with (
        Store(dsn) as store,
        store["orders"].live() as first,
        no_standby(dsn),
        psycopg.connect(dsn, autocommit=True) as late,
    ):
        pid = late.info.backend_pid
        insert = "INSERT INTO docs.orders (id, data) VALUES ('late', '{}')"
        with Background(late.execute, insert):
            assert [each.document.id for each in first.next_batch(PATIENCE_S)] == ["late"]
            accepted.clear()
            found: list[list[str]] = []
            done = threading.Event()

            def open_another() -> None:
                with store["orders"].live(sort="n") as query:
                    found.append(ids(query))
                done.set()

            with Background(open_another):
                wait_until(lambda: len(accepted) >= 2 or done.is_set())
                assert not any(accepted)
                admin.execute("SELECT pg_cancel_backend(%s)", [pid])
        assert found == [["late"]]
        assert accepted[-1]
