# Written by .ci/twins.py from tests/integration/_async/relays.py: change that file, and run it.
"""What tests of relays share."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import nats

from pgdoc.runtime.activities import Activity
from pgdoc.runtime.primitives import sleep

if TYPE_CHECKING:
    from collections.abc import Iterator, Callable

    from pgdoc import Relay

END_S = 30.0


@contextmanager
def relaying(relay: Relay) -> Iterator[Relay]:
    """Run the relay while the block runs."""
    activity = Activity("relay", relay.run)
    try:
        yield relay
    finally:
        relay.stop()
        activity.wait(END_S)
        assert activity.is_over
    if activity.error is not None:
        raise activity.error


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until the condition holds."""
    waited = 0.0
    while not condition():
        assert waited < timeout_s, "it did not happen in time"
        sleep(0.05)
        waited += 0.05


def fresh_stream() -> str:
    """Return the name of a stream that no other test of this session uses."""
    return f"S{uuid4().hex[:12]}"


def entries(url: str, stream: str) -> list[tuple[int, dict[str, str], bytes]]:
    """Return the messages of a stream: sequence, headers and body."""
    return asyncio.run(_entries(url, stream))


def _entries(url: str, stream: str) -> list[tuple[int, dict[str, str], bytes]]:
    client = nats.connect(url)
    try:
        context = client.jetstream()
        state = (context.stream_info(stream)).state
        found = []
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = context.get_msg(stream, sequence)
            found.append((sequence, dict(message.headers or {}), message.data or b""))
        return found
    finally:
        client.close()
