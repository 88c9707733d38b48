"""Runs workers on a log while processes are killed, paused and added, and servers restart; checks what became of it."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Final

import psycopg

from tests.made_logs import fill
from tests.worker_process import CONSUMER, EFFECTS, Child, Ledger, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HANDLERS: Final = ("one", "two")
LEASE_S: Final = 2
_BAD: Final = "o-3"
_MOST: Final = 5
_PATIENCE_S: Final = 120.0


def run_worker_group(
    dsn: str,
    url: str,
    *,
    events: int,
    faults: int,
    seconds: float,
    seed: int,
    is_async: bool,
    restarts: Mapping[str, Callable[[], object]],
) -> None:
    """Write events in as many portions as there are faults, and check that each has one effect or one letter.

    Args:
        dsn: of the database of the effects.
        url: of the log.
        seconds: how long the faults take together, without restarts and pauses.
        restarts: what restarts, by name.
    """
    dice = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(EFFECTS)
    ledger = Ledger(dsn)
    plan = Plan(
        dsn, HANDLERS, is_async, batch=7, bad=(_BAD,), on_dead="park", cautious_after=1000, lease_s=LEASE_S, log=url
    )
    kinds = ["kill", "kill", "pause", "add", "add", "stop", *restarts]
    order = [*kinds, *dice.choices(kinds, k=max(0, faults - len(kinds)))]
    dice.shuffle(order)
    children = [Child(plan) for _ in range(2)]
    try:
        for kind in order:
            write(ledger, url, events // len(order))
            time.sleep(seconds / len(order))
            if kind in restarts:
                restarts[kind]()
            else:
                _break(dice, kind, children, plan)
        write(ledger, url, events - len(ledger.written))
        _wait(ledger, children, plan)
        for child in children:
            _stop(child)
    finally:
        for child in children:
            child.kill()
    ledger.check(*HANDLERS)
    for each in HANDLERS:
        assert ledger.letters(each) == [event for event in ledger.written if event[0] == _BAD]
    _check_rows(dsn)


def write(ledger: Ledger, url: str, count: int) -> None:
    """Append events to the log, and note them."""
    begin = len(ledger.written) + 1
    fill(url, range(begin, begin + count))
    ledger.written += [(f"o-{number % 100}", number) for number in range(begin, begin + count)]


def _break(dice: random.Random, kind: str, children: list[Child], plan: Plan) -> None:
    number = dice.randrange(len(children))
    if kind == "add" and len(children) < _MOST:
        children.append(Child(plan))
    elif kind == "kill":
        children[number].kill()
        children[number] = Child(plan)
    elif kind == "stop":
        _stop(children[number])
        children[number] = Child(plan)
    elif kind == "pause":
        process = children[number].process
        process.send_signal(signal.SIGSTOP)
        time.sleep(dice.choice([0.2, 1.0, 1.5, 2.0]) * LEASE_S)
        process.send_signal(signal.SIGCONT)


def _stop(child: Child) -> None:
    status = child.stop()
    assert status in {0, -signal.SIGTERM}, f"it ends with {status}, although it may not have begun"


def _wait(ledger: Ledger, children: list[Child], plan: Plan) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not ledger.is_done(*HANDLERS):
        assert time.monotonic() < deadline, f"not done: {[len(ledger.effects(each)) for each in HANDLERS]}"
        ended = [child.process.returncode for child in children if child.is_over]
        assert not ended, f"processes ended by themselves: {ended}"
        time.sleep(0.2)


def _check_rows(dsn: str) -> None:
    """Check that the rows of the handlers are those of the group's partitions."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT DISTINCT consumer FROM pgdoc.handlers").fetchall()
    assert {name for (name,) in rows} == {f"{CONSUMER}#{number}" for number in range(8)}
