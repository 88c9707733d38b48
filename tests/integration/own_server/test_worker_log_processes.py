"""Worker processes on a log that are killed, paused and added: each event has exactly one effect, or one letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.worker_group_run import run_worker_group

if TYPE_CHECKING:
    from tests.engines import NatsServer


def test_workers_that_are_killed_paused_and_added_lose_and_repeat_nothing(dsn: str, private_nats: NatsServer) -> None:
    def restart() -> None:
        private_nats.kill()
        private_nats.start()

    run_worker_group(
        dsn,
        f"{private_nats.url}/ORDERS",
        events=1400,
        faults=7,
        seconds=7,
        seed=20,
        is_async=False,
        restarts={"nats": restart},
    )
