"""Worker processes that end at any step: each event has exactly one effect, or one dead letter."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.worker_process import CONSUMER, EFFECTS, Ledger, Plan, run_until

if TYPE_CHECKING:
    import psycopg

    from pgdoc import Store

pytestmark = pytest.mark.usefixtures("in_a_hurry")
BOTH = ("one", "two")


@pytest.fixture
def ledger(dsn: str, store: Store, owner: psycopg.Connection) -> Ledger:
    owner.execute(EFFECTS)
    assert store.create_consumer(CONSUMER, "orders")
    return Ledger(dsn)


def some(dice: random.Random, count: int) -> list[str]:
    return ["o-3", *(f"o-{dice.randrange(12)}" for _ in range(count))]


def test_workers_that_are_killed_at_each_step_lose_and_repeat_nothing(dsn: str, store: Store, ledger: Ledger) -> None:
    dice = random.Random(7)
    steps = ["before the commit", "after the commit", "before the commit of the checkpoint", "after a letter is stored"]

    def plan(ended: int) -> Plan:
        ledger.write(store, some(dice, 30))
        step = steps[ended] if ended < len(steps) else ""
        return Plan(dsn, BOTH, batch=7, bad=("o-3",), step=step, cautious_after=100, on_dead="park")

    run_until(lambda: ledger.is_done(*BOTH), plan, least=len(steps))
    ledger.check(*BOTH)
    assert ledger.letters("two") == [each for each in ledger.written if each[0] == "o-3"]
