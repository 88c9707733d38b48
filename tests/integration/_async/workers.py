"""Helpers for tests of workers."""

from __future__ import annotations

import itertools
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pgdoc import AsyncStore
from pgdoc.runtime.activities import AsyncActivity
from pgdoc.runtime.primitives import async_sleep
from tests.integration._async.streams import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from pgdoc import AsyncTransaction, AsyncWorker, ChangeEvent
    from pgdoc.runtime.primitives import AsyncAct

_numbers = itertools.count(1)


def fresh_name() -> str:
    """Return the name of a consumer that no other test uses."""
    return f"worker_{next(_numbers)}"


@asynccontextmanager
async def opened(dsn: str, schema: str) -> AsyncGenerator[AsyncStore]:
    """Open a store, and drop its consumers and dead letters at the end."""
    async with AsyncStore(dsn, schema=schema) as store:
        before = {each.name for each in await store.consumers()}
        await store.create_collection("effects")
        await store.create_collection("orders")
        try:
            yield store
        finally:
            for name in {each.name for each in await store.consumers()} - before:
                await store.drop_consumer(name)
                await drop_letters(store, name)


async def drop_letters(store: AsyncStore, consumer: str) -> None:
    """Delete the dead letters of a consumer."""
    async with store.transaction() as tx:
        await tx.connection.execute("DELETE FROM pgdoc.dead_letters WHERE consumer = %s", [consumer])


@asynccontextmanager
async def running(worker: AsyncWorker) -> AsyncGenerator[AsyncWorker]:
    """Run a worker beside the block, and stop it at the end; raise what ended it."""
    activity = AsyncActivity("test-worker", worker.run)
    try:
        yield worker
    finally:
        worker.stop()
        assert await activity.wait(PATIENCE_S), "the worker does not end"
    if activity.error is not None:
        raise activity.error


async def until(condition: AsyncAct[Any]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "not in time"
        await async_sleep(0.02)


async def count(store: AsyncStore, name: str, number: int) -> None:
    """Wait until a collection has a number of documents."""

    async def has_all() -> bool:
        return await store[name].count() >= number

    await until(has_all)
    assert await store[name].count() == number


async def effects(store: AsyncStore, name: str = "effects") -> list[str]:
    """Return the ids of the documents whose events had an effect, in the order of the effects."""
    return [document.data["of"] async for document in store[name].find({}, sort="n")]


def recorder(name: str = "effects", bad: set[str] | None = None) -> Callable[..., Any]:
    """Return a handler that writes one effect for each event, and fails at events of documents in `bad`."""
    numbers = itertools.count()

    async def record(tx: AsyncTransaction, events: list[ChangeEvent]) -> None:
        for event in events:
            if bad and event.document_id in bad:
                raise RuntimeError(f"no {event.document_id}")
        rows = [(f"{event.resume_token}", {"of": event.document_id, "n": next(numbers)}) for event in events]
        await tx[name].insert_many(rows)

    return record
