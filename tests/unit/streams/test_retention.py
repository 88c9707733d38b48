"""Properties of every retention plan, for any bookmarks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.replication.slots import Bookmark
from pgdoc.streams.retention import RetentionState, plan_retention

NOW, END = 1_790_000_000, 1 << 30


@st.composite
def lists_of_bookmarks(draw: st.DrawFn) -> list[Bookmark]:
    """Bookmarks as `slots.bookmarks` returns them: in the order of their positions, some without their WAL."""
    places = sorted(draw(st.lists(st.integers(1, END), max_size=7, unique=True)))
    restarts = sorted(draw(st.lists(st.integers(1, END), min_size=len(places), max_size=len(places))))
    ages = sorted(draw(st.lists(st.integers(0, 7200), min_size=len(places), max_size=len(places))), reverse=True)
    lost = draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
    suffixes = draw(st.lists(st.sampled_from(["", "_sync"]), min_size=len(places), max_size=len(places)))
    return [
        Bookmark(
            f"pgdocb_5_{NOW - age:x}_{index}{suffix}",
            place,
            "lost" if gone else "reserved",
            None if gone else min(place, restart),
        )
        for index, (place, restart, age, gone, suffix) in enumerate(
            zip(places, restarts, ages, lost, suffixes, strict=True)
        )
    ]


situations = st.builds(
    RetentionState,
    time_s=st.integers(1, 7200),
    size=st.integers(1, END),
    bookmarks=st.integers(1, 6),
    free_slots=st.integers(0, 6),
    now=st.just(NOW),
    wal_end=st.just(END),
    needed_from=st.integers(1, END),
)


def without_wal(bookmark: Bookmark) -> bool:
    return bookmark.restart is None


@given(lists_of_bookmarks(), situations)
def test_what_lost_its_wal_goes_and_one_that_has_it_stays_or_another_is_made(kept, at):
    due = plan_retention(kept, at)
    assert len(set(due.drop)) == len(due.drop)
    assert {bookmark for bookmark in kept if without_wal(bookmark)} <= set(due.drop) <= set(kept)
    if all(map(without_wal, kept)):
        assert due.make
    else:
        assert set(due.drop) != set(kept)


@given(lists_of_bookmarks(), situations)
def test_it_is_a_matter_of_time_or_size_that_the_oldest_goes(kept, at):
    """History reaches back as far as promised, unless that would retain more WAL than allowed."""
    alive = [bookmark for bookmark in kept if not without_wal(bookmark)]
    left = [bookmark for bookmark in alive if bookmark not in plan_retention(kept, at).drop]
    within = [bookmark for bookmark in alive if at.needed_from - (bookmark.restart or 0) <= at.size]
    old = [bookmark for bookmark in within if bookmark.made_at <= at.now - at.time_s]
    if old and len(alive) <= at.bookmarks:
        assert left[0].confirmed <= old[-1].confirmed


@given(lists_of_bookmarks(), situations)
def test_there_are_never_more_than_allowed_but_where_too_much_wal_is_held_back(kept, at):
    due = plan_retention(kept, at)
    left = [bookmark for bookmark in kept if bookmark not in due.drop]
    assert len(left) <= max(1, at.bookmarks)
    held_back = at.needed_from - (left[0].restart or 0) if left else 0
    if due.make and left and held_back <= at.size:
        assert len(left) < at.bookmarks
        assert at.free_slots + len(due.drop) > 2 or any(bookmark.restart for bookmark in due.drop)


MB, STEP_S = 1 << 20, 1200
AT = RetentionState(3 * STEP_S, 300 * MB, 4, 6, NOW, END, END, END)


def made(age_s: int, mb: int, suffix: str = "") -> Bookmark:
    return Bookmark(f"pgdocb_5_{NOW - age_s:x}_a{suffix}", END - mb * MB, "reserved", END - mb * MB)


def test_a_bookmark_goes_when_standbys_can_synchronize_a_copy_of_it_that_is_close() -> None:
    oldest, original, copy = made(2000, 200), made(190, 12), made(70, 2, "_sync")
    assert plan_retention([oldest, original, copy], AT) == ([original], False)
    assert plan_retention([original, copy], AT) == ([], False), "history would begin later"
    assert plan_retention([oldest, made(170, 12), made(59, 2, "_sync")], AT) == ([], False), "it may not be taken yet"
    assert plan_retention([oldest, original, made(69, 2, "_sync")], AT) == ([], False), "over 2 minutes apart"
    assert plan_retention([oldest, made(190, 13), copy], AT) == ([], False), "over 10 MB apart"
    assert plan_retention([oldest, original, made(70, 2)], AT) == ([], False)
    assert plan_retention([oldest, made(190, 12, "_sync"), copy], AT) == ([], False)
