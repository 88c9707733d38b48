"""Open streams, and their state after the live reader begins, reconnects and ends."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest

from pgdoc.changes.change import Burst, Change, TransactionInfo
from pgdoc.changes.fanout import State, Subscription
from pgdoc.changes.router import Condition, RouteKey, Selection
from pgdoc.decoding.records import RowChange
from pgdoc.decoding.wal2json import read_images
from pgdoc.errors import HistoryLost, InvalidResumeToken, StoreClosed, StreamClosed, StreamError
from pgdoc.replication.source import Cluster
from pgdoc.streams.mailbox import Mailbox
from pgdoc.streams.subscriptions import Subscriptions
from tests.unit.interrupts import Interrupt


def mailbox() -> Mailbox:
    return Mailbox(10, 1 << 20)


@pytest.fixture
def subscriptions() -> Subscriptions:
    made = Subscriptions()
    made.begin(Cluster(7421, 3), 3000)
    return made


def test_a_stream_can_be_opened_only_while_the_live_reader_reads(subscriptions):
    with pytest.raises(StreamError, match="open it again"):
        Subscriptions().subscribe(Selection(), mailbox())
    subscriptions.subscribe(Selection(), mailbox())
    subscriptions.end()
    with pytest.raises(StreamError, match="open it again"):
        subscriptions.subscribe(Selection(), mailbox())
    subscriptions.begin(Cluster(7421, 3), 4000)
    subscriptions.resume(Selection(), (4000, 0, 0, 0), mailbox(), subscriptions.ids)
    subscriptions.close()
    with pytest.raises(StoreClosed):
        subscriptions.resume(Selection(), (4000, 0, 0, 0), mailbox(), subscriptions.ids)


def test_a_stream_that_resumes_where_the_live_reader_is_needs_no_catch_up(subscriptions):
    subscription, is_live = subscriptions.resume(Selection(), (3000, 0, 0, 0), mailbox(), subscriptions.ids)
    assert is_live
    assert subscription.state is State.LIVE
    subscription, is_live = subscriptions.resume(Selection(), (2999, 0, 0, 0), mailbox(), subscriptions.ids)
    assert not is_live
    assert subscription.state is State.DETACHED


def test_the_live_reader_goes_on_only_where_the_transaction_that_it_was_giving_was_kept(subscriptions):
    subscriptions.dispatch(Burst([], 3000, 3500))
    subscriptions.check_cluster(Cluster(7421, 3))
    subscriptions.check_cluster(Cluster(7421, 4, ((3, 3501),)))
    with pytest.raises(InvalidResumeToken, match="not part of this server's history"):
        subscriptions.check_cluster(Cluster(7421, 4, ((3, 3500),)))


def test_a_stream_that_was_given_more_than_the_new_timeline_holds_ends(subscriptions):
    near, far = mailbox(), mailbox()
    near_one, _ = subscriptions.resume(Selection(), (3100, 0, 0, 0), near, subscriptions.ids)
    far_one, _ = subscriptions.resume(Selection(), (3600, 0, 0, 0), far, subscriptions.ids)
    subscriptions.move_to(Cluster(7421, 4, ((3, 3500),)))
    assert subscriptions.is_open(near_one)
    assert not subscriptions.is_open(far_one)
    with pytest.raises(InvalidResumeToken, match="not part of this server's history"):
        far.take(0)
    assert not near.take(0)
    assert subscriptions.ids == (7421, 4, None)


def test_each_stream_ends_with_an_error_of_its_own(subscriptions):
    boxes = [mailbox(), mailbox()]
    for box in boxes:
        subscriptions.subscribe(Selection(), box)
    error = HistoryLost("lost", oldest_available="0/5")
    error.__cause__ = cause = ValueError()
    ended = subscriptions.end()
    assert not any(map(subscriptions.is_open, ended))
    for subscription in ended:
        subscriptions.fail(subscription, error)
    raised = []
    for box in boxes:
        with pytest.raises(HistoryLost) as exc_info:
            box.take(0)
        raised.append(exc_info.value)
    assert raised[0] is not raised[1]
    assert [(each.__cause__, each.oldest_available) for each in raised] == [(cause, "0/5")] * 2


def test_closing_closes_every_mailbox(subscriptions):
    box = mailbox()
    subscriptions.subscribe(Selection(), box)
    subscriptions.close()
    with pytest.raises(StreamClosed):
        box.take(0)
    assert subscriptions.end() == []


def test_an_abandoned_stream_is_forgotten_by_the_hub_thread_without_waiting_for_the_lock(subscriptions):
    box = mailbox()
    subscription = subscriptions.subscribe(Selection(), box)
    with subscriptions._lock:  # as if the garbage collector had interrupted its holder
        subscriptions.abandon(subscription)
    assert subscriptions.is_open(subscription)
    subscriptions.forget_abandoned()
    assert not subscriptions.is_open(subscription)
    assert box.closed


def test_a_catch_up_reader_keeps_a_subscription_until_it_is_near(subscriptions):
    box = mailbox()
    subscription, _ = subscriptions.resume(Selection(), (2000, 0, 0, 0), box, subscriptions.ids)
    subscriptions.dispatch(Burst([], 9 << 20, None))
    watermarks = (3000, (9 << 20) - 100, 9 << 20)
    seen = [(subscriptions.join(subscription, watermark), subscription.state) for watermark in watermarks]
    assert seen == [(False, State.DETACHED), (False, State.REJOINING), (True, State.LIVE)]


def test_a_catch_up_reader_is_done_with_a_subscription_that_was_closed(subscriptions):
    subscription, _ = subscriptions.resume(Selection(), (2000, 0, 0, 0), mailbox(), subscriptions.ids)
    subscriptions.unsubscribe(subscription)
    assert subscriptions.join(subscription, 2500)


def test_a_child_process_gets_a_lock_that_nobody_holds(subscriptions):
    subscriptions._lock.acquire()
    subscriptions.after_fork()
    assert not subscriptions.is_open(mock.Mock())


def lookup_of(key: str) -> Condition:
    return Condition(b"", None, None, RouteKey("", frozenset({key}), lambda _view: [key]), None, lambda _view: True)


@pytest.mark.parametrize("selection", [Selection(), Selection(frozenset({"orders"})), Selection(None, lookup_of("x"))])
def test_an_interrupt_while_a_stream_opens_or_closes_takes_nothing_from_the_others(selection):
    transaction = TransactionInfo(1, "2026-11-23 03:41:13+00", None)
    row = RowChange(1, "I", "orders", b"_", complete=True, read=lambda *_: mock.Mock())

    def dispatch(subscriptions: Subscriptions, *boxes: Mailbox) -> None:
        lsn = subscriptions.watermark + 10
        changes = [Change((lsn, 1, 1, 0), transaction, row)]
        subscriptions.dispatch(Burst(changes, lsn + 1, None))
        for box in boxes:
            assert [change.position for change in box.take(0)] == [(lsn, 1, 1, 0)]
            box.batch.next = 1

    step = 0
    while True:
        subscriptions, one, other, late = Subscriptions(), mailbox(), mailbox(), mailbox()
        subscriptions.begin(Cluster(7421, 3), 3000)
        subscriptions.subscribe(Selection(frozenset({"orders", "none"})), one)
        with Interrupt(step, "pgdoc.changes.") as opening:
            subscriptions.subscribe(selection, mailbox())
        dispatch(subscriptions, one)
        closed = subscriptions.subscribe(selection, mailbox())
        subscriptions.subscribe(selection, other)
        dispatch(subscriptions, one, other)
        with Interrupt(step, "pgdoc.changes.") as closing:
            subscriptions.unsubscribe(closed)
        dispatch(subscriptions, one, other)
        subscriptions.unsubscribe(closed)  # as the stream does when it is closed again, or collected
        dispatch(subscriptions, one, other)
        subscriptions.subscribe(selection, late)
        dispatch(subscriptions, one, other, late)
        subscriptions.close()
        if opening.step >= 0 and closing.step >= 0:  # neither was interrupted
            break
        step += 1
    assert step > 5


class Sent:
    """A consumer's subscription, and how often the hub has sent it back."""

    def __init__(self, after: int = 3000) -> None:
        self.times = 0
        self.mailbox = mailbox()
        self.subscription = Subscription(Selection(), (after, 0, 0, 0), self.mailbox, when_sent_back=self.count)

    def count(self) -> None:
        self.times += 1


