"""The snapshot law of `tests/snapshots.py` with concurrent writers, in short runs."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from tests import snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def fill(dsn: str, schema: str, documents: int) -> None:
    with pgdoc.Store(dsn, schema=schema) as store:
        for name in snapshots.NAMES:
            store[name].insert_many((f"k{number:07d}", {"v": 0}) for number in range(documents))


def test_the_events_give_the_tables(shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc._sync.snapshot_reader.CHUNK_DOCUMENTS", snapshots.PART_DOCUMENTS)
    fill(shared_dsn, schema, 1_500)
    snapshots.follow(shared_dsn, schema, opens=20, seed=random.randrange(1 << 30))


def test_a_consumer_that_is_killed_again_and_again_keeps_a_copy(shared_dsn: str, schema: str) -> None:
    check_copy(shared_dsn, schema, kills=4)


def check_copy(dsn: str, schema: str, *, kills: int) -> None:
    """Kill a consumer during and after its snapshot, and check that its copy equals the tables."""
    fill(dsn, schema, 400)
    command = [sys.executable, "-m", "tests.snapshots", dsn, schema]
    with psycopg.connect(dsn, autocommit=True) as connection, pgdoc.Store(dsn, schema=schema) as store:
        connection.execute(snapshots.CATALOG.format(schema=schema).encode())
        with snapshots.writing(dsn, schema, writers=2, documents=400, pause_s=0.01):
            for _ in range(kills):
                with killed_at_the_end(command):
                    wait_for_changes(connection, schema)
        wanted = {key: snapshots.stored_form(document) for key, document in snapshots.tables(store).items()}
        with killed_at_the_end(command) as process:
            deadline = time.monotonic() + PATIENCE_S
            while copied(connection, schema) != wanted:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert store.drop_consumer(snapshots.CONSUMER)


@contextmanager
def killed_at_the_end(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program; `Popen` alone would wait for its end, also after an assertion failed."""
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_changes(connection: psycopg.Connection[Any], schema: str) -> None:
    """Wait until the copy has changed a few times."""
    query = "SELECT n_tup_ins + n_tup_del FROM pg_stat_user_tables WHERE relname = %s"
    seen: set[tuple[Any, ...]] = set()
    deadline = time.monotonic() + PATIENCE_S
    while len(seen) < 3:
        assert time.monotonic() < deadline
        seen.update(connection.execute(query, [f"{schema}_{snapshots.CONSUMER}"]).fetchall())
        time.sleep(0.1)


def copied(connection: psycopg.Connection[Any], schema: str) -> dict[tuple[str, str], Any]:
    rows = connection.execute(f"SELECT collection, id, document FROM {schema}_{snapshots.CONSUMER}".encode())
    return {(collection, document_id): document for collection, document_id, document in rows}
