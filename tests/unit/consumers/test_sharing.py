"""A consumer that moves to the hub and back."""

from __future__ import annotations

from unittest import mock

from pgdoc.changes.fanout import State, Subscription
from pgdoc.changes.router import Selection
from pgdoc.consumers.sharing import HubShare
from pgdoc.model.positions import BEFORE_ALL
from pgdoc.replication.source import Cluster
from pgdoc.streams.mailbox import Mailbox
from pgdoc.streams.subscriptions import Subscriptions

CLUSTER = Cluster(7421, 3)


def test_the_hub_forgets_a_consumer_whose_move_did_not_succeed() -> None:
    subscriptions = Subscriptions()
    subscriptions.begin(CLUSTER, 3000)
    subscription = Subscription(Selection(), BEFORE_ALL, Mailbox(10, 1 << 20))
    hub = mock.Mock(subscriptions=subscriptions, is_started=True, is_reconnecting=False, plugin="wal2json")
    share = HubShare(hub, subscription, lambda: True)
    assert not share.join(2990, CLUSTER.ids, "wal2json")
    assert share.is_joining
    subscriptions.pass_over(4000)
    assert subscription.state is State.DETACHED
    share.leave()
    share.close()
    assert not subscriptions.is_open(subscription)
