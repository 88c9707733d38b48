from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.changes.assembler import Assembler
from pgdoc.changes.change import Burst, Change, TransactionInfo
from pgdoc.changes.registry import Registry
from pgdoc.decoding.records import (
    COLLECTION_COLUMNS,
    Begin,
    Commit,
    Idle,
    Images,
    Message,
    Record,
    RegistryRow,
    RowChange,
    Span,
)
from pgdoc.model.positions import Position, before_commits_at, commit_lsn_of
from tests.unit import wire

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = "docs"
TABLES = {"orders": True, "users": True, "ledger": False}
WHEN = "2026-11-23 03:41:13+00"


def row(lsn: int, table: str = "orders", *, kind: str = "I", columns: Iterable[str] = ("id",)) -> RowChange:
    return RowChange(lsn, kind, table, ",".join(columns).encode(), True, _deleted if kind == "D" else _inserted)


def _inserted(message: bytes) -> Images:
    return Images(dict.fromkeys(message.decode().split(",")), {})


def _deleted(message: bytes) -> Images:
    return Images({}, dict.fromkeys(message.decode().split(",")))


def span(name: str, since: int = 0, until: int | None = None, *, oid: int = 0, schema: str = SCHEMA) -> Span:
    return Span(oid or 1 + sorted({*TABLES, name}).index(name), schema, name, since, until)


def registry(*spans: Span, messages_until: int = 0) -> Registry:
    known = spans or [span(table) for table, is_collection in TABLES.items() if is_collection]
    return Registry(SCHEMA, known, messages_until=messages_until)


def feed(*records: Record, known: Registry | None = None) -> Burst:
    return Assembler(0, known or registry()).feed(records)


def positions_of(burst: Burst) -> list[tuple[int, ...]]:
    return [tuple(change.position) for change in burst.changes]


@dataclass
class Wal:
    """Records, and the changes that the assembler has to make of them."""

    records: list[Record] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


@st.composite
def wals(draw: st.DrawFn) -> Wal:
    """Transactions of records with up to three rows each, some with a message at their LSN, before or after them."""
    wal, commit_lsn = Wal(), 1000
    for xid in range(1, draw(st.integers(1, 4)) + 1):
        wal.records += [Idle(commit_lsn - 20)] * draw(st.integers(0, 1))
        _transaction(draw, wal, commit_lsn, xid)
        commit_lsn += 1000
    return wal


def _transaction(draw: st.DrawFn, wal: Wal, commit_lsn: int, xid: int) -> None:
    transaction = TransactionInfo(xid, WHEN, None)
    wal.records.append(Begin(commit_lsn, xid, WHEN))
    for lsn in range(commit_lsn - 10, commit_lsn - 10 + draw(st.integers(0, 4))):
        rows = [row(lsn, table) for table in draw(st.lists(st.sampled_from(sorted(TABLES)), max_size=3))]
        messages: list[Record] = draw(st.sampled_from([[], [Message(lsn, f"message {lsn}")]]))
        wal.records += [*messages, *rows] if draw(st.booleans()) else [*rows, *messages]
        wal.records += [Idle(commit_lsn + 500)] * draw(st.integers(0, 1))
        if messages:
            transaction = transaction._replace(metadata=f"message {lsn}")
        for ordinal, each in enumerate(rows):
            if TABLES[each.table]:
                wal.changes.append(Change((commit_lsn, lsn, 1, ordinal), transaction, each))
    wal.records.append(Commit(commit_lsn + 8))


@given(wals(), st.data())
def test_how_records_are_grouped_never_changes_their_positions(wal, data):
    assembler = Assembler(0, registry())
    bursts = [assembler.feed(group) for group in data.draw(wire.groups(wal.records))]
    assert [change for burst in bursts for change in burst.changes] == wal.changes


@given(wals())
def test_positions_strictly_increase(wal):
    positions = positions_of(Assembler(0, registry()).feed(wal.records))
    assert all(one < other for one, other in pairwise(positions))


@given(wals())
def test_a_burst_has_everything_below_the_watermark_and_beyond_it_only_a_part_of_one_transaction(wal):
    assembler, out = Assembler(0, registry()), []
    for record in wal.records:
        burst = assembler.feed([record])
        out += burst.changes
        below = [change for change in wal.changes if change.position < before_commits_at(burst.watermark)]
        assert out[: len(below)] == below
        assert {commit_lsn_of(change.position) for change in out[len(below) :]} <= {burst.partial_commit_lsn}


