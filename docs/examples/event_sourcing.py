"""Store accounts as events: commands append events, and every state is computed from them.

The application calls `open_account`, `deposit`, `withdraw` and `replay`. The projection keeps the collection `balances`
for searching and sorting. Run it with

    python event_sourcing.py [--rebuild], or: pgdoc worker event_sourcing:worker

PGDOC_DSN names the database. You can kill the projection at any moment and start it again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS, BALANCES = "account_events", "balances"

worker = pgdoc.Worker(pgdoc.Store(os.environ.get("PGDOC_DSN", "")))


class RefusedError(Exception):
    """The account's state does not allow the command."""


@dataclass(frozen=True)
class Account:
    """The state of an account after its first `number` events. Amounts are in cents."""

    number: int = 0
    owner: str | None = None
    balance: int = 0


def fold(account: Account, event: dict[str, Any]) -> Account:
    """Return the account after an event."""
    match event["type"]:
        case "opened":
            return Account(event["number"], event["owner"])
        case "deposited":
            return Account(event["number"], account.owner, account.balance + event["amount"])
        case "withdrawn":
            return Account(event["number"], account.owner, account.balance - event["amount"])
    raise ValueError(f"event type {event['type']!r} is unknown: use opened, deposited or withdrawn")


def replay(store: pgdoc.Store, account_id: str, *, until: datetime | None = None) -> Account:
    """Compute an account's state, now or at an earlier moment."""
    events = (document.data for document in store[EVENTS].find({"account": account_id}, sort="number"))
    included = itertools.takewhile(lambda event: until is None or datetime.fromisoformat(event["at"]) <= until, events)
    return functools.reduce(fold, included, Account())


def append(store: pgdoc.Store, account_id: str, event: dict[str, Any], allows: Callable[[Account], bool]) -> Account:
    """Append an event if the account's current state allows it.

    If two commands decide on the same state, one gets the event number. The other decides again, on the next state.

    Raises:
        RefusedError: The state does not allow the event.
    """
    while True:
        account = replay(store, account_id)
        if not allows(account):
            raise RefusedError(f"{account_id} does not allow {event}: its state is {account}")
        number, at = account.number + 1, datetime.now(UTC).isoformat()
        happened = {"account": account_id, "number": number, "at": at, **event}
        with contextlib.suppress(pgdoc.DuplicateDocument):
            store[EVENTS].insert(f"{account_id}/{number:08d}", happened)
            return fold(account, happened)


def open_account(store: pgdoc.Store, account_id: str, owner: str) -> Account:
    """Open an account that does not exist yet."""
    return append(store, account_id, {"type": "opened", "owner": owner}, lambda account: not account.number)


def deposit(store: pgdoc.Store, account_id: str, amount: int) -> Account:
    """Pay into an existing account."""
    event = {"type": "deposited", "amount": amount}
    return append(store, account_id, event, lambda account: account.number > 0 and amount > 0)


def withdraw(store: pgdoc.Store, account_id: str, amount: int) -> Account:
    """Pay out of an account with a sufficient balance."""
    event = {"type": "withdrawn", "amount": amount}
    return append(store, account_id, event, lambda account: 0 < amount <= account.balance)


@worker.on(EVENTS, consumer=BALANCES, snapshot=True, retries=None)  # none may be left out: the next ones build on it
def project(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent]) -> None:
    """Apply events to their balances."""
    for event in events:
        apply(tx[BALANCES], event)


def apply(balances: pgdoc.Collection, event: pgdoc.ChangeEvent) -> None:
    """Apply an event to its account's balance."""
    if event.event_type in {"snapshot", "insert"} and event.full_document:
        happened = event.full_document.data
        balance = balances.get(happened["account"])
        account = Account(**balance.data) if balance else Account()
        if happened["number"] != account.number + 1:
            raise RuntimeError(f"{event.document_id} does not follow event {account.number}: run again with --rebuild")
        balances.replace(happened["account"], asdict(fold(account, happened)), upsert=True)
    elif event.event_type != "create":
        raise RuntimeError(
            f"{event.event_type} of {event.document_id}: the past was changed; check the events, then use --rebuild"
        )


def prepare(store: pgdoc.Store, *, rebuild: bool = False) -> None:
    """Create the collection and its index. With `rebuild`, restart the projection from the first event."""
    store.create_collection(EVENTS).create_index("account", "number")
    if rebuild:
        store.drop_consumer(BALANCES)
        store.create_collection(BALANCES).delete_many({})


if __name__ == "__main__":
    with worker.store as store:
        prepare(store, rebuild="--rebuild" in sys.argv)
        worker.run()
