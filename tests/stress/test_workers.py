"""Workers under fault and load: each event has exactly one effect, or one dead letter, and the order stands.

Processes are killed at every step and at random, the server restarts, and connections are cut.
"""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import PgdocError, Store
from tests.fixtures.fix_server import NOT_DURABLE, local_server
from tests.proxy import Proxy
from tests.worker_process import CONSUMER, EFFECTS, STEPS, Child, Ledger, Plan, run_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.server import LocalServer

SECONDS = float(os.environ.get("PGDOC_STRESS_SECONDS", "40"))
ONE, BOTH = ("one",), ("one", "two")
PLANS = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
SHARES = pytest.mark.parametrize("handlers", [ONE, BOTH], ids=["sole", "shared"])
# A sole handler has no position besides the consumer's, which its lane stores.
_ONLY_SHARED = ("before the checkpoint", "before the commit of the checkpoint", "after the checkpoint")


@pytest.fixture
def private_server() -> Iterator[LocalServer]:
    """A server that also listens on TCP, so that connections to it can be cut."""
    with local_server(port=0, settings=NOT_DURABLE) as server:
        yield server


@pytest.fixture
def store(private_dsn: str) -> Iterator[Store]:
    with Store(private_dsn) as store:
        store.create_collection("orders")
        assert store.create_consumer(CONSUMER, "orders")
        yield store


@pytest.fixture
def ledger(private_dsn: str, store: Store) -> Ledger:
    with store.transaction() as tx:
        tx.connection.execute(EFFECTS)
    return Ledger(private_dsn)


def some(dice: random.Random, count: int) -> list[str]:
    return ["o-3", *(f"o-{dice.randrange(12)}" for _ in range(count))]


@SHARES
@PLANS
def test_workers_that_are_killed_at_each_step_lose_and_repeat_nothing(
    private_dsn: str, store: Store, ledger: Ledger, handlers: tuple[str, ...], *, is_async: bool
) -> None:
    dice = random.Random(3)
    names = [each for each in STEPS if "removed" not in each and (len(handlers) > 1 or each not in _ONLY_SHARED)]
    # A sole handler begins once in a process.
    steps = [(each, at) for each in names for at in (1, 2) if at == 1 or len(handlers) > 1 or "begin" not in each]

    def plan(ended: int) -> Plan:
        ledger.write(store, some(dice, 30))
        step, at = steps[ended] if ended < len(steps) else ("", 1)
        return Plan(
            private_dsn, handlers, is_async, batch=7, bad=("o-3",), step=step, at=at, cautious_after=100, on_dead="park"
        )

    run_until(
        lambda: ledger.is_done(*handlers),
        plan,
        least=len(steps),
        more=lambda: ledger.write(store, some(dice, 10)),
        patience_s=400,
    )
    ledger.check(*handlers)
    for each in handlers:
        assert ledger.letters(each) == [event for event in ledger.written if event[0] == "o-3"]


@SHARES
@PLANS
def test_an_owner_that_was_silent_commits_nothing_when_it_wakes_up(
    private_dsn: str, store: Store, ledger: Ledger, handlers: tuple[str, ...], *, is_async: bool
) -> None:
    dice = random.Random(9)
    plan = Plan(private_dsn, handlers, is_async, batch=7, bad=("o-3",), cautious_after=100, on_dead="park", lease_s=3)
    steps = ["before the call", "after the call", "before the commit", "after the commit", "after a letter is stored"]
    for step in steps:
        ledger.write(store, some(dice, 30))
        with Child(dataclasses.replace(plan, step=step, freezes=True)) as former:
            _await(former.has_frozen, f"{step}: does not come")
            ledger.write(store, some(dice, 10))
            with Child(plan) as other:
                _await(lambda: ledger.is_done(*handlers), f"{step}: nobody takes over")
                former.thaw()
                ledger.write(store, some(dice, 10))
                _await(lambda: ledger.is_done(*handlers), f"{step}: nobody goes on")
                assert other.stop() == 0
            ledger.write(store, some(dice, 10))
            _await(lambda: ledger.is_done(*handlers), f"{step}: the former owner does not go on")
            assert former.stop() == 0
        ledger.check(*handlers)


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@PLANS
def test_letters_that_are_tried_again_by_processes_that_are_killed_have_one_effect_each(
    private_dsn: str, store: Store, ledger: Ledger, *, is_async: bool
) -> None:
    good = Plan(private_dsn, ONE, is_async, retries=0, on_dead="park", cautious_after=100)
    for _ in range(10):
        ledger.write(store, ["a", "b", "c"])
    run_until(lambda: ledger.is_done("one"), lambda _: dataclasses.replace(good, bad=("a", "b")))
    assert len(ledger.letters("one")) == 20
    assert store.retry_dead_letters(consumer=CONSUMER) >= 2

    def plan(ended: int) -> Plan:
        ledger.write(store, ["a", "b"])
        steps = ["before a letter is removed", "after a letter is removed", "before the call", "after the call"]
        return dataclasses.replace(good, step=steps[ended] if ended < 4 else "", at=2)

    run_until(lambda: not ledger.letters("one") and ledger.is_done("one"), plan, least=4)
    ledger.check("one")


