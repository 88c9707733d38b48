"""Which subscription gets which change, and what becomes of one that is full or far behind.

Two kinds of reader feed subscriptions: the live one (the hub's), and catch-up readers, which start in the past. Both
read the same changes in the same order from the same WAL, so a subscription can move from one to the other:

1. A subscription has one feeder at a time: `LIVE`, the live reader; `AWAY` and `JOINING`, a catch-up reader or, while
   it waits for one, nobody.
2. `after` is a position: everything up to it is in the mailbox, or is not wanted. It never moves back, and no change
   at or before it is put. This alone makes events unique, whatever is read twice. While a subscription is LIVE it is
   moved on only when something is put: who asks how far such a one is takes the fan-out's `dispatched`, too, so that a
   burst costs nothing for those who want none of it.
3. R of a reader is an LSN such that every transaction with a commit LSN below it is out (and put, for its feed).
   `joinable_from` of the live reader is R, or, inside a transaction, just past that transaction's commit LSN: it is the
   first commit LSN from which a newcomer misses nothing.
4. A LIVE subscription whose mailbox does not take all becomes AWAY; `after` is then the last change that was taken.
   Nothing is dropped: the WAL has the rest.
5. AWAY becomes JOINING when its reader is near: from then on the live reader lays aside, in `ahead`, what it
   would have put, beginning with `join_from = joinable_from`. The catch-up reader goes on feeding.
6. JOINING becomes LIVE when the catch-up reader's R has reached `join_from`: what was laid aside and lies beyond
   `after` is put, and there is neither gap (both sides cover `join_from`) nor repeat (rule 2). So a reader that trails
   the live one for ever still joins, for its goal does not move.
7. If what is laid aside grows beyond its limits, JOINING becomes AWAY again, and the reader goes on.
8. A live reader that lost its connection begins again at its R. What it had laid aside of a transaction beyond R is
   thrown away, for it will be laid aside again.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from pgdoc.changes.router import Router
from pgdoc.model.positions import before_commits_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.change import Burst, Change
    from pgdoc.changes.router import Selection, View
    from pgdoc.model.positions import RawPosition


AHEAD_LIMIT = 5_000
AHEAD_BYTES = 64 << 20
"""What may be laid aside for a subscription that is joining: changes, and bytes of their messages."""


class ChangeSink(Protocol):
    """Where a subscription's changes go."""

    def put(self, changes: list[Change], reached: RawPosition) -> int:
        """Take as many as there is room for, and give how many.

        When all were taken, `reached` is how far the stream will have come after the last of them.
        """

    def begin_at(self, place: RawPosition) -> None:
        """Throw away what lies before `place`."""

    def call_when_room(self, callback: Callable[[], object]) -> None:
        """Call back when it is at most half full."""

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, after what was put before."""

    def close(self) -> None:
        """Drop everything."""


class State(enum.Enum):
    """Who feeds a subscription."""

    LIVE = "live"
    AWAY = "away"
    JOINING = "joining"


class Subscription:
    """What one stream wants, and how far it was given that.

    Args:
        selection: what it wants.
        after: everything up to here is not wanted.
        mailbox: where its changes go.
    """

    def __init__(self, selection: Selection, after: RawPosition, mailbox: ChangeSink) -> None:
        self.selection = selection
        self.after = after
        self.mailbox = mailbox
        self.state = State.AWAY
        self.ahead: list[Change] = []
        self.ahead_bytes = 0
        self.join_from = 0

    def put(self, selected: list[Change], reached: RawPosition) -> list[Change]:
        """Put those of its selection's changes that lie beyond `after`; give what the mailbox had no room for.

        Args:
            selected: the changes of its selection.
            reached: how far it has come when all of them were put.
        """
        wanted = self.beyond(selected)
        reached = max(self.after, reached, wanted[-1].position if wanted else reached)
        taken = self.mailbox.put(wanted, reached)
        if taken == len(wanted):
            self.after = reached
        elif taken:
            self.after = wanted[taken - 1].position
        return wanted[taken:]

    def beyond(self, selected: list[Change]) -> list[Change]:
        """Give the changes that lie beyond `after`."""
        if selected and selected[0].position <= self.after:
            return [change for change in selected if change.position > self.after]
        return selected


class Fanout:
    """The live reader's side: spreads its changes over the subscriptions.

    Args:
        watermark: the R of the live reader as it starts.
        view: makes the view of a change that filters are asked of.

    Attributes:
        dispatched: up to where every LIVE subscription was given all that it wants.
    """

    def __init__(self, watermark: int, view: View) -> None:
        self.watermark = watermark
        self.dispatched = before_commits_at(watermark)
        self._inside: int | None = None
        self._router = Router(view)
        self._subscriptions: dict[Selection, dict[Subscription, None]] = {}

    @property
    def joinable_from(self) -> int:
        """The first commit LSN from which a newcomer misses nothing."""
        inside = self._inside  # read once: asked without the hub's lock, too
        return self.watermark if inside is None else inside + 1

    def restart(self) -> None:
        """Note that the live reader begins again at `watermark`, outside any transaction."""
        self._inside = None
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.ahead = [change for change in subscription.ahead if change.position[0] < self.watermark]
                subscription.ahead_bytes = sum(len(change.row.message) for change in subscription.ahead)

    def add(self, subscription: Subscription) -> None:
        """Feed a newcomer from here on."""
        subscription.after = max(subscription.after, before_commits_at(self.joinable_from))
        subscription.state = State.LIVE
        self._enter(subscription)

    def _enter(self, subscription: Subscription) -> None:
        peers = self._subscriptions.setdefault(subscription.selection, {})
        if subscription not in peers:
            peers[subscription] = None
            self._router.add(subscription.selection)

    def dispatch(self, burst: Burst) -> list[Subscription]:
        """Spread a burst; give the subscriptions that are full and were sent away."""
        before, reached = self.dispatched, before_commits_at(burst.watermark)
        self.watermark, self._inside = burst.watermark, burst.partial_commit_lsn
        sent_away = []
        for selection, changes in self._router.route(burst.changes).items():
            for subscription in self._subscriptions[selection]:
                if subscription.state is State.LIVE:
                    subscription.after = max(subscription.after, before)
                    if subscription.put(changes, reached):
                        sent_away.append(subscription)
                elif subscription.state is State.JOINING:
                    _lay_aside(subscription, changes)
        for subscription in sent_away:
            self.leave(subscription)
        self.dispatched = reached  # at last: who asks meanwhile must not take for given what is still to be put
        return sent_away

    def forget(self, subscription: Subscription) -> None:
        """Stop feeding it for good; the mailbox of a LIVE one, which is that no more, is told how far it has come."""
        if subscription.state is State.LIVE:
            subscription.put([], self.dispatched)
        self.leave(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Stop feeding it: from now on it is AWAY; fine where it is not known."""
        peers = self._subscriptions.get(subscription.selection, {})
        if subscription in peers:
            del peers[subscription]
            self._router.remove(subscription.selection)
            if not peers:
                del self._subscriptions[subscription.selection]
        _set_away(subscription)

    def join(self, subscription: Subscription, reader_watermark: int) -> bool:
        """Begin, or end, the move of a subscription from a catch-up reader; give whether it is LIVE now.

        Args:
            subscription: fed by a reader that has put everything it holds.
            reader_watermark: that reader's R.
        """
        if subscription.state is State.AWAY:
            subscription.join_from = self.joinable_from
            subscription.state = State.JOINING
            self._enter(subscription)
        if reader_watermark < subscription.join_from:
            return False
        ahead, subscription.ahead, subscription.ahead_bytes = subscription.ahead, [], 0
        left = subscription.put(ahead, before_commits_at(self.watermark))
        if left:
            self.leave(subscription)
            return False
        subscription.state = State.LIVE
        return True


def _lay_aside(subscription: Subscription, selected: list[Change]) -> None:
    join_from = subscription.join_from
    wanted = [change for change in selected if change.position[0] >= join_from]
    subscription.ahead += wanted
    subscription.ahead_bytes += sum([len(change.row.message) for change in wanted])
    if len(subscription.ahead) > AHEAD_LIMIT or subscription.ahead_bytes > AHEAD_BYTES:
        _set_away(subscription)  # joining is begun again when its reader is nearer


def _set_away(subscription: Subscription) -> None:
    subscription.state = State.AWAY
    subscription.ahead = []
    subscription.ahead_bytes = 0
