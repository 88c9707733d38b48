"""Turns events into the messages that a log lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.relay.messages import Message, after_parts, parts_of
from pgdoc.relay.partitions import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.relay.beginning import Beginning
    from pgdoc.relay.messages import Window

__all__ = ["Outbound"]

_LONGEST_TRACE = 200


class Outbound:
    """Makes messages of events in their order, and leaves out what the log has already.

    Args:
        limit: the most bytes of a message's body.
        encode: writes an event in the log's format.
    """

    def __init__(
        self, beginning: Beginning, *, partitions: int, limit: int, encode: Callable[[ChangeEvent], bytes]
    ) -> None:
        self._partitions, self._limit, self._encode = partitions, limit, encode
        self._part = beginning.part
        self._skip_to: ResumeToken | None = beginning.skip_to
        self._skip_count = beginning.skip_count

    @property
    def is_skipping(self) -> bool:
        """Whether events may be left out yet."""
        return self._skip_to is not None or self._skip_count > 0

    def messages_of(self, events: Iterable[ChangeEvent]) -> Window:
        """Return the messages of the events."""
        window: Window = []
        for event in events:
            made = self._made(event)
            if self._skip_to is not None or self._skip_count:
                made = self._lacking(event, made)
            window += made
        return window

    def _made(self, event: ChangeEvent) -> Window:
        document_id = event.document_id
        message = Message(
            partition_of(document_id, self._partitions),
            event.collection,
            document_id,
            event.event_type.value,
            str(event.resume_token),
            self._encode(event),
            None,
            _traceparent(event),
        )
        return [message] if len(message.body) <= self._limit else parts_of(message, self._limit)

    def _lacking(self, event: ChangeEvent, made: Window) -> Window:
        if self._skip_count:
            skipped = min(self._skip_count, len(made))
            self._skip_count -= skipped
            return made[skipped:]
        token, skip_to = event.resume_token, self._skip_to
        if skip_to is None or token < skip_to:
            return []
        self._skip_to = None
        return after_parts(made, str(skip_to), self._part) if token == skip_to else made


def _traceparent(event: ChangeEvent) -> str | None:
    found = event.metadata.get("traceparent")
    is_sane = isinstance(found, str) and found.isascii() and found.isprintable() and len(found) <= _LONGEST_TRACE
    return found if is_sane else None
