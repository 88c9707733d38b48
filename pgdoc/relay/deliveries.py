"""In which order the events of a batch are sent, and which of them were delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.workers.failures import EventFailed

__all__ = ["DeliveredEvents", "StepOutcome", "in_steps"]


def in_steps(events: Iterable[ChangeEvent]) -> Iterator[list[list[ChangeEvent]]]:
    """Divide a batch into steps, one after the other, and each step into the events of one document each.

    The documents of a step are independent. An event of a whole collection is a step of its own: all before it are sent
    before it, and all after it afterwards. The messages without a key of one topic are as those of one document.
    """
    step: dict[tuple[str, str | None], list[ChangeEvent]] = {}
    for event in events:
        if event.document_id is not None or event.event_type == _MESSAGE:
            step.setdefault((event.collection, event.document_id), []).append(event)
            continue
        if step:
            yield list(step.values())
            step = {}
        yield [[event]]
    if step:
        yield list(step.values())


_MESSAGE: Final = "message"


class DeliveredEvents:
    """The tokens of events that this process has delivered, and that may still come again.

    They come again when another event of their batch fails, when their position could not be stored, and when the
    consumer is opened again. Events that lie beyond all of them show that none comes again.
    """

    def __init__(self) -> None:
        self._tokens: set[ResumeToken] = set()
        self._last: ResumeToken | None = None

    def __contains__(self, event: ChangeEvent) -> bool:
        return event.resume_token in self._tokens

    def add(self, event: ChangeEvent) -> None:
        """Remember a delivered event. Several threads may call it."""
        self._tokens.add(event.resume_token)

    def begin(self, events: list[ChangeEvent]) -> None:
        """Forget what can't come again, now that these events have come, in their order."""
        if not events:
            return
        if self._last is None or events[0].resume_token > self._last:
            self._tokens.clear()
        last = events[-1].resume_token
        self._last = last if self._last is None else max(self._last, last)


class StepOutcome:
    """What became of the events that were sent side by side; each thread or task adds to it.

    Attributes:
        wait_s: how long the receiver wants nothing more; `None` if it did not say so.
        has_ended: whether this process may send nothing more at all.
    """

    def __init__(self) -> None:
        self._failures: list[EventFailed] = []
        self.wait_s: float | None = None
        self.has_ended = False

    @property
    def is_halted(self) -> bool:
        """Whether nothing more may be sent now."""
        return self.has_ended or self.wait_s is not None

    def fail(self, failure: EventFailed) -> None:
        """Note that an event failed."""
        self._failures.append(failure)

    def postpone(self, seconds: float) -> None:
        """Note how long to wait."""
        self.wait_s = max(seconds, self.wait_s or 0.0)

    @property
    def failure(self) -> EventFailed | None:
        """The failure of the first event that failed, in the order of the events."""
        return min(self._failures, key=lambda failure: failure.event.resume_token, default=None)
