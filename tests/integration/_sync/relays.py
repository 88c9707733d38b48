# Written by .ci/twins.py from tests/integration/_async/relays.py: change that file, and run it.
"""What tests of relays share."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

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


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        sleep(0.05)


def fresh_stream() -> str:
    """Return the name of a stream that no other test of this session uses."""
    return f"S{uuid4().hex[:12]}"
