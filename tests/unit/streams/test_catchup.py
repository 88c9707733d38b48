"""Which catch-up reader feeds which stream."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from pgdoc.changes.fanout import State, Subscription
from pgdoc.changes.router import Selection
from pgdoc.streams import catchup
from pgdoc.streams.catchup import CatchUp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.streams.catchup import Group

_ENOUGH_S = 10.0


class _Readers(CatchUp):
    """Readers that read nothing: each keeps its group until the test ends it."""

    def __init__(self) -> None:
        super().__init__(mock.Mock(), mock.Mock(), wake=mock.Mock(), is_reconnecting=lambda: False)
        self.begun: list[tuple[threading.Thread, list[Subscription]]] = []
        self.begins = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)

    def _feed(self, group: Group) -> None:
        members = list(group)
        self.begun.append((threading.current_thread(), members))
        self.begins.release()
        assert self.let_go.acquire(timeout=_ENOUGH_S)
        for subscription in members:
            self._release(group, subscription)

    def wait_for_begin(self) -> list[Subscription]:
        assert self.begins.acquire(timeout=_ENOUGH_S)
        return self.begun[-1][1]

    def end(self) -> None:
        threads = self.threads
        self.let_go.release(100)
        for thread in threads:
            thread.join(_ENOUGH_S)
            assert not thread.is_alive()


@pytest.fixture
def readers() -> Iterator[_Readers]:
    made = _Readers()
    yield made
    made.end()


def subscription(at: int = 100) -> Subscription:
    return Subscription(Selection(), (at, 0, 0, 0), mock.Mock())


def test_streams_at_about_one_place_share_a_reader(readers):
    far, first, second = subscription(1 << 40), subscription(100), subscription(200)
    with readers._lock:
        readers._waiting = {first: None, far: None}
    readers.queue(second)
    begun = {frozenset(readers.wait_for_begin())}
    readers.queue(far)
    begun.add(frozenset(readers.wait_for_begin()))
    assert begun == {frozenset({first, second}), frozenset({far})}


def test_a_stream_that_is_being_fed_gets_no_second_reader_but_is_fed_again_afterwards(readers):
    twice, other = subscription(), subscription(1 << 40)
    readers.queue(twice)
    assert readers.wait_for_begin() == [twice]
    readers.queue(twice)
    readers.queue(other)
    assert readers.wait_for_begin() == [other]
    assert len(readers.begun) == 2
    readers.let_go.release(2)
    assert readers.wait_for_begin() == [twice]


def test_a_stream_that_is_live_when_its_turn_comes_needs_no_reader(readers):
    joined = subscription()
    readers.queue(joined)
    readers.wait_for_begin()
    readers.queue(joined)
    joined.state = State.LIVE
    readers.end()
    assert len(readers.begun) == 1
    assert not readers._waiting
    joined.state = State.DETACHED
    readers.queue(joined)
    assert readers.wait_for_begin() == [joined]


def test_no_more_than_some_readers_run(readers):
    for place in range(catchup.READERS + 3):
        readers.queue(subscription(place << 40))
    for _ in range(catchup.READERS):
        readers.wait_for_begin()
    assert len(readers.threads) == catchup.READERS


def test_a_mailbox_with_room_wakes_the_hub_thread_which_queues_its_stream(readers):
    stream, mailbox = subscription(), mock.Mock()
    stream.mailbox = mailbox
    readers.take_over(stream)
    ((report_room,), _) = mailbox.call_when_room.call_args
    report_room()
    assert readers._wake.called
    assert readers.begun == []
    readers.queue_requests()
    assert readers.wait_for_begin() == [stream]


def test_a_stream_that_was_closed_gets_no_reader(readers):
    readers._subscriptions.is_open.return_value = False
    readers.request_feed(subscription())
    readers.queue_requests()
    assert readers.threads == []