def test_the_watermark_advances_with_commits_and_with_keepalives_outside_of_transactions():
    assembler = Assembler(50, registry())
    assert assembler.feed([]) == ([], 50, None)
    assert assembler.feed([Begin(100, 1, WHEN), row(90), Idle(200)]) == ([], 50, 100)
    assert assembler.feed([Commit(108)])[1:] == (108, None)
    assert assembler.feed([Idle(150)])[1:] == (150, None)
    assert assembler.feed([Idle(140)])[1:] == (150, None)


def test_ordinals_count_the_rows_of_one_lsn_across_calls():
    assembler = Assembler(0, registry())
    bursts = [
        assembler.feed([record]) for record in (Begin(100, 1, WHEN), row(90), row(90), row(91), row(91), Commit(108))
    ]
    assert [positions_of(burst) for burst in bursts] == [
        *([[]] * 3),
        [(100, 90, 1, 0), (100, 90, 1, 1)],
        [],
        [(100, 91, 1, 0), (100, 91, 1, 1)],
    ]


def test_rows_of_two_transactions_at_one_lsn_do_not_mix():
    burst = feed(Begin(100, 1, WHEN), row(90), Commit(108), Begin(120, 2, WHEN), row(90), Commit(128))
    assert positions_of(burst) == [(100, 90, 1, 0), (120, 90, 1, 0)]


def test_a_message_at_the_lsn_of_a_row_comes_first_in_both_orders():
    pairs: list[list[Record]] = [[Message(90, "m"), row(90)], [row(90), Message(90, "m")]]
    for pair in pairs:
        assert [change.transaction.metadata for change in feed(Begin(100, 1, WHEN), *pair, Commit(108)).changes] == [
            "m"
        ]


def test_metadata_applies_to_the_rows_after_its_message_and_the_last_message_wins():
    records: list[Record] = [
        row(80),
        Message(81, "a"),
        row(82),
        Message(83, "b"),
        Message(84, "c"),
        row(85),
        Message(86, "d"),
    ]
    burst = feed(Begin(100, 1, WHEN), *records, Commit(108))
    assert [change.transaction.metadata for change in burst.changes] == [None, "a", "c"]


def test_metadata_never_leaks_into_another_transaction():
    leaking: list[Record] = [
        Begin(100, 1, WHEN),
        Message(90, "a"),
        Commit(108),
        Message(110, "outside of transactions"),
    ]
    (change,) = feed(*leaking, Begin(120, 2, WHEN), row(115), Commit(128)).changes
    assert change.transaction == TransactionInfo(2, WHEN, None)


def test_a_table_that_is_not_a_collection_makes_no_change_but_its_rows_take_ordinals():
    burst = feed(Begin(100, 1, WHEN), row(90, "ledger"), row(90, "orders"), Commit(108))
    assert positions_of(burst) == [(100, 90, 1, 1)]


def test_columns_do_not_make_a_table_a_collection():
    rows = [row(90, "new", columns=COLLECTION_COLUMNS), row(91, "new", kind="D", columns=COLLECTION_COLUMNS)]
    assert feed(Begin(100, 1, WHEN), *rows, row(92, "new", kind="T"), Commit(108)).changes == []


def test_a_row_belongs_to_the_collection_whose_span_has_its_lsn():
    known = registry(span("orders", 10, 20, oid=7), span("sold", 20, 30, oid=7), span("orders", 40, oid=8))
    rows = [row(lsn, name) for lsn in (9, 10, 19, 20, 29, 30, 39, 40) for name in ("orders", "sold")]
    burst = feed(Begin(100, 1, WHEN), *rows, Commit(108), known=known)
    assert [(change.row.lsn, change.row.table) for change in burst.changes] == [
        *[(10, "orders"), (19, "orders"), (20, "sold"), (29, "sold"), (40, "orders")]
    ]


def test_an_oid_decides_and_not_the_name_that_came_with_it():
    known = registry(span("orders", 10, 20, oid=7), span("sold", 20, oid=7))
    rows = [row(lsn, name)._replace(oid=oid) for lsn, name, oid in ((15, "", 7), (25, "orders", 7), (26, "sold", 8))]
    burst = feed(Begin(100, 1, WHEN), *rows, Commit(108), known=known)
    assert [(change.row.lsn, change.row.table) for change in burst.changes] == [(15, "orders"), (25, "sold")]


