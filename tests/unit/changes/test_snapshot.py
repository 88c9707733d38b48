"""A snapshot between changes, as a machine: whatever happens when, the events give the tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgdoc._sync import snapshot_reader as parts
from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.snapshot import PgSnapshot, Snapshot, SnapshotChunk
from pgdoc.decoding.records import CollectionChange, Images, RowChange
from pgdoc.errors import InvalidResumeToken
from pgdoc.model.positions import Position
from pgdoc.model.tokens import ResumeToken, SnapshotProgress

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TABLES = ("a", "b")
IDS = ("1", "2", "3", "4", "5")
FIRST_XID = (1 << 32) - 5  # so that the lower 32 bits begin anew

Tables = dict[tuple[str, str], int]


@dataclass(frozen=True)
class View:
    """What an event says, as far as a snapshot asks: documents are plain numbers here."""

    document_id: str | None
    full_document: int | None


@dataclass(frozen=True)
class Commit:
    """A transaction: what it did, and to what."""

    xid: int
    lsn: int
    changes: tuple[tuple[Change, View], ...]
    touched: frozenset[tuple[str, str]]


def row_change(kind: str, table: str, place: tuple[int, int, int, int], xid: int) -> Change:
    row = RowChange(place[1], kind, table, b"", complete=True, read=lambda _message: Images({}, {}))
    return Change(place, TransactionInfo(xid & 0xFFFFFFFF, "", None), row)


def apply(tables: Tables, changes: Iterable[tuple[Change, View]]) -> None:
    for change, view in changes:
        table = change.row.table
        if change.row.kind == "T":
            for key in [key for key in tables if key[0] == table]:
                del tables[key]
        elif change.row.kind == "D":
            del tables[table, str(view.document_id)]
        elif change.row.kind in "IU":
            assert view.full_document is not None
            tables[table, str(view.document_id)] = view.full_document


writes = st.lists(st.tuples(st.sampled_from(TABLES), st.sampled_from(IDS), st.booleans()), min_size=1, max_size=4)


class Snapshots(RuleBasedStateMachine):
    """Writers, whose commits are in the WAL before all others see them; one stream; parts that are read at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.wal: list[Commit] = []
        self.unseen: set[int] = set()  # committed, and not visible yet
        self.end = 100
        self.value = 0
        self.now: Tables = {}

    @initialize(past=st.lists(writes, max_size=4))
    def begin(self, past):
        for each in past:
            self.commit(each, late=False)
        self.start = len(self.wal)
        self.taken = (self.start, 0)  # the transaction that the stream is in, and its next change
        self.held: Tables = {}
        self.snapshot = Snapshot(SnapshotProgress(TABLES, "", "*", 0), None)
        self.place: Tables = dict(self.now)  # the tables as they are at the stream's place

    @rule(wanted=writes, late=st.booleans())
    def commit(self, wanted, late):
        locked = {key for each in self.wal if each.xid in self.unseen for key in each.touched}
        xid, lsn = FIRST_XID + len(self.wal), self.end + 10
        done: list[tuple[Change, View]] = []
        for number, (table, key, deletes) in enumerate(wanted):
            if (table, key) in locked:
                continue
            there = (table, key) in self.now
            if deletes and not there:
                continue
            self.value += 1
            kind = "D" if deletes else "U" if there else "I"
            change = row_change(kind, table, (lsn, lsn - 5, 1, number), xid)
            done.append((change, View(key, None if deletes else self.value)))
            apply(self.now, done[-1:])
        self._write(xid, lsn, done, frozenset((table, key) for table, key, _ in wanted), late=late)

    @rule(table=st.sampled_from(TABLES), late=st.booleans())
    def truncate(self, table, late):
        if any(each.xid in self.unseen and any(key[0] == table for key in each.touched) for each in self.wal):
            return
        xid, lsn = FIRST_XID + len(self.wal), self.end + 10
        done = [(row_change("T", table, (lsn, lsn - 5, 1, 0), xid), View(None, None))]
        apply(self.now, done)
        self._write(xid, lsn, done, frozenset((table, key) for key in IDS), late=late)

    def _write(self, xid: int, lsn: int, done: Any, touched: frozenset[tuple[str, str]], *, late: bool) -> None:
        self.wal.append(Commit(xid, lsn, tuple(done), touched))
        self.end = lsn + 8
        if late:
            self.unseen.add(xid)

    @precondition(lambda self: self.unseen)
    @rule(data=st.data())
    def become_visible(self, data):
        self.unseen.remove(data.draw(st.sampled_from(sorted(self.unseen))))

    @rule(size=st.integers(1, 3))
    def read_a_part(self, size):
        wanted = self.snapshot.wanted
        if wanted is None:
            return
        collection, after = wanted
        visible: Tables = {}
        for each in self.wal:
            if each.xid not in self.unseen:
                apply(visible, each.changes)
        keys = sorted(key for table, key in visible if table == collection and key > after)
        chosen = keys[:size]
        seen = PgSnapshot(min([*self.unseen, self._next_xid]), self._next_xid, frozenset(self.unseen))
        documents = {key: visible[collection, key] for key in chosen}
        upto = None if len(keys) < size else chosen[-1]
        self.snapshot.accept(SnapshotChunk(collection, after, documents, upto, seen, self.end, NOW))

    @property
    def _next_xid(self) -> int:
        return FIRST_XID + len(self.wal)

    @rule(count=st.integers(1, 5))
    def follow(self, count):
        for _ in range(count):
            self._step()

    def _step(self) -> None:
        number, index = self.taken
        while number < len(self.wal) and index == len(self.wal[number].changes):
            number, index = number + 1, 0
        self.taken = (number, index)
        is_at_end = number == len(self.wal)
        due_at = self.snapshot.due_at
        if due_at is not None and (self.end if is_at_end else self.wal[number].lsn) >= due_at:
            self.snapshot.release()
            assert self.snapshot.due is not None
            self._give(self.snapshot.due.documents)
        elif not is_at_end:
            change, view = self.wal[number].changes[index]
            self.taken = (number, index + 1)
            apply(self.place, [(change, view)])
            if not self.snapshot.absorb(change, view):
                self._hold(change, view)

    def _hold(self, change: Change, view: View) -> None:
        key = (change.row.table, str(view.document_id))
        assert change.row.kind == "T" or (key in self.held) == (change.row.kind in "UD"), change
        apply(self.held, [(change, view)])

    def _give(self, given: list[tuple[int, SnapshotProgress]]) -> None:
        collection = next((progress.remaining[0] for _, progress in given if progress.remaining), None)
        for document, progress in given:
            (key,) = [key for key, value in self.place.items() if value == document]
            assert key not in self.held
            assert collection is None or key[0] <= collection
            self.held[key] = document
            assert SnapshotProgress.parse(str(progress)) == progress

    @rule()
    def open_again(self):
        """As a stream does that resumes: what committed before is waited for."""
        self.unseen.clear()
        self.snapshot = Snapshot(SnapshotProgress.parse(str(self.snapshot.progress)), None)

    @invariant()
    def the_events_give_the_tables_up_to_where_it_has_come(self):
        left, after = self.snapshot.progress.remaining, self.snapshot.progress.document_id
        wanted = {
            (table, key): value
            for (table, key), value in self.place.items()
            if table not in left or (table == left[0] and key <= after)
        }
        assert self.held == wanted

    def teardown(self):
        self.unseen.clear()
        for _ in range(100):
            self.read_a_part(3)
            self._step()
        assert not self.snapshot.progress.remaining
        while self.taken[0] < len(self.wal):
            self._step()
        assert self.held == self.now


