from __future__ import annotations

from typing import Any

import pytest

from pgdoc.errors import InvalidFilter, InvalidInput
from pgdoc.query import parse_filter, parse_sort
from pgdoc.query.nodes import And, Equal, Exists, In, Not, Operand, Or, Ordered, SortKey

ONE = Operand(1, "1")


@pytest.mark.parametrize(
    ("wanted", "node"),
    [
        (None, And(())),
        ({}, And(())),
        ({"a.b": 1}, Equal(("a", "b"), ONE)),
        ({"a": {"$eq": 1}}, Equal(("a",), ONE)),
        ({"a": {"$ne": 1}}, Not(Equal(("a",), ONE))),
        ({"a": {"$gt": 1, "$lte": 1}}, And((Ordered(("a",), ">", ONE), Ordered(("a",), "<=", ONE)))),
        ({"a": {"$in": [1]}}, In(("a",), (ONE,))),
        ({"a": {"$nin": []}}, Not(In(("a",), ()))),
        ({"a": {"$exists": True}}, Exists(("a",))),
        ({"a": {"$exists": 0}}, Not(Exists(("a",)))),
        ({"a": {"$exists": "no"}}, Exists(("a",))),
        ({"a": {"$not": {"$lt": 1}}}, Not(Ordered(("a",), "<", ONE))),
        ({"a": 1, "b": 1}, And((Equal(("a",), ONE), Equal(("b",), ONE)))),
        ({"$or": [{"a": 1}, {}]}, Or((Equal(("a",), ONE), And(())))),
        ({"$nor": [{"a": 1}]}, Not(Or((Equal(("a",), ONE),)))),
        ({"$and": ({"a": 1},)}, And((Equal(("a",), ONE),))),
        ({"a": {"b": 1}}, Equal(("a",), Operand({"b": 1}, '{"b":1}'))),
        ({"a": {}}, Equal(("a",), Operand({}, "{}"))),
        ({"a": {"$eq": {"$x": (1,)}}}, Equal(("a",), Operand({"$x": [1]}, '{"$x":[1]}'))),
        ({"": 1, "a.": 1}, And((Equal(("",), ONE), Equal(("a", ""), ONE)))),
    ],
)
def test_filters(wanted: Any, node: Any) -> None:
    assert parse_filter(wanted) == node


@pytest.mark.parametrize(
    ("wanted", "operator", "path"),
    [
        ([], None, None),
        ("a", None, None),
        ({1: 2}, None, None),
        ({"$where": "1"}, "$where", None),
        ({"$eq": 1}, "$eq", None),
        ({"a.b": {"$near": 1}}, "$near", "a.b"),
        ({"a": {"$and": [{"b": 1}]}}, "$and", "a"),
        ({"a": {"$gt": 1, "b": 2}}, "b", "a"),
        ({"a": {"b": 2, "$gt": 1}}, "b", "a"),
        ({"$or": []}, "$or", None),
        ({"$and": {"a": 1}}, "$and", None),
        ({"$or": [1]}, None, None),
        ({"a": {"$in": 1}}, "$in", "a"),
        ({"a": {"$in": "text"}}, "$in", "a"),
        ({"a": {"$nin": [{"$gt": 1}]}}, "$nin", "a"),
        ({"a": {"$not": 1}}, "$not", "a"),
        ({"a": {"$not": {}}}, "$not", "a"),
        ({"a": {"$gt": float("nan")}}, "$gt", "a"),
        ({"a": {"b": [b""]}}, "$eq", "a.b.0"),
        ({"a\0": 1}, None, "a\0"),
        ({".".join("a" * 300): 1}, None, ".".join("a" * 300)),
    ],
)
def test_what_is_no_filter_names_operator_and_path(wanted: Any, operator: str | None, path: str | None) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(wanted)
    assert (caught.value.operator, caught.value.path) == (operator, path)


@pytest.mark.parametrize("wrap", [lambda inner: {"$and": [inner]}, lambda inner: {"a": {"$not": inner["a"]}}])
def test_nesting_has_a_limit(wrap: Any) -> None:
    wanted: dict[str, Any] = {"a": {"$gt": 1}}
    for _ in range(100):
        wanted = wrap(wanted)
    parse_filter(wanted)
    with pytest.raises(InvalidFilter, match="nested"):
        parse_filter(wrap(wanted))


def test_a_filter_does_not_change_with_the_values_it_was_made_of() -> None:
    wanted = {"a": [1]}
    node = parse_filter(wanted)
    wanted["a"].append(2)
    assert node == parse_filter({"a": [1]})


@pytest.mark.parametrize(
    ("sort", "keys"),
    [
        (None, ()),
        ((), ()),
        ("a.b", (SortKey(("a", "b"), descending=False),)),
        ("-a", (SortKey(("a",), descending=True),)),
        (["a", "-_id"], (SortKey(("a",), descending=False), SortKey(("_id",), descending=True))),
    ],
)
def test_sorts(sort: Any, keys: Any) -> None:
    assert parse_sort(sort) == keys


@pytest.mark.parametrize("sort", ["", "-", [""], [1], 5, {"a": 1}, "a\0"])
def test_what_is_no_sort(sort: Any) -> None:
    with pytest.raises(InvalidInput):
        parse_sort(sort)
