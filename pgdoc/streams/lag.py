"""How far a stream lags behind the server.

1. The lag is 0 exactly if the stream has returned, or passed over, everything that the server has reported. A stream
   that nobody writes for has no lag, however long that lasts.
2. While an event waits, the lag in time is its age: how long ago its transaction committed, by the server's clock. The
   lag in bytes is the WAL from the event to the end that the server has reported.
3. A stream that reads on from the WAL may have nothing in memory although more is to come. Then the age of the next
   event is not known. The lag is the time since the last one that is known to lie before it: it is at most that.
4. Nothing here is noted while events flow. The figures are worked out when somebody asks for them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgdoc.changes.events import from_change
from pgdoc.errors import PgdocError
from pgdoc.model.positions import commit_lsn_of
from pgdoc.replication.reading import committed_at

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.model.positions import RawPosition
    from pgdoc.replication.reading import Reading
    from pgdoc.streams.waiting import Waiting


class Lag(NamedTuple):
    """How far a stream lags: in time, and in bytes of WAL."""

    time: timedelta
    size_bytes: int


NO_LAG = Lag(timedelta(0), 0)


class LagMeter:
    """Works out the lag of one stream; any thread may ask.

    Args:
        opened_at: when the stream was opened, by the server's clock.
    """

    def __init__(self, opened_at: float) -> None:
        self._opened_at = opened_at
        # Everything that committed before this time is known to have been returned or passed over. It only grows, each
        # time in one assignment, and is used only while the next event is not known.
        self._passed_until: float | None = None

    def measure(
        self,
        waiting: Waiting,
        *,
        passed: RawPosition,
        ending: Change | None,
        wal_end: int,
        reading: Reading,
    ) -> Lag:
        """Return the lag of a stream that has returned or skipped everything up to `passed`.

        `ending` is the invalidate that comes next, if one does. `wal_end` is the highest LSN that the server has
        reported.
        """
        following = _following(waiting, passed, ending)
        if following is not None:
            position, committed = following
            self._note_passed(committed)
            return Lag(self._age(committed, reading), _distance(position, wal_end))
        size_bytes = _distance(max(passed, waiting.reached), wal_end)
        if not size_bytes:
            self._note_passed(reading.now)
            return NO_LAG
        return Lag(self._age(self._earliest(waiting, reading), reading), size_bytes)

    def _earliest(self, waiting: Waiting, reading: Reading) -> float:
        """Return a time before which the next event, of which nothing is known, did not commit."""
        if reading.transaction_at is not None:
            return reading.transaction_at
        used_at = None if waiting.used is None else committed_at(waiting.used)
        known = [time for time in (self._passed_until, used_at, reading.waited_at) if time is not None]
        return max(known, default=self._opened_at)

    def _age(self, committed: float | None, reading: Reading) -> timedelta:
        """Return how long ago that was: never 0, even if the clocks differ by more."""
        now = reading.now
        if committed is None:
            committed = self._opened_at if self._passed_until is None else self._passed_until
        return max(timedelta(seconds=now - min(committed, now)), timedelta.resolution)

    def _note_passed(self, until: float | None) -> None:
        if until is not None and (self._passed_until is None or until > self._passed_until):
            self._passed_until = until


def _following(waiting: Waiting, passed: RawPosition, ending: Change | None) -> tuple[RawPosition, float | None] | None:
    """Return where the event that comes next lies, and when it committed, if it is known."""
    change = waiting.oldest if ending is None else ending
    if change is not None:
        return change.position, _committed_at(change)
    if waiting.refused is None:
        return None
    position, transaction = waiting.refused
    return (position, committed_at(transaction)) if position > max(passed, waiting.reached) else None


def _committed_at(change: Change) -> float | None:
    """Return the time that the event of a change has: that of its transaction, unless it is known to be wrong."""
    try:
        return from_change(change, _NOWHERE).timestamp.timestamp()
    except (PgdocError, ValueError, OverflowError):
        return committed_at(change.transaction)


_NOWHERE = (0, 0, None)


def _distance(position: RawPosition, wal_end: int) -> int:
    """Return the WAL between a position and the end.

    A position inside a transaction lies at its own record, far before the commit of a large transaction. The server has
    reported that commit with the transaction's first change.
    """
    commit_lsn, lsn = commit_lsn_of(position), position[1]
    return max(0, max(wal_end, commit_lsn) - (lsn or commit_lsn))
