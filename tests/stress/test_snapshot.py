"""Snapshots of large collections during concurrent writes."""

from __future__ import annotations

import random

import psycopg
import pytest

import pgdoc
from tests import snapshots
from tests.integration.test_snapshot_law import check_copy, fill

DOCUMENTS = 1_000_000
LIMIT_KIB = 100 << 10


def test_a_million_documents_beside_writers(rough_dsn: str, rough_schema: str) -> None:
    with pgdoc.Store(rough_dsn, schema=rough_schema) as store:
        for name in snapshots.NAMES:
            store.create_collection(name)
    with psycopg.connect(rough_dsn, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO {rough_schema}.a (id, data) SELECT 'k' || lpad(n::text, 7, '0'), "
            "jsonb_build_object('v', 0, 'text', repeat('x', 200)) FROM generate_series(0, %s) AS n",
            [DOCUMENTS - 1],
        )
    seconds, grown_kib = snapshots.read_large_snapshot(rough_dsn, rough_schema, DOCUMENTS)
    print(f"{DOCUMENTS:,} documents in {seconds:.0f} s, memory grew by {grown_kib >> 10} MiB")  # noqa: T201
    assert grown_kib < LIMIT_KIB


@pytest.mark.parametrize("_", range(10))
def test_the_events_give_the_tables(shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, _: int) -> None:
    monkeypatch.setattr("pgdoc._sync.snapshot_reader.PART_DOCUMENTS", snapshots.PART_DOCUMENTS)
    fill(shared_dsn, schema, 1_500)
    snapshots.follow(shared_dsn, schema, opens=60, seed=random.randrange(1 << 30))


def test_a_consumer_that_is_killed_thirty_times_keeps_a_copy(shared_dsn: str, schema: str) -> None:
    check_copy(shared_dsn, schema, kills=30)
