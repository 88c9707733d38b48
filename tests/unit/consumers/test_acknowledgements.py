from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.consumers import acknowledgements as acknowledge
from pgdoc.consumers.acknowledgements import Acknowledgements, ConsumerProgress, NotedMailbox, SavedProgress
from pgdoc.decoding.records import CollectionChange, RowChange
from pgdoc.decoding.wal2json import read_images
from pgdoc.model.tokens import Mark, SnapshotProgress
from pgdoc.streams.mailbox import Mailbox

if TYPE_CHECKING:
    from pgdoc.model.positions import RawPosition

START = 100


@dataclass(frozen=True)
class Committed:
    """A transaction in the WAL, with the changes in it that the consumer wants."""

    commit_lsn: int
    end_lsn: int
    changes: tuple[Change, ...]


def commit(begins_at: int, count: int, gap: int = 10) -> Committed:
    commit_lsn = begins_at + gap
    when = TransactionInfo(commit_lsn, f"time {commit_lsn}", None)
    rows = [RowChange(commit_lsn - 5, "I", "orders", b"_", complete=True, read=read_images) for _ in range(count)]
    changes = tuple(Change((commit_lsn, commit_lsn - 5, 1, n), when, row) for n, row in enumerate(rows))
    return Committed(commit_lsn, commit_lsn + 8, changes)


