"""Workers on a log under fault and load: each event has one effect or one dead letter, and the order stands."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.worker_group_run import run_worker_group

if TYPE_CHECKING:
    from pgdoc.server import LocalServer
    from tests.engines import NatsServer
    from tests.redis_server import RedisServer

SECONDS = float(os.environ.get("PGDOC_STRESS_SECONDS", "40"))
EVENTS = int(os.environ.get("PGDOC_WORKER_EVENTS", "20000"))


def _seed() -> int:
    seed = int(os.environ.get("PGDOC_WORKER_SEED", str(time.time_ns() % 1_000_000)))
    print(f"PGDOC_WORKER_SEED={seed}")  # noqa: T201 (to repeat a run)
    return seed


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_workers_that_are_killed_paused_and_added_beside_servers_that_restart_lose_and_repeat_nothing(
    private_server: LocalServer, private_dsn: str, private_nats: NatsServer, *, is_async: bool
) -> None:
    def restart_nats() -> None:
        private_nats.kill()
        private_nats.start()

    run_worker_group(
        private_dsn,
        f"{private_nats.url}/ORDERS",
        events=EVENTS,
        faults=int(SECONDS),
        seconds=SECONDS,
        seed=_seed(),
        is_async=is_async,
        restarts={"nats": restart_nats, "postgresql": private_server.restart},
    )


def test_workers_on_redis_that_are_killed_paused_and_added_lose_and_repeat_nothing(
    private_server: LocalServer, private_dsn: str, private_redis: RedisServer
) -> None:
    def restart_redis() -> None:
        private_redis.kill()
        private_redis.start()

    run_worker_group(
        private_dsn,
        f"{private_redis.url}/ORDERS",
        events=EVENTS,
        faults=int(SECONDS) // 2,
        seconds=SECONDS / 2,
        seed=_seed(),
        is_async=False,
        restarts={"redis": restart_redis, "postgresql": private_server.restart},
    )