TestSnapshots = Snapshots.TestCase
TestSnapshots.settings = settings(max_examples=150, stateful_step_count=50)


def ddl(kind: str, table: str, renamed_to: str | None = None) -> Change:
    return Change(
        (9, 5, 0, 0), TransactionInfo(7, "", None), CollectionChange(5, kind, table, b"", renamed_to=renamed_to)
    )


def part(collection: str, after: str, keys: str, upto: str | None) -> SnapshotChunk:
    return SnapshotChunk(collection, after, dict.fromkeys(keys, 0), upto, PgSnapshot(5, 5, frozenset()), 100, NOW)


def test_a_collection_that_is_dropped_has_nothing_to_read():
    snapshot = Snapshot(SnapshotProgress(("a", "b", "c"), "", "*", 0), None)
    assert snapshot.accept(part("a", "", "12", "2"))
    assert not snapshot.absorb(ddl("drop", "a"), View(None, None))
    assert (snapshot.due_at, snapshot.wanted) == (None, ("b", ""))
    snapshot.absorb(ddl("drop", "c"), View(None, None))
    snapshot.absorb(ddl("create", "c"), View(None, None))
    assert snapshot.progress.remaining == ("b",)
    assert not snapshot.absorb(row_change("I", "c", (9, 6, 1, 0), 8), View("1", 1))


