from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pgdoc.query import parse_filter
from pgdoc.query.filters.nodes import And, ByKey, Equal, Or, SortKey
from pgdoc.query.indexes.definition import indexed_paths, plan_index
from pgdoc.query.indexes.plan import IndexedPaths, Indexes, branches, by_key, conjuncts, has_range, may_use_index

STATUS, TOTAL, SHOP = ("status",), ("total",), ("shop", "name")


def keyed(node: Any) -> list[tuple[str, int, str]]:
    """Return the dotted path, the number of nodes and the scope of each `ByKey`."""
    if isinstance(node, ByKey):
        return [(".".join(node.path), len(node.nodes), node.scope)]
    return [found for part in node.nodes for found in keyed(part)] if isinstance(node, And | Or) else []


@pytest.mark.parametrize(
    ("wanted", "paths"),
    [
        ({"status": "new"}, ["status"]),
        ({"total": 5}, []),
        ({"total": 5, "status": "new"}, ["status", "total"]),
        ({"shop.name": "x", "total": 5}, ["shop.name"]),
        ({"$or": [{"status": "new"}, {"total": 7}]}, ["status", "total"]),
        ({"$nor": [{"status": "new"}]}, []),
        ({"status": {"$ne": "new"}}, []),
        ({"status": {"$regex": "n"}}, []),
        ({"status": {"$elemMatch": {"$eq": "new"}}}, []),
        ({"status": {"$in": []}}, []),
        ({"_id": "a"}, []),
        ({"status": {"$gt": None}}, []),
        ({"status": {"$gt": [1]}}, []),
    ],
    ids=str,
)
def test_a_path_is_asked_by_key_where_an_index_begins_with_it_or_with_paths_that_are_given(
    wanted: dict[str, Any], paths: list[str]
) -> None:
    indexes = Indexes((IndexedPaths((STATUS, TOTAL)), IndexedPaths((SHOP,)), IndexedPaths((("_id",),))))
    assert sorted(path for path, _, _ in keyed(by_key(parse_filter(wanted), indexes))) == paths


def test_the_sides_of_a_range_stand_together_wherever_they_are_written() -> None:
    indexes = Indexes((IndexedPaths((TOTAL,)),))
    node = parse_filter({"$and": [{"total": {"$gt": 1}}, {"status": "new"}, {"total": {"$lt": 5, "$ne": 3}}]})
    assert keyed(by_key(node, indexes)) == [("total", 2, "all")]
    assert has_range(node)
    assert not has_range(parse_filter({"total": 5, "$nor": [{"a": {"$gt": 1}}]}))


def test_branches_are_values_and_arrays() -> None:
    indexes = Indexes((IndexedPaths((STATUS,)), IndexedPaths((TOTAL,))))
    values, arrays = branches(parse_filter({"status": "new", "total": {"$gt": 5}, "a": 1}), indexes).nodes
    assert keyed(values) == [("status", 1, "no_array"), ("total", 1, "no_array")]
    assert keyed(arrays) == [
        ("status", 1, "array"),
        ("total", 1, "array"),
        ("status", 1, "exact"),
        ("total", 1, "exact"),
    ]
    only = next(conjuncts(parse_filter({"a": 1})))
    assert only in list(conjuncts(values))
    assert only in list(conjuncts(arrays))
    assert len(branches(parse_filter({"a": 1}), indexes).nodes) == 1


@pytest.mark.parametrize(
    ("path", "descending", "scopes"),
    [
        ("total", False, ["no_array", "array_at_end"]),
        ("total", True, ["array_at_end", "no_array"]),
        ("shop.name", False, ["array_on_way", "no_array", "array_at_end"]),
        ("shop.name", True, ["array_at_end", "no_array", "array_on_way"]),
    ],
)
def test_a_range_in_its_own_order_is_read_in_turn(path: str, descending: bool, scopes: list[str]) -> None:
    indexes, first = (
        Indexes((IndexedPaths((TOTAL,)), IndexedPaths((SHOP,)))),
        SortKey(tuple(path.split(".")), descending),
    )
    found = branches(parse_filter({path: {"$gt": 5}, "a": 1}), indexes, first)
    assert found.in_turn
    assert [keyed(node) for node in found.nodes] == [[(path, 1, scope)] for scope in scopes]
    behind = branches(parse_filter({path: {"$gte": False}}), indexes, first)
    expected = [scope for scope in scopes if scope == "array_on_way"] + ["array_at_end", "no_array"]
    if descending:
        expected = ["no_array", "array_at_end"] + [scope for scope in scopes if scope == "array_on_way"]
    assert [keyed(node) for node in behind.nodes] == [[(path, 1, scope)] for scope in expected]
    for other in {path: 5}, {path: {"$gt": "x" * 79}}, {path: {"$gt": 5}, "status": "new"}, {"a": {"$gt": 5}}:
        given = Indexes((*indexes.paths, IndexedPaths((STATUS,))))
        assert not branches(parse_filter(other), given, first).in_turn


def test_a_partial_index_serves_filters_that_repeat_its_condition() -> None:
    where = tuple(conjuncts(parse_filter({"total": {"$gte": 9}, "a": 1})))
    indexes = Indexes((IndexedPaths((STATUS,), where), IndexedPaths((TOTAL,))))
    assert keyed(by_key(parse_filter({"status": "new", "total": {"$gte": 9}}), indexes)) == [("total", 1, "all")]
    whole = by_key(parse_filter({"status": "new", "total": {"$gte": 9}, "a": 1}), indexes)
    assert sorted(path for path, _, _ in keyed(whole)) == ["status", "total"]
    assert list(conjuncts(whole)).count(where[0]) == 1  # the index's condition, and that on the total
    assert list(conjuncts(whole)).count(where[1]) == 1


def test_an_index_serves_when_all_its_parts_are_there() -> None:
    plan = plan_index(("status", "-total"), unique=False, where={"a": 1}, name=None)
    comments = [plan.comment(part) for part in plan.parts]
    (found,) = indexed_paths([None, "of somebody else", *comments]).paths
    assert found == IndexedPaths((STATUS, TOTAL), tuple(conjuncts(parse_filter({"a": 1}))))
    for missing in comments:
        assert indexed_paths([comment for comment in comments if comment != missing]).paths == ()
    everything = plan_index(("$**",), unique=False, where=None, name=None)
    assert indexed_paths([everything.comment(part) for part in everything.parts]).paths == ()


def test_indexes_matter_to_lookups_only() -> None:
    for wanted, expected in (None, False), ({"_id": "a"}, False), ({"a": {"$exists": True}}, False), ({"a": 1}, True):
        assert may_use_index(parse_filter(wanted)) is expected
    assert isinstance(next(conjuncts(parse_filter({"a": 1}))), Equal)


@pytest.mark.parametrize(
    "number", [9.9, Decimal("9.90"), Decimal("1.12345678901234567890"), 1e-7, 1e22, 2.0, 5, 10**30], ids=repr
)
def test_a_partial_index_has_the_condition_of_a_filter_with_the_same_number(number: Any) -> None:
    where = {"n": {"$gt": number}}
    plan = plan_index(("a",), unique=False, where=where, name=None)
    (found,) = indexed_paths(map(plan.comment, plan.parts)).paths
    assert found.where == (parse_filter(where),)
