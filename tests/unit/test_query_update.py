from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest

from pgdoc.errors import InvalidUpdate
from pgdoc.query import apply_update, parse_update


@pytest.mark.parametrize(
    ("before", "update", "after"),
    [
        ({"a": 1}, {"$set": {}}, {"a": 1}),
        ({"a": 1}, {"$set": {"a": {"_id": 2}}}, {"a": {"_id": 2}}),
        ({}, {"$set": {"a.0.b": 1}}, {"a": {"0": {"b": 1}}}),
        ({"a": [1]}, {"$set": {"a.3.b": 2}}, {"a": [1, None, None, {"b": 2}]}),
        ({"a": [{"b": 1, "c": 2}]}, {"$set": {"a.0.b": 3}}, {"a": [{"b": 3, "c": 2}]}),
        ({"": {"": 1}}, {"$set": {".": 2}}, {"": {"": 2}}),
        ({"a": []}, {"$set": {"a.10": 1}, "$inc": {"a.9": 5}}, {"a": [None] * 9 + [5, 1]}),
        ({"a": 1, "b": 2}, {"$unset": {"a": "", "c.d": 1}}, {"b": 2}),
        ({"a": [1, {"b": 2}, 3]}, {"$unset": {"a.0": 1, "a.1.b": 1, "a.7": 1, "a.x": 1}}, {"a": [None, {}, 3]}),
        ({"a": "text"}, {"$unset": {"a.b": 1}}, {"a": "text"}),
        ({"a": 1}, {"$inc": {"a": 2, "b.c": -1.5}}, {"a": 3, "b": {"c": -1.5}}),
        ({"a": 2**63 - 1}, {"$inc": {"a": 1}}, {"a": 2**63}),
        ({"a": 0.1}, {"$inc": {"a": 0.2}}, {"a": 0.3}),
        ({"a": 1e23}, {"$inc": {"a": 1}}, {"a": 1e23}),
        ({"a": [1, 2]}, {"$inc": {"a.1": 1}}, {"a": [1, 3]}),
    ],
)
def test_updates(before: dict[str, Any], update: dict[str, Any], after: dict[str, Any]) -> None:
    untouched = copy.deepcopy(before)
    assert apply_update(parse_update(update), before) == after
    assert before == untouched


def test_a_value_is_set_anew_each_time() -> None:
    update = parse_update({"$set": {"a": []}})
    apply_update(update, {})["a"].append(1)
    assert apply_update(update, {}) == {"a": []}


@pytest.mark.parametrize(
    ("update", "operator", "path"),
    [
        ({"$set": {"t.x": 1}}, "$set", "t.x"),
        ({"$set": {"null.x": 1}}, "$set", "null.x"),
        ({"$set": {"list.x": 1}}, "$set", "list.x"),
        ({"$set": {"list.01": 1}}, "$set", "list.01"),
        ({"$set": {"list.1500002": 1}}, "$set", "list.1500002"),
        ({"$inc": {"t": 1}}, "$inc", "t"),
        ({"$inc": {"null": 1}}, "$inc", "null"),
        ({"$inc": {"yes": 1}}, "$inc", "yes"),
        ({"$inc": {"list": Decimal(1)}}, "$inc", "list"),
    ],
)
def test_an_update_that_does_not_fit_the_document_names_operator_and_path(
    update: dict[str, Any], operator: str, path: str
) -> None:
    with pytest.raises(InvalidUpdate, match="does not fit") as caught:
        apply_update(parse_update(update), {"t": "text", "null": None, "yes": True, "list": [1]})
    assert (caught.value.operator, caught.value.path) == (operator, path)


@pytest.mark.parametrize(
    ("update", "operator", "path"),
    [
        ({}, None, None),
        (None, None, None),
        ({"status": "paid"}, None, None),
        ({"$push": {"a": 1}}, "$push", None),
        ({"$set": 5}, "$set", None),
        ({"$set": {1: 2}}, "$set", None),
        ({"$set": {"_id": 2}}, "$set", "_id"),
        ({"$unset": {"_id.x": 2}}, "$unset", "_id.x"),
        ({"$set": {"a.$[].b": 2}}, "$set", "a.$[].b"),
        ({"$set": {"a\0": 2}}, "$set", "a\0"),
        ({"$set": {".".join("a" * 300): 2}}, "$set", ".".join("a" * 300)),
        ({"$set": {"a.b": {"c": {1}}}}, "$set", "a.b.c"),
        ({"$inc": {"a": "1"}}, "$inc", "a"),
        ({"$inc": {"a": True}}, "$inc", "a"),
        ({"$inc": {"a": float("inf")}}, "$inc", "a"),
        ({"$set": {"a": 1}, "$inc": {"a": 1}}, "$inc", "a"),
        ({"$set": {"a.b": 1, "a-b": 2, "a": 1}}, "$set", "a.b"),
        ({"$set": {"a.b.c": 1}, "$unset": {"a.b": 1, "a.0": 1}}, "$set", "a.b.c"),
    ],
)
def test_what_is_no_update_names_operator_and_path(update: Any, operator: str | None, path: str | None) -> None:
    with pytest.raises(InvalidUpdate) as caught:
        parse_update(update)
    assert (caught.value.operator, caught.value.path) == (operator, path)
