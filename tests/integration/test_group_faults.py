"""A short run of the faults that `tests/stress/test_groups.py` does at length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.group_process import run_group

if TYPE_CHECKING:
    from tests.engines import NatsServer


def test_members_of_a_group_that_are_killed_and_paused_lose_and_repeat_nothing(
    private_dsn: str, private_nats: NatsServer
) -> None:
    run_group(private_dsn, f"{private_nats.url}/ORDERS", events=1000, seconds=1, seed=1, faults=10)
