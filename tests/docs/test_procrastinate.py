"""The program of docs/how-to/procrastinate.md enqueues each job exactly once, wherever it is killed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import procrastinate
import psycopg
import pytest

import pgdoc
from tests.docs.project import LIMIT_S, environment, finish_worker, kill_worker, write_files
from tests.examples.dying import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = "docs/how-to/procrastinate.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(PAGE, tmp_path)
    return tmp_path


@pytest.fixture
def store(dsn: str) -> Iterator[pgdoc.Store]:
    """A store on a database with procrastinate's tables and the consumer of the page."""
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=dsn))
    with app.open():
        app.schema_manager.apply_schema()
    with pgdoc.Store(dsn) as store:
        store.create_consumer("receipts", "orders")
        yield store
        store.drop_consumer("receipts")


def jobs(dsn: str) -> list[tuple[str, str]]:
    with psycopg.connect(dsn) as connection:
        query = "SELECT args ->> 'order', status::text FROM procrastinate_jobs ORDER BY id"
        return connection.execute(query).fetchall()


def test_a_worker_that_is_killed_at_every_step_enqueues_each_job_once_and_they_run(
    store: pgdoc.Store, dsn: str, folder: Path
) -> None:
    orders = [f"o-{number}" for number in range(24)]
    store["orders"].insert_many((order, {"total": 1}) for order in orders)
    variables = environment(folder, PGDOC_DSN=dsn)
    for step in STEPS:
        kill_worker(step, 2, variables)  # batches have two events, see `dying`
    found = [order for order, _ in jobs(dsn)]
    assert 0 < len(found) < len(orders)  # otherwise nobody was killed on the way
    assert found == orders[: len(found)]
    finish_worker(store, "receipts", variables)
    assert [order for order, _ in jobs(dsn)] == orders
    command = [sys.executable, "-m", "procrastinate", "--app=app.jobs", "worker", "--one-shot"]
    subprocess.run(command, env=variables, check=True, timeout=LIMIT_S)
    assert sorted(jobs(dsn)) == sorted((order, "succeeded") for order in orders)
