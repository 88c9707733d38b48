"""Workers on a log under fault and load: each event has one effect or one dead letter, and the order stands."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.worker_group_run import HANDLERS, LEASE_S, run_worker_group, write
from tests.worker_process import CONSUMER, EFFECTS, Child, Ledger, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_owner_that_was_silent_commits_nothing_when_it_wakes_up(
    private_dsn: str, private_nats: NatsServer, *, is_async: bool
) -> None:
    with psycopg.connect(private_dsn, autocommit=True) as connection:
        connection.execute(EFFECTS)
    ledger, url = Ledger(private_dsn), f"{private_nats.url}/ORDERS"
    plan = Plan(private_dsn, HANDLERS, is_async, batch=7, bad=("o-3",), cautious_after=100, on_dead="park")
    plan = dataclasses.replace(plan, lease_s=LEASE_S, log=url)
    for step in (
        "before the call",
        "after the call",
        "before the commit of a group",
        "after the commit",
        "after a letter is stored",
    ):
        write(ledger, url, 200)
        with Child(dataclasses.replace(plan, step=step, freezes=True)) as former:
            _await(former.has_frozen, f"{step}: does not come")
            write(ledger, url, 100)
            with Child(plan) as other:
                _await(lambda: ledger.is_done(*HANDLERS), f"{step}: nobody takes over")
                former.thaw()
                write(ledger, url, 100)
                _await(lambda: ledger.is_done(*HANDLERS), f"{step}: nobody goes on")
                assert other.stop() == 0
            write(ledger, url, 100)
            _await(lambda: ledger.is_done(*HANDLERS), f"{step}: the former owner does not go on")
            assert former.stop() == 0
        ledger.check(*HANDLERS)
    with psycopg.connect(private_dsn) as connection:
        rows = connection.execute("SELECT DISTINCT split_part(consumer, '#', 1) FROM pgdoc.handlers").fetchall()
    assert rows == [(CONSUMER,)]


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
