from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.consumers import acknowledgements as acknowledge
from pgdoc.consumers.acknowledgements import Acknowledgements
from pgdoc.decoding.records import CollectionChange, RowChange
from pgdoc.decoding.wal2json import read_images

if TYPE_CHECKING:
    from pgdoc.model.positions import RawPosition

START = 100


@dataclass(frozen=True)
class Committed:
    """A transaction in the WAL, with those of its changes that the consumer wants."""

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
    """A server whose slot forgets what was confirmed, and a consumer that is slow, loses its connection, or dies."""

    def __init__(self) -> None:
        super().__init__()
        self.wal: list[Committed] = []
        self.end = self.confirmed = self.saved = START
        self.acknowledged: RawPosition = (START, 0, 0, 0)
        self.begin()

    def begin(self) -> None:
        """Be a process that knows what was acknowledged, but not what was given to the one before."""
        self.acknowledgements = Acknowledgements()
        self.given: list[Change] = []
        self.after = self.acknowledged
        self.connect()

    def connect(self) -> None:
        """Be sent whole each transaction that commits where the slot stands, or where the stream is, or later."""
        self.reached = max(self.confirmed, self.after[0])
        sent = [each for each in self.wal if each.commit_lsn >= self.reached]
        self.to_come: list[Change | int] = []
        for each in sent:
            self.to_come += [*each.changes, each.end_lsn]

    @property
    def unacknowledged(self) -> list[Change]:
        return [change for each in self.wal for change in each.changes if change.position > self.acknowledged]

    @rule(count=st.integers(0, 4), gap=st.sampled_from([0, 10]))
    def write(self, count, gap):
        """Without a gap the commit record begins just where the transaction before was confirmed."""
        self.wal.append(commit(self.end, count, gap))
        self.end = self.wal[-1].end_lsn
        self.to_come += [*self.wal[-1].changes, self.end]

    @rule(count=st.integers(1, 6))
    def read(self, count):
        """Take some of what is sent; what was given before is dropped by its place."""
        parts, self.to_come = self.to_come[:count], self.to_come[count:]
        changes = [part for part in parts if isinstance(part, Change) and part.position > self.after]
        self.acknowledgements.give(changes)
        self.given += changes
        self.after = changes[-1].position if changes else self.after
        self.reached = max([self.reached, *(part for part in parts if isinstance(part, int))])

    @precondition(lambda self: not self.to_come)
    @rule()
    def stay_quiet(self):
        """Others write, and the server says how far its WAL goes."""
        self.end += 30
        self.reached = self.end

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def acknowledge(self, data):
        """The user may go back: everything up to an earlier event was acknowledged before."""
        self.acknowledged = max(self.acknowledged, data.draw(st.sampled_from(self.given)).position)

    @rule(saved=st.booleans())
    def tell(self, saved):
        self.acknowledgements.acknowledge(self.acknowledged)
        self.confirmed = max(self.confirmed, self.acknowledgements.confirmable(self.reached))
        self.saved = self.confirmed if saved else self.saved

    @rule()
    def lose_the_connection(self):
        self.connect()

    @rule()
    def lose_the_process(self):
        self.begin()

    @rule()
    def crash(self):
        """The server forgets what was confirmed since its last checkpoint; the connection goes with it."""
        self.confirmed = self.saved
        self.connect()

    @rule()
    def lose_the_slot(self):
        """It is made again from history."""
        self.acknowledgements.acknowledge(self.acknowledged)
        self.confirmed = self.saved = self.acknowledgements.confirmable(self.after[0])
        self.connect()

    @invariant()
    def what_is_confirmed_never_passes_the_oldest_that_is_not_acknowledged(self):
        assert all(self.confirmed <= change.position[0] for change in self.unacknowledged)

    @invariant()
    def whoever_begins_where_the_slot_stands_misses_nothing(self):
        sent = [change for each in self.wal if each.commit_lsn >= self.confirmed for change in each.changes]
        assert [change for change in sent if change.position > self.acknowledged] == self.unacknowledged

    @invariant()
    def with_nothing_outstanding_all_that_was_reached_is_confirmable(self):
        self.acknowledgements.acknowledge(self.acknowledged)
        waiting = [change for change in self.given if change.position > self.acknowledged]
        assert self.acknowledgements.confirmable(self.reached) == (waiting[0].position[0] if waiting else self.reached)
        assert self.acknowledgements.waiting_since == (waiting[0].transaction.timestamp if waiting else None)


TestConsumers = Consumers.TestCase
TestConsumers.settings = settings(max_examples=100, stateful_step_count=60)


def test_a_consumer_that_acknowledges_nothing_fills_no_memory(monkeypatch):
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


def test_a_drop_is_done_with_when_the_end_that_comes_of_it_is_acknowledged():
    change = Change((110, 105, 0, 0), TransactionInfo(1, "", None), CollectionChange(105, "drop", "orders", b"_"))
    acknowledgements = Acknowledgements()
    acknowledgements.give([change])
    acknowledgements.acknowledge(change.position)
    assert acknowledgements.confirmable(118) == 110
    acknowledgements.acknowledge((110, 105, 0, 1))
    assert acknowledgements.confirmable(118) == 118


def test_a_create_is_done_with_when_it_is_acknowledged():
    change = Change((110, 105, 0, 0), TransactionInfo(1, "", None), CollectionChange(105, "create", "orders", b"_"))
    acknowledgements = Acknowledgements()
    acknowledgements.give([change])
    acknowledgements.acknowledge(change.position)
    assert acknowledgements.confirmable(118) == 118