IDS = (7421, 3, None)


def change(lsn: int) -> Change:
    row = RowChange(lsn, "I", "orders", b"_", complete=True, read=read_images)
    return Change((lsn, lsn, 1, 0), TransactionInfo(1, "", None), row)


def positions(box: Mailbox) -> list[int]:
    batch = box.take(0)
    batch.next = len(batch)
    return [each.position[0] for each in batch]


def test_a_consumer_moves_to_the_hub_when_its_reader_has_come_to_where_the_hub_was(subscriptions):
    sent = Sent(2000)
    assert not subscriptions.take_in(sent.subscription, 2500, IDS)
    assert sent.subscription.state is State.REJOINING
    subscriptions.dispatch(Burst([change(3100)], 3200, None))
    sent.subscription.put([change(2600)], (3000, 0, 0, 0))
    assert subscriptions.take_in(sent.subscription, 3000, IDS)
    subscriptions.dispatch(Burst([change(3300)], 3400, None))
    assert positions(sent.mailbox) == [2600, 3100, 3300]
    subscriptions.give_back(sent.subscription)
    assert (sent.subscription.after, sent.times) == ((3400, 0, 0, 0), 0)
    subscriptions.dispatch(Burst([change(3500)], 3600, None))
    assert not positions(sent.mailbox)


