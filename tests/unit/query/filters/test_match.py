"""MongoDB's meaning, case by case. `tests/integration/test_query_laws.py` checks that SQL agrees."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pgdoc.query import compare, finder, matches, parse_filter

DATA: dict[str, Any] = {
    "n": 5,
    "f": 5.0,
    "t": "b",
    "yes": True,
    "null": None,
    "o": {"x": 1, "0": "key"},
    "list": [1, [2, 3], "c", {"x": 7}],
    "empty": [],
    "items": [{"sku": "a", "tags": ["r", "s"]}, {"sku": "b"}, {"n": 1}],
    "matrix": [[1, 2], [3]],
    "deep": [[{"x": 1}]],
    "big": 2**31,
    "huge": 2**63,
    "minus": -7.5,
}


@pytest.mark.parametrize(
    "wanted",
    [
        {"n": 5.0},
        {"f": 5},
        {"n": {"$gt": 4, "$lt": 6}},
        {"t": {"$gt": "a", "$lte": "b"}},
        {"yes": {"$gt": False}},
        {"yes": {"$ne": 1}},
        {"null": None},
        {"missing": None},
        {"n.deeper": None},
        {"null": {"$gte": None, "$exists": True}},
        {"missing": {"$lte": None, "$exists": False}},
        {"o": {"0": "key", "x": 1.0}},
        {"o.0": "key"},
        {"o": {"$gt": {"x": 2}}},
        {"list": 1},
        {"list": [1, [2, 3], "c", {"x": 7}]},
        {"list": [2, 3]},
        {"list": {"$ne": 2}},
        {"list.1": [2, 3]},
        {"list.1.0": 2},
        {"list.3.x": 7},
        {"list.x": 7},
        {"list": {"$gt": "b", "$lt": 2}},
        {"list": {"$in": [9, {"x": 7}]}},
        {"empty": []},
        {"empty": {"$ne": None, "$exists": True}},
        {"empty.x": {"$eq": None, "$exists": False}},
        {"items.sku": "b"},
        {"items.tags": "s"},
        {"items.0.tags.1": "s"},
        {"items.sku": None},
        {"items.sku": {"$in": ["z", None]}},
        {"items.1.tags": {"$exists": False}},
        {"matrix": [3]},
        {"matrix.0": [1, 2]},
        {"matrix.0.1": 2},
        {"matrix": {"$gt": [2]}},
        {"deep.0.x": 1},
        {"list.0": None},  # the object in the list has no field "0"
        {"_id": "o-1"},
        {"_id": {"$gt": "o", "$nin": ["a", 5]}},
        {"_id.x": None},
        {"$nor": [{"n": 6}, {"t": "a"}]},
        {"n": {"$not": {"$gt": 5}}},
        {"n": {"$type": "int"}},
        {"f": {"$type": ["string", "double"]}},
        {"f": {"$type": "number"}},
        {"big": {"$type": "long"}},
        {"huge": {"$type": "decimal"}},
        {"null": {"$type": 10}},
        {"list": {"$type": "array"}},
        {"list": {"$type": "string"}},
        {"_id": {"$type": "string"}},
        {"list": {"$size": 4}},
        {"empty": {"$size": 0}},
        {"matrix.0": {"$size": 2}},
        {"items.tags": {"$size": 2}},
        {"t": {"$regex": "^B$", "$options": "i"}},
        {"items.tags": {"$regex": "s"}},
        {"t": {"$not": {"$regex": "a"}}},
        {"n": {"$not": {"$regex": "5"}}},
        {"t": {"$in": [5, {"$regex": "b"}]}},
        {"_id": {"$regex": "^o-"}},
        {"n": {"$mod": [3, 2]}},
        {"f": {"$mod": [2.9, 1]}},
        {"minus": {"$mod": [4, -3]}},
        {"list": {"$mod": [2, 1]}},
        {"list": {"$all": [1, "c"]}},
        {"n": {"$all": [5]}},
        {"list": {"$elemMatch": {"$eq": [2, 3]}}},
        {"list": {"$elemMatch": {"$elemMatch": {"$gt": 2}}}},
        {"list": {"$elemMatch": {"0": 2, "1": {"$gt": 2}}}},
        {"items": {"$elemMatch": {"sku": "a", "tags": "s"}}},
        {"items": {"$elemMatch": {"sku": None, "n": 1}}},
        {"items": {"$elemMatch": {"$or": [{"sku": "z"}, {"n": 1}]}}},
        {"items": {"$elemMatch": {}}},
        {"items": {"$elemMatch": {"_id": None}}},
        {"items": {"$all": [{"$elemMatch": {"sku": "a"}}, {"$elemMatch": {"n": {"$gt": 0}}}]}},
        {"matrix": {"$elemMatch": {"$size": 1}}},
        {"matrix": {"$elemMatch": {"$not": {"$size": 2}}}},
    ],
)
def test_matches(wanted: dict[str, Any]) -> None:
    assert matches(parse_filter(wanted), "o-1", DATA)


@pytest.mark.parametrize(
    "wanted",
    [
        {"n": "5"},
        {"yes": 1},
        {"n": True},
        {"n": {"$gt": "a"}},
        {"null": {"$gt": None}},
        {"null": {"$lt": 5}},
        {"missing": {"$lt": 5}},
        {"o": {"x": 1}},
        {"list": 2},
        {"list": {"$ne": 1}},
        {"list.01": [2, 3]},
        {"list.-1": {"x": 7}},
        {"matrix.0": 1},
        {"matrix": 1},
        {"deep.x": 1},
        {"empty": None},
        {"empty.x": {"$ne": None}},
        {"items.sku": {"$nin": ["a"]}},
        {"n": {"$in": []}},
        {"_id": 5},
        {"_id": None},
        {"_id": {"$exists": False}},
        {"$and": [{"n": 5}, {"n": 6}]},
        {"$or": [{"n": 7}, {"n": 6}]},
        {"f": {"$type": "int"}},
        {"n": {"$type": ["date", "long"]}},
        {"missing": {"$type": "null"}},
        {"matrix": {"$type": "int"}},
        {"list": {"$size": 2}},
        {"o": {"$size": 2}},
        {"missing": {"$size": 0}},
        {"n": {"$regex": "5"}},
        {"o": {"$regex": "x"}},
        {"t": {"$in": [{"$regex": "B"}]}},
        {"yes": {"$mod": [1, 0]}},
        {"huge": {"$mod": [1, 0]}},
        {"minus": {"$mod": [4, 1]}},
        {"list": {"$all": []}},
        {"list": {"$all": [1, 9]}},
        {"list": {"$elemMatch": {"$eq": 2}}},
        {"deep": {"$elemMatch": {"x": 1}}},
        {"list": {"$elemMatch": {"$gt": 1, "$lt": 1}}},
        {"n": {"$elemMatch": {"$eq": 5}}},
        {"items": {"$elemMatch": {"sku": "b", "tags": "s"}}},
        {"empty": {"$elemMatch": {}}},
        {"_id": {"$elemMatch": {"$eq": "o-1"}}},
    ],
)
def test_does_not_match(wanted: dict[str, Any]) -> None:
    assert not matches(parse_filter(wanted), "o-1", DATA)


def test_a_number_too_large_for_a_remainder_is_never_made_an_integer() -> None:
    node = parse_filter({"n": {"$mod": [4, 0]}})
    assert not matches(node, "o-1", {"n": Decimal("1E+999999999999999999")})  # its digits would fill the memory
    assert matches(node, "o-1", {"n": Decimal(-(2**63)) - Decimal("0.5")})


def test_an_array_is_tested_once_for_each_part_of_a_path() -> None:
    """A number can be an index or a key in each array, so the number of ways down doubles with each."""
    value: Any = 7
    for _ in range(16):
        value = [{"0": value}]
    keys = finder(("x", *["0"] * 16), lambda path: (lambda data: data, path))
    assert 1 <= len(keys({"x": value})) <= 16**2


def test_all_values_have_one_order() -> None:
    values = [
        None,
        -(10**30),
        0.5,
        1,
        1e300,
        10**301,
        "",
        "Z",
        "a",
        "\uffff",
        "\U0001f600",
        {},
        {"a": 1},
        {"a": 1, "b": 1},
        {"b": 1},
        {"a": "1"},
        [],
        [1],
        [1, 1],
        [2],
        False,
        True,
    ]
    for left, first in enumerate(values):
        for right, second in enumerate(values):
            order = compare(first, second)
            assert (order > 0) - (order < 0) == (left > right) - (left < right), (first, second)


def test_a_collation_keeps_all_digits_of_numbers_beside_a_text() -> None:
    number = Decimal("1.12345678901234567890")
    wanted = parse_filter({"a": ["X", number]}, collation="ci")
    assert matches(wanted, "1", {"a": ["x", number]})
    assert not matches(wanted, "1", {"a": ["x", float(number)]})