def test_one_that_is_renamed_is_read_under_its_new_name():
    snapshot = Snapshot(SnapshotProgress(("a", "b"), "", "*", 0), None)
    assert snapshot.accept(part("a", "", "12", "2"))
    snapshot.release()
    assert snapshot.due is not None
    assert [progress.document_id for _, progress in snapshot.due.documents] == ["1", "2"]
    assert snapshot.accept(part("a", "2", "34", "4"))
    snapshot.absorb(ddl("rename", "a", "z"), View(None, None))
    assert snapshot.wanted == ("z", "2")
    assert not snapshot.accept(part("a", "2", "34", "4"))


def test_one_that_is_renamed_to_a_name_nobody_wants_is_gone():
    snapshot = Snapshot(SnapshotProgress(("a", "b"), "", "x", 0), frozenset("ab"))
    snapshot.absorb(ddl("rename", "a", "z"), View(None, None))
    assert snapshot.wanted == ("b", "")


@given(st.integers(3, 2**40), st.integers(1, 2**31 - 2), st.sets(st.integers(0, 40)))
def test_what_a_statement_saw_is_told_by_32_bits(end, back, gaps):
    running = frozenset(end - gap for gap in gaps if 0 < gap <= 40 and end - gap > 2)
    before = min([*running, end])
    seen = PgSnapshot.parse(f"{before}:{end}:{','.join(map(str, sorted(running)))}")
    for xid in (max(3, end - back), max(3, end - 3), end, end + back):
        assert seen.sees(xid & 0xFFFFFFFF) == (xid < end and xid not in running)


def test_a_token_inside_a_snapshot_reads_back_and_is_in_order():
    tokens = [
        ResumeToken(Position(100), 7, 1, SnapshotProgress(("a", "b"), "1", "*", 1)),
        ResumeToken(Position(100), 7, 1, SnapshotProgress(("a", "b"), "10", "*", 2)),
        ResumeToken(Position(100), 7, 1, SnapshotProgress((), "", "*", 3)),
        ResumeToken(Position(100), 7, 1),
        ResumeToken(Position(101, 101, 1, 5), 7, 1, SnapshotProgress(("ü" * 60,), 'q"\\', "*", 4)),
    ]
    assert sorted(tokens) == tokens
    for token in tokens:
        assert ResumeToken.parse(str(token)) == token
        assert str(token).startswith("0/6")
        assert str(token).endswith(".7.1")
    assert [token.is_inside for token in tokens] == [True, True, False, False, True]


@pytest.mark.parametrize("damage", ["sAAAA", "s", "seJyLjgUAARUAuQ", "sx!"])
def test_a_damaged_token_is_refused(damage):
    with pytest.raises(InvalidResumeToken):
        ResumeToken.parse(f"0/64.{damage}.7.1")


def test_who_waits_for_a_standby_is_waited_for_also_behind_the_first_four_billion_transactions(monkeypatch):
    monkeypatch.setattr(parts, "_SETTLE_S", 0.0)
    running = f"{2**32}:{2**32 + 10}:{2**32 + 5}"
    answers = [(running, []), (running, [5]), (running, [7, 5]), (f"{2**32 + 10}:{2**32 + 10}:", [])]
    streams = mock.Mock(fetch=lambda _name: [answers.pop(0)])
    parts.settle(streams)
    assert answers == []


def test_who_is_really_in_progress_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(parts, "_SETTLE_S", 0.0)
    answers: list[tuple[str, list[int]]] = [("100:110:105", []), ("100:120:105,111", [])]
    streams = mock.Mock(fetch=lambda _name: [answers.pop(0)])
    parts.settle(streams)
    assert answers == []
