"""Where a relay goes on: what its log has already, of the events that its consumer begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgdoc.errors import LogGap
from pgdoc.model.tokens import ResumeToken

if TYPE_CHECKING:
    from pgdoc.relay.log import LogEnd
    from pgdoc.relay.messages import MessagePart

__all__ = ["Beginning", "StoredEnd", "find_beginning", "gap_of"]


class StoredEnd(NamedTuple):
    """What the relay stored in PostgreSQL together with its consumer's position.

    Attributes:
        sequence: of the last entry of the events up to there.
        identity: of the log.
    """

    sequence: int
    identity: str


class Beginning(NamedTuple):
    """What to leave out of the consumer's events.

    Attributes:
        skip_to: events up to this token, if it is not `None`.
        part: of that event, only the parts up to this one are left out; `None` for all of it.
        skip_count: so many messages, if the log has forgotten what it ends with.
        is_gap: the consumer begins beyond `skip_to`: events in between must come from elsewhere.
        is_certain: the log has all events up to the consumer's position, so that only events without an entry, such as
            those that the filter leaves out, can lie between the two.
    """

    skip_to: ResumeToken | None = None
    part: MessagePart | None = None
    skip_count: int = 0
    is_gap: bool = False
    is_certain: bool = False


def find_beginning(end: LogEnd, stored: StoredEnd | None, begun_at: ResumeToken, log: str) -> Beginning:
    """Return where to go on: `begun_at` is the position after which the consumer's events begin.

    Raises:
        LogGap: the log lacks events, and does not say which.
    """
    token, part = _last_whole(end)
    is_begun = stored is not None and stored.sequence > 0
    if token is None and not is_begun and (not end.sequence or end.token is not None):
        return Beginning()  # of an empty log, or of one that has but a beginning of its first event
    is_certain = stored is not None and stored.identity == end.identity and stored.sequence <= end.sequence
    if is_certain and stored is not None and end.token is None:
        return Beginning(skip_count=end.sequence - stored.sequence, is_certain=True)
    if token is None:
        finding = "has forgotten its last entry" if end.sequence else "is empty"
        raise gap_of(log, f"is not the log that this relay wrote, and {finding}", None, begun_at)
    return Beginning(token, part, is_gap=not is_certain and token.comes_before(begun_at), is_certain=is_certain)


def _last_whole(end: LogEnd) -> tuple[ResumeToken | None, MessagePart | None]:
    """Return after which event the log goes on, and after which part of it.

    An event of a snapshot that was read again may have changed, so that its parts begin again.
    """
    if end.token is None:
        return None, None
    token, part = ResumeToken.parse(end.token), end.part
    if part is None or part.number == part.total:
        return token, None
    if not token.is_inside:
        return token, part
    return (None if end.before is None else ResumeToken.parse(end.before)), None


def gap_of(log: str, finding: str, after: ResumeToken | None, until: ResumeToken) -> LogGap:
    """Return the error for a log that lacks events which PostgreSQL no longer keeps."""
    return LogGap(
        f"{log} {finding}, so it lacks events before {until}, which PostgreSQL no longer keeps: drop the consumer and "
        "the log, and begin both again with a snapshot; or leave out what is lost with on_lost='continue'",
        after=None if after is None else str(after),
        until=str(until),
    )
