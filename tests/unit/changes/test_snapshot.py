"""A snapshot between changes, as a state machine: in every order of steps, the events give the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgdoc._sync import snapshot_reader
from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.router import Selection
from pgdoc.changes.snapshot import DueChunk, PgSnapshot, Place, Snapshot, SnapshotChunk
from pgdoc.decoding.records import CollectionChange, Images, RowChange
from pgdoc.errors import InvalidResumeToken, ServerUnreachable
from pgdoc.model.key_order import KeyOrder
from pgdoc.model.positions import Position
from pgdoc.model.tokens import ResumeToken, SnapshotProgress

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PLACE = Place((100, 0, 0, 0), (7, 1, None), None)
TABLES = ("a", "b")
IDS = ("1", "2", "3", "4", "5")
FIRST_XID = (1 << 32) - 5  # so that the lower 32 bits wrap around

Tables = dict[tuple[str, str], int]


@dataclass(frozen=True)
class View:
    """What a snapshot reads of an event. Documents are plain numbers here."""

    document_id: str | None
    full_document: int | None


@dataclass(frozen=True)
class Commit:
    """A transaction: its changes, and the documents that it locked."""

    xid: int
    lsn: int
    changes: tuple[tuple[Change, View], ...]
    touched: frozenset[tuple[str, str]]


def row_change(kind: str, table: str, position: tuple[int, int, int, int], xid: int) -> Change:
    row = RowChange(Position(*position).lsn, kind, table, b"", complete=True, read=lambda _message: Images({}, {}))
    return Change(position, TransactionInfo(xid & 0xFFFFFFFF, "", None), row)


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
    """Writers whose commits can be in the WAL before they are visible, one stream, and chunks read at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.wal: list[Commit] = []
        self.unseen: set[int] = set()  # committed, but not visible yet
        self.end = 100
        self.value = 0
        self.now: Tables = {}

    @initialize(past=st.lists(writes, max_size=4))
    def begin(self, past):
        for each in past:
            self.commit(each, late=False)
        self.start = len(self.wal)
        self.taken = (self.start, 0)  # the transaction that the stream is in, and the index of its next change
        self.delivered: Tables = {}
        self.snapshot = Snapshot(SnapshotProgress(TABLES, "", "*", 0), Selection())
        self.ahead: SnapshotChunk | None = None
        self.there: Tables = dict(self.now)  # the tables as they are at the stream's position

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
    def read_a_chunk(self, size):
        chunk = self._read(size)
        if chunk is not None:
            self.snapshot.accept(chunk)

    @rule(size=st.integers(1, 3))
    def read_a_chunk_ahead(self, size):
        self.ahead = self._read(size) or self.ahead

    @precondition(lambda self: self.ahead)
    @rule()
    def take_the_chunk_that_was_read_ahead(self):
        """The stream has delivered documents and changes since, and others have committed."""
        assert self.ahead is not None
        self.snapshot.accept(self.ahead)
        self.ahead = None

    def _read(self, size: int) -> SnapshotChunk | None:
        wanted = self.snapshot.wanted
        if wanted is None:
            return None
        collection, after = wanted
        visible: Tables = {}
        for each in self.wal:
            if each.xid not in self.unseen:
                apply(visible, each.changes)
        keys = sorted(key for table, key in visible if table == collection and key > after)
        chosen = keys[:size]
        seen = PgSnapshot(min([*self.unseen, self._next_xid]), self._next_xid, frozenset(self.unseen))
        documents = {key: visible[collection, key] for key in chosen}
        up_to = None if len(keys) < size else chosen[-1]
        return SnapshotChunk(collection, after, documents, up_to, seen, self.end, NOW)

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
        due_at, due = self.snapshot.due_at, self.snapshot.due
        if due is not None and not self.snapshot.is_delivered:
            self._deliver_document(due, self.snapshot.next)
        elif due_at is not None and (self.end if is_at_end else self.wal[number].lsn) >= due_at:
            self.snapshot.release(PLACE)
        elif not is_at_end:
            change, view = self.wal[number].changes[index]
            self.taken = (number, index + 1)
            apply(self.there, [(change, view)])
            if not self.snapshot.absorb(change, view):
                self._deliver_change(change, view)

    def _deliver_change(self, change: Change, view: View) -> None:
        key = (change.row.table, str(view.document_id))
        assert change.row.kind == "T" or (key in self.delivered) == (change.row.kind in "UD"), change
        apply(self.delivered, [(change, view)])

    def _deliver_document(self, due: DueChunk, index: int) -> None:
        document, progress = due.rows[index], due.part.progress(index + 1, due.keys[index])
        (key,) = [key for key, value in self.there.items() if value == document]
        assert key not in self.delivered
        assert not progress.remaining or key[0] <= progress.remaining[0]
        self.delivered[key] = document
        assert SnapshotProgress.parse(str(progress)) == progress
        self.snapshot.next = index + 1

    @rule()
    def open_again(self):
        """Resume, which waits until everything that committed before is visible."""
        self.unseen.clear()
        self.ahead = None
        self.snapshot = Snapshot(SnapshotProgress.parse(str(self.snapshot.delivered)), Selection())

    @invariant()
    def the_events_give_the_tables_up_to_the_last_document_delivered(self):
        remaining, after = self.snapshot.delivered.remaining, self.snapshot.delivered.document_id
        wanted = {
            (table, key): value
            for (table, key), value in self.there.items()
            if table not in remaining or (table == remaining[0] and key <= after)
        }
        assert self.delivered == wanted

    def teardown(self):
        self.unseen.clear()
        for _ in range(100):
            self.read_a_chunk(3)
            self._step()
        assert not self.snapshot.delivered.remaining
        while self.taken[0] < len(self.wal):
            self._step()
        assert self.delivered == self.now


