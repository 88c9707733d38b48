"""The metrics of a standby: what it can know, and whether its copies of slots survive a promotion."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pgdoc import Store
from pgdoc.telemetry.database import DatabaseMetrics
from tests.clusters import ask

if TYPE_CHECKING:
    from tests.clusters import Clusters

LABELS = ("docs", "billing")


def scrape(metrics: DatabaseMetrics) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels): sample.value for sample in metrics.scrape()}


def test_a_standby_serves_what_it_can_know_and_is_seen_to_be_promoted(clusters: Clusters) -> None:
    with (
        Store(clusters.conninfo()) as store,
        closing(DatabaseMetrics(clusters.primary.conninfo)) as of_primary,
        closing(DatabaseMetrics(clusters.standby.conninfo)) as of_standby,
    ):
        with store["orders"].watch(consumer="billing") as stream:
            store["orders"].insert("1", {})
            event = stream.next(timeout=60)
            assert event is not None
            stream.ack(event)
            oid = ask(clusters.primary, "SELECT oid FROM pg_database WHERE datname = current_database()")
            clusters.wait_for_synced(f"pgdoc_{oid}_")
            primary, standby = scrape(of_primary), scrape(of_standby)
        assert (primary["pgdoc_in_recovery",], standby["pgdoc_in_recovery",]) == (0, 1)
        assert primary["pgdoc_slot_failover", *LABELS] == 1
        assert ("pgdoc_slot_synced", *LABELS) not in primary
        assert ("pgdoc_slot_failover", *LABELS) not in standby
        assert primary["pgdoc_consumer_owned", *LABELS] == 1
        names = {name for name, *_ in standby}
        assert not names & {
            "pgdoc_consumer_owned",
            "pgdoc_consumer_owner_silent_seconds",
            "pgdoc_consumer_oldest_unacked_seconds",
            "pgdoc_oldest_write_transaction_seconds",
        }
        assert all(standby["pgdoc_scrape_ok", part] == 1 for part in ("server", "sessions", "slots", "consumers"))
        assert standby["pgdoc_slot_synced", *LABELS] == 1
        assert standby["pgdoc_slot_invalid", *LABELS, "none"] == 0
        clusters.fail_over()
        promoted = scrape(of_standby)
        assert promoted["pgdoc_in_recovery",] == 0
        assert promoted["pgdoc_slot_invalid", *LABELS, "none"] == 0
        assert promoted["pgdoc_consumer_owned", *LABELS] == 0
        assert scrape(of_primary)["pgdoc_up",] == 0