def test_truncations_are_changes_of_collections_only():
    rows = [row(90, table, kind="T") for table in ("orders", "ledger", "new")]
    changes = feed(Begin(100, 1, WHEN), *rows, Commit(108)).changes
    assert {change.row.table for change in changes} == {"orders"}


def test_a_collection_stays_one_when_its_replica_identity_is_changed():
    deleted = row(90, kind="D", columns=("id",))._replace(complete=False)
    updated = row(91, kind="U", columns=COLLECTION_COLUMNS)._replace(complete=False)
    burst = feed(Begin(100, 1, WHEN), deleted, updated, Commit(110))
    assert [change.row for change in burst.changes] == [deleted, updated]


def test_before_the_registry_existed_columns_tell_a_collection_and_messages_what_became_of_it():
    old = row(70, "old", columns=COLLECTION_COLUMNS)
    other = row(71, "other")
    records: list[Record] = [old, other, report(72, "drop", "old"), report(95, "drop", "orders"), row(96, "old")]
    burst = feed(Begin(100, 1, WHEN), *records, Commit(108), known=registry(messages_until=90))
    assert [(change.row.lsn, change.row.kind) for change in burst.changes] == [(70, "I"), (72, "drop")]


def test_a_message_of_today_that_any_role_can_send_changes_no_collection():
    burst = feed(Begin(100, 1, WHEN), report(80, "drop", "orders"), row(81), Commit(108))
    assert summary(burst) == [((100, 81, 1, 0), "I", "orders")]


def test_a_table_that_was_not_visible_yet_is_looked_up_again():
    answers = [([], True), ([span("late", oid=9)], False)]
    late = Registry(SCHEMA, [span("orders")], look_again=lambda: answers.pop(0))
    rows = [row(lsn, table) for lsn, table in ((80, "ledger"), (81, "late"), (82, "journal"))]
    burst = feed(Begin(100, 1, WHEN), *rows, Commit(108), known=late)
    assert [change.row.lsn for change in burst.changes] == [81]
    assert answers == []


def test_a_table_that_is_no_collection_is_looked_up_once():
    answers: list[tuple[list[Span], bool]] = [([], True)]
    known = Registry(SCHEMA, [span("orders")], look_again=lambda: answers.pop(0))  # fails if it is asked again
    feed(Begin(100, 1, WHEN), *[row(lsn, "ledger") for lsn in range(80, 90)], Commit(108), known=known)
    assert answers == []


def test_the_open_name_of_a_table_does_not_depend_on_the_order_of_its_spans():
    ended, present = Span(7, SCHEMA, "old", 10, 20), Span(7, SCHEMA, "new", 20, None)
    for spans in ([ended, present], [present, ended]):
        known = Registry(SCHEMA, spans)
        assert known.open == {7: (20, "new"), "new": (20, "new")}
        known.add(present._replace(until=30))
        known.add(present)  # an older answer
        assert known.open == {}


def test_an_earlier_table_of_the_name_does_not_hide_the_present_one():
    known = Registry(SCHEMA, [Span(9, SCHEMA, "orders", 30, None)])
    earlier = Span(7, SCHEMA, "orders", 10, None)  # as the WAL shows it; its row was pruned since
    known.add(earlier)
    known.add(earlier._replace(until=20))
    assert known.open == {9: (30, "orders"), "orders": (30, "orders")}
    assert [known.span_at("orders", 15), known.span_at("orders", 25), known.span_at("orders", 35)] == [
        earlier._replace(until=20),
        None,
        Span(9, SCHEMA, "orders", 30, None),
    ]


def report(lsn: int, event: str, name: str, renamed_to: str | None = None, schema: str = SCHEMA) -> Message:
    fields = {"event": event, "schema": schema, "name": name} | ({"renamed_to": renamed_to} if renamed_to else {})
    return Message(lsn, json.dumps({"collection": fields}))


def opened(lsn: int, name: str, by: str = "create", former: str | None = None, *, oid: int = 7) -> RegistryRow:
    new = span(name, lsn - 1, oid=oid)
    return RegistryRow(lsn, True, False, new, opened_by=by, from_name=former, closed_by=None, exact=True, message=b"_")


def closed(lsn: int, before: Span, by: str = "drop", *, exact: bool = True) -> RegistryRow:
    span_now = before._replace(until=lsn - 1)
    return RegistryRow(
        lsn, False, True, span_now, opened_by="create", from_name=None, closed_by=by, exact=exact, message=b"_"
    )


