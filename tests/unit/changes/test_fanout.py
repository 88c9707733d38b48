from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgdoc.changes import fanout as module
from pgdoc.changes.change import Burst, Change, TransactionInfo, bytes_of
from pgdoc.changes.fanout import TRANSITIONS, Action, Event, Fanout, State, Subscription
from pgdoc.changes.router import Condition, Router, Selection
from pgdoc.decoding.records import CollectionChange, RowChange
from pgdoc.decoding.wal2json import read_images
from pgdoc.model.positions import Position, before_commits_at, commit_lsn_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    """Has room for a few changes, and records every change that was put."""

    def __init__(self, size: int) -> None:
        self.got: list[Change] = []
        self.position: RawPosition = (0, 0, 0, 0)
        self.failed: BaseException | None = None
        self._room = self._size = size

    def put(self, changes: list[Change], position: RawPosition, size_bytes: int | None = None) -> int:
        assert size_bytes in (None, bytes_of(changes))
        taken = changes[: self._room]
        self.got += taken
        self._room -= len(taken)
        if len(taken) == len(changes):
            self.position = max(self.position, position)
        return len(taken)

    def drain(self) -> None:
        self._room = self._size

    def begin_at(self, position: RawPosition) -> None:
        self.got = [change for change in self.got if change.position > position]

    def call_when_room(self, callback: Callable[[], object]) -> None:
        callback()

    def fail(self, error: BaseException) -> None:
        self.failed = error

    def close(self) -> None:
        self.got = []


@dataclass
class Wal:
    """The changes that the server has written, and after each transaction, or between two, the watermark there."""

    steps: list[Change | int] = field(default_factory=list)
    commits: list[tuple[int, int]] = field(default_factory=list)  # the LSN, and the index of its first step
    end: int = 100

    def write(self, tables: list[str], gap: int = 10) -> None:
        """Commit one transaction. With a gap of 0 its commit record starts exactly at the last watermark."""
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
    """Reads the transactions that commit at or after an LSN, as the server sends them: whole, in order."""

    def __init__(self, wal: Wal, at: int) -> None:
        self._wal = wal
        index = bisect_left(wal.commits, (at, 0))
        self._next = wal.commits[index][1] if index < len(wal.commits) else len(wal.steps)
        self._watermark = at
        self._partial_commit_lsn: int | None = None

    def read(self, count: int) -> Burst:
        steps = self._wal.steps[self._next : self._next + count]
        self._next += len(steps)
        for step in steps:
            if isinstance(step, Change):
                self._partial_commit_lsn = commit_lsn_of(step.position)
            else:
                self._partial_commit_lsn, self._watermark = None, max(self._watermark, step)
        return Burst([step for step in steps if isinstance(step, Change)], self._watermark, self._partial_commit_lsn)


@dataclass
class Follower:
    """A stream: its subscription, its mailbox, and its current catch-up reader."""

    subscription: Subscription
    mailbox: Mailbox
    start: RawPosition
    reader: Reader | None = None

    def wanted(self, wal: Wal) -> list[Change]:
        return wal.wanted(self.subscription.selection, self.start)


