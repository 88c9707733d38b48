"""Which subscription gets which change, and how a subscription moves between the readers that feed it.

Two kinds of reader feed subscriptions: the hub's live reader, and catch-up readers, which start in the past. Both read
the same changes in the same order from the same WAL, so a subscription can move between them. `TRANSITIONS` is the
table of its moves, by these rules:

1. A subscription has one feeder at a time: the live reader while it is LIVE; otherwise a catch-up reader, or nobody
   while it waits for one.
2. `after` is a position: every wanted change up to it is in the mailbox. It never decreases, and no change at or before
   it is put. This alone makes events unique, however often a change is read. While a subscription is LIVE, `after`
   advances only when something is put, so that a burst costs nothing for the subscriptions that want none of it: the
   progress of a LIVE subscription is `max(after, dispatched)`.
3. The watermark of a reader is an LSN: every transaction that commits below it has been read, and put for the reader's
   subscriptions. `joinable_from` is the first commit LSN from which a new LIVE subscription misses nothing: the live
   reader's watermark or, inside a transaction, the LSN after its commit LSN.
4. When the mailbox of a LIVE subscription can't take all changes, the subscription becomes DETACHED, with `after` at
   the last change that the mailbox took. The WAL has the rest.
5. When a catch-up reader is near the live reader, its DETACHED subscriptions become REJOINING. From then on the live
   reader buffers in `pending` what it would put, from `join_from`, the `joinable_from` of that moment.
6. When the catch-up reader's watermark reaches `join_from`, the pending changes after `after` are put, and the
   subscription is LIVE. There is no gap, since both readers cover `join_from`, and no repeat (rule 2). Since
   `join_from` does not move, a reader that never quite catches up still gets there.
7. When `pending` exceeds its limits, the subscription becomes DETACHED again. Its catch-up reader continues.
8. A transaction that the live reader can't read is left to the catch-up readers: each subscription becomes DETACHED
   before it, and the live reader goes on after it.
9. After losing its connection, the live reader starts again at its watermark. Pending changes at or beyond it are
   dropped, since they are read again.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Protocol

from pgdoc.changes.change import bytes_of
from pgdoc.changes.router import Router
from pgdoc.model.positions import before_commits_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.changes.change import Burst, Change
    from pgdoc.changes.router import Selection, View
    from pgdoc.model.positions import RawPosition


PENDING_LIMIT = 5_000
PENDING_BYTES = 64 << 20
"""How much may be buffered for a REJOINING subscription: changes, and bytes of their messages."""


class State(enum.StrEnum):  # not Enum, whose hash is computed in Python: a state is looked up for each burst
    """Who feeds a subscription."""

    LIVE = "live"  # the live reader
    DETACHED = "detached"  # a catch-up reader, or nobody yet
    REJOINING = "rejoining"  # a catch-up reader, while the live reader buffers


class Event(enum.StrEnum):
    """What can happen to a subscription."""

    ADDED = "added"  # its stream starts where the live reader misses nothing
    CHANGES = "changes"  # the live reader has changes that it selects
    MAILBOX_FULL = "mailbox_full"  # the mailbox did not take all that the live reader put
    READER_NEAR = "reader_near"  # its catch-up reader is near the live reader
    READER_CAUGHT_UP = "reader_caught_up"  # the watermark of its catch-up reader has reached `join_from`
    READER_GONE = "reader_gone"  # its catch-up reader ended, or gave it up
    PENDING_PUT = "pending_put"  # the mailbox took all pending changes
    PENDING_OVERFLOW = "pending_overflow"  # `pending` exceeds its limits
    RECONNECTED = "reconnected"  # the live reader starts again at its watermark
    FORGOTTEN = "forgotten"  # its stream ended


class Action(enum.StrEnum):
    """What the fan-out does about an event: a method of `Fanout`."""

    NOTHING = "nothing"
    START_FEEDING = "start_feeding"
    START_BUFFERING = "start_buffering"
    STOP = "stop"  # feeding or buffering
    FLUSH_AND_STOP = "flush_and_stop"
    PUT = "put"
    PUT_PENDING = "put_pending"
    BUFFER = "buffer"
    DROP_REPEATED = "drop_repeated"


class Transition(NamedTuple):
    """What an event does in a state. The action comes first; it can cause another event."""

    state: State
    action: Action


TRANSITIONS: Final[dict[State, dict[Event, Transition]]] = {
    State.LIVE: {
        Event.CHANGES: Transition(State.LIVE, Action.PUT),  # can cause MAILBOX_FULL
        Event.MAILBOX_FULL: Transition(State.DETACHED, Action.STOP),
        Event.READER_GONE: Transition(State.DETACHED, Action.STOP),
        Event.RECONNECTED: Transition(State.LIVE, Action.NOTHING),
        Event.FORGOTTEN: Transition(State.DETACHED, Action.FLUSH_AND_STOP),
    },
    State.DETACHED: {
        Event.ADDED: Transition(State.LIVE, Action.START_FEEDING),
        Event.READER_NEAR: Transition(State.REJOINING, Action.START_BUFFERING),
        Event.READER_GONE: Transition(State.DETACHED, Action.NOTHING),
        Event.FORGOTTEN: Transition(State.DETACHED, Action.NOTHING),
    },
    State.REJOINING: {
        Event.CHANGES: Transition(State.REJOINING, Action.BUFFER),  # can cause PENDING_OVERFLOW
        Event.READER_NEAR: Transition(State.REJOINING, Action.NOTHING),
        Event.READER_CAUGHT_UP: Transition(State.REJOINING, Action.PUT_PENDING),  # causes one of the next two
        Event.PENDING_PUT: Transition(State.LIVE, Action.NOTHING),
        Event.MAILBOX_FULL: Transition(State.DETACHED, Action.STOP),
        Event.PENDING_OVERFLOW: Transition(State.DETACHED, Action.STOP),
        Event.READER_GONE: Transition(State.DETACHED, Action.STOP),
        Event.RECONNECTED: Transition(State.REJOINING, Action.DROP_REPEATED),
        Event.FORGOTTEN: Transition(State.DETACHED, Action.STOP),
    },
}
"""The moves of a subscription. An event that a state does not list can't happen there, and is an error."""