TestSnapshots = Snapshots.TestCase
TestSnapshots.settings = settings(max_examples=150, stateful_step_count=50)


def ddl(kind: str, table: str, renamed_to: str | None = None) -> Change:
    return Change(
        (9, 5, 0, 0), TransactionInfo(7, "", None), CollectionChange(5, kind, table, b"", renamed_to=renamed_to)
    )


def chunk(collection: str, after: str, keys: str, up_to: str | None) -> SnapshotChunk:
    return SnapshotChunk(collection, after, dict.fromkeys(keys, 0), up_to, PgSnapshot(5, 5, frozenset()), 100, NOW)


def test_a_dropped_collection_has_nothing_to_read():
    snapshot = Snapshot(SnapshotProgress(("a", "b", "c"), "", "*", 0), Selection())
    assert snapshot.accept(chunk("a", "", "12", "2"))
    assert not snapshot.absorb(ddl("drop", "a"), View(None, None))
    assert (snapshot.due_at, snapshot.wanted) == (None, ("b", ""))
    snapshot.absorb(ddl("drop", "c"), View(None, None))
    snapshot.absorb(ddl("create", "c"), View(None, None))
    assert snapshot.progress.remaining == ("b",)
    assert not snapshot.absorb(row_change("I", "c", (9, 6, 1, 0), 8), View("1", 1))


def test_a_renamed_collection_is_read_under_its_new_name():
    snapshot = Snapshot(SnapshotProgress(("a", "b"), "", "*", 0), Selection())
    assert snapshot.accept(chunk("a", "", "12", "2"))
    snapshot.release(PLACE)
    assert snapshot.due is not None
    assert snapshot.due.keys == ["1", "2"]
    assert snapshot.accept(chunk("a", "2", "34", "4"))
    snapshot.absorb(ddl("rename", "a", "z"), View(None, None))
    assert snapshot.wanted == ("z", "2")
    assert not snapshot.accept(chunk("a", "2", "34", "4"))


def test_a_renamed_table_keeps_its_order_though_its_old_name_led_to_none():
    snapshot = Snapshot(SnapshotProgress(("s.t",), "", "*.*", 0), Selection(with_tables=True))
    numbers = replace(chunk("s.t", "", "5", "10"), order=KeyOrder(["int"]), documents={"5": 0, "10": 0})
    assert snapshot.accept(numbers)
    snapshot.release(PLACE)
    assert snapshot.accept(chunk("s.t", "=10", "", None))
    assert not snapshot.absorb(row_change("U", "s.t", (9, 4, 1, 0), 4), View("9", 1))
    snapshot.absorb(ddl("rename", "s.t", "s.u"), View(None, None))
    assert not snapshot.absorb(row_change("U", "s.u", (9, 6, 1, 0), 7), View("9", 2))
    assert snapshot.absorb(row_change("U", "s.u", (9, 7, 1, 0), 7), View("11", 2))


def test_a_collection_renamed_to_a_name_outside_the_stream_has_nothing_to_read():
    snapshot = Snapshot(SnapshotProgress(("a", "b"), "", "x", 0), Selection(frozenset("ab")))
    snapshot.absorb(ddl("rename", "a", "z"), View(None, None))
    assert snapshot.wanted == ("b", "")


