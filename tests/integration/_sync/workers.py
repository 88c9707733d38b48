# Written by .ci/twins.py from tests/integration/_async/workers.py: change that file, and run it.
"""Helpers for tests of workers."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pgdoc import Store
from pgdoc.runtime.activities import Activity
from pgdoc.runtime.primitives import sleep
from tests.integration._sync.streams import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Generator, Callable

    from pgdoc import Transaction, Worker, ChangeEvent
    from pgdoc.runtime.primitives import Act

_numbers = itertools.count(1)


def fresh_name() -> str:
    """Return the name of a consumer that no other test uses."""
    return f"worker_{next(_numbers)}"


@contextmanager
def opened(dsn: str, schema: str) -> Generator[Store]:
    """Open a store, and drop its consumers and dead letters at the end."""
    with Store(dsn, schema=schema) as store:
        before = {each.name for each in store.consumers()}
        store.create_collection("effects")
        store.create_collection("orders")
        try:
            yield store
        finally:
            for name in {each.name for each in store.consumers()} - before:
                store.drop_consumer(name)
                drop_letters(store, name)


def drop_letters(store: Store, consumer: str) -> None:
    """Delete the dead letters of a consumer."""
    with store.transaction() as tx:
        tx.connection.execute("DELETE FROM pgdoc.dead_letters WHERE consumer = %s", [consumer])


@contextmanager
def running(worker: Worker) -> Generator[Worker]:
    """Run a worker beside the block, and stop it at the end; raise what ended it."""
    activity = Activity("test-worker", worker.run)
    try:
        yield worker
    finally:
        worker.stop()
        assert activity.wait(PATIENCE_S), "the worker does not end"
    if activity.error is not None:
        raise activity.error


def until(condition: Act[Any]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        sleep(0.02)


def count(store: Store, name: str, number: int) -> None:
    """Wait until a collection has a number of documents."""

    def has_all() -> bool:
        return store[name].count() >= number

    until(has_all)
    assert store[name].count() == number


def effects(store: Store, name: str = "effects") -> list[str]:
    """Return the ids of the documents whose events had an effect, in the order of the effects."""
    return [document.data["of"] for document in store[name].find({}, sort="n")]


def recorder(name: str = "effects", bad: set[str] | None = None) -> Callable[..., Any]:
    """Return a handler that writes one effect for each event, and fails at events of documents in `bad`."""
    numbers = itertools.count()

    def record(tx: Transaction, events: list[ChangeEvent]) -> None:
        for event in events:
            if bad and event.document_id in bad:
                raise RuntimeError(f"no {event.document_id}")
        rows = [(f"{event.resume_token}", {"of": event.document_id, "n": next(numbers)}) for event in events]
        tx[name].insert_many(rows)

    return record