def is_first(change: Change) -> bool:
    return Position(*change.position).ordinal == 0


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
    """One live reader, streams that start, resume and are slow, and catch-up readers as `catchup` drives them."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = mock.patch.multiple(module, PENDING_LIMIT=8, PENDING_BYTES=80)
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
            assert subscription.state is State.DETACHED

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
        after = data.draw(st.sampled_from([change.position, before_commits_at(commit_lsn_of(change.position))]))
        mailbox = Mailbox(size)
        subscription = Subscription(selection, after, mailbox)
        self.followers.append(Follower(subscription, mailbox, after))
        if self.fanout.joinable_from <= commit_lsn_of(after):
            self.fanout.add(subscription)

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def drain(self, data):
        data.draw(st.sampled_from(self.followers)).mailbox.drain()

    @precondition(lambda self: self._not_live())
    @rule(
        data=st.data(), count=st.integers(1, 3), earlier=st.sampled_from([0, 0, 30]), near=st.booleans(), full=outcomes
    )
    def catch_up(self, data, count, earlier, near, full):
        """Take a step of a catch-up reader, which may have started earlier for another stream."""
        follower = data.draw(st.sampled_from(self._not_live()))
        subscription = follower.subscription
        follower.reader = follower.reader or Reader(self.wal, max(100, commit_lsn_of(subscription.after) - earlier))
        burst = follower.reader.read(count)
        rest = subscription.put(selected(subscription, burst), before_commits_at(burst.watermark))
        while rest and full == "waits":
            follower.mailbox.drain()
            rest = subscription.put(rest, before_commits_at(burst.watermark))
        if rest or full == "breaks":
            self.fanout.detach(subscription)
            follower.reader = None
        elif (near or subscription.state is State.REJOINING) and self.fanout.join(subscription, burst.watermark):
            follower.reader = None

    def _not_live(self) -> list[Follower]:
        return [follower for follower in self.followers if follower.subscription.state is not State.LIVE]

    @invariant()
    def the_mailbox_got_what_is_wanted_so_far_without_gap_or_repeat(self):
        for follower in self.followers:
            got = follower.mailbox.got
            assert got == follower.wanted(self.wal)[: len(got)]

    @invariant()
    def progress_never_passes_a_change_that_is_still_to_come(self):
        for follower in self.followers:
            to_come = follower.wanted(self.wal)[len(follower.mailbox.got) :]
            progress = max(follower.mailbox.position, follower.subscription.after)
            if follower.subscription.state is State.LIVE:
                progress = max(progress, self.fanout.dispatched)
            assert not to_come or progress < to_come[0].position

    @invariant()
    def pending_changes_are_bounded_and_only_those_of_rejoining_subscriptions(self):
        for follower in self.followers:
            pending = follower.subscription.pending
            assert len(pending) <= module.PENDING_LIMIT
            assert sum(len(change.row.message) for change in pending) <= module.PENDING_BYTES
            assert not pending or follower.subscription.state is State.REJOINING

    def teardown(self):
        """Let every stream catch up; then everything wanted has been put."""
        try:
            self.wal.write(TABLES)
            self.fanout.dispatch(self.live.read(len(self.wal.steps)))
            for follower in self._not_live():
                self._catch_up_completely(follower)
            for follower in self.followers:
                assert follower.mailbox.got == follower.wanted(self.wal)
        finally:
            self.limits.stop()

    def _catch_up_completely(self, follower: Follower) -> None:
        subscription = follower.subscription
        reader = follower.reader or Reader(self.wal, commit_lsn_of(subscription.after))
        burst = reader.read(len(self.wal.steps))
        rest = subscription.put(selected(subscription, burst), before_commits_at(burst.watermark))
        while rest:
            follower.mailbox.drain()
            rest = subscription.put(rest, before_commits_at(burst.watermark))
        assert self.fanout.join(subscription, burst.watermark)


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=200, stateful_step_count=60)


CELLS = [(state, event) for state, row in TRANSITIONS.items() for event in row]
IMPOSSIBLE = [(state, event) for state in State for event in Event if event not in TRANSITIONS[state]]

# The call that brings a subscription into each state, and the one that reports each event. The watermark is 200.
ENTER: dict[State, Callable[[Fanout, Subscription], object]] = {
    State.LIVE: lambda fanout, subscription: fanout.add(subscription),
    State.DETACHED: lambda _fanout, _subscription: None,
    State.REJOINING: lambda fanout, subscription: fanout.join(subscription, 100),
}
REPORT: dict[Event, Callable[[Fanout, Subscription], object]] = {
    Event.ADDED: lambda fanout, subscription: fanout.add(subscription),
    Event.CHANGES: lambda fanout, _subscription: fanout.dispatch(burst_of("small")),
    Event.READER_NEAR: lambda fanout, subscription: fanout.join(subscription, 100),
    Event.READER_CAUGHT_UP: lambda fanout, subscription: fanout.join(subscription, 200),
    Event.READER_GONE: lambda fanout, subscription: fanout.detach(subscription),
    Event.PENDING_PUT: lambda fanout, subscription: fanout.join(subscription, 200),
    Event.PENDING_OVERFLOW: lambda fanout, _subscription: fanout.dispatch(burst_of(*["small"] * 9)),
    Event.RECONNECTED: lambda fanout, _subscription: fanout.restart(),
    Event.FORGOTTEN: lambda fanout, subscription: fanout.forget(subscription),
}


def burst_of(*tables: str) -> Burst:
    changes = [
        Change((300, 295, 1, n), WHEN, RowChange(295, "I", table, b"_", complete=True, read=read_images))
        for n, table in enumerate(tables)
    ]
    return Burst(changes, 308, None)


def fill_the_mailbox(fanout: Fanout, subscription: Subscription) -> None:
    fanout.dispatch(burst_of("small", "small"))
    if subscription.state is State.REJOINING:
        fanout.join(subscription, 200)


class RecordingFanout(Fanout):
    """Records each step that it takes: the state before it, the event, and the state after it."""

    def __init__(self) -> None:
        super().__init__(200, view_of)
        self.steps: list[tuple[State, Event, State]] = []

    def _handle(self, event: Event, subscription: Subscription, *changes: list[Change]) -> Event | None:
        before = subscription.state
        caused = super()._handle(event, subscription, *changes)
        self.steps.append((before, event, subscription.state))
        return caused

    def _spread(
        self, changes: list[Change], subscriptions: Iterable[Subscription], caused: list[tuple[Event, Subscription]]
    ) -> None:
        """What handles CHANGES, mostly without `_handle` for a LIVE subscription."""
        live = [each for each in subscriptions if each.state is State.LIVE]
        super()._spread(changes, subscriptions, caused)
        self.steps += [(State.LIVE, Event.CHANGES, each.state) for each in live]


def enter(state: State, room: int) -> tuple[RecordingFanout, Subscription, Mailbox]:
    fanout, mailbox = RecordingFanout(), Mailbox(room)
    subscription = Subscription(Selection(), before_commits_at(100), mailbox)
    ENTER[state](fanout, subscription)
    assert subscription.state is state
    fanout.steps.clear()
    return fanout, subscription, mailbox


@pytest.mark.parametrize(("state", "event"), CELLS)
def test_each_transition_of_the_table_is_taken_by_a_call(state, event):
    full = event is Event.MAILBOX_FULL
    fanout, subscription, _ = enter(state, room=1 if full else 100)
    report = fill_the_mailbox if full else REPORT[event]
    with mock.patch.object(module, "PENDING_LIMIT", 8):
        report(fanout, subscription)
    assert (state, event, TRANSITIONS[state][event].state) in fanout.steps


@pytest.mark.parametrize(("state", "event"), CELLS)
def test_each_transition_enters_the_state_and_takes_the_action_of_the_table(state, event):
    fanout, subscription, mailbox = enter(state, room=100)
    if state is State.REJOINING:
        subscription.pending, subscription.pending_bytes = burst_of("small").changes, 1
    new = burst_of("large").changes
    fanout._handle(event, subscription, new)
    assert subscription.state is TRANSITIONS[state][event].state
    is_registered = [subscription] in [list(peers) for peers in fanout._subscriptions.values()]
    assert is_registered is (subscription.state is not State.DETACHED)
    pending = {Action.BUFFER: [*burst_of("small").changes, *new], Action.NOTHING: burst_of("small").changes}
    action = TRANSITIONS[state][event].action
    assert subscription.pending == (pending.get(action, []) if state is State.REJOINING else [])
    assert subscription.pending_bytes == len(subscription.pending)
    put = {Action.PUT: new, Action.PUT_PENDING: burst_of("small").changes}
    assert mailbox.got == put.get(action, [])
    positions = {
        Action.PUT: (300, 295, 1, 0),
        Action.PUT_PENDING: (300, 295, 1, 0),
        Action.FLUSH_AND_STOP: (200, 0, 0, 0),
    }
    assert mailbox.position == positions.get(action, (0, 0, 0, 0))


@pytest.mark.parametrize("after", [(100, 0, 0, 0), (250, 0, 0, 0), (300, 295, 1, 0), (300, 295, 1, 2), (400, 0, 0, 0)])
@pytest.mark.parametrize("room", range(4))
@pytest.mark.parametrize("dispatched", [(200, 0, 0, 0), (300, 295, 1, 1), (350, 0, 0, 0)])
@pytest.mark.parametrize("read_to", [(200, 0, 0, 0), (360, 0, 0, 0)])
def test_changes_of_a_live_subscription_are_spread_as_the_table_says(after, room, dispatched, read_to):
    def spread(way: Callable[[Fanout, Subscription], list[tuple[Event, Subscription]]]) -> tuple[object, ...]:
        fanout, subscription, mailbox = enter(State.LIVE, room)
        fanout.dispatched, fanout._read_to, subscription.after = dispatched, read_to, after
        caused = way(fanout, subscription)
        return mailbox.got, mailbox.position, subscription.after, subscription.state, [event for event, _ in caused]

    def by_the_table(fanout: Fanout, subscription: Subscription) -> list[tuple[Event, Subscription]]:
        follow_up = fanout._handle(Event.CHANGES, subscription, burst_of(*["small"] * 3).changes)
        return [] if follow_up is None else [(follow_up, subscription)]

    def directly(fanout: Fanout, subscription: Subscription) -> list[tuple[Event, Subscription]]:
        caused: list[tuple[Event, Subscription]] = []
        fanout._spread(burst_of(*["small"] * 3).changes, [subscription], caused)
        return caused

    assert spread(directly) == spread(by_the_table)


@pytest.mark.parametrize(("state", "event"), IMPOSSIBLE)
def test_an_event_that_the_table_does_not_have_is_an_error(state, event):
    fanout, subscription, mailbox = enter(state, room=100)
    with pytest.raises(RuntimeError, match=f"is {state} can't handle {event}"):
        fanout._handle(event, subscription, burst_of("small").changes)
    assert (subscription.state, mailbox.got) == (state, [])


def test_each_state_leads_to_each_other_one_but_live_to_rejoining():
    ways = {(state, row.state) for state, cells in TRANSITIONS.items() for row in cells.values()}
    assert ways == {(one, other) for one in State for other in State} - {(State.LIVE, State.REJOINING)}
    assert {row.action for cells in TRANSITIONS.values() for row in cells.values()} == set(Action)


def rejoining(wal: Wal) -> tuple[Fanout, Reader, Follower]:
    """Make a stream that has to catch up with one transaction, while the live reader is past it."""
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


def test_pending_changes_follow_what_the_catch_up_reader_put():
    wal = Wal()
    fanout, live, follower = rejoining(wal)
    wal.write(["small", "large", "small"])
    fanout.dispatch(live.read(2))
    assert finish(fanout, wal, follower)
    fanout.dispatch(live.read(2))
    assert follower.mailbox.got == wal.changes


def test_a_reconnect_inside_a_transaction_repeats_nothing_to_a_rejoining_subscription():
    wal = Wal()
    fanout, live, follower = rejoining(wal)
    wal.write(["small", "large", "small"])
    fanout.dispatch(live.read(2))
    fanout.restart()
    fanout.dispatch(Reader(wal, fanout.watermark).read(4))
    assert finish(fanout, wal, follower)
    assert follower.mailbox.got == wal.changes


def test_a_detached_subscription_is_not_fed():
    wal = Wal()
    fanout, live, follower = rejoining(wal)
    assert finish(fanout, wal, follower)
    fanout.detach(follower.subscription)
    wal.write(["small"])
    fanout.dispatch(live.read(2))
    assert follower.mailbox.got == wal.changes[:2]


def test_a_forgotten_subscription_is_not_live_and_its_progress_is_kept():
    """Otherwise its progress would include changes that were dispatched after it was forgotten."""
    wal = Wal()
    fanout, live, follower = rejoining(wal)
    assert finish(fanout, wal, follower)
    wal.write(["small"])
    fanout.dispatch(live.read(2))
    fanout.forget(follower.subscription)
    assert follower.subscription.state is State.DETACHED
    assert follower.mailbox.position == fanout.dispatched


def test_a_rename_reaches_the_subscriptions_of_the_old_name_and_of_the_new_one():
    change = Change((110, 105, 0, 0), WHEN, CollectionChange(105, "rename", "small", b"_", renamed_to="new"))
    boxes = {name: Mailbox(9) for name in ("small", "new", "large")}
    late = Subscription(Selection(frozenset({"new"})), before_commits_at(100), Mailbox(9))
    fanout = Fanout(100, view_of)
    for name, box in boxes.items():
        fanout.add(Subscription(Selection(frozenset({name})), before_commits_at(100), box))
    assert not fanout.join(late, 0)
    fanout.dispatch(Burst([change], 118, None))
    assert [box.got for box in boxes.values()] == [[change], [change], []]
    assert late.pending == [change]


def test_what_a_live_subscription_does_with_changes_is_what_the_table_says():
    """The fan-out does not look this move up."""
    assert TRANSITIONS[State.LIVE][Event.CHANGES] == (State.LIVE, Action.PUT)
    assert Fanout._ACTIONS[Action.PUT] is Fanout._put
