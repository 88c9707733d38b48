"""The live reader passes a transaction that it can't read."""

from __future__ import annotations

from unittest import mock

from pgdoc.changes.change import Burst
from pgdoc.changes.fanout import Fanout, State, Subscription
from pgdoc.changes.router import Selection
from pgdoc.model.positions import before_commits_at


def subscription() -> Subscription:
    mailbox = mock.Mock()
    mailbox.put.side_effect = lambda changes, *_: len(changes)
    return Subscription(Selection(), before_commits_at(0), mailbox)


def test_every_subscription_leaves_before_it_and_later_ones_join_after_it() -> None:
    fanout = Fanout(100, mock.Mock())
    live, rejoining, later = subscription(), subscription(), subscription()
    fanout.add(live)
    fanout.dispatch(Burst([], 150, 170))  # inside the transaction that commits at 170
    assert not fanout.join(rejoining, 120)
    assert fanout.pass_over(171) == [live]
    assert (live.state, rejoining.state) == (State.DETACHED, State.DETACHED)
    assert live.after == before_commits_at(150)  # the catch-up reader reads the transaction again
    assert fanout.joinable_from == fanout.watermark == 171
    fanout.add(later)
    assert later.after == before_commits_at(171)
