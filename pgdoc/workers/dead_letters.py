"""`DeadLetter`: an event that a handler of a worker could not process. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 (`typing.get_type_hints` looks it up)
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pgdoc.changes.events import ChangeEvent, EventType, from_json
from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.model.tokens import ResumeToken

if TYPE_CHECKING:
    from pgdoc.model.json_codec import JsonDecoder

__all__ = ["STATES", "DeadLetter", "chosen_letters", "letter_of", "listed_letters"]

STATES: Final = ("dead", "parked", "due")
_LARGEST_ID: Final = (1 << 63) - 1


@dataclass(frozen=True)
class DeadLetter:
    """An event that a handler of a worker could not process, or that waits behind such an event.

    Attributes:
        id: its number; letters of one document are tried again in this order.
        consumer: the consumer of the handler.
        handler: the name of the handler.
        state: `dead` (the handler failed), `parked` (it waits behind a dead letter of the same document), or `due` (the
            worker tries it again).
        event_type: what the event reports; `None`, as `document_id` and `changed_at`, if its row can't be read.
        collection: the collection or table of the event.
        document_id: the id of the document; `None` for a change of a whole collection.
        token: the position of the event.
        event_json: the event as `event.to_json()` printed it; `None` if it could not be printed or stored.
        error: the class and the message of the last error; `None` if the handler was not called.
        traceback: where it was raised.
        attempts: how often the handler was called for the event.
        changed_at: when the change was committed; timezone-aware, as the other times.
        stored_at: when the handler gave up, or the event was parked.
        tried_at: when the handler was last called for it; `None` if it was not.
    """

    id: int
    consumer: str
    handler: str
    state: str
    event_type: EventType | None
    collection: str
    document_id: str | None
    token: ResumeToken
    event_json: str | None
    error: str | None
    traceback: str | None
    attempts: int
    changed_at: datetime | None
    stored_at: datetime
    tried_at: datetime | None
    _decode: JsonDecoder | None = field(default=None, repr=False, compare=False)

    @cached_property
    def event(self) -> ChangeEvent | None:
        """The event, read on first access; `None` if it could not be stored."""
        return None if self.event_json is None else from_json(self.event_json, self._decode)


def letter_of(row: tuple[Any, ...], decode: JsonDecoder | None) -> DeadLetter:
    """Make the letter of a row of `dead_letters.sql`."""
    kind = None if row[4] is None else EventType(row[4])
    values = (*row[:4], kind, *row[5:7], ResumeToken.parse(row[7]), *row[8:], decode)
    return DeadLetter(*values)


def listed_letters(filters: dict[str, Any], after: Any, limit: Any) -> dict[str, Any]:
    """Return the parameters of the block `list`.

    Raises:
        InvalidInput: an argument is not valid.
    """
    if not _is_integer(limit) or limit < 1:
        raise InvalidInput(f"limit must be a number of at least 1, got {short_repr(limit)}")
    if after is not None and not _is_id(after):
        raise InvalidInput(f"after must be the id of a dead letter, got {short_repr(after)}")
    return {**_checked(filters), "after": 0 if after is None else after, "limit": min(limit, _LARGEST_ID)}


def chosen_letters(ids: tuple[Any, ...], filters: dict[str, Any], *, everything: Any) -> dict[str, Any]:
    """Return the parameters of a block that changes letters.

    Raises:
        InvalidInput: an argument is not valid, or the letters are chosen in no way, or in several.
    """
    ways = (bool(ids), any(value is not None for value in filters.values()), everything is True)
    if sum(ways) != 1:
        found = "got several of these" if any(ways) else "got none of these"
        raise InvalidInput(f"pass the ids of dead letters, or filters such as consumer=, or everything=True: {found}")
    for each in ids:
        if not _is_id(each):
            raise InvalidInput(f"the id of a dead letter must be a number, got {short_repr(each)}")
    return {**_checked(filters), "ids": list(ids) or None}


def _checked(filters: dict[str, Any]) -> dict[str, Any]:
    for name, value in filters.items():
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise InvalidInput(f"{name} must be text, got {short_repr(value)}")
    if filters.get("state") not in {None, *STATES}:
        raise InvalidInput(f"state must be one of {', '.join(STATES)}, got {short_repr(filters['state'])}")
    return filters


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return _is_integer(value) and -_LARGEST_ID <= value <= _LARGEST_ID
