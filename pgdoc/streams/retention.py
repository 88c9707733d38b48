"""Which bookmarks to keep, drop and create: a pure decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pgdoc.replication import slots

_FREE_SLOTS = 2  # never the last ones


class RetentionState(NamedTuple):
    """What a plan goes by.

    Attributes:
        time_s: how long history is to be kept.
        size: bytes of WAL that bookmarks may hold back.
        bookmarks: how many there may be.
        free_slots: of the server.
        now: the server's clock.
        wal_end: the LSN up to which the WAL is flushed.
        needed_from: the LSN from which the hub's slot needs the WAL anyway; the WAL's end where there is none.
        reached: the hub's R, the place that a new bookmark gets; the WAL's end where no hub reads.
    """

    time_s: float
    size: int
    bookmarks: int
    free_slots: int
    now: float
    wal_end: int
    needed_from: int
    watermark: int

    @property
    def steps(self) -> int:
        """How many bookmarks divide each limit, beside the oldest."""
        return max(1, self.bookmarks - 1)


class RetentionPlan(NamedTuple):
    """What has to be done to the bookmarks."""

    drop: list[slots.Bookmark]
    make: bool


def plan_retention(kept: list[slots.Bookmark], at: RetentionState) -> RetentionPlan:
    """Decide which bookmarks to drop, and whether to make one after that.

    The oldest goes when the next one alone reaches back far enough in time, or when it holds back too much WAL. What
    the hub's own slot needs does not count, nor is anything dropped that would release nothing: while a long
    transaction is open, all slots need the WAL since it began. There is always one bookmark.

    New ones come in steps of a fraction of the limits. Steps in time may wait for a place, which only lets history
    reach further; steps in size may not, or the next drop would cost too much of it: the least useful one makes place.
    """
    alive = [bookmark for bookmark in kept if bookmark.wal_status != "lost" and bookmark.restart is not None]
    drop = [bookmark for bookmark in kept if bookmark not in alive]
    while len(alive) > 1 and _oldest_can_go(alive, at):
        drop.append(alive.pop(0))
    while len(alive) > max(1, at.bookmarks):
        drop.append(alive.pop(_least_useful(alive)))
    if not alive:
        return RetentionPlan(drop, make=True)
    newest = alive[-1]
    moved = at.watermark > newest.confirmed  # inside a long transaction the hub stands still
    is_far = moved and at.wal_end - newest.confirmed > at.size / at.steps
    is_old = newest.made_at <= at.now - at.time_s / at.steps
    make = (is_far or is_old) and len(alive) < at.bookmarks and at.free_slots + len(drop) > _FREE_SLOTS
    if is_far and not make and len(alive) > 2:
        drop.append(alive.pop(_least_useful(alive)))
        make = True
    return RetentionPlan(drop, make=make or _held_back(alive[0], at) > at.size)


def _oldest_can_go(alive: list[slots.Bookmark], at: RetentionState) -> bool:
    oldest, following, newest = alive[0], alive[1], alive[-1]
    holds_too_much = _held_back(oldest, at) > at.size and newest.restart != oldest.restart
    return holds_too_much or following.made_at <= at.now - at.time_s


def _least_useful(alive: list[slots.Bookmark]) -> int:
    """Give the index of the one whose absence leaves the smallest gap; not an end, if there is a middle."""
    return min(
        range(1, len(alive) - 1),
        key=lambda index: alive[index + 1].confirmed - alive[index - 1].confirmed,
        default=0,
    )


def _held_back(bookmark: slots.Bookmark, at: RetentionState) -> int:
    """Give the WAL that would be released without this bookmark and those after it."""
    return at.needed_from - (bookmark.restart or 0)
