"""A batch is returned as soon as it has an event; cancelling the wait for one loses nothing."""

from __future__ import annotations

import asyncio

from pgdoc import AsyncStore
from tests.integration._async.streams import PATIENCE_S
from tests.integration._async.test_batches import ids


async def test_a_batch_is_returned_as_soon_as_it_has_an_event(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        waiting = asyncio.create_task(stream.next_batch(100))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await store["orders"].insert("o-1", {})
        assert ids(await asyncio.wait_for(waiting, PATIENCE_S)) == ["o-1"]
        assert await stream.next_batch(timeout=0.05) == []


async def test_a_cancelled_batch_loses_nothing(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        waiting = asyncio.create_task(stream.next_batch())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await store["orders"].insert("o-1", {})
        assert ids(await stream.next_batch(timeout=PATIENCE_S)) == ["o-1"]
