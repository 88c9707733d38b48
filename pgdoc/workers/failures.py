"""What an exception says about an event, and how a batch that failed is taken apart."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.database.errors import is_connection_loss, is_serialization_failure
from pgdoc.errors import (
    DatabaseError,
    PgdocError,
    PoolExhausted,
    SerializationFailure,
    ServerUnreachable,
    UpgradePrepared,
)
from pgdoc.model.short_repr import short_repr

if TYPE_CHECKING:
    from types import TracebackType

    from pgdoc.changes.events import ChangeEvent

__all__ = [
    "EventFailed",
    "Postponed",
    "ProcessEnded",
    "RolledBack",
    "fact",
    "halves",
    "is_loss",
    "is_outage",
    "is_read_only",
    "met_conflict",
    "named",
    "of_handler",
    "text_of",
    "traceback_of",
]

# The server is out of disk, memory or connections, or it stops.
_OUTAGE = re.compile(r"53...|57P0[1-5]")
_READ_ONLY = "25006"
_OURS = re.compile(r"^(pgdoc|tenacity|asyncio|concurrent)(\.|$)")
_LONGEST_ERROR = 10_000
_LONGEST_TRACEBACK = 30_000
_LONGEST_NAME = 200


class ProcessEnded(Exception):  # noqa: N818
    """Each process that tried this event ended while it did."""


class RolledBack(Exception):  # noqa: N818 (it is no error)
    """The handler rolled back at one event of several that share a transaction."""


class EventFailed(Exception):  # noqa: N818
    """What a handler of pgdoc's own raises if one event of several failed.

    Attributes:
        event: the event, which is then tried alone.
        is_final: whether trying again can't help.
    """

    def __init__(self, message: str, event: ChangeEvent, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.event = event
        self.is_final = is_final


class Postponed(Exception):  # noqa: N818 (it is no error)
    """What a handler of pgdoc's own raises if it is to be called again later; that is no failure of an event.

    Attributes:
        seconds: how long to wait; `None` until the worker ends.
    """

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self.seconds = seconds


def met_conflict(exc: BaseException) -> bool:
    """Whether the transaction met another one, so that it can succeed at once."""
    if isinstance(exc, psycopg.Error):
        return is_serialization_failure(exc)
    return isinstance(exc, SerializationFailure)


def is_loss(exc: BaseException) -> bool:
    """Whether the connection was lost: the server may be away, or it ended only this session."""
    return isinstance(exc, ServerUnreachable) or (isinstance(exc, psycopg.Error) and is_connection_loss(exc))


def is_outage(exc: BaseException) -> bool:
    """Whether the server answers, and can do nothing for any event now."""
    if isinstance(exc, PoolExhausted | UpgradePrepared):
        return True
    return _OUTAGE.fullmatch(_sqlstate_of(exc)) is not None


def is_read_only(exc: BaseException) -> bool:
    """Whether the transaction takes no writes; perhaps the server takes none, for example because it is a standby."""
    return _sqlstate_of(exc) == _READ_ONLY


def _sqlstate_of(exc: BaseException) -> str:
    return (exc.sqlstate if isinstance(exc, psycopg.Error | DatabaseError) else None) or ""


def halves(events: list[ChangeEvent], failed: ChangeEvent | None) -> list[list[ChangeEvent]]:
    """Return the parts of a batch that failed, perhaps at one event."""
    index = next((index for index, event in enumerate(events) if event is failed), None)
    if index is None:
        middle = len(events) // 2
        return [events[:middle], events[middle:]]
    return [part for part in (events[:index], [events[index]], events[index + 1 :]) if part]


def text_of(exc: BaseException) -> str:
    """Return an exception as one can store it: PostgreSQL's text has no NUL and no lone surrogate."""
    kind = type(exc)
    module = "pgdoc" if kind.__module__.startswith("pgdoc.errors.") else kind.__module__  # as programs import it
    is_known = module == "builtins" or module.startswith("pgdoc.")  # the second: no program catches it
    name = kind.__qualname__ if is_known else f"{module}.{kind.__qualname__}"
    try:
        found = str(exc)
    except Exception:  # noqa: BLE001 (the user's class)
        found = "(its text can't be printed)"
    return storable(f"{name}: {found}" if found else name)[:_LONGEST_ERROR]


def traceback_of(exc: BaseException) -> str:
    """Return the end of its traceback, from the handler on."""
    return storable("".join(traceback.format_exception(type(exc), exc, of_handler(exc))))[-_LONGEST_TRACEBACK:]


def of_handler(exc: BaseException) -> TracebackType | None:
    """Return its traceback without the worker's own frames, which come first; all of it if there are no others."""
    found = exc.__traceback__
    while found is not None and _OURS.search(found.tb_frame.f_globals.get("__name__", "")):
        found = found.tb_next
    return found or exc.__traceback__


def storable(text: str) -> str:
    """Return the text without what PostgreSQL can't store."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def fact(event: ChangeEvent, name: str) -> Any:
    """Return a field of an event whose row may be unreadable; `None` then."""
    try:
        return getattr(event, name)
    except PgdocError:
        return None


def named(events: list[ChangeEvent]) -> str:
    """Return events for a message."""
    event, more = events[0], len(events) - 1
    document_id = fact(event, "document_id")
    about = event.collection if document_id is None else f"{event.collection}/{document_id}"
    if not about.isprintable() or len(about) > _LONGEST_NAME:  # writers choose it: it forges no line of a log
        about = short_repr(about)
    kind, others = fact(event, "event_type") or "change", f" and {more} more" if more else ""
    return f"{kind} of {about} at {event.resume_token.lsn}{others}"
