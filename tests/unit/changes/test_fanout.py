from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgdoc.changes import fanout
from pgdoc.changes.change import Burst, Change, TransactionInfo
from pgdoc.changes.fanout import Fanout, State, Subscription
from pgdoc.changes.router import Condition, Router, Selection
from pgdoc.decoding.records import CollectionChange, RowChange
from pgdoc.decoding.wal2json import read_images
from pgdoc.model.positions import before_commits_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.model.positions import RawPosition

WHEN = TransactionInfo(1, "2026-11-23 03:41:13+00", None)
TABLES = ["small", "large"]


def view_of(change: Change) -> Change:
    return change


def selected(subscription: Subscription, burst: Burst) -> list[Change]:
    router = Router(view_of)
    router.add(subscription.selection)
    return router.route(burst.changes).get(subscription.selection, [])


class Mailbox:
    """Holds a few changes, and remembers all that it was ever given."""

    def __init__(self, size: int) -> None:
        self.given: list[Change] = []
        self.reached: RawPosition = (0, 0, 0, 0)
        self.failed: BaseException | None = None
        self._room = self._size = size

    def put(self, changes: list[Change], reached: RawPosition) -> int:
        taken = changes[: self._room]
        self.given += taken
        self._room -= len(taken)
        if len(taken) == len(changes):
            self.reached = max(self.reached, reached)
        return len(taken)

    def drain(self) -> None:
        self._room = self._size

    def begin_at(self, place: RawPosition) -> None:
        self.given = [change for change in self.given if change.position > place]

    def call_when_room(self, callback: Callable[[], object]) -> None:
        callback()

    def fail(self, error: BaseException) -> None:
        self.failed = error

    def close(self) -> None:
        self.given = []


@dataclass
class Wal:
    """What the server has written: changes, and after the last of a transaction, or between two, the R of there."""

    steps: list[Change | int] = field(default_factory=list)
    commits: list[tuple[int, int]] = field(default_factory=list)  # LSN, and where in `steps` its transaction begins
    end: int = 100

    def write(self, tables: list[str], gap: int = 10) -> None:
        """Commit one transaction; without a gap its commit record begins just where a keepalive said all is sent."""
        commit_lsn = self.end + gap
        self.commits.append((commit_lsn, len(self.steps)))
        for ordinal, table in enumerate(tables):
            message = b"_" * (30 if table == "large" else 1)
            row = RowChange(commit_lsn - 5, "I", table, message, complete=True, read=read_images)
            self.steps.append(Change((commit_lsn, commit_lsn - 5, 1, ordinal), WHEN, row))
        self.end = commit_lsn + 8
        self.steps.append(self.end)

    def pass_time(self) -> None:
        self.end += 30
        self.steps.append(self.end)

    @property
    def changes(self) -> list[Change]:
        return [step for step in self.steps if isinstance(step, Change)]

    def wanted(self, selection: Selection, after: RawPosition) -> list[Change]:
        names, where = selection.collections, selection.where
        return [
            change
            for change in self.changes
            if change.position > after
            and (names is None or change.row.table in names)
            and (where is None or where.matches(change))
        ]


class Reader:
    """Reads every transaction that commits at or after an LSN, as the server sends them: whole, in order."""

    def __init__(self, wal: Wal, at: int) -> None:
        self._wal = wal
        index = bisect_left(wal.commits, (at, 0))
        self._next = wal.commits[index][1] if index < len(wal.commits) else len(wal.steps)
        self._reached = at
        self._inside: int | None = None

    def read(self, count: int) -> Burst:
        steps = self._wal.steps[self._next : self._next + count]
        self._next += len(steps)
        for step in steps:
            if isinstance(step, Change):
                self._inside = step.position[0]
            else:
                self._inside, self._reached = None, max(self._reached, step)
        return Burst([step for step in steps if isinstance(step, Change)], self._reached, self._inside)


@dataclass
class Follower:
    """A stream: its subscription, its mailbox, and the catch-up reader that it has at the moment."""

    subscription: Subscription
    mailbox: Mailbox
    start: RawPosition
    reader: Reader | None = None

    def wanted(self, wal: Wal) -> list[Change]:
        return wal.wanted(self.subscription.selection, self.start)


def is_first(change: Change) -> bool:
    return change.position[3] == 0


def is_large(change: Change) -> bool:
    return change.row.table == "large"


