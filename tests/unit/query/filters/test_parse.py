from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from pgdoc.errors import InvalidFilter, InvalidInput
from pgdoc.query import parse_filter, parse_sort
from pgdoc.query.filters.nodes import (
    And,
    AnyElement,
    Equal,
    Exists,
    HasBits,
    HasSize,
    HasType,
    In,
    Matches,
    Not,
    Operand,
    Or,
    Ordered,
    Remainder,
    SortKey,
)
from pgdoc.query.regex.parse import parse_pattern

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
        ({"a": {"$exists": Decimal("0.0")}}, Not(Exists(("a",)))),
        ({"a": {"$not": {"$lt": 1}}}, Not(Ordered(("a",), "<", ONE))),
        ({"a": 1, "b": 1}, And((Equal(("a",), ONE), Equal(("b",), ONE)))),
        ({"$or": [{"a": 1}, {}]}, Or((Equal(("a",), ONE), And(())))),
        ({"$nor": [{"a": 1}]}, Not(Or((Equal(("a",), ONE),)))),
        ({"$and": ({"a": 1},)}, And((Equal(("a",), ONE),))),
        ({"a": {"b": 1}}, Equal(("a",), Operand({"b": 1}, '{"b":1}'))),
        ({"a": {}}, Equal(("a",), Operand({}, "{}"))),
        ({"a": {"$eq": {"$x": (1,)}}}, Equal(("a",), Operand({"$x": [1]}, '{"$x":[1]}'))),
        ({"a-b": 1, "é.0": 1}, And((Equal(("a-b",), ONE), Equal(("é", "0"), ONE)))),
        ({"a": {"$type": "number"}}, HasType(("a",), ("int", "long", "double", "decimal"))),
        ({"a": {"$type": [2, "string", 9, 16.0]}}, HasType(("a",), ("string", "int"))),
        ({"a": {"$size": 2.0}}, HasSize(("a",), 2)),
        ({"a": {"$mod": [4.7, -1.5]}}, Remainder(("a",), 4, -1)),
        ({"a": {"$bitsAllSet": 5.0}}, HasBits(("a",), "$bitsAllSet", 5)),
        ({"a": {"$bitsAnyClear": (0, 2)}}, HasBits(("a",), "$bitsAnyClear", 5)),
        ({"a": {"$bitsAnySet": [0, 63, 200]}}, HasBits(("a",), "$bitsAnySet", -(2**63) + 1)),
        ({"$comment": "why"}, And(())),
        ({"a": 1, "$comment": {"any": "thing"}}, Equal(("a",), ONE)),
        ({"$or": [{"a": 1, "$comment": ""}]}, Or((Equal(("a",), ONE),))),
        (
            {"a": {"$elemMatch": {"$comment": "why", "b": 1}}},
            AnyElement(("a",), Equal(("", "b"), ONE), as_document=True),
        ),
        ({"a": re.compile("^b.", re.IGNORECASE | re.DOTALL)}, Matches(("a",), parse_pattern("^b.", "is"))),
        ({"a": {"$not": re.compile("b")}}, Not(Matches(("a",), parse_pattern("b")))),
        ({"a": {"$regex": re.compile("b", re.MULTILINE)}}, Matches(("a",), parse_pattern("b", "m"))),
        ({"a": {"$regex": re.compile("b"), "$options": "i"}}, Matches(("a",), parse_pattern("b", "i"))),
        ({"a": {"$in": [re.compile("b"), 1]}}, Or((In(("a",), (ONE,)), Matches(("a",), parse_pattern("b"))))),
        ({"a": {"$all": [re.compile("b")]}}, Matches(("a",), parse_pattern("b"))),
        ({"a": {"$all": []}}, In(("a",), ())),
        ({"a": {"$all": [1, 1]}}, And((Equal(("a",), ONE), Equal(("a",), ONE)))),
        ({"a": {"$regex": "b"}}, Matches(("a",), parse_pattern("b"))),
        ({"a": {"$options": "i", "$regex": "b"}}, Matches(("a",), parse_pattern("b", "i"))),
        ({"a": {"$not": {"$regex": "b"}}}, Not(Matches(("a",), parse_pattern("b")))),
        ({"a": {"$in": [{"$regex": "b"}, 1]}}, Or((In(("a",), (ONE,)), Matches(("a",), parse_pattern("b"))))),
        ({"a": {"$nin": [{"$regex": "b"}]}}, Not(Or((Matches(("a",), parse_pattern("b")),)))),
        ({"a": {"$all": [{"$regex": "b"}]}}, Matches(("a",), parse_pattern("b"))),
        ({"a": {"$elemMatch": {"$gt": 1}}}, AnyElement(("a",), Ordered((), ">", ONE), as_document=False)),
        ({"a": {"$elemMatch": {"b": 1}}}, AnyElement(("a",), Equal(("", "b"), ONE), as_document=True)),
        ({"a": {"$elemMatch": {"_id": 1}}}, AnyElement(("a",), Equal(("", "_id"), ONE), as_document=True)),
        ({"a": {"$elemMatch": {}}}, AnyElement(("a",), And(()), as_document=True)),
        (
            {"a": {"$elemMatch": {"$or": [{"b": 1}]}}},
            AnyElement(("a",), Or((Equal(("", "b"), ONE),)), as_document=True),
        ),
        ({"a": {"$all": [{"$elemMatch": {"$eq": 1}}]}}, AnyElement(("a",), Equal((), ONE), as_document=False)),
        ({"a": {"$eq": {"$regex": "b"}}}, Equal(("a",), Operand({"$regex": "b"}, '{"$regex":"b"}'))),
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
        ({"": 1}, None, ""),
        ({"a.": 1}, None, "a."),
        ({"a..b": 1}, None, "a..b"),
        ({".": 1}, None, "."),
        ({"a": {"$type": []}}, "$type", "a"),
        ({"a": {"$type": "text"}}, "$type", "a"),
        ({"a": {"$type": 99}}, "$type", "a"),
        ({"a": {"$type": True}}, "$type", "a"),
        ({"a": {"$type": [2, None]}}, "$type", "a"),
        ({"a": {"$type": [[]]}}, "$type", "a"),
        ({"a": {"$size": -1}}, "$size", "a"),
        ({"a": {"$size": 1.5}}, "$size", "a"),
        ({"a": {"$size": 2**31}}, "$size", "a"),
        ({"a": {"$size": "1"}}, "$size", "a"),
        ({"a": {"$size": True}}, "$size", "a"),
        ({"a": {"$size": float("nan")}}, "$size", "a"),
        ({"a": {"$size": 10**400}}, "$size", "a"),
        ({"a": {"$size": Decimal("sNaN")}}, "$size", "a"),
        ({"a": {"$size": Decimal("1e999999")}}, "$size", "a"),
        ({"a": {"$mod": [10**400, 0]}}, "$mod", "a"),
        ({"a": 10**5000}, "$eq", "a"),
        ([10**5000], None, None),
        ({"a": {"$mod": 5}}, "$mod", "a"),
        ({"a": {"$bitsAllSet": -1}}, "$bitsAllSet", "a"),
        ({"a": {"$bitsAllSet": 2**63}}, "$bitsAllSet", "a"),
        ({"a": {"$bitsAllSet": 1.5}}, "$bitsAllSet", "a"),
        ({"a": {"$bitsAnySet": [1, -1]}}, "$bitsAnySet", "a"),
        ({"a": {"$bitsAnySet": [True]}}, "$bitsAnySet", "a"),
        ({"a": {"$bitsAnySet": [float("nan")]}}, "$bitsAnySet", "a"),
        ({"a": {"$bitsAnySet": Decimal("NaN")}}, "$bitsAnySet", "a"),
        ({"a": {"$bitsAllSet": [Decimal("Infinity")]}}, "$bitsAllSet", "a"),
        ({"a": {"$bitsAnyClear": [2**31]}}, "$bitsAnyClear", "a"),
        ({"a": {"$bitsAllClear": "5"}}, "$bitsAllClear", "a"),
        ({"a": re.compile(rb"b")}, "$regex", "a"),
        ({"a": re.compile(r"(b)\1")}, "$regex", "a"),
        ({"a": {"$ne": re.compile("b")}}, "$ne", "a"),
        ({"a": {"$comment": "why"}}, "$comment", "a"),
        ({"a": {"$mod": [5]}}, "$mod", "a"),
        ({"a": {"$mod": [5, 0, 1]}}, "$mod", "a"),
        ({"a": {"$mod": [0, 1]}}, "$mod", "a"),
        ({"a": {"$mod": [0.9, 1]}}, "$mod", "a"),
        ({"a": {"$mod": [2**63, 0]}}, "$mod", "a"),
        ({"a": {"$mod": [5, -(2**63) - 1]}}, "$mod", "a"),
        ({"a": {"$mod": ["5", 0]}}, "$mod", "a"),
        ({"a": {"$mod": [True, 0]}}, "$mod", "a"),
        ({"a": {"$mod": [float("inf"), 0]}}, "$mod", "a"),
        ({"a": {"$all": 1}}, "$all", "a"),
        ({"a": {"$all": [{"$gt": 1}]}}, "$all", "a"),
        ({"a": {"$all": [{"$elemMatch": {"$gt": 1}}, 1]}}, "$all", "a"),
        ({"a": {"$all": [1, {"$elemMatch": {"$gt": 1}}]}}, "$all", "a"),
        ({"a": {"$elemMatch": [1]}}, "$elemMatch", "a"),
        ({"a": {"$elemMatch": {"$gt": 1, "b": 1}}}, "b", "a"),
        ({"a": {"$elemMatch": {"b": 1, "$gt": 1}}}, "$gt", "a"),
        ({"a": {"$elemMatch": {"b.c": {"$near": 1}}}}, "$near", "a.b.c"),
        ({"a": {"$elemMatch": {"b": {"$elemMatch": {"$size": "x"}}}}}, "$size", "a.b"),
        ({"a": {"$elemMatch": {"$or": 1}}}, "$or", "a"),
        ({"a": {"$elemMatch": {1: 2}}}, None, "a"),
        ({"a": {"$elemMatch": {"b": {"$gt": float("nan")}}}}, "$gt", "a.b"),
        ({"a": {"$elemMatch": {"": 1}}}, None, "a."),
        ({"a": {"$regex": 1}}, "$regex", "a"),
        ({"a": {"$regex": b"a"}}, "$regex", "a"),
        ({"a": {"$regex": "a", "$options": 1}}, "$options", "a"),
        ({"a": {"$regex": "a", "$options": "g"}}, "$regex", "a"),
        ({"a": {"$options": "i"}}, "$options", "a"),
        ({"a": {"$regex": "(?=a)"}}, "$regex", "a"),
        ({"a": {"$regex": "("}}, "$regex", "a"),
        ({"a": {"$not": {"$regex": r"(a)\1"}}}, "$regex", "a"),
        ({"a": {"$in": [{"$regex": "["}]}}, "$regex", "a"),
        ({"a": {"$in": [{"$regex": "a", "$gt": 1}]}}, "$in", "a"),
        ({"a": {"$gt": {"$regex": "a"}}}, "$gt", "a"),
        ({"a": {"$ne": {"$regex": "a", "$options": "i"}}}, "$ne", "a"),
    ],
)
def test_the_error_of_an_invalid_filter_names_operator_and_path(
    wanted: Any, operator: str | None, path: str | None
) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(wanted)
    assert (caught.value.operator, caught.value.path) == (operator, path)


