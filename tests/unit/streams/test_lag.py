"""The laws of a stream's lag: see `pgdoc.streams.lag`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from pgdoc._sync.stream import ChangeStream
from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.decoding.records import RowChange
from pgdoc.decoding.wal2json import read_images
from pgdoc.model.positions import BEFORE_ALL, before_commits_at
from pgdoc.replication.reading import Reading
from tests.unit.streams.test_delivery import Feed, stream_of

HOUR_S = 3600
STEP = 100


class LiveFeed(Feed):
    """A reader at the live end, of which the test says how far it has come."""

    wal_end = 0
    dispatched = BEFORE_ALL
    is_live = True
    reading = Reading()

    @property
    def live_position(self):  # type: ignore[override]
        return self.dispatched if self.is_live else BEFORE_ALL

    @property
    def mode(self):  # type: ignore[override]
        return "live" if self.is_live else "catching_up"


class Opened(NamedTuple):
    stream: ChangeStream
    feed: LiveFeed


def opened(size: int = 10_000) -> Opened:
    stream, feed = stream_of(ChangeStream), LiveFeed()
    stream._mailbox._size = size
    stream._delivery.feed = feed
    return Opened(stream, feed)


def row(lsn: int, commit_lsn: int, age_s: float) -> Change:
    committed = datetime.now(UTC) - timedelta(seconds=age_s)
    message = b'{"action":"T","schema":"docs","table":"orders"}'
    info = TransactionInfo(1, committed.isoformat(" "), None)
    return Change(
        (commit_lsn, lsn, 1, 0), info, RowChange(lsn, "T", "orders", message, complete=True, read=read_images)
    )


def reported(feed: LiveFeed, stream: ChangeStream, changes: list[Change], end: int) -> None:
    """Let the reader put changes, and come to `end`."""
    feed.wal_end = max(feed.wal_end, end)
    stream._mailbox.put(changes, before_commits_at(end))
    feed.dispatched = before_commits_at(end)


def test_a_stream_that_nobody_writes_for_has_no_lag():
    stream, feed = opened()
    reported(feed, stream, [], 1000)
    stats = stream.stats()
    assert (stats.lag, stats.lag_bytes, stats.buffered_bytes) == (timedelta(0), 0, 0)


def test_the_lag_of_a_transaction_that_is_half_read_counts_what_is_left_of_it():
    stream, feed = opened()
    changes = [row(lsn, 10_000, HOUR_S) for lsn in range(1000, 9000, 1000)]
    reported(feed, stream, changes, 10_072)
    seen = [stream.stats()]
    while stream.try_next() is not None:
        seen.append(stream.stats())
    assert [stats.lag_bytes for stats in seen] == [10_072 - lsn for lsn in range(1000, 9000, 1000)] + [0]
    assert all(stats.lag >= timedelta(seconds=HOUR_S) for stats in seen[:-1])
    assert [stats.buffered_bytes for stats in seen] == [len(changes[0].row.message) * left for left in range(8, -1, -1)]
    assert seen[-1].lag == timedelta(0)


def test_a_transaction_of_which_only_a_part_was_received_counts_up_to_its_commit():
    stream, feed = opened()
    stream._mailbox.put([row(1000, 10_000, 5)], before_commits_at(900))
    feed.wal_end, feed.dispatched = 1000, before_commits_at(900)
    feed.reading = Reading(transaction_at=time.time() - 5)
    assert stream.stats().lag_bytes == 9000
    assert stream.try_next() is not None
    stats = stream.stats()
    assert stats.lag_bytes == 9000
    assert timedelta(seconds=5) <= stats.lag < timedelta(seconds=HOUR_S)


def test_a_full_mailbox_still_knows_the_first_event_that_it_refused():
    stream, feed = opened(size=2)
    changes = [row(lsn, lsn, HOUR_S) for lsn in (100, 200, 300)]
    assert stream._mailbox.put(changes, before_commits_at(400)) == 2
    feed.wal_end, feed.is_live = 400, False
    assert [stream.try_next() is not None for _ in range(2)] == [True, True]
    stats = stream.stats()
    assert stats.lag_bytes == 100
    assert stats.lag >= timedelta(seconds=HOUR_S)
    assert stream.try_next() is None  # makes room
    stream._mailbox.put(changes[2:], before_commits_at(400))
    assert stream.try_next() is not None
    assert stream.stats().lag == timedelta(0)


def test_the_servers_clock_counts():
    stream, feed = opened()
    feed.reading = Reading(clock_ahead_s=HOUR_S)
    reported(feed, stream, [row(100, 100, 0)], 200)
    assert stream.stats().lag >= timedelta(seconds=HOUR_S)
    feed.reading = Reading(clock_ahead_s=-HOUR_S)
    assert stream.stats().lag == timedelta.resolution, "an event waits, whatever the clocks say"


def test_a_stream_that_was_idle_for_long_and_has_to_catch_up_is_not_taken_for_old():
    stream, feed = opened()
    reported(feed, stream, [row(100, 100, HOUR_S)], 200)
    assert stream.try_next() is not None
    assert stream.stats().lag == timedelta(0)
    feed.is_live, feed.wal_end = False, 5000
    stats = stream.stats()
    assert stats.lag_bytes == 4800
    assert timedelta(0) < stats.lag < timedelta(seconds=HOUR_S)


def test_a_commit_time_that_python_does_not_have_is_no_error():
    stream, feed = opened()
    change = row(100, 100, 0)
    reported(feed, stream, [change._replace(transaction=change.transaction._replace(timestamp="infinity"))], 200)
    assert stream.stats().lag > timedelta(0)


class Model:
    """A server with transactions, a reader that the test lets come on, and a stream that it lets read."""

    def __init__(self, transactions: list[int], size: int) -> None:
        self.stream, self.feed = opened(size)
        reported(self.feed, self.stream, [], STEP)
        self._left = [
            ([row(n * STEP + k, n * STEP + 50, HOUR_S - n) for k in range(1, rows + 1)], (n + 1) * STEP)
            for n, rows in enumerate(transactions, 1)
        ]
        self._end = STEP * (len(transactions) + 1)
        self._put_to = STEP

    @property
    def has_all(self) -> bool:
        """Whether the stream has returned everything that was reported."""
        return not self.stream._mailbox.buffered and self._put_to >= self.feed.wal_end

    def hear(self) -> bool:
        self.feed.wal_end = self._end
        return False

    def deliver(self) -> bool:
        return self.stream.try_next() is not None

    def fall_behind(self) -> bool:
        self.feed.is_live = False
        return False

    def join(self) -> bool:
        self.feed.is_live = self.feed.is_live or self.feed.dispatched == before_commits_at(self._put_to)
        return False

    def read(self) -> bool:
        """Put the next transaction, or what there is room for; return whether the stream has passed any WAL.

        An event that is put into an empty mailbox lets the stream pass the WAL before it.
        """
        if not self._left:
            return False
        changes, end = self._left[0]
        was_empty = not self.stream._mailbox.buffered
        taken = self.stream._mailbox.put(changes, before_commits_at(end))
        self.feed.wal_end = max(self.feed.wal_end, end)
        if taken < len(changes):
            self._left[0], self.feed.is_live = (changes[taken:], end), False
            return was_empty
        del self._left[0]
        self._put_to = end
        if self.feed.is_live:
            self.feed.dispatched = before_commits_at(end)
        return True


@given(
    transactions=st.lists(st.integers(0, 4), max_size=12),
    steps=st.lists(st.sampled_from([Model.read, Model.deliver, Model.hear, Model.fall_behind, Model.join])),
    size=st.integers(2, 20),
)
def test_the_lag_is_zero_exactly_if_everything_reported_was_returned_and_falls_only_then(transactions, steps, size):
    model = Model(transactions, size)
    before = model.stream.stats()
    for step in steps:
        has_moved = step(model)
        stats = model.stream.stats()
        assert (stats.lag_bytes == 0) == (stats.lag == timedelta(0)) == model.has_all
        if not has_moved:
            assert stats.lag_bytes >= before.lag_bytes
        if not has_moved and before.buffered:
            assert stats.lag >= before.lag
        before = stats
