"""What a handler does: read by any thread."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent

__all__ = ["HandlerFigures", "HandlerStatus"]


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """What a handler does, and what it has done in this process.

    Attributes:
        state: `closed`; `standby`, while another process has the consumer; `idle`; `running`; `backing_off`, between
            two attempts; or `waiting_for_server`.
        waiting: how many events this process has buffered for it.
        handled: how many events it has handled.
        calls: how often it was called.
        failures: how many attempts failed.
        dead: how many events became dead letters.
        parked: how many events were parked behind those.
        busy_s: the seconds that its calls took, in sum.
        running_s: how long the current call has been running, in seconds; 0 while there is none.
    """

    consumer: str
    handler: str
    state: str
    waiting: int
    handled: int
    calls: int
    failures: int
    dead: int
    parked: int
    busy_s: float
    running_s: float


class HandlerFigures:
    """The counts of one handler; its lane writes, and any thread reads."""

    def __init__(self, consumer: str, handler: str) -> None:
        self.consumer = consumer
        self.handler = handler
        self.state = "closed"
        self.waiting = self.handled = self.calls = self.failures = self.dead = self.parked = 0
        self.busy_s = 0.0
        self.reported_at = 0.0  # when a hang was last logged; written by the thread that looks
        # The current call, in one assignment: when it began, and its events.
        self.current: tuple[float, list[ChangeEvent]] | None = None

    def begin(self, events: list[ChangeEvent]) -> None:
        """Note that a call begins."""
        self.calls += 1
        self.state = "running"
        self.current = time.monotonic(), events

    def end(self, seconds: float) -> None:
        """Note that a call has ended."""
        self.current = None
        self.state = "idle"
        self.busy_s += seconds

    def status(self) -> HandlerStatus:
        """Return the figures."""
        current = self.current
        return HandlerStatus(
            consumer=self.consumer,
            handler=self.handler,
            state=self.state,
            waiting=self.waiting,
            handled=self.handled,
            calls=self.calls,
            failures=self.failures,
            dead=self.dead,
            parked=self.parked,
            busy_s=self.busy_s,
            running_s=0.0 if current is None else time.monotonic() - current[0],
        )
