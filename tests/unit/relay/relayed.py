"""Events, messages and a log in memory, for tests of relays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pgdoc import ChangeEvent
from pgdoc.errors import LogUnreachable
from pgdoc.model.tokens import SnapshotProgress, token_at
from pgdoc.relay.log import LogEnd
from pgdoc.relay.messages import LogMessage, MessagePart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.model.tokens import ResumeToken
    from pgdoc.relay.config import LogConfig
    from pgdoc.relay.messages import Window

IDS = (7, 1, 5)


def token(number: int, *, timeline: int = 1, progress: SnapshotProgress | None = None) -> ResumeToken:
    """Return the token of the event of this number, from 1."""
    return token_at((1000 * number, 1000 * number - 1, 1, 0), (IDS[0], timeline, IDS[2]), progress)


def event(number: int, size: int = 10) -> ChangeEvent:
    """Return an event with a document of about this size."""
    document = {"id": f"o-{number}", "data": {"text": "x" * size}, "version": 1}
    times = {"created_at": "2026-01-01T00:00:00+00:00", "updated_at": "2026-01-01T00:00:00+00:00"}
    return ChangeEvent.from_json(
        orjson.dumps(
            {
                "event_type": "insert",
                "collection": "orders",
                "document_id": f"o-{number}",
                "full_document": {**document, **times},
                "full_document_before_change": None,
                "update_description": None,
                "resume_token": str(token(number)),
                "timestamp": "2026-01-01T00:00:00+00:00",
                "transaction_id": number,
                "metadata": {},
                "renamed_to": None,
            }
        )
    )


def message(number: int, part: MessagePart | None = None) -> LogMessage:
    """Return a small message of an event."""
    return LogMessage(0, "orders", f"o-{number}", "insert", str(token(number)), b"{}", part)


class ModelLog:
    """A log in memory. It refuses, as a bug, whatever is not the next of the messages that it must get.

    Args:
        wanted: the messages, in order.
    """

    def __init__(self, wanted: Window) -> None:
        self.wanted, self.entries = wanted, 0
        self.forgotten = 0  # of the first entries
        self.identity = "the log"

    def append(self, found: LogMessage, expected: int) -> bool:
        """Append the message if the log ends at this sequence; return whether it did."""
        if expected != self.entries:
            return False
        assert found == self.wanted[self.entries], f"entry {self.entries + 1} is {found.token} {found.part}"
        self.entries += 1
        return True

    @property
    def end(self) -> LogEnd:
        """Where it ends."""
        if not self.entries or self.forgotten >= self.entries:
            return LogEnd(self.entries, None, None, self.identity)
        last = self.wanted[self.entries - 1]
        return LogEnd(self.entries, last.token, last.part, self.identity)


class ModelWriter:
    """Writes a `ModelLog`, with the faults that are given.

    Args:
        faults: for each window `(kind, number)`, see `send`; after the last there are none.
    """

    def __init__(self, log: ModelLog, faults: Iterator[tuple[str, int]], *, limit: int) -> None:
        self.log, self.limit, self.confirm_after_s = log, limit, 0.0
        self._faults, self._sequence, self._is_cut = faults, 0, False

    async def open(self, _config: LogConfig) -> LogEnd:
        """See `LogWriter`."""
        self._is_cut, self._sequence = False, self.log.entries
        return self.log.end

    async def send(self, window: Window) -> int:
        """See `LogWriter`; what comes after a fault is lost until the writer is opened again.

        - `cut`: only so many messages arrive.
        - `silent`: all arrive, and no acknowledgement does.
        - `hole`: the message of this number gets lost, and the rest arrives.
        - `other`: another relay appends so many messages first.
        - `forget`: the log forgets all it has, first.
        """
        base, kind, number = self._sequence, *next(self._faults, ("", 0))
        self._sequence += len(window)
        if self._is_cut:
            raise LogUnreachable("the connection was lost")
        log, arriving = self.log, list(enumerate(window))
        if kind == "other":
            log.entries = min(len(log.wanted), log.entries + number)
        elif kind == "forget":
            log.forgotten = log.entries
        elif kind == "cut":
            arriving = arriving[:number]
        elif kind == "hole":
            arriving = [each for each in arriving if each[0] != number]
        stored = [log.append(each, base + place) for place, each in arriving]
        if kind in ("cut", "silent") or len(stored) < len(window) or not stored[-1]:
            self._is_cut = kind != "other"
            raise LogUnreachable("not acknowledged")
        return base + len(window)

    async def check(self, sequence: int) -> None:
        """See `LogWriter`."""
        if self.log.entries < sequence:
            raise LogUnreachable("it ends before")

    async def close(self) -> None:
        """See `LogWriter`."""