@given(st.integers(3, 2**40), st.integers(1, 2**31 - 2), st.sets(st.integers(0, 40)))
def test_32_bits_of_a_transaction_id_tell_whether_a_snapshot_sees_it(end, back, gaps):
    running = frozenset(end - gap for gap in gaps if 0 < gap <= 40 and end - gap > 2)
    before = min([*running, end])
    seen = PgSnapshot.parse(f"{before}:{end}:{','.join(map(str, sorted(running)))}")
    for xid in (max(3, end - back), max(3, end - 3), end, end + back):
        assert seen.sees(xid & 0xFFFFFFFF) == (xid < end and xid not in running)


def test_tokens_inside_a_snapshot_parse_to_themselves_and_are_in_order():
    tokens = [
        ResumeToken(Position(100), 7, 1, SnapshotProgress(("a", "b"), "1", "*", 1)),
        ResumeToken(Position(100), 7, 1, SnapshotProgress(("a", "b"), "10", "*", 2)),
        ResumeToken(Position(100), 7, 1, SnapshotProgress((), "", "*", 3)),
        ResumeToken(Position(100), 7, 1),
        ResumeToken(Position(101, 101, 1, 5), 7, 1, SnapshotProgress(("ü" * 60,), 'q"\\', "*", 4)),
        ResumeToken(Position(102), 7, 1, SnapshotProgress(tuple(f"orders_{n}" for n in range(99)), "1", "*", 5)),
    ]
    assert sorted(tokens) == tokens
    for token in tokens:
        assert ResumeToken.parse(str(token)) == token
        assert str(token).startswith("0/6")
        assert str(token).endswith(".7.1")
    assert [token.is_inside for token in tokens] == [True, True, False, False, True, True]


@pytest.mark.parametrize("damage", ["sAAAA", "s", "seJyLjgUAARUAuQ", "sx!"])
def test_a_token_with_damaged_progress_is_refused(damage):
    with pytest.raises(InvalidResumeToken):
        ResumeToken.parse(f"0/64.{damage}.7.1")


def test_settle_waits_for_commits_that_wait_for_a_standby_after_four_billion_transactions_too(monkeypatch):
    monkeypatch.setattr(snapshot_reader, "_SETTLE_S", 0.0)
    running = f"{2**32}:{2**32 + 10}:{2**32 + 5}"
    answers: list[tuple[str, list[int], list[int]]] = [
        (running, [], []),
        (running, [5], []),
        (running, [7, 5], []),
        (f"{2**32 + 10}:{2**32 + 10}:", [], []),
    ]
    streams = mock.Mock(fetch=lambda _name: [answers.pop(0)])
    snapshot_reader.settle(streams)
    assert answers == []


def test_settle_does_not_wait_for_transactions_in_progress(monkeypatch):
    monkeypatch.setattr(snapshot_reader, "_SETTLE_S", 0.0)
    none: list[int] = []
    answers = [("100:110:105", none, none), ("100:120:105,111", none, none)]
    streams = mock.Mock(fetch=lambda _name: [answers.pop(0)])
    snapshot_reader.settle(streams)
    assert answers == []


def test_settle_does_not_wait_for_a_transaction_that_waits_for_its_client():
    answers: list[tuple[str, list[int], list[int]]] = [("100:110:105", [], [105])]
    streams = mock.Mock(fetch=lambda _name: [answers.pop(0)])
    snapshot_reader.settle(streams)
    assert answers == []


def test_a_reader_asks_for_about_as_many_documents_as_fit_into_a_chunk():
    asked = []
    fits = 10_000

    def read_part(_collection: str, _stored: int, _printed: int, after: str, most: int, *, limit_s: float) -> list[Any]:
        asked.append(most)
        if fits == 0:
            raise ServerUnreachable(f"no answer within {limit_s} s")
        keys = [f"{after}{number:05}" for number in range(min(most, fits))]
        texts, columns = b"\0".join([b"{}"] * len(keys)), bytes(24 * len(keys))
        return [(False, "5:5:", 100, NOW, most, "\0".join(keys).encode(), texts, columns)]

    reader = snapshot_reader.SnapshotReader(mock.Mock(read_part=read_part))
    reader._not_before = -1e9
    for fits in (10_000, 10_000, 10_000, 3, 3, 0, 10_000):
        snapshot = Snapshot(SnapshotProgress(("a",), "", "*", 0), Selection())
        reader.read_on(snapshot, None)
        reader._not_before = -1e9
        assert (snapshot.wanted is None) == (fits > 0)
    assert asked == [100, 1_000, 10_000, 10_000, 6, 6, 1]
