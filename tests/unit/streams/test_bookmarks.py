"""History reaches as far back as promised: simulated days, without a server."""

from __future__ import annotations

import bisect
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pgdoc.replication.slots import Bookmark
from pgdoc.streams.retention import RetentionState, plan_retention

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_S, DAY_S, STEP_S = 3600, 86400, 5
KB, MB, GB = 1 << 10, 1 << 20, 1 << 30


@dataclass
class World:
    """A server with its WAL, and the keeper that checks it every five seconds."""

    time_s: float = HOUR_S
    size: int = GB
    bookmarks: int = 4
    free_slots: int = 6
    now: int = 1_790_000_000
    wal_end: int = 16 * MB
    kept: list[Bookmark] = field(default_factory=list)
    pinned_at: int | None = None
    times: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    made: int = 0
    most: int = 0

    @property
    def needed_from(self) -> int:
        return self.wal_end if self.pinned_at is None else self.pinned_at

    @property
    def held_back(self) -> int:
        return self.needed_from - min(bookmark.restart or 0 for bookmark in self.kept)

    @property
    def reach(self) -> int:
        """Bytes back to the oldest position that streams can resume at."""
        return self.wal_end - self.kept[0].confirmed

    def situation(self) -> RetentionState:
        free = self.free_slots - len(self.kept)
        return RetentionState(
            self.time_s, self.size, self.bookmarks, free, self.now, self.wal_end, self.needed_from, self.wal_end
        )

    def step(self, written: int) -> None:
        self.now += STEP_S
        self.wal_end += written
        self.times.append(self.now)
        self.places.append(self.wal_end)
        if self.do_what_is_due():
            assert not self.do_what_is_due()

    def do_what_is_due(self) -> bool:
        due = plan_retention(self.kept, self.situation())
        self.kept = [bookmark for bookmark in self.kept if bookmark not in due.drop]
        if due.make:
            self.made += 1
            self.kept.append(Bookmark(f"pgdocb_5_{self.now:x}_{self.made}", self.wal_end, "reserved", self.needed_from))
        self.most = max(self.most, len(self.kept))
        return due.make

    def written_since(self, age_s: float) -> int:
        """Return the bytes written in the last `age_s`, or since the beginning."""
        index = bisect.bisect_left(self.times, self.now - age_s)
        return self.wal_end - self.places[index]


def steady(rate: int) -> Callable[[int], int]:
    return lambda _: rate * STEP_S


def busy_hours(second: int) -> int:
    """Only the server's own records, and every third hour more WAL than history may retain."""
    return 2 * MB * STEP_S if second // HOUR_S % 3 == 2 else 0


def night_load(second: int) -> int:
    return 300 * MB if 7200 < second < 7500 else KB


def changing(seed: int) -> Callable[[int], int]:
    chance = random.Random(seed)
    rate = 0

    def load(_: int) -> int:
        nonlocal rate
        if chance.random() < STEP_S / 600:
            rate = chance.choice([0, 0, KB, 50 * KB, 300 * KB, 2 * MB, 20 * MB])
        return rate * STEP_S

    return load


@pytest.mark.parametrize("bookmarks", [4, 9])
@pytest.mark.parametrize(
    "load",
    [steady(0), steady(KB), steady(200 * KB), steady(2 * MB), busy_hours, night_load, changing(1), changing(39)],
    ids=["nothing", "little", "some", "much", "busy hours", "night load", "changing", "changing too"],
)
def test_a_day_reaches_back_as_far_as_promised_and_holds_no_more(load: Callable[[int], int], bookmarks: int) -> None:
    world = World(bookmarks=bookmarks, free_slots=bookmarks + 3)
    written = 0
    for second in range(0, DAY_S, STEP_S):
        last, written = written, load(second)
        world.step(written)
        slack = 2 * max(written, last)
        assert world.held_back <= world.size + slack
        assert world.reach >= min(world.written_since(world.time_s), world.size / 2 - slack)
    assert world.most <= bookmarks


def test_a_quiet_day_takes_few_bookmarks() -> None:
    world = World()
    for _ in range(0, DAY_S, STEP_S):
        world.step(KB)
    assert world.made <= DAY_S / (HOUR_S / 3) + 1
    assert world.now - world.kept[0].made_at <= HOUR_S * 4 / 3 + STEP_S


def test_a_long_transaction_costs_no_reach_and_its_wal_is_let_go_after_it() -> None:
    world = World()
    for _ in range(0, 2 * HOUR_S, STEP_S):
        world.step(KB)
    world.pinned_at = world.wal_end
    for _ in range(0, 2 * HOUR_S, STEP_S):
        world.step(5 * MB)
        assert world.reach >= world.written_since(world.time_s)
        assert len(world.kept) <= world.bookmarks
    made_under_it = world.made
    world.pinned_at = None
    world.step(5 * MB)
    assert world.held_back <= world.size
    assert world.made == made_under_it + 1


def test_history_begins_again_if_no_bookmark_has_its_wal() -> None:
    lost = Bookmark("pgdocb_5_6ab3f000_a", 5 * MB, "lost", None)
    assert plan_retention([lost], World().situation()) == ([lost], True)


def test_the_last_two_free_slots_are_left_to_others() -> None:
    world = World(free_slots=3)
    for _ in range(0, 3 * HOUR_S, STEP_S):
        world.step(MB)
        assert len(world.kept) == 1
        assert world.held_back <= world.size + MB


def test_fewer_bookmarks_than_there_are() -> None:
    world = World()
    for _ in range(0, 2 * HOUR_S, STEP_S):
        world.step(KB)
    world.bookmarks = 2
    world.step(KB)
    assert len(world.kept) == 2


def test_while_the_hub_stands_still_no_bookmark_is_made_at_the_same_place() -> None:
    bookmark = Bookmark("pgdocb_5_6ab3f000_a", 5 * MB, "reserved", 5 * MB)
    world = World(wal_end=3000 * MB)
    stuck = world.situation()._replace(needed_from=5 * MB, watermark=5 * MB)
    assert plan_retention([bookmark], stuck) == ([], False)
    assert plan_retention([bookmark], stuck._replace(watermark=5 * MB + 1)) == ([], True)