def test_a_dead_letter_that_ends_each_process_is_dead_again(private_dsn: str, store: Store, ledger: Ledger) -> None:
    ledger.write(store, ["a", "b"])
    run_until(lambda: ledger.is_done("one"), lambda _: Plan(private_dsn, bad=("a",), retries=0))
    assert store.retry_dead_letters(consumer=CONSUMER) == 1
    ledger.write(store, ["c"])
    run_until(lambda: ledger.is_done("one"), lambda _: Plan(private_dsn, deadly=("a",), retries=0), least=3)
    ledger.check("one")
    (letter,) = store.dead_letters(consumer=CONSUMER)
    assert letter.state == "dead"
    assert "3 processes ended while they tried this letter" in str(letter.error)


def test_an_event_that_ends_each_process_becomes_a_dead_letter(private_dsn: str, store: Store, ledger: Ledger) -> None:
    ledger.write(store, [f"o-{n}" for n in range(40)])
    ended = run_until(
        lambda: ledger.is_done(*BOTH),
        lambda _: Plan(private_dsn, BOTH, batch=30, retries=0, deadly=("o-11",), cautious_after=1, takes_one=True),
    )
    ledger.check(*BOTH)
    assert ledger.letters("one") == [("o-11", 1)]
    assert ledger.letters("two") == []
    assert 3 <= ended <= 8


@PLANS
def test_poisonous_events_in_the_middle_of_100_000(
    private_dsn: str, store: Store, ledger: Ledger, *, is_async: bool
) -> None:
    names = [f"o-{n}" for n in range(100_000)]
    with store.transaction() as tx:
        tx["orders"].insert_many((each, {"n": 1}) for each in names)
    ledger.written += [(each, 1) for each in names]
    plan = Plan(
        private_dsn, BOTH, is_async, batch=500, retries=1, bad=("o-50000",), deadly=("o-50100",), cautious_after=2
    )
    ended = run_until(lambda: ledger.is_done(*BOTH), lambda _: plan, patience_s=400)
    ledger.check(*BOTH)
    assert ledger.letters("one") == [("o-50000", 1), ("o-50100", 1)]
    assert ledger.letters("two") == [("o-50000", 1)]
    assert ended >= 4


@SHARES
@PLANS
def test_standbys_that_are_killed_at_random_beside_a_server_that_restarts_lose_and_repeat_nothing(
    private_server: LocalServer,
    private_dsn: str,
    store: Store,
    ledger: Ledger,
    handlers: tuple[str, ...],
    *,
    is_async: bool,
) -> None:
    dice, patience = random.Random(11), time.monotonic() + SECONDS + 200
    address = conninfo_to_dict(private_dsn)
    with Proxy(str(address["host"]), int(str(address["port"]))) as proxy:
        dsn = make_conninfo(private_dsn, host="127.0.0.1", port=proxy.port)
        plan = Plan(dsn, handlers, is_async, batch=5, retries=5, bad=("o-3",), cautious_after=1000, pause_s=0.02)
        children = [Child(plan) for _ in range(3)]
        over = threading.Event()
        writer = threading.Thread(target=_write, args=(ledger, store, over), daemon=True)
        writer.start()
        try:
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                time.sleep(dice.uniform(0.2, 1.5))
                _break(dice, children, plan, proxy, private_server)
            over.set()
            writer.join(60)
            while not ledger.is_done(*handlers):
                assert time.monotonic() < patience, "not done"
                for number, child in enumerate(children):
                    if child.is_over:
                        child.kill()
                        children[number] = Child(plan)
                time.sleep(0.2)
            assert [child.stop() for child in children] == [0] * len(children)
        finally:
            over.set()
            for child in children:
                child.kill()
    ledger.check(*handlers)
    letters = {event for each in handlers for event in ledger.letters(each)}
    assert letters == {event for event in ledger.written if event[0] == "o-3"}


def _break(dice: random.Random, children: list[Child], plan: Plan, proxy: Proxy, server: LocalServer) -> None:
    kind = dice.choice(["kill", "kill", "kill", "stop", "cut", "cut", "restart"])
    number = dice.randrange(len(children))
    if kind == "kill":
        children[number].kill()
        children[number] = Child(plan)
    elif kind == "stop":
        assert children[number].stop() in {0, -15}, "it may not have begun"
        children[number] = Child(plan)
    elif kind == "cut":
        proxy.cut()
    else:
        server.restart()


def _write(ledger: Ledger, store: Store, over: threading.Event) -> None:
    """Write until the end; what a restart of the server may have taken is left to find out."""
    dice = random.Random(5)
    while not over.wait(0.05):
        before, versions = list(ledger.written), ledger.versions()
        try:
            ledger.write(store, some(dice, 10))
        except (PgdocError, psycopg.Error):
            ledger.restore(before, versions, store)
