"""Groups under fault and load: members are killed, paused and added; each event has exactly one effect, in order."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tests.group_process import run_group

if TYPE_CHECKING:
    from tests.engines import NatsServer

SECONDS = float(os.environ.get("PGDOC_STRESS_SECONDS", "40"))
EVENTS = int(os.environ.get("PGDOC_GROUP_EVENTS", "40000"))


def test_members_that_are_killed_paused_and_added_lose_and_repeat_nothing(
    private_dsn: str, private_nats: NatsServer
) -> None:
    seed = int(os.environ.get("PGDOC_GROUP_SEED", str(time.time_ns() % 1_000_000)))
    print(f"PGDOC_GROUP_SEED={seed}")  # noqa: T201 (to repeat a run)
    run_group(private_dsn, f"{private_nats.url}/ORDERS", events=EVENTS, seconds=SECONDS, seed=seed)