@pytest.mark.parametrize(
    ("watermark", "ids"),
    [(3000 + (2 << 20), IDS), (3000, (7421, 4, None)), (3000, (7422, 3, None)), (3000, (7421, 3, 16384))],
    ids=["the hub is far behind", "another timeline", "another cluster", "another database"],
)
def test_a_consumer_stays_with_its_own_reader(subscriptions, watermark, ids):
    sent = Sent()
    assert not subscriptions.take_in(sent.subscription, watermark, ids)
    assert sent.subscription.state is State.DETACHED
    assert not subscriptions.is_open(sent.subscription)


def test_a_consumer_does_not_join_a_hub_that_is_far_ahead_or_has_ended(subscriptions):
    subscriptions.dispatch(Burst([], 3000 + (2 << 20), None))
    sent = Sent()
    assert not subscriptions.take_in(sent.subscription, 3000, IDS)
    subscriptions.end()
    assert not subscriptions.take_in(sent.subscription, 3000 + (2 << 20), IDS)
    assert not subscriptions.is_open(sent.subscription)


def test_what_ends_a_stream_sends_a_consumer_back(subscriptions):
    sent = Sent()
    assert subscriptions.take_in(sent.subscription, 3000, IDS)
    subscriptions.dispatch(Burst([change(3100)], 3200, None))
    (ended,) = subscriptions.end()
    subscriptions.fail(ended, StreamError("the hub failed"))
    assert (sent.times, sent.subscription.after, sent.subscription.state) == (1, (3200, 0, 0, 0), State.DETACHED)
    assert positions(sent.mailbox) == [3100]
    assert not positions(sent.mailbox)  # no error


def test_a_consumer_is_sent_back_when_the_hub_moves_to_another_timeline(subscriptions):
    sent, stream = Sent(), mailbox()
    assert subscriptions.take_in(sent.subscription, 3000, IDS)
    subscription, _ = subscriptions.resume(Selection(), (3000, 0, 0, 0), stream, subscriptions.ids)
    subscriptions.move_to(Cluster(7421, 3))
    assert sent.times == 0
    subscriptions.move_to(Cluster(7421, 4, ((3, 3500),)))
    assert (sent.times, sent.subscription.state) == (1, State.DETACHED)
    assert (subscription.state, subscriptions.is_open(sent.subscription)) == (State.LIVE, False)


def test_no_stream_comes_in_between_the_check_of_all_and_the_move_to_another_timeline(subscriptions):
    """Its position would be taken for one of the new timeline, which does not have it."""
    refused: list[InvalidResumeToken] = []
    subscriptions.resume(Selection(), (3100, 0, 0, 0), mailbox(), subscriptions.ids)

    class Checked(Cluster):
        def check(self, position: Any, ids: Any) -> None:
            super().check(position, ids)
            coming.start()
            coming.join(0.05)  # it waits for the lock
            assert coming.is_alive()

    def come() -> None:
        try:
            subscriptions.resume(Selection(), (3600, 0, 0, 0), mailbox(), IDS)
        except InvalidResumeToken as exc:
            refused.append(exc)

    coming = threading.Thread(target=come)
    subscriptions.move_to(Checked(7421, 4, ((3, 3500),)))
    coming.join()
    assert subscriptions.ids == (7421, 4, None)
    assert len(refused) == 1


def test_a_stream_begins_only_on_the_timeline_whose_end_it_was_told(subscriptions):
    subscription = subscriptions.subscribe(Selection(), mailbox())
    subscriptions.dispatch(Burst([], 3200, None))
    assert not subscriptions.begin_at(subscription, 3700, 4)
    subscriptions.move_to(Cluster(7421, 4, ((3, 3500),)))
    assert not subscriptions.begin_at(subscription, 3600, 3)
    assert subscriptions.begin_at(subscription, 3700, 4)
    assert subscription.after == (3700, 0, 0, 0)


def test_a_closed_store_closes_the_mailbox_of_a_consumer(subscriptions):
    sent = Sent()
    assert subscriptions.take_in(sent.subscription, 3000, IDS)
    subscriptions.close()
    with pytest.raises(StreamClosed):
        sent.mailbox.take(0)
