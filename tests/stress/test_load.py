"""Under load nothing is lost or repeated, also while connections are lost and mailboxes are full."""

from __future__ import annotations

import random
import shutil
import sys
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from bench import load
from tests.fixtures.fix_server import NOT_DURABLE, local_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.server import LocalServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU times are read from /proc")

PLAN = load.Plan(seconds=15)
_OURS = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE 'pgdoc%' AND (backend_type = 'walsender' OR pid IN (SELECT pid FROM pgdoc.owners))
"""


@pytest.fixture
def cluster() -> Iterator[LocalServer]:
    with local_server(settings=NOT_DURABLE | load.settings_for(PLAN)) as cluster:
        if shutil.which("pgbench", path=str(cluster.bin_dir)) is None:
            pytest.skip("this installation of PostgreSQL has no pgbench")
        load.prepare(PLAN, cluster)
        yield cluster


def check(result: load.Result) -> None:
    assert result.written > 0
    wrong = [each for each in result.readers if each.count != result.written or each.lost or each.repeated]
    assert not wrong, f"{wrong[0].name}: {wrong[0].count} of {result.written}, {wrong[0].error!r}"


def test_64_writers_5_consumers_and_20_streams(cluster: LocalServer) -> None:
    check(load.run(PLAN, cluster))


@pytest.mark.parametrize("buffer", [100, 10_000])
def test_the_same_while_connections_are_lost(cluster: LocalServer, buffer: int) -> None:
    """An owner comes back under its claim, so that nothing is repeated here, either."""
    plan, done = load.Plan(seconds=15, streams=5, buffer=buffer, rate=500), threading.Event()
    ended: list[tuple[bool]] = []

    def cut() -> None:
        dice = random.Random(buffer)
        with psycopg.connect(cluster.conninfo, autocommit=True) as admin:
            while not done.wait(dice.uniform(0.2, 2.0)):
                if not admin.execute("SELECT id FROM docs.load LIMIT 1").fetchone():
                    continue  # streams are still being opened, which a lost connection ends
                pids = [pid for (pid,) in admin.execute(_OURS)]
                ended.extend(admin.execute("SELECT pg_terminate_backend(%s)", [dice.choice(pids)] if pids else [None]))

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        check(load.run(plan, cluster))
    finally:
        done.set()
        thread.join()
    assert len(ended) > 3