def summary(burst: Burst) -> list[tuple[Any, ...]]:
    return [(tuple(change.position), change.row.kind, change.row.table) for change in burst.changes]


def test_changes_of_a_collection_and_of_its_rows_are_in_order():
    records: list[Record] = [
        row(80),
        closed(83, span("orders", oid=1), "rename"),
        opened(84, "sold", "rename", "orders", oid=1),
        row(85, "sold"),
        row(86),
    ]
    burst = feed(Begin(100, 1, WHEN), Message(79, "m"), *records, Commit(108), known=registry(span("orders", oid=1)))
    assert summary(burst) == [
        ((100, 80, 1, 0), "I", "orders"),
        ((100, 84, 0, 0), "rename", "orders"),
        ((100, 85, 1, 0), "I", "sold"),
    ]
    assert burst.changes[1].row.renamed_to == "sold"
    assert [change.transaction.metadata for change in burst.changes] == ["m"] * 3


def test_a_move_to_another_schema_is_a_drop_here_and_a_create_there():
    here = closed(81, span("orders", oid=1), "move")
    there = opened(82, "orders", "move", oid=1)
    away = there._replace(span=there.span._replace(schema="else"))
    assert summary(feed(Begin(100, 1, WHEN), here, away, Commit(108))) == [((100, 81, 0, 0), "drop", "orders")]
    assert summary(feed(Begin(100, 1, WHEN), there, Commit(108))) == [((100, 82, 0, 0), "create", "orders")]


def test_rows_of_the_registry_at_one_lsn_leave_room_for_an_invalidate():
    rows = [opened(80, "a", oid=5), opened(80, "b", oid=6), opened(90, "c", oid=7)]
    assert positions_of(feed(Begin(100, 1, WHEN), *rows, Commit(108))) == [
        (100, 80, 0, 0),
        (100, 80, 0, 2),
        (100, 90, 0, 0),
    ]


def test_what_the_migration_registered_is_not_created():
    row_of_migration = opened(80, "a")._replace(span=span("a", 0, oid=7))
    assert feed(Begin(100, 1, WHEN), row_of_migration, Commit(108)).changes == []


def test_ddl_that_was_found_late_makes_a_change_that_is_not_complete():
    (change,) = feed(Begin(100, 1, WHEN), closed(80, span("orders", oid=1), exact=False), Commit(108)).changes
    assert not change.row.complete


@given(st.lists(st.text(min_size=1, max_size=63), min_size=1, max_size=6, unique=True), st.data())
def test_the_positions_of_truncations_depend_only_on_their_tables(tables, data):
    truncated = [row(90, table, kind="T") for table in tables]
    known = registry(*(span(table, oid=number) for number, table in enumerate(tables, 1)))
    every = feed(Begin(100, 1, WHEN), *truncated, Commit(108), known=known).changes
    assert [change.position for change in every] == sorted({change.position for change in every})
    some = data.draw(st.permutations(truncated))[: data.draw(st.integers(0, len(tables)))]
    (found, *_) = feed(Begin(100, 1, WHEN), *some, Commit(108), known=known)
    assert found == [change for change in every if change.row in some]


def test_a_collection_is_known_from_its_creation_until_it_is_dropped():
    truncated = [row(lsn, "ledger", kind="T") for lsn in (81, 84)]
    records: list[Record] = [truncated[0], opened(83, "ledger"), truncated[1]]
    changes = summary(feed(Begin(100, 1, WHEN), *records, Commit(108)))
    assert [(Position(*position).lsn, kind, table) for position, kind, table in changes] == [
        (83, "create", "ledger"),
        (84, "T", "ledger"),
    ]
    records = [closed(82, span("orders")), row(83), row(84, columns=COLLECTION_COLUMNS)]
    assert [Position(*position).lsn for position, *_ in summary(feed(Begin(100, 1, WHEN), *records, Commit(108)))] == [
        82
    ]


def test_a_change_of_a_collection_in_another_schema_is_neither_a_change_nor_metadata():
    records: list[Record] = [Message(80, "m"), closed(81, span("orders", schema="else")), row(82)]
    (change,) = feed(Begin(100, 1, WHEN), *records, Commit(108)).changes
    assert (change.row.kind, Position(*change.position).lsn, change.transaction.metadata) == ("I", 82, "m")
