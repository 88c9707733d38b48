"""Event sourcing: competing commands, states at any moment, and a projection that is killed and rebuilt."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import pgdoc
from docs.examples import event_sourcing as bank
from tests.examples.dying import STEPS
from tests.examples.programs import PATIENCE_S, ROOT, drop_consumer, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCOUNTS = [f"account-{number}" for number in range(6)]


@pytest.fixture
def store(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pgdoc.Store]:
    monkeypatch.setenv("PGDOC_DSN", dsn)  # for the program
    with pgdoc.Store(dsn) as store:
        bank.prepare(store)
        yield store


@pytest.fixture
def projection(store: pgdoc.Store) -> Iterator[pgdoc.Collection]:
    """The balances, whose consumer is dropped after the test."""
    yield store.create_collection(bank.BALANCES)
    drop_consumer(store, bank.BALANCES)


def balances(projection: pgdoc.Collection) -> dict[str, bank.Account]:
    return {document.id: bank.Account(**document.data) for document in projection.find()}


def replayed(store: pgdoc.Store) -> dict[str, bank.Account]:
    return {account_id: bank.replay(store, account_id) for account_id in store[bank.EVENTS].distinct("account")}


def open_accounts(store: pgdoc.Store) -> None:
    for account_id in ACCOUNTS:
        bank.open_account(store, account_id, "alice")
        bank.deposit(store, account_id, 1_000)


@contextlib.contextmanager
def busy(dsn: str) -> Iterator[list[int]]:
    """Let four clients deposit and withdraw. Yield the list of the signed amounts."""
    enough, done = threading.Event(), [1_000 for _ in ACCOUNTS]

    def trade(seed: int) -> None:
        dice = random.Random(seed)
        with pgdoc.Store(dsn) as store:
            while not enough.wait(0.05):
                command, account_id, amount = dice.choice(COMMANDS), dice.choice(ACCOUNTS), dice.randint(1, 500)
                with contextlib.suppress(bank.RefusedError):
                    command(store, account_id, amount)
                    done.append(amount if command is bank.deposit else -amount)

    with ThreadPoolExecutor(4) as pool:
        trading = [pool.submit(trade, seed) for seed in range(4)]
        try:
            yield done
        finally:
            enough.set()
    for each in trading:
        each.result()


COMMANDS = (bank.deposit, bank.withdraw)


def test_states_follow_from_events(store):
    bank.open_account(store, "account-7", "alice")
    bank.deposit(store, "account-7", 500)
    then = datetime.now(UTC)
    assert bank.withdraw(store, "account-7", 200) == bank.Account(3, "alice", 300)
    assert bank.replay(store, "account-7") == bank.Account(3, "alice", 300)
    assert bank.replay(store, "account-7", until=then) == bank.Account(2, "alice", 500)
    assert bank.replay(store, "account-8") == bank.Account()
    assert [document.id for document in store[bank.EVENTS].find(sort="_id")] == [
        "account-7/00000001",
        "account-7/00000002",
        "account-7/00000003",
    ]


def test_what_the_state_does_not_allow_is_refused_and_leaves_nothing(store):
    bank.open_account(store, "account-7", "alice")
    refused: list[Callable[[], object]] = [
        lambda: bank.open_account(store, "account-7", "bob"),
        lambda: bank.withdraw(store, "account-7", 1),
        lambda: bank.deposit(store, "account-7", 0),
        lambda: bank.deposit(store, "account-8", 5),
    ]
    for command in refused:
        with pytest.raises(bank.RefusedError, match="its state is Account"):
            command()
    assert store[bank.EVENTS].count() == 1


def test_of_two_commands_on_the_same_state_one_decides_again(store):
    """Both commands see a balance of 100 and try to withdraw 80."""
    bank.open_account(store, "account-7", "alice")
    bank.deposit(store, "account-7", 100)
    both_have_seen, seen = threading.Barrier(2), []

    def withdraw() -> bool:
        def allows(account: bank.Account) -> bool:
            seen.append(account)
            if account.number == 2:
                both_have_seen.wait(PATIENCE_S)
            return account.balance >= 80

        try:
            bank.append(store, "account-7", {"type": "withdrawn", "amount": 80}, allows)
        except bank.RefusedError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(each.result() for each in [pool.submit(withdraw), pool.submit(withdraw)]) == [False, True]
    assert [account.balance for account in seen] == [100, 100, 20]
    assert bank.replay(store, "account-7").balance == 20


def test_many_clients_lose_nothing(dsn, store):
    open_accounts(store)
    with busy(dsn) as done:
        wait_until(lambda: len(done) > 200)
    assert sum(account.balance for account in replayed(store).values()) == sum(done)
    assert all(account.balance >= 0 for account in replayed(store).values())
    for account_id in ACCOUNTS:
        numbers = [event["number"] for event in store[bank.EVENTS].find({"account": account_id}, sort="_id")]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_projection_is_killed_at_every_step_in_turn(dsn, store, projection):
    open_accounts(store)
    for step in STEPS:
        command = [sys.executable, "-m", "tests.examples.dying", "event_sourcing.py", step, "5"]
        with busy(dsn):
            result = subprocess.run(command, cwd=ROOT, check=False, timeout=PATIENCE_S)
        assert result.returncode == -9
    expected = replayed(store)
    with running("event_sourcing.py") as process:
        wait_until(lambda: balances(projection) == expected, process)


def test_a_projection_is_rebuilt_from_nothing_while_clients_go_on(dsn, store, projection):
    open_accounts(store)
    with busy(dsn) as done, running("event_sourcing.py") as process:
        wait_until(lambda: len(done) > 60 and projection.count() == len(ACCOUNTS), process)
    projection.delete_many({})
    projection.insert("account-of-nobody", asdict(bank.Account()))
    with busy(dsn):
        rebuilding = ["--rebuild"]
        for _ in range(4):
            with running("event_sourcing.py", *rebuilding) as process:
                wait_until(lambda: projection.get(ACCOUNTS[0]), process)
                time.sleep(random.uniform(0, 0.2))
                process.kill()
            rebuilding = []
    expected = replayed(store)
    with running("event_sourcing.py") as process:
        wait_until(lambda: balances(projection) == expected, process)


@pytest.mark.parametrize("change", ["UPDATE docs.account_events SET data = data", "DELETE FROM docs.account_events"])
def test_a_past_that_was_changed_stops_the_projection(store, projection, change):
    with store[bank.EVENTS].watch(consumer=bank.BALANCES, snapshot=True) as stream:
        bank.open_account(store, "account-7", "alice")
        with store.transaction() as tx:
            bank.project(tx, [next(stream)])
        with store.transaction() as tx:
            tx.connection.execute(change.encode())
        with pytest.raises(RuntimeError, match="the past was changed"), store.transaction() as tx:
            bank.project(tx, [next(stream)])
    assert balances(projection) == {"account-7": bank.Account(1, "alice")}


def test_an_event_that_does_not_follow_stops_the_projection(store, projection):
    with store[bank.EVENTS].watch(consumer=bank.BALANCES, snapshot=True) as stream:
        store[bank.EVENTS].insert("account-7/00000002", {"account": "account-7", "number": 2, "type": "opened"})
        with pytest.raises(RuntimeError, match="does not follow event 0"), store.transaction() as tx:
            bank.project(tx, [next(stream)])
    assert balances(projection) == {}
