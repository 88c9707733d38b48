"""Rows of a collection's partitions, which plugins name instead of the collection."""

from __future__ import annotations

import itertools

import pytest

from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.decoding.records import Begin, Commit, Images, Record, RegistryRow, RowChange, Span
from pgdoc.decoding.registry_rows import read_partitions

PARTITIONS = ((11, "orders$10$0"), (12, "orders$10$1"))
OPEN = Span(10, "docs", "orders", 100, None, None, PARTITIONS)
RENAMED = Span(10, "docs", "sold", 300, None, None, PARTITIONS)


def row(lsn: int, part: int, kind: str = "I", *, by_oid: bool) -> RowChange:
    """Return a row as pgoutput sends it, or as wal2json does; `part` -1 stands for the collection's own table."""
    oid, name = (10, "orders") if part < 0 else PARTITIONS[part]
    return RowChange(lsn, kind, name, b"", True, lambda _: Images({}, {}), oid if by_oid else 0)


def found(known: Registry, *records: Record) -> list[tuple[str, str, tuple[int, ...]]]:
    burst = Assembler(0, known).feed([Begin(1000, 7, "now"), *records, Commit(1001)])
    return [(change.row.kind, change.row.table, tuple(change.position)) for change in burst.changes]


@pytest.mark.parametrize("by_oid", [True, False])
def test_a_row_belongs_to_the_collection_of_its_partition_at_its_lsn(by_oid: bool) -> None:
    closed = OPEN._replace(until=300)
    known = Registry("docs", [closed, RENAMED])
    changes = found(known, *(row(lsn, lsn % 2, by_oid=by_oid) for lsn in (99, 100, 299, 300, 301)))
    assert [(name, position[1]) for _, name, position in changes] == [
        ("orders", 100),
        ("orders", 299),
        ("sold", 300),
        ("sold", 301),
    ]


@pytest.mark.parametrize("by_oid", [True, False])
def test_a_rename_in_the_stream_counts_from_its_place(by_oid: bool) -> None:
    close = RegistryRow(300, False, True, OPEN._replace(until=300), "create", None, "rename", True, b"")
    opened = RegistryRow(301, True, False, RENAMED, "rename", "orders", None, True, b"")
    changes = found(Registry("docs", [OPEN]), row(299, 0, by_oid=by_oid), close, opened, row(302, 0, by_oid=by_oid))
    assert [(kind, name) for kind, name, _ in changes] == [("I", "orders"), ("rename", "orders"), ("I", "sold")]


@pytest.mark.parametrize("by_oid", [True, False])
@pytest.mark.parametrize("order", list(itertools.permutations([-1, 0, 1])))
def test_truncated_partitions_are_one_change_whatever_the_plugin_names(order: tuple[int, ...], by_oid: bool) -> None:
    some = [row(200, part, "T", by_oid=by_oid) for part in order]
    whole, parts = found(Registry("docs", [OPEN]), *some), found(Registry("docs", [OPEN]), *some[1:])
    assert whole == parts
    assert [(kind, name) for kind, name, _ in whole] == [("T", "orders")]


def test_truncated_partitions_are_one_change_in_any_frames() -> None:
    assembler = Assembler(0, Registry("docs", [OPEN]))
    bursts = [
        assembler.feed(records)
        for records in (
            [Begin(1000, 7, "now")],
            [row(200, 0, "T", by_oid=True)],
            [row(200, 1, "T", by_oid=True)],
            [Commit(1001)],
        )
    ]
    assert [change.row.table for burst in bursts for change in burst.changes] == ["orders"]


def test_a_table_of_another_schema_is_no_partition() -> None:
    other = RowChange(200, "I", f"other.{PARTITIONS[0][1]}", b"", True, lambda _: Images({}, {}))
    assert found(Registry("docs", [OPEN]), other) == []
    assert found(Registry("other", [OPEN]), row(200, 0, by_oid=True)) == []


def test_wal2json_is_asked_for_the_partitions_of_a_collection() -> None:
    known = Registry("docs", [OPEN, Span(20, "docs", "users", 0, None)])
    names = {name for _, name in PARTITIONS}
    assert known.with_partitions(["orders"]) == {"orders", *names}
    assert known.with_partitions(["users", "gone"]) == {"users", "gone"}
    assert known.names == {"orders", "users"}


def test_the_registry_has_partitions_as_json() -> None:
    assert read_partitions('{"11": "orders$10$0", "12": "orders$10$1"}') == PARTITIONS
    assert read_partitions(None) == ()
