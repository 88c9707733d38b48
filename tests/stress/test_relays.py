"""Three relays into one log while everything fails: the log equals the account of its events, one by one.

`PGDOC_STRESS_RELAY_EVENTS` is the number of events in sum: 1,000,000.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.engines import NatsCluster, NatsServer
from tests.relay_day import RelayDay

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = int(os.environ.get("PGDOC_STRESS_RELAY_EVENTS", "1000000"))
SEED = int(os.environ.get("PGDOC_STRESS_SEED", "20"))


@pytest.mark.parametrize("seed", range(2))
def test_three_relays_into_one_server_lose_and_repeat_nothing(private_dsn: str, tmp_path: Path, seed: int) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        events = EVENTS * 3 // 8
        faults = RelayDay(private_dsn, server, random.Random(SEED + seed), events).run(120 + events / 1000)
    finally:
        server.stop()
    assert faults > 5


def test_three_relays_into_three_servers_lose_and_repeat_nothing(private_dsn: str, tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path)
    try:
        cluster.start()
        events = EVENTS // 4
        faults = RelayDay(private_dsn, cluster, random.Random(SEED), events).run(120 + events / 500)
    finally:
        cluster.stop()
    assert faults > 5
