"""What tests of relays share."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

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


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await async_sleep(0.05)


def fresh_stream() -> str:
    """Return the name of a stream that no other test of this session uses."""
    return f"S{uuid4().hex[:12]}"
