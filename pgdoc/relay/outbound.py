"""Turns events into the messages that a log lacks, in windows of a bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.changes.event_json import printed_of
from pgdoc.errors import UnreadableDocument
from pgdoc.relay.messages import LogMessage, after_parts, parts_of
from pgdoc.relay.partitions import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.relay.beginning import Beginning
    from pgdoc.relay.messages import MessagePart, Window

__all__ = ["WINDOW_BYTES", "Outbound"]

WINDOW_BYTES = 4 << 20
"""A window with as many bytes of bodies is full, so that few large events on their way fill no memory."""

_LONGEST_TRACE = 200
_new = tuple.__new__


class Outbound:
    """Makes messages of events in their order, and leaves out what the log has already.

    Args:
        limit: the most bytes of a message's body.
        encode: writes an event in the log's format; `None` for pgdoc's own.
        leave_out: is called with the error of an event that can't be written as JSON, and leaves it out; without it,
            the error is raised.
    """

    def __init__(
        self,
        beginning: Beginning,
        *,
        partitions: int,
        limit: int,
        encode: Callable[[ChangeEvent], bytes] | None = None,
        leave_out: Callable[[UnreadableDocument], None] | None = None,
    ) -> None:
        self._partitions, self._limit, self._encode, self._leave_out = partitions, limit, encode, leave_out
        self._part = beginning.part
        self._skip_to: ResumeToken | None = beginning.skip_to
        self._skip_count = beginning.skip_count
        self._is_moved = False

    @property
    def is_skipping(self) -> bool:
        """Whether events may be left out yet."""
        return self._skip_to is not None or self._skip_count > 0

    def skip_to(self, token: ResumeToken, part: MessagePart | None) -> None:
        """Leave out events up to this one, which the log has from another relay."""
        self._skip_to, self._part, self._skip_count, self._is_moved = token, part, 0, True

    def windows_of(self, events: Iterable[ChangeEvent]) -> Iterator[tuple[Window, ChangeEvent | None]]:
        """Yield windows of the messages that the log lacks, each with the event after which it ends.

        That is `None` for a window that ends inside an event. The last window may be empty.

        Raises:
            UnreadableDocument: an event can't be written as JSON; the messages before it were yielded.
        """
        window: Window = []
        size, last = 0, None
        for event in events:
            if size >= WINDOW_BYTES:
                yield window, last
                window, size = [], 0
            try:
                is_new = self._skip_to is None and not self._skip_count
                made = self._made(event) if is_new else self._lacking(event)
            except UnreadableDocument as exc:
                if self._leave_out is None:
                    if last is not None:
                        yield window, last
                    raise
                self._leave_out(exc)
                made = []
            if len(made) == 1:
                window.append(made[0])
                size += len(made[0].body)
            else:
                window, size = yield from self._split(event, made, window, size)
            last = event
        if last is not None:
            yield window, last

    def _split(
        self, event: ChangeEvent, made: Window, window: Window, size: int
    ) -> Generator[tuple[Window, None], None, tuple[Window, int]]:
        """Yield windows that end inside an event of many parts; return the window that has begun, and its size."""
        at = 0
        while at < len(made):
            if size >= WINDOW_BYTES and at:
                self._is_moved = False
                yield window, None
                window, size = [], 0
                if self._is_moved:  # by the caller, meanwhile: the log has got some of these
                    made, at = self._lacking(event), 0
                    continue
            window.append(made[at])
            size += len(made[at].body)
            at += 1
        return window, size

    def _made(self, event: ChangeEvent) -> Window:
        body, fields = printed_of(event)
        if self._encode is not None:
            body = self._encode(event)
        document_id = fields["document_id"]
        # Not by the class, which takes three times as long.
        message = _new(
            LogMessage,
            (
                partition_of(document_id, self._partitions),
                fields["collection"],
                document_id,
                fields["event_type"],
                fields["resume_token"],
                body,
                None,
                _traceparent(event.metadata) if fields["metadata"] else None,
            ),
        )
        return [message] if len(body) <= self._limit else parts_of(message, self._limit)

    def _lacking(self, event: ChangeEvent) -> Window:
        if self._skip_to is None:
            made = self._made(event)
            skipped = min(self._skip_count, len(made))
            self._skip_count -= skipped
            return made[skipped:]
        token, skip_to = event.resume_token, self._skip_to
        if token.comes_before(skip_to):
            return []
        made = self._made(event)
        self._skip_to = None
        return made if skip_to.comes_before(token) else after_parts(made, self._part)


def _traceparent(metadata: dict[str, Any]) -> str | None:
    found = metadata.get("traceparent")
    is_sane = isinstance(found, str) and found.isascii() and found.isprintable() and len(found) <= _LONGEST_TRACE
    return found if is_sane else None
