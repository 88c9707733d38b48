"""The threads that read logs."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.relay.groups.reading import GroupReading
from pgdoc.relay.inbox import Inbox
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.relay.remote_options import RemoteOptions
from pgdoc.relay.single_reading import SingleReading
from pgdoc.relay.targets import LogTarget

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = LogTarget.parse("nats://127.0.0.1:1/S")
OPTIONS = RemoteOptions.checked(
    (), where=None, resume_after=None, start="now", buffer_size=10, buffer_bytes=1000, decimals=False
)
MADE = [
    lambda: SingleReading(TARGET, OPTIONS, Inbox(10, 1000)),
    lambda: GroupReading(TARGET, OPTIONS, Inbox(10, 1000), group="g", lease_s=10.0),
]


@pytest.mark.parametrize("make", MADE, ids=["alone", "in a group"])
def test_an_interrupt_while_a_stream_closes_leaves_no_thread(
    make: Callable[[], SingleReading | GroupReading], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = make()
    thread = LoopThread("pgdoc-read-interrupted")
    reading._thread = thread

    class Interrupted(Future[Any]):
        def result(self, _timeout: float | None = None) -> Any:
            raise KeyboardInterrupt

    def submit(coroutine: Any) -> Future[Any]:
        coroutine.close()
        return Interrupted()

    monkeypatch.setattr(thread, "submit", submit)
    with pytest.raises(KeyboardInterrupt):
        reading.close()
    assert not thread.is_alive