@pytest.mark.parametrize(
    ("wrap", "limit"),
    [
        (lambda inner: {"$and": [inner]}, 100),
        (lambda inner: {"a": {"$not": inner["a"]}}, 100),
        (lambda inner: {"a": {"$elemMatch": inner["a"]}}, 8),
        (lambda inner: {"a": {"$elemMatch": inner}}, 8),
        (lambda inner: {"a": {"$all": [{"$elemMatch": inner}]}}, 8),
    ],
)
def test_nesting_has_a_limit(wrap: Any, limit: int) -> None:
    wanted: dict[str, Any] = {"a": {"$gt": 1}}
    for _ in range(limit):
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


@pytest.mark.parametrize("sort", ["", "-", [""], [1], "a.", "-a..b", 5, {"a": 1}, "a\0"])
def test_a_sort_that_is_not_valid_is_refused(sort: Any) -> None:
    with pytest.raises(InvalidInput):
        parse_sort(sort)


def test_a_filter_has_as_many_conditions_as_postgresql_takes_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc.query.filters.fold.MOST_CONDITIONS", 4)
    four: list[Any] = [{"a": {"$gt": 1, "$lt": 3}}, {"b": {"$elemMatch": {"c": 1}}}]
    same: list[Any] = [{"a": number} for number in range(9)]
    fits: list[dict[str, Any]] = [{"$or": four}, {"$nor": four}, {"$or": same}, {"$or": [*same, *four[1:]]}]
    for wanted in *fits, {"a": {"$in": [*range(9)]}}:
        parse_filter(wanted)
    too_long: list[dict[str, Any]] = [{"$or": [*four, *same]}, {"$or": four, "c": 1}, dict.fromkeys("abcde", 1)]
    for wanted in too_long:
        with pytest.raises(InvalidFilter, match="has 5 conditions, and PostgreSQL takes 4: split"):
            parse_filter(wanted)