FIRST = Condition(b"first", tables=None, kinds=None, lookup=None, rest=is_first, matches=is_first)
LARGE = Condition(b"large", tables=frozenset(["large"]), kinds=None, lookup=None, rest=None, matches=is_large)
selections = st.builds(
    Selection,
    st.none() | st.frozensets(st.sampled_from(TABLES), min_size=1),
    st.none() | st.sampled_from([FIRST, LARGE]),
)
sizes = st.integers(1, 8)
outcomes = st.sampled_from(["waits", "waits", "waits", "leaves", "leaves", "breaks"])
transactions = st.lists(st.sampled_from(TABLES), min_size=1, max_size=5)


class Streams(RuleBasedStateMachine):
    """One live reader, streams that come, are slow and resume, and catch-up readers as `catchup` drives them."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = mock.patch.multiple(fanout, AHEAD_LIMIT=8, AHEAD_BYTES=80)
        self.limits.start()
        self.wal = Wal()
        self.followers: list[Follower] = []

    @initialize(past=st.lists(transactions, min_size=2, max_size=5))
    def begin(self, past):
        for tables in past:
            self.wal.write(tables)
        self.live = Reader(self.wal, self.wal.end)
        self.fanout = Fanout(self.wal.end, view_of)

    @rule(tables=transactions, gap=st.sampled_from([0, 10]), then_idle=st.booleans())
    def write(self, tables, gap, then_idle):
        self.wal.write(tables, gap)
        if then_idle:
            self.wal.pass_time()

    @rule(count=st.integers(1, 6), reconnects=st.sampled_from([False, False, True]))
    def read_live(self, count, reconnects):
        if reconnects:
            self.live = Reader(self.wal, self.fanout.watermark)
            self.fanout.restart()
        for subscription in self.fanout.dispatch(self.live.read(count)):
            assert subscription.state is State.AWAY

    @precondition(lambda self: len(self.followers) < 2)
    @rule(selection=selections, size=sizes)
    def subscribe(self, selection, size):
        mailbox = Mailbox(size)
        subscription = Subscription(selection, (0, 0, 0, 0), mailbox)
        self.fanout.add(subscription)
        self.followers.append(Follower(subscription, mailbox, subscription.after))

    @precondition(lambda self: len(self.followers) < 2)
    @rule(selection=selections, size=sizes, data=st.data())
    def resume(self, selection, size, data):
        change = data.draw(st.sampled_from(self.wal.changes))
        after = data.draw(st.sampled_from([change.position, before_commits_at(change.position[0])]))
        mailbox = Mailbox(size)
        subscription = Subscription(selection, after, mailbox)
        self.followers.append(Follower(subscription, mailbox, after))
        if self.fanout.joinable_from <= after[0]:
            self.fanout.add(subscription)

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def drain(self, data):
        data.draw(st.sampled_from(self.followers)).mailbox.drain()

    @precondition(lambda self: self._away())
    @rule(
        data=st.data(), count=st.integers(1, 3), earlier=st.sampled_from([0, 0, 30]), near=st.booleans(), full=outcomes
    )
    def catch_up(self, data, count, earlier, near, full):
        """Take a step of a catch-up reader, which may have begun earlier for the sake of another stream."""
        follower = data.draw(st.sampled_from(self._away()))
        subscription = follower.subscription
        follower.reader = follower.reader or Reader(self.wal, max(100, subscription.after[0] - earlier))
        burst = follower.reader.read(count)
        rest = subscription.put(selected(subscription, burst), before_commits_at(burst.watermark))
        while rest and full == "waits":
            follower.mailbox.drain()
            rest = subscription.put(rest, before_commits_at(burst.watermark))
        if rest or full == "breaks":
            self.fanout.leave(subscription)
            follower.reader = None
        elif (near or subscription.state is State.JOINING) and self.fanout.join(subscription, burst.watermark):
            follower.reader = None

    def _away(self) -> list[Follower]:
        return [follower for follower in self.followers if follower.subscription.state is not State.LIVE]

    @invariant()
    def what_was_given_is_what_was_wanted_so_far_without_gap_or_repeat(self):
        for follower in self.followers:
            given = follower.mailbox.given
            assert given == follower.wanted(self.wal)[: len(given)]

    @invariant()
    def no_place_lies_beyond_a_change_that_is_still_to_come(self):
        for follower in self.followers:
            to_come = follower.wanted(self.wal)[len(follower.mailbox.given) :]
            place = max(follower.mailbox.reached, follower.subscription.after)
            if follower.subscription.state is State.LIVE:
                place = max(place, self.fanout.dispatched)
            assert not to_come or place < to_come[0].position

    @invariant()
    def what_is_laid_aside_is_bounded_and_for_those_who_are_joining(self):
        for follower in self.followers:
            ahead = follower.subscription.ahead
            assert len(ahead) <= fanout.AHEAD_LIMIT
            assert sum(len(change.row.message) for change in ahead) <= fanout.AHEAD_BYTES
            assert not ahead or follower.subscription.state is State.JOINING

    def teardown(self):
        """At last everybody reads on, and everything wanted has been given."""
        try:
            self.wal.write(TABLES)
            self.fanout.dispatch(self.live.read(len(self.wal.steps)))
            for follower in self._away():
                self._catch_up_wholly(follower)
            for follower in self.followers:
                assert follower.mailbox.given == follower.wanted(self.wal)
        finally:
            self.limits.stop()

    def _catch_up_wholly(self, follower: Follower) -> None:
        subscription = follower.subscription
        reader = follower.reader or Reader(self.wal, subscription.after[0])
        burst = reader.read(len(self.wal.steps))
        rest = subscription.put(selected(subscription, burst), before_commits_at(burst.watermark))
        while rest:
            follower.mailbox.drain()
            rest = subscription.put(rest, before_commits_at(burst.watermark))
        assert self.fanout.join(subscription, burst.watermark)


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=200, stateful_step_count=60)


def joining(wal: Wal) -> tuple[Fanout, Reader, Follower]:
    """A stream that has to catch up with one transaction, while the live reader is past it."""
    wal.write(["small", "large"])
    start = before_commits_at(100)
    mailbox = Mailbox(100)
    fanout, live, follower = (
        Fanout(wal.end, view_of),
        Reader(wal, wal.end),
        Follower(Subscription(Selection(), start, mailbox), mailbox, start),
    )
    assert not fanout.join(follower.subscription, 100)
    return fanout, live, follower


def finish(fanout: Fanout, wal: Wal, follower: Follower) -> bool:
    burst = Reader(wal, 100).read(3)
    follower.subscription.put(selected(follower.subscription, burst), before_commits_at(burst.watermark))
    return fanout.join(follower.subscription, burst.watermark)


def test_what_was_laid_aside_meanwhile_follows_what_was_caught_up():
    wal = Wal()
    fanout, live, follower = joining(wal)
    wal.write(["small", "large", "small"])
    fanout.dispatch(live.read(2))
    assert finish(fanout, wal, follower)
    fanout.dispatch(live.read(2))
    assert follower.mailbox.given == wal.changes


def test_a_reconnect_inside_a_transaction_repeats_nothing_to_who_is_joining():
    wal = Wal()
    fanout, live, follower = joining(wal)
    wal.write(["small", "large", "small"])
    fanout.dispatch(live.read(2))
    fanout.restart()
    fanout.dispatch(Reader(wal, fanout.watermark).read(4))
    assert finish(fanout, wal, follower)
    assert follower.mailbox.given == wal.changes


def test_who_left_is_fed_no_more():
    wal = Wal()
    fanout, live, follower = joining(wal)
    assert finish(fanout, wal, follower)
    fanout.leave(follower.subscription)
    wal.write(["small"])
    fanout.dispatch(live.read(2))
    assert follower.mailbox.given == wal.changes[:2]


def test_who_was_forgotten_is_not_taken_for_live():
    """Else `Hub.live_place` would tell it that it was given what comes later."""
    wal = Wal()
    fanout, live, follower = joining(wal)
    assert finish(fanout, wal, follower)
    wal.write(["small"])
    fanout.dispatch(live.read(2))
    fanout.forget(follower.subscription)
    assert follower.subscription.state is State.AWAY
    assert follower.mailbox.reached == fanout.dispatched


def test_a_renaming_concerns_who_wants_the_old_name_or_the_new_one():
    change = Change((110, 105, 0, 0), WHEN, CollectionChange(105, "rename", "small", b"_", renamed_to="new"))
    boxes = {name: Mailbox(9) for name in ("small", "new", "large")}
    late = Subscription(Selection(frozenset({"new"})), before_commits_at(100), Mailbox(9))
    fanout = Fanout(100, view_of)
    for name, box in boxes.items():
        fanout.add(Subscription(Selection(frozenset({name})), before_commits_at(100), box))
    assert not fanout.join(late, 0)
    fanout.dispatch(Burst([change], 118, None))
    assert [box.given for box in boxes.values()] == [[change], [change], []]
    assert late.ahead == [change]
