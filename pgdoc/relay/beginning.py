"""Where a relay goes on: what its log has already, of the events that its consumer begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgdoc.errors import LogGap
from pgdoc.model.tokens import ResumeToken

if TYPE_CHECKING:
    from pgdoc.relay.log import LogEnd
    from pgdoc.relay.messages import Part

__all__ = ["Beginning", "StoredEnd", "find_beginning"]


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
    """

    skip_to: ResumeToken | None = None
    part: Part | None = None
    skip_count: int = 0
    is_gap: bool = False


def find_beginning(end: LogEnd, stored: StoredEnd | None, begun_at: ResumeToken, log: str) -> Beginning:
    """Return where to go on: `begun_at` is the position after which the consumer's events begin.

    Raises:
        LogGap: the log lacks events, and does not say which.
    """
    token = None if end.token is None else ResumeToken.parse(end.token)
    if stored is None or stored.identity != end.identity:
        if not end.sequence and (stored is None or not stored.sequence):
            return Beginning()
        if token is None:
            raise _gap(log, None, begun_at, "is not the one that this relay wrote, and is empty")
        return Beginning(token, end.part, is_gap=token < begun_at)
    if end.sequence < stored.sequence:
        if token is None:
            raise _gap(log, None, begun_at, f"ends at sequence {end.sequence:,}, not at {stored.sequence:,} or later")
        return Beginning(token, end.part, is_gap=token < begun_at)
    if token is not None:
        return Beginning(token, end.part)
    return Beginning(skip_count=end.sequence - stored.sequence)


def _gap(log: str, after: ResumeToken | None, until: ResumeToken, finding: str) -> LogGap:
    return LogGap(
        f"{log} {finding}: it was made anew or put back to an older copy, and lacks events before {until}. Delete it "
        "and begin again with a snapshot, or go on with on_lost='continue'",
        after=None if after is None else str(after),
        until=str(until),
    )