class Consumers(RuleBasedStateMachine):
    """A consumer that is slow, loses its connection or dies; a server that forgets confirmations in a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.wal: list[Committed] = []
        self.end = self.confirmed = self.saved = START
        self.acknowledged: RawPosition = (START, 0, 0, 0)
        self.begin()

    def begin(self) -> None:
        """Start a process that knows what was acknowledged, but not what the process before it was given."""
        self.acknowledgements = Acknowledgements()
        self.given: list[Change] = []
        self.after = self.acknowledged
        self.connect()

    def connect(self) -> None:
        """Receive, whole, each transaction that commits at or after the slot's position and the stream's position."""
        self.watermark = max(self.confirmed, self.after[0])
        sent = [each for each in self.wal if each.commit_lsn >= self.watermark]
        self.to_come: list[Change | int] = []
        for each in sent:
            self.to_come += [*each.changes, each.end_lsn]

    @property
    def unacknowledged(self) -> list[Change]:
        return [change for each in self.wal for change in each.changes if change.position > self.acknowledged]

    @rule(count=st.integers(0, 4), gap=st.sampled_from([0, 10]))
    def write(self, count, gap):
        """Commit a transaction. Without a gap its commit record begins where the transaction before it ends."""
        self.wal.append(commit(self.end, count, gap))
        self.end = self.wal[-1].end_lsn
        self.to_come += [*self.wal[-1].changes, self.end]

    @rule(count=st.integers(1, 6))
    def read(self, count):
        """Take some of what the server sends, and drop the changes that the stream was given before."""
        parts, self.to_come = self.to_come[:count], self.to_come[count:]
        changes = [part for part in parts if isinstance(part, Change) and part.position > self.after]
        self.acknowledgements.give(changes)
        self.given += changes
        self.after = changes[-1].position if changes else self.after
        self.watermark = max([self.watermark, *(part for part in parts if isinstance(part, int))])

    @precondition(lambda self: not self.to_come)
    @rule()
    def stay_quiet(self):
        """Let others write, and the server report how far its WAL goes."""
        self.end += 30
        self.watermark = self.end

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def acknowledge(self, data):
        """Acknowledge an event. It may be an earlier one than the last, which changes nothing."""
        self.acknowledged = max(self.acknowledged, data.draw(st.sampled_from(self.given)).position)

    @rule(saved=st.booleans())
    def confirm(self, saved):
        """Confirm to the slot. `saved`: the server makes that durable in a checkpoint."""
        self.acknowledgements.acknowledge(self.acknowledged)
        self.confirmed = max(self.confirmed, self.acknowledgements.confirmable(self.watermark))
        self.saved = self.confirmed if saved else self.saved

    @rule()
    def lose_the_connection(self):
        self.connect()

    @rule()
    def lose_the_process(self):
        self.begin()

    @rule()
    def crash(self):
        """Crash the server: it forgets what was confirmed since its last checkpoint, and closes the connection."""
        self.confirmed = self.saved
        self.connect()

    @rule()
    def lose_the_slot(self):
        """Drop the slot, which is then created again from a bookmark."""
        self.acknowledgements.acknowledge(self.acknowledged)
        self.confirmed = self.saved = self.acknowledgements.confirmable(self.after[0])
        self.connect()

    @invariant()
    def the_confirmed_position_never_passes_the_oldest_unacknowledged_change(self):
        assert all(self.confirmed <= change.position[0] for change in self.unacknowledged)

    @invariant()
    def a_process_that_starts_at_the_slot_s_position_misses_nothing(self):
        sent = [change for each in self.wal if each.commit_lsn >= self.confirmed for change in each.changes]
        assert [change for change in sent if change.position > self.acknowledged] == self.unacknowledged

    @invariant()
    def the_watermark_is_confirmable_with_nothing_outstanding(self):
        self.acknowledgements.acknowledge(self.acknowledged)
        waiting = [change for change in self.given if change.position > self.acknowledged]
        expected = waiting[0].position[0] if waiting else self.watermark
        assert self.acknowledgements.confirmable(self.watermark) == expected
        assert self.acknowledgements.waiting_since == (waiting[0].transaction.timestamp if waiting else None)


TestConsumers = Consumers.TestCase
TestConsumers.settings = settings(max_examples=100, stateful_step_count=60)


def test_memory_stays_bounded_when_a_consumer_acknowledges_nothing(monkeypatch):
    monkeypatch.setattr(acknowledge, "MOST", 4)
    acknowledgements, wal = Acknowledgements(), [commit(100 * number, 1) for number in range(1, 100)]
    for each in wal:
        acknowledgements.give(list(each.changes))
        assert len(acknowledgements._outstanding) <= 5
    confirmed = [0]
    for each in wal:
        assert confirmed[-1] <= each.commit_lsn
        acknowledgements.acknowledge(each.changes[-1].position)
        confirmed.append(acknowledgements.confirmable(10**6))
    assert confirmed[-1] == 10**6
    assert len(set(confirmed)) > 2


def test_a_drop_is_outstanding_until_its_invalidate_is_acknowledged():
    change = Change((110, 105, 0, 0), TransactionInfo(1, "", None), CollectionChange(105, "drop", "orders", b"_"))
    acknowledgements = Acknowledgements()
    acknowledgements.give([change])
    acknowledgements.acknowledge(change.position)
    assert acknowledgements.confirmable(118) == 110
    acknowledgements.acknowledge((110, 105, 0, 1))
    assert acknowledgements.confirmable(118) == 118


def test_a_create_is_outstanding_until_it_is_acknowledged():
    change = Change((110, 105, 0, 0), TransactionInfo(1, "", None), CollectionChange(105, "create", "orders", b"_"))
    acknowledgements = Acknowledgements()
    acknowledgements.give([change])
    acknowledgements.acknowledge(change.position)
    assert acknowledgements.confirmable(118) == 118


def progress_at(watermark: int) -> ConsumerProgress:
    progress = ConsumerProgress()
    progress.begun = Mark((START, 0, 0, 0))
    progress.watermark = watermark
    return progress


def test_a_slot_keeps_the_transaction_that_the_mailbox_took_only_in_part():
    committed = commit(200, 2)
    progress = progress_at(150)
    progress.give([committed.changes[0]])
    progress.acknowledge(Mark(committed.changes[0].position))
    assert progress.confirmable() == 150
    assert progress.needed_from(committed.changes[0].position) == committed.commit_lsn


def test_nothing_beyond_an_unfinished_snapshot_is_confirmable():
    progress = progress_at(900)
    progress.acknowledge(Mark((300, 0, 0, 0, 7), SnapshotProgress(("orders",), "7", "*", 7)))
    assert progress.confirmable() == 300
    progress.acknowledge(Mark((300, 0, 0, 0, 9)))
    assert progress.confirmable() == 900


def test_what_was_passed_over_counts_when_everything_before_it_is_acknowledged():
    progress = progress_at(900)
    progress.pass_over(Mark((400, 0, 0, 0)), Mark((500, 0, 0, 0)))
    progress.acknowledge(Mark((300, 0, 0, 0)))
    assert progress.latest == Mark((300, 0, 0, 0))
    progress.acknowledge(Mark((400, 0, 0, 0)))
    assert progress.latest == Mark((500, 0, 0, 0))


def test_a_quiet_consumer_saves_its_watermark_when_that_has_moved_far_enough():
    progress = progress_at(START + 1000)
    assert progress.to_save(1000) == SavedProgress(progress.begun, None)
    assert progress.to_save(999) == SavedProgress(Mark((START + 1000, 0, 0, 0)), None)
    (change,) = commit(200, 1).changes
    progress.give([change])
    assert progress.to_save(0) == SavedProgress(progress.begun, change.transaction.timestamp)


def test_a_consumer_that_is_waited_for_saves_all_that_needs_no_acknowledgement():
    progress = progress_at(START + 1000)
    first, second = commit(200, 1).changes[0], commit(300, 2).changes
    progress.give([first, *second])
    waiting_since = first.transaction.timestamp
    assert progress.to_save(None) == SavedProgress(Mark((first[0][0], 0, 0, 0)), waiting_since)
    progress.acknowledge(Mark(first.position))
    progress.confirmable()
    assert progress.to_save(None).mark == Mark((second[0].position[0], 0, 0, 0))
    progress.acknowledge(Mark(second[0].position))
    assert progress.to_save(None).mark == Mark(second[0].position)
    progress.acknowledge(Mark(second[1].position))
    progress.confirmable()
    assert progress.to_save(None) == SavedProgress(Mark((START + 1000, 0, 0, 0)), None)
    progress.acknowledge(Mark((START + 1000, 0, 0, 0, 7), SnapshotProgress(("orders",), "7", "*", 7)))
    progress.watermark += 1000
    assert progress.to_save(None).mark.position == (START + 1000, 0, 0, 0, 7)


def test_a_mailbox_notes_what_it_took_and_takes_nothing_after_its_time():
    progress, box = ConsumerProgress(), Mailbox(2, 1 << 20)
    noted = NotedMailbox(box, progress)
    first, second = commit(START, 2).changes, commit(START + 20, 1).changes
    progress.watermark = START + 50
    assert noted.put([*first, *second], (START + 50, 0, 0, 0), None) == 2
    assert progress.confirmable() == first[0].position[0]
    progress.acknowledge(Mark(first[1].position))
    assert progress.confirmable() == START + 50  # the second transaction had no room and was not noted
    batch = box.take(0)
    batch.next = len(batch)
    box.take(0)  # there is room from now on
    noted.closes_at = 0.0
    assert noted.put(list(second), (START + 50, 0, 0, 0), None) == 0
    assert noted.put([], (START + 50, 0, 0, 0), None) == 0
    assert progress.confirmable() == START + 50
    noted.closes_at = float("inf")
    assert noted.put(list(second), (START + 50, 0, 0, 0), None) == 1
    assert progress.confirmable() == second[0].position[0]
