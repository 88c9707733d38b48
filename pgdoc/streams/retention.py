"""Decides which bookmarks to keep, drop and create; does no I/O."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pgdoc.replication import slots

_FREE_SLOTS = 2  # the last free slots of the server, which bookmarks leave to others
_CLOSE = 10  # a bookmark is close to the next one within this fraction of a step
_TAKEN_S = 60.0  # by then, standbys have asked for a new bookmark


class RetentionState(NamedTuple):
    """What the plan depends on; without a hub slot, `needed_from` and `watermark` are the end of the WAL.

    Attributes:
        time_s: how long history has to be kept.
        size: the bytes of WAL that bookmarks may hold back.
        bookmarks: the largest number of bookmarks.
        free_slots: the server's free replication slots.
        now: the server's clock, in seconds since 1970.
        wal_end: the LSN up to which the WAL is flushed.
        needed_from: the LSN from which the hub's slot needs the WAL.
        watermark: of the hub; a new bookmark starts there.
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
        """The steps into which bookmarks divide each limit; the oldest bookmark does not count."""
        return max(1, self.bookmarks - 1)


class RetentionPlan(NamedTuple):
    """The bookmarks to drop, and whether to create one after that."""

    drop: list[slots.Bookmark]
    make: bool


def plan_retention(kept: list[slots.Bookmark], at: RetentionState) -> RetentionPlan:
    """Plan one pass of the bookmark keeper.

    The oldest bookmark is dropped when the next one reaches back far enough in time, or when the oldest holds back too
    much WAL, not counting what the hub's own slot needs. It is not dropped for its size if that would release nothing:
    while a long transaction is open, all slots need the WAL since it began. One bookmark always stays.

    New bookmarks come in steps of a fraction of each limit. A step in time can wait until the number of bookmarks
    allows it: history then reaches further back than it has to. A step in size can't wait, because the next drop would
    cost too much history: it replaces the least useful bookmark.

    A bookmark that standbys can synchronize replaces the one before it, of which it is a copy, if both are close, and
    once they have had the time to.
    """
    alive = [bookmark for bookmark in kept if bookmark.wal_status != "lost" and bookmark.restart is not None]
    drop = [bookmark for bookmark in kept if bookmark not in alive]
    while len(alive) > 1 and _oldest_can_go(alive, at):
        drop.append(alive.pop(0))
    replaced = [each for each, following in pairwise(alive[1:]) if _is_replaced(each, following, at)]
    drop += replaced
    alive = [bookmark for bookmark in alive if bookmark not in replaced]
    while len(alive) > max(1, at.bookmarks):
        drop.append(alive.pop(_least_useful(alive)))
    if not alive:
        return RetentionPlan(drop, make=True)
    newest = alive[-1]
    moved = at.watermark > newest.confirmed  # the watermark stands still inside a long transaction
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


def _is_replaced(bookmark: slots.Bookmark, following: slots.Bookmark, at: RetentionState) -> bool:
    is_close = (
        following.confirmed - bookmark.confirmed <= at.size / at.steps / _CLOSE
        and following.made_at - bookmark.made_at <= at.time_s / at.steps / _CLOSE
    )
    is_sure = following.made_at <= at.now - _TAKEN_S
    return is_close and is_sure and following.is_synchronizable and not bookmark.is_synchronizable


def _least_useful(alive: list[slots.Bookmark]) -> int:
    """Return the index of the bookmark whose absence leaves the smallest gap; 0 if there is no middle."""
    return min(
        range(1, len(alive) - 1),
        key=lambda index: alive[index + 1].confirmed - alive[index - 1].confirmed,
        default=0,
    )


def _held_back(bookmark: slots.Bookmark, at: RetentionState) -> int:
    """Return the bytes of WAL that only this bookmark and those after it hold back."""
    return at.needed_from - (bookmark.restart or 0)
