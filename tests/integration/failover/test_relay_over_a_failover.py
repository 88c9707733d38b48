"""A relay over a failover of PostgreSQL: the log goes on, or the relay says what the promoted server has undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import ChangeEvent, Relay, Store
from pgdoc.errors import LogGap
from tests.clusters import ask, wait_until
from tests.engines import log_of
from tests.integration._sync.relays import fresh_stream, relaying, until
from tests.integration.failover.effects import insert
from tests.integration.relay_tests import EAGER

if TYPE_CHECKING:
    from tests.clusters import Clusters
    from tests.engines import NatsServer
    from tests.fixtures.fix_clusters import OpenClusters


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep history more often than every five seconds."""
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.5)


def ids_of(server: NatsServer, stream: str) -> list[str | None]:
    return [ChangeEvent.from_json(body).document_id for _, body in log_of(server.url, stream)]


def wait_for_slot(clusters: Clusters, consumer: str) -> None:
    oid = ask(clusters.primary, "SELECT oid FROM pg_database WHERE datname = current_database()")
    clusters.wait_for_synced(f"pgdoc_{oid}_{consumer}")
    clusters.wait_for_replay()


def test_a_relay_goes_on_at_the_promoted_standby(make_clusters: OpenClusters, nats_server: NatsServer) -> None:
    clusters, stream = make_clusters(synchronized=True), fresh_stream()
    with Store(clusters.conninfo()) as store:
        relay = Relay(store, "relay", f"{nats_server.url}/{stream}?{EAGER}", "orders")
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            insert(store, "a", "b")
            until(lambda: relay.status().sequence == 2)
            wait_for_slot(clusters, "relay")
            clusters.fail_over()
            insert(store, "c", "d")
            until(lambda: relay.status().sequence == 4, 60)
        with relaying(relay):
            insert(store, "e")
            until(lambda: relay.status().sequence == 5)
        assert ids_of(nats_server, stream) == ["a", "b", "c", "d", "e"]
        store.drop_consumer("relay")


def test_a_relay_whose_log_has_events_that_a_failover_has_undone_says_so(
    clusters: Clusters, nats_server: NatsServer
) -> None:
    stream = fresh_stream()
    with Store(clusters.conninfo()) as store:
        first = Relay(store, "relay", f"{nats_server.url}/{stream}?{EAGER}", "orders")
        with relaying(first):
            until(lambda: first.status().state == "relaying")
            insert(store, "a", "b")
            until(lambda: first.status().sequence == 2)
            wait_for_slot(clusters, "relay")
        clusters.cut_off()
        to = f"{nats_server.url}/{stream}?sync_interval=1h"  # so that the consumer is not beyond the standby
        relay = Relay(store, "relay", to, "orders")
        with relaying(relay):
            insert(store, "undone")
            until(lambda: relay.status().sequence == 3)
        clusters.fail_over()
        insert(store, "c")
        with pytest.raises(LogGap, match="a failover has undone"):
            relay.run()
        going_on = Relay(store, "relay", to, "orders", on_lost="continue")
        with relaying(going_on):
            wait_until(lambda: going_on.status().sequence == 4)
        assert ids_of(nats_server, stream) == ["a", "b", "undone", "c"]
        store.drop_consumer("relay")
