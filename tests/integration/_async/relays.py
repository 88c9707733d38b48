"""What tests of relays share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import nats

from pgdoc.runtime.activities import AsyncActivity
from pgdoc.runtime.primitives import async_sleep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pgdoc import AsyncRelay

END_S = 30.0


@asynccontextmanager
async def relaying(relay: AsyncRelay) -> AsyncIterator[AsyncRelay]:
    """Run the relay while the block runs."""
    activity = AsyncActivity("relay", relay.run)
    try:
        yield relay
    finally:
        relay.stop()
        await activity.wait(END_S)
        assert activity.is_over
    if activity.error is not None:
        raise activity.error


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until the condition holds."""
    waited = 0.0
    while not condition():
        assert waited < timeout_s, "it did not happen in time"
        await async_sleep(0.05)
        waited += 0.05


def fresh_stream() -> str:
    """Return the name of a stream that no other test of this session uses."""
    return f"S{uuid4().hex[:12]}"


def entries(url: str, stream: str) -> list[tuple[int, dict[str, str], bytes]]:
    """Return the messages of a stream: sequence, headers and body."""
    return asyncio.run(_entries(url, stream))


async def _entries(url: str, stream: str) -> list[tuple[int, dict[str, str], bytes]]:
    client = await nats.connect(url)
    try:
        context = client.jetstream()
        state = (await context.stream_info(stream)).state
        found = []
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await context.get_msg(stream, sequence)
            found.append((sequence, dict(message.headers or {}), message.data or b""))
        return found
    finally:
        await client.close()