class ChangeSink(Protocol):
    """Where a subscription's changes go."""

    def put(self, changes: list[Change], position: RawPosition, size_bytes: int | None, /) -> int:
        """Take as many changes as there is room for, and return how many; the list must not change any more.

        If all were taken, the stream has come to `position` once they are used. `size_bytes` is `bytes_of(changes)` if
        it is known.
        """

    def begin_at(self, position: RawPosition, /) -> None:
        """Discard everything up to `position`."""

    def call_when_room(self, callback: Callable[[], object]) -> None:
        """Call back when the mailbox is at most half full."""

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, after what was put before."""

    def close(self) -> None:
        """Discard everything."""


class Subscription:
    """What one stream wants, and how far it was fed.

    Its feeder owns `after`: the live reader's thread while it is LIVE, otherwise a catch-up reader's. The hub's lock
    guards every other field. Any thread may read `state` and `after` without it.

    Args:
        after: nothing up to this position is wanted.
        when_sent_back: of a durable consumer, whose own reader takes the part of a catch-up reader. It is called, on
            any thread, when the live reader no longer feeds the subscription, and returns at once.
    """

    def __init__(
        self,
        selection: Selection,
        after: RawPosition,
        mailbox: ChangeSink,
        *,
        when_sent_back: Callable[[], object] | None = None,
    ) -> None:
        self.selection = selection
        self.after = after
        self.mailbox = mailbox
        self.when_sent_back = when_sent_back
        self.state = State.DETACHED
        # Of REJOINING only: what the live reader buffers, and from which commit LSN.
        self.pending: list[Change] = []
        self.pending_bytes = 0
        self.join_from = 0

    def put(self, selected: list[Change], position: RawPosition) -> list[Change]:
        """Put the changes beyond `after`; return those for which the mailbox had no room.

        `position` is how far the stream has come once all are put.
        """
        wanted = selected
        if selected:
            if selected[0].position <= self.after:
                wanted = [change for change in selected if change.position > self.after]
            position = max(position, selected[-1].position)
        position = max(position, self.after)
        taken = self.mailbox.put(wanted, position, None)
        if taken == len(wanted):
            self.after = position
        elif taken:
            self.after = wanted[taken - 1].position
        return wanted[taken:]


_NO_CHANGES: list[Change] = []
_LIVE, _CHANGES = State.LIVE, Event.CHANGES  # in 3.11, reading a member costs as much as handling the event


class Fanout:
    """Spreads the changes of the live reader over the subscriptions that are LIVE or REJOINING.

    Every call is made under the hub's lock. Other threads may read the attributes and `joinable_from` without it.

    Args:
        view: makes the view of a change that filters are evaluated on.

    Attributes:
        watermark: that of the live reader.
        dispatched: every LIVE subscription has been given all that it wants up to this position.
    """

    def __init__(self, watermark: int, view: View) -> None:
        self.watermark = watermark
        self.dispatched = before_commits_at(watermark)
        self._read_to = self.dispatched  # as a position, the watermark: ahead of `dispatched` during a dispatch
        self._partial_commit_lsn: int | None = None
        self._router = Router(view)
        self._subscriptions: dict[Selection, dict[Subscription, None]] = {}

    @property
    def joinable_from(self) -> int:
        """The commit LSN of rule 3."""
        partial = self._partial_commit_lsn  # read once, since this is called without the hub's lock too
        return self.watermark if partial is None else partial + 1

    def add(self, subscription: Subscription) -> None:
        """Feed a new subscription from `joinable_from`."""
        self._handle(Event.ADDED, subscription)

    def dispatch(self, burst: Burst) -> list[Subscription]:
        """Spread a burst; return the subscriptions that a full mailbox has DETACHED."""
        self.watermark, self._partial_commit_lsn = burst.watermark, burst.partial_commit_lsn
        self._read_to = before_commits_at(burst.watermark)
        caused: list[tuple[Event, Subscription]] = []  # deferred, since it changes what the loops iterate over
        for selection, changes in self._router.route(burst.changes).items():
            self._spread(changes, self._subscriptions.get(selection, ()), caused)
        for event, subscription in caused:
            self._handle(event, subscription)
        # Last: a thread that reads `dispatched` meanwhile must not count changes that are not put yet.
        self.dispatched = self._read_to
        return [subscription for event, subscription in caused if event is Event.MAILBOX_FULL] if caused else []

    def _spread(
        self, changes: list[Change], subscriptions: Iterable[Subscription], caused: list[tuple[Event, Subscription]]
    ) -> None:
        """Handle that the live reader has these changes; note the events that this causes."""
        first, last = changes[0].position, changes[-1].position
        count, size_bytes, reached = len(changes), bytes_of(changes), max(last, self._read_to)
        are_new = self.dispatched < first
        for subscription in subscriptions:
            if are_new and subscription.after < first and subscription.state is _LIVE:
                # As `_handle` does by the table, in a third of the time, which a hundred streams wait for.
                taken = subscription.mailbox.put(changes, reached, size_bytes)
                if taken == count:
                    subscription.after = reached
                    continue
                subscription.after = changes[taken - 1].position if taken else max(subscription.after, self.dispatched)
                follow_up: Event | None = Event.MAILBOX_FULL
            else:
                follow_up = self._handle(_CHANGES, subscription, changes)
            if follow_up is not None:
                caused.append((follow_up, subscription))

    def join(self, subscription: Subscription, reader_watermark: int) -> bool:
        """Start or complete the move of a subscription from its catch-up reader; return whether it is LIVE.

        The reader is near, and has put everything that it read.
        """
        self._handle(Event.READER_NEAR, subscription)
        if reader_watermark < subscription.join_from:
            return False
        outcome = self._handle(Event.READER_CAUGHT_UP, subscription)
        if outcome is not None:
            self._handle(outcome, subscription)
        return outcome is Event.PENDING_PUT

    def detach(self, subscription: Subscription) -> None:
        """Stop feeding a subscription whose catch-up reader ended or gave it up."""
        self._handle(Event.READER_GONE, subscription)

    def forget(self, subscription: Subscription) -> None:
        """Stop feeding a subscription for good, if it was fed."""
        self._handle(Event.FORGOTTEN, subscription)

    def pass_over(self, lsn: int) -> list[Subscription]:
        """Go on at `lsn`, beyond what the live reader can't read; return the subscriptions that were LIVE."""
        live: list[Subscription] = []
        for subscription in [each for peers in self._subscriptions.values() for each in peers]:
            if subscription.state is State.LIVE:
                subscription.put([], self.dispatched)  # a catch-up reader goes on there: rule 2
                live.append(subscription)
            self._handle(Event.READER_GONE, subscription)
        self.watermark, self._partial_commit_lsn = max(self.watermark, lsn), None
        self.dispatched = self._read_to = before_commits_at(self.watermark)
        return live

    def restart(self) -> None:
        """Start again at the watermark, outside any transaction."""
        self._partial_commit_lsn = None
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                self._handle(Event.RECONNECTED, subscription)

    def _handle(self, event: Event, subscription: Subscription, changes: list[Change] = _NO_CHANGES) -> Event | None:
        """Take the step that `TRANSITIONS` has for an event; return the event that it caused."""
        try:
            state, action = TRANSITIONS[subscription.state][event]
        except KeyError:
            raise RuntimeError(f"a subscription that is {subscription.state} can't handle {event}") from None
        caused = self._ACTIONS[action](self, subscription, changes)
        # After the action: threads read the state without the lock, and count on what LIVE promises.
        subscription.state = state
        return caused

    def _nothing(self, subscription: Subscription, changes: list[Change]) -> None:
        pass

    def _start_feeding(self, subscription: Subscription, _changes: list[Change]) -> None:
        subscription.after = max(subscription.after, before_commits_at(self.joinable_from))
        self._register(subscription)

    def _start_buffering(self, subscription: Subscription, _changes: list[Change]) -> None:
        subscription.join_from = self.joinable_from
        self._register(subscription)

    def _register(self, subscription: Subscription) -> None:
        # In this order: if a KeyboardInterrupt comes in between, the router has a selection that nobody uses, which
        # does no harm. A subscription that is registered has its share in the router, and its state comes next.
        peers = self._subscriptions.setdefault(subscription.selection, {})
        self._router.add(subscription.selection)
        peers[subscription] = None

    def _stop(self, subscription: Subscription, _changes: list[Change]) -> None:
        selection = subscription.selection
        peers = self._subscriptions.get(selection, {})
        if subscription in peers:  # it is not if a KeyboardInterrupt came in between, and this is done again
            del peers[subscription]
            self._router.remove(selection)
            if not peers:
                del self._subscriptions[selection]
        _set_pending(subscription, [])

    def _flush_and_stop(self, subscription: Subscription, changes: list[Change]) -> None:
        subscription.put([], self.dispatched)  # the mailbox learns what only LIVE subscriptions count on: rule 2
        self._stop(subscription, changes)

    def _put(self, subscription: Subscription, changes: list[Change]) -> Event | None:
        subscription.after = max(subscription.after, self.dispatched)
        return Event.MAILBOX_FULL if subscription.put(changes, self._read_to) else None

    def _put_pending(self, subscription: Subscription, _changes: list[Change]) -> Event:
        left = subscription.put(subscription.pending, self._read_to)
        _set_pending(subscription, [])
        return Event.MAILBOX_FULL if left else Event.PENDING_PUT

    def _buffer(self, subscription: Subscription, changes: list[Change]) -> Event | None:
        start = before_commits_at(subscription.join_from)
        wanted = [change for change in changes if change.position > start]
        subscription.pending += wanted
        subscription.pending_bytes += bytes_of(wanted)
        overflows = len(subscription.pending) > PENDING_LIMIT or subscription.pending_bytes > PENDING_BYTES
        return Event.PENDING_OVERFLOW if overflows else None

    def _drop_repeated(self, subscription: Subscription, _changes: list[Change]) -> None:
        end = before_commits_at(self.watermark)
        _set_pending(subscription, [change for change in subscription.pending if change.position < end])

    _ACTIONS: ClassVar[dict[Action, Callable[[Fanout, Subscription, list[Change]], Event | None]]] = {
        Action.NOTHING: _nothing,
        Action.START_FEEDING: _start_feeding,
        Action.START_BUFFERING: _start_buffering,
        Action.STOP: _stop,
        Action.FLUSH_AND_STOP: _flush_and_stop,
        Action.PUT: _put,
        Action.PUT_PENDING: _put_pending,
        Action.BUFFER: _buffer,
        Action.DROP_REPEATED: _drop_repeated,
    }


def _set_pending(subscription: Subscription, changes: list[Change]) -> None:
    subscription.pending = changes
    subscription.pending_bytes = bytes_of(changes)
