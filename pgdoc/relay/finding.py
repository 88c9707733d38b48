"""Finds where in a log to begin: the sequence of a token, by bisection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.errors import HistoryLost, InvalidResumeToken
from pgdoc.model.positions import Lsn, before_commits_at
from pgdoc.model.tokens import ResumeToken, token_at

if TYPE_CHECKING:
    from pgdoc.relay.log import LogInfo, LogReader

__all__ = ["LogPosition", "find_first_of", "locate", "order_of"]


class LogPosition(NamedTuple):
    """A place in a log, after an event.

    Attributes:
        sequence: of the last entry before it.
        token: after which the events come, as text.
        identity: of the log that has this sequence: in another one, the token decides.
    """

    sequence: int
    token: str
    identity: str


def order_of(token: ResumeToken) -> tuple[Any, ...]:
    """Return what orders tokens in a log. Timelines don't: an event keeps its place when a standby is promoted."""
    progress = token.progress
    return token.position, progress is None, 0 if progress is None else progress.delivered


async def locate(reader: LogReader, info: LogInfo, after: LogPosition | ResumeToken | Lsn, log: str) -> LogPosition:
    """Return the place in the log after which the events come that follow `after`.

    Raises:
        HistoryLost: the log does not have all of them.
        InvalidResumeToken: the token is one of another cluster or database.
    """
    if isinstance(after, LogPosition):
        found = await _same(reader, info, after, log)
        if found is not None:
            return found
        after = ResumeToken.parse(after.token)
    token = _token_of(after, info)
    _check(token, info, log)
    begun_at = ResumeToken.parse(info.begun_at) if info.begun_at else None
    following = await _first_beyond(reader, info, token)
    if following == info.first:
        await _check_nothing_before(reader, info, token, begun_at, log)
    elif token.is_inside and await reader.token_at(following - 1) != str(token):
        raise InvalidResumeToken(f"the token is from inside another snapshot than that of {log}: read from its start")
    return LogPosition(following - 1, str(token), info.identity)


async def _same(reader: LogReader, info: LogInfo, after: LogPosition, log: str) -> LogPosition | None:
    """Return the place itself if it is one of this log; `None` if the token must be looked for."""
    if info.identity != after.identity or info.last < after.sequence:
        return None
    if info.first > after.sequence + 1:
        raise await _lost(reader, info, log, f"has forgotten entries after sequence {after.sequence:,}")
    found = await reader.token_at(after.sequence) if after.sequence >= info.first else None
    if found is None or order_of(ResumeToken.parse(found)) <= order_of(ResumeToken.parse(after.token)):
        return after
    return None  # put back to an older copy, and written again with other events


def _token_of(after: ResumeToken | Lsn, info: LogInfo) -> ResumeToken:
    if isinstance(after, ResumeToken):
        return after
    return token_at(before_commits_at(after), (info.config.system_id, 1, info.config.database_oid))


def _check(token: ResumeToken, info: LogInfo, log: str) -> None:
    config = info.config
    if token.system_id != config.system_id:
        raise InvalidResumeToken(
            f"token {token} is of the cluster {token.system_id}, and {log} has events of {config.system_id}: "
            "resume a stream of that cluster, or begin without a token"
        )
    if token.database_oid not in (None, config.database_oid):
        raise InvalidResumeToken(f"token {token} is of another database of the cluster than the events of {log}")


async def _first_beyond(reader: LogReader, info: LogInfo, token: ResumeToken) -> int:
    """Return the sequence of the first entry beyond the token; one more than the last if there is none."""
    wanted = order_of(token)
    low, high = info.first, info.last + 1
    while low < high:
        middle = (low + high) // 2
        found = await reader.token_at(middle)
        # One that was forgotten meanwhile counts as beyond: reading then begins too early, which is noticed.
        if found is None or order_of(ResumeToken.parse(found)) > wanted:
            high = middle
        else:
            low = middle + 1
    return low


async def find_first_of(reader: LogReader, info: LogInfo, token: str) -> int:
    """Return the sequence of the first entry of an event, of which the log has a later part."""
    wanted = order_of(ResumeToken.parse(token))
    low, high = info.first, info.last + 1
    while low < high:
        middle = (low + high) // 2
        found = await reader.token_at(middle)
        if found is not None and order_of(ResumeToken.parse(found)) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


async def _check_nothing_before(
    reader: LogReader, info: LogInfo, token: ResumeToken, begun_at: ResumeToken | None, log: str
) -> None:
    """Refuse a token before everything that the log has, unless the log begins before it."""
    if info.first == 1:
        if begun_at is None or order_of(token) >= order_of(begun_at):
            return
        raise await _lost(reader, info, log, f"begins at {begun_at.lsn}, after the token", begun_at)
    raise await _lost(reader, info, log, "has forgotten entries that follow the token")


async def _lost(
    reader: LogReader, info: LogInfo, log: str, finding: str, oldest: ResumeToken | None = None
) -> HistoryLost:
    if oldest is None and info.first <= info.last:
        text = await reader.token_at(info.first)
        oldest = None if text is None else ResumeToken.parse(text)
    return HistoryLost(
        f"{log} {finding}: rebuild from the collections, and resume after a token from before that",
        oldest_available=None if oldest is None else str(oldest.lsn),
    )
