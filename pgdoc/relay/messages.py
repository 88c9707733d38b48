"""What a relay sends: one message for each event, or several parts of a large one."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["LogMessage", "MessagePart", "Window", "after_parts", "is_of_snapshot", "part_of_text", "parts_of"]

_PART: Final = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})")


class MessagePart(NamedTuple):
    """Which part of an event a message has: `number` from 1 to `total`."""

    number: int
    total: int


def part_of_text(text: str | None) -> MessagePart | None:
    """Read `2/3`, as engines have it beside a message; `None` for a whole event.

    Raises:
        ValueError: no relay wrote that.
    """
    if not text:
        return None
    found = _PART.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(f"{text[:20]!r} names no part of an event")
    return MessagePart(int(found[1]), int(found[2]))


def is_of_snapshot(token: str) -> bool:
    """Return whether it is the token of an event inside a snapshot, of which another reading has other events."""
    return ".s" in token


class LogMessage(NamedTuple):
    """One message, in the terms of no particular engine.

    Attributes:
        partition: of the document, or `EVERY`.
        collection, document_id, event_type: of the event.
        token: the event's token, as text.
        body: the event in the relay's format, or a part of that.
        part: `None` for a whole event.
        traceparent: the trace context of the writer, if it has one.
    """

    partition: int
    collection: str
    document_id: str | None
    event_type: str
    token: str
    body: bytes
    part: MessagePart | None = None
    traceparent: str | None = None


Window = list[LogMessage]
"""Messages that are sent together, and acknowledged together."""


def parts_of(message: LogMessage, limit: int) -> Window:
    """Return the message, or the parts of one with a body of more than `limit` bytes.

    The same event has the same parts each time, since the log's own configuration fixes the limit.
    """
    size = len(message.body)
    if size <= limit:
        return [message]
    count = -(-size // limit)
    return [
        message._replace(body=message.body[at : at + limit], part=MessagePart(number, count))
        for number, at in enumerate(range(0, size, limit), 1)
    ]


def after_parts(made: Window, part: MessagePart | None) -> Window:
    """Return the messages of an event that follow one part of it, which is the last one that a log has.

    An event that was cut into another number of parts was printed in another way: it begins again at its first part,
    which tells readers to forget the parts before.
    """
    if part is None or part.number == part.total:
        return []
    if len(made) != part.total:
        return made
    return made[part.number :]
