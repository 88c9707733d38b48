"""Accounts that are nothing but their events: commands append them, and every state is worked out from them.

`open_account`, `deposit`, `withdraw` and `replay` are what the application calls. The projection, which keeps the
collection `balances` for those who want to search and sort, is

    python event_sourcing.py [CONNINFO] [--rebuild]

where PGDOC_DSN is the default. It may be killed at any moment and started again.
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


class RefusedError(Exception):
    """A command that the account's state does not allow."""


@dataclass(frozen=True)
class Account:
    """What an account's first `number` events come to; amounts are in cents."""

    number: int = 0
    owner: str | None = None
    balance: int = 0


def fold(account: Account, event: dict[str, Any]) -> Account:
    """Give the account as an event leaves it."""
    match event["type"]:
        case "opened":
            return Account(event["number"], event["owner"])
        case "deposited":
            return Account(event["number"], account.owner, account.balance + event["amount"])
        case "withdrawn":
            return Account(event["number"], account.owner, account.balance - event["amount"])
    raise ValueError(f"{event['type']!r} is no event of an account")


def replay(store: pgdoc.Store, account_id: str, *, until: datetime | None = None) -> Account:
    """Work out an account's state, now or at any moment before."""
    events = (document.data for document in store[EVENTS].find({"account": account_id}, sort="number"))
    told = itertools.takewhile(lambda event: until is None or datetime.fromisoformat(event["at"]) <= until, events)
    return functools.reduce(fold, told, Account())


def append(store: pgdoc.Store, account_id: str, event: dict[str, Any], allows: Callable[[Account], bool]) -> Account:
    """Append an event, if the account's present state allows it.

    Of two commands that decide on the same state one is given the number; the other decides anew, on the next state.

    Raises:
        RefusedError: it does not.
    """
    while True:
        account = replay(store, account_id)
        if not allows(account):
            raise RefusedError(f"{account_id} is {account}: not {event}")
        number, at = account.number + 1, datetime.now(UTC).isoformat()
        happened = {"account": account_id, "number": number, "at": at, **event}
        with contextlib.suppress(pgdoc.DuplicateDocument):
            store[EVENTS].insert(f"{account_id}/{number:08d}", happened)
            return fold(account, happened)


def open_account(store: pgdoc.Store, account_id: str, owner: str) -> Account:
    """Open an account, once."""
    return append(store, account_id, {"type": "opened", "owner": owner}, lambda account: not account.number)


def deposit(store: pgdoc.Store, account_id: str, amount: int) -> Account:
    """Pay in, where there is an account."""
    event = {"type": "deposited", "amount": amount}
    return append(store, account_id, event, lambda account: account.number > 0 and amount > 0)


def withdraw(store: pgdoc.Store, account_id: str, amount: int) -> Account:
    """Pay out, where there is enough."""
    event = {"type": "withdrawn", "amount": amount}
    return append(store, account_id, event, lambda account: 0 < amount <= account.balance)


def project(store: pgdoc.Store, stream: pgdoc.ChangeStream, event: pgdoc.ChangeEvent) -> None:
    """Move a balance on by one event; it and the stream's place commit together, or neither does."""
    with store.transaction() as tx:
        if event.event_type in {"snapshot", "insert"} and event.full_document:
            happened = event.full_document.data
            balance = tx[BALANCES].get(happened["account"])
            account = Account(**balance.data) if balance else Account()
            if happened["number"] != account.number + 1:
                raise RuntimeError(
                    f"{event.document_id} does not follow event {account.number}: rebuild the projection"
                )
            tx[BALANCES].replace(happened["account"], asdict(fold(account, happened)), upsert=True)
        elif event.event_type != "create":
            raise RuntimeError(f"{event.event_type} of {event.document_id}: the past was changed")
        stream.checkpoint(event, tx)


def prepare(store: pgdoc.Store, *, rebuild: bool = False) -> None:
    """Make what the programs need; with `rebuild` the projection begins with the first event again."""
    store.create_collection(EVENTS).create_index("account", "number")
    if rebuild:
        store.drop_consumer(BALANCES)
        store.create_collection(BALANCES).delete_many({})


def main() -> None:
    """Keep the projection."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--rebuild"]
    conninfo = arguments[0] if arguments else os.environ.get("PGDOC_DSN", "")
    with pgdoc.Store(conninfo) as store:
        prepare(store, rebuild="--rebuild" in sys.argv)
        with store[EVENTS].watch(consumer=BALANCES, snapshot=True) as stream:
            for event in stream:
                project(store, stream, event)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
