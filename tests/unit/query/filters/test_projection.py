from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import InvalidInput
from pgdoc.query import parse_filter
from pgdoc.query.filters.projection import compile_fields, project
from pgdoc.query.filters.projection_parse import parse_fields
from tests import json_values


@pytest.mark.parametrize(
    ("fields", "data", "part"),
    [
        (None, {"a": 1}, {"a": 1}),
        ([], {"a": 1}, {}),
        ("_id", {"a": 1}, {}),
        ("a", {"a": {"b": 1}, "c": 2}, {"a": {"b": 1}}),
        (["a.b", "_id"], {"a": {"b": None, "c": 2}}, {"a": {"b": None}}),
        ("a.b", {"a": 1}, {}),
        ("a.b", {"a": {}}, {"a": {}}),
        ("a.b", {"a": [1, {"b": 2, "c": 3}, [{"b": 4}, 5], {}]}, {"a": [{"b": 2}, [{"b": 4}], {}]}),
        ("a.0", {"a": [1, {"0": 2}]}, {"a": [{"0": 2}]}),
        ("-a", {"a": 1, "b": 2}, {"b": 2}),
        ("-a.b", {"a": [1, {"b": 2, "c": 3}, [{"b": 4}, 5]], "b": 6}, {"a": [1, {"c": 3}, [{}, 5]], "b": 6}),
        (["-a.b", "-a.c"], {"a": {"b": 1, "c": 2}}, {"a": {}}),
        ("--a", {"-a": 1, "b": 2}, {"b": 2}),
    ],
)
def test_the_part_of_a_document(fields: Any, data: dict[str, Any], part: dict[str, Any]) -> None:
    assert project(parse_fields(fields), data) == part


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        (["a", "-b"], "b"),
        (["a", "a.b"], "a.b"),
        (["a.b", "a"], "a"),
        ("-_id", "_id"),
        ("", ""),
        ([None], None),
        (7, None),
        ("a\0", "a\0"),
        (".".join("a" * 300), ".".join("a" * 300)),
    ],
)
def test_what_are_no_fields(fields: Any, path: str | None) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_fields(fields)
    assert raised.value.path == path


def test_the_same_field_twice_is_one() -> None:
    assert project(parse_fields(["a", "a"]), {"a": 1, "b": 2}) == {"a": 1}


@given(st.lists(json_values.sort_paths, max_size=3), st.booleans(), json_values.documents)
def test_included_and_excluded_parts_share_no_field(paths: list[str], deeper: bool, data: dict[str, Any]) -> None:
    wanted = [f"{path}.a" if deeper else path for path in paths]
    try:
        included, left = parse_fields(wanted), parse_fields([f"-{path}" for path in wanted])
    except InvalidInput:
        return
    if wanted:
        assert project(included, project(left, data)) == project(included, project(left, project(left, data)))
        assert project(included, project(included, data)) == project(included, data)
        assert "%s" in compile_fields(left).text


BOOK = {"name": "Ann", "tags": ["a", "b", "c"], "items": [{"sku": "x", "n": 1}, {"sku": "y", "n": 5}], "at": {"zip": 9}}


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({}, BOOK),
        ({"_id": 1}, {}),
        ({"name": 1, "at.zip": True}, {"name": "Ann", "at": {"zip": 9}}),
        ({"name": 1, "at": {"zip": 2.5}}, {"name": "Ann", "at": {"zip": 9}}),
        ({"items": 0, "tags": False, "_id": 1}, {"name": "Ann", "at": {"zip": 9}}),
        ({"tags": {"$slice": 2}, "name": 1}, {"name": "Ann", "tags": ["a", "b"]}),
        ({"tags": {"$slice": -1}, "_id": 1}, {"tags": ["c"]}),
        ({"tags": {"$slice": [1, 9]}, "_id": 1}, {"tags": ["b", "c"]}),
        ({"tags": {"$slice": [-2, 1]}, "_id": 1}, {"tags": ["b"]}),
        ({"tags": {"$slice": [-9, 1]}, "_id": 1}, {"tags": ["a"]}),
        ({"tags": {"$slice": 0}, "_id": 1}, {"tags": []}),
        ({"name": {"$slice": 1}, "_id": 1}, {"name": "Ann"}),
        ({"tags": {"$slice": 1}}, {**BOOK, "tags": ["a"]}),
        ({"tags": {"$slice": 1}, "items": 0, "at": 0}, {"name": "Ann", "tags": ["a"]}),
        ({"items": {"$elemMatch": {"n": {"$gt": 1}}}}, {"items": [{"sku": "y", "n": 5}]}),
        ({"items": {"$elemMatch": {"n": 7}}}, {}),
        ({"name": {"$elemMatch": {"$gt": ""}}}, {}),
        (
            {"items": {"$elemMatch": {"n": 5}}, "tags": 0, "at": 0},
            {"name": "Ann", "items": [{"sku": "y", "n": 5}]},
        ),
        ({"zip": "$at.zip", "skus": "$items.sku", "none": "$at.city"}, {"zip": 9, "skus": ["x", "y"]}),
        ({"n": {"$size": "$tags"}, "m": {"$size": "$name"}, "name": 1}, {"n": 3, "m": None, "name": "Ann"}),
        (
            {"a": {"$first": "$tags"}, "b": {"$last": ["$tags"]}, "c": {"$first": {"$literal": []}}},
            {"a": "a", "b": "c"},
        ),
        ({"a": {"$arrayElemAt": ["$items.n", -2]}, "b": {"$arrayElemAt": ["$tags", 3]}}, {"a": 1}),
        (
            {"a": {"$ifNull": ["$none", "$at.zip"]}, "b": {"$ifNull": ["$none", {"$literal": "$x"}]}},
            {"a": 9, "b": "$x"},
        ),
        ({"n": {"$size": {"$ifNull": ["$none", []]}}}, {"n": 0}),
        ({"id": "$_id", "a": {"$literal": {"$gt": 1}}}, {"id": "o-1", "a": {"$gt": 1}}),
    ],
)
def test_the_part_that_an_object_of_fields_selects(fields: Any, part: dict[str, Any]) -> None:
    assert project(parse_fields(fields), BOOK, "o-1") == part


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ({"items.n": {"$gt": 0}}, {"items": [{"sku": "x", "n": 1}]}),
        ({"items": {"$elemMatch": {"sku": "y", "n": {"$gt": 1}}}}, {"items": [{"sku": "y", "n": 5}]}),
        ({"items.sku": "x", "items.n": 5}, {"items": [{"sku": "y", "n": 5}]}),
        ({"$or": [{"items.sku": "y"}, {"items.sku": "x"}]}, {"items": [{"sku": "y", "n": 5}]}),
        ({"$or": [{"items.sku": "y", "name": "Bob"}, {"items.sku": "x"}]}, {"items": [{"sku": "x", "n": 1}]}),
        ({"$or": [{"items.sku": "z"}, {"name": "Ann"}]}, {}),
    ],
)
def test_a_position_is_that_of_the_first_item_that_the_filter_matched(wanted: Any, part: dict[str, Any]) -> None:
    for fields in {"items.$": 1}, ["items.$"]:
        assert project(parse_fields(fields, lambda: parse_filter(wanted)), BOOK) == part


@pytest.mark.parametrize(
    ("fields", "path", "finding"),
    [
        ({"a": 1, "b": 0}, "b", "mixes paths"),
        ({"a": "$b", "c": 0}, "c", "mixes paths"),
        ({"a": 1, "a.b": 1}, "a.b", "overlaps"),
        ({"a": {"$slice": 1}, "a.b": 1}, "a.b", "overlaps"),
        ({"a": {"$elemMatch": {"b": 1}}, "a.c": 1}, "a", "overlaps"),
        ({"a": "$b", "a.c": 1}, "a", "overlaps"),
        ({"_id": 0, "a": 1}, "_id", "beside its data"),
        ({"a.b": {"$elemMatch": {"c": 1}}}, "a.b", "top-level"),
        ({"a.b": "$c"}, "a.b", "without dots"),
        ({"_id": "$c"}, "_id", "can't be computed"),
        ({"a": "b"}, "a", r"\$literal"),
        ({"a": None}, "a", r"\$literal"),
        ({"a": {}}, "a", r"\$literal"),
        ({"a": [1]}, "a", r"\$literal"),
        ({"a": {"$slice": "1"}}, "a", r"\$slice"),
        ({"a": {"$slice": [1, 0]}}, "a", r"\$slice"),
        ({"a": {"$slice": [1]}}, "a", r"\$slice"),
        ({"a": {"$slice": 2**31}}, "a", r"\$slice"),
        ({"a": {"$slice": True}}, "a", r"\$slice"),
        ({"a": {"$slice": 1, "b": 1}}, "a", r"\$slice"),
        ({"a": {"$elemMatch": 1}}, "a", r"\$elemMatch"),
        ({"a": {"$elemMatch": {"b": {"$near": 1}}}}, "a.b", r"\$near"),
        ({"a": {"$add": ["$b", 1]}}, "a", r"\$add.*Python"),
        ({"a": "$$ROOT"}, "a", "variable"),
        ({"a": {"$size": ["$b", "$c"]}}, "a", r"\$size"),
        ({"a": {"$arrayElemAt": ["$b", "0"]}}, "a", r"\$arrayElemAt"),
        ({"a": {"$ifNull": ["$b"]}}, "a", r"\$ifNull"),
        ({"a": {"$ifNull": ["$b", ["$c"]]}}, "a", r"\$literal"),
        ({"a": {"$literal": float("nan")}}, "a", "no document can contain"),
        ({"$slice": 1}, None, "value of a path"),
        ({7: 1}, None, "must be paths"),
        ({"a.$": 1}, "a.$", "condition on 'a'"),
        ({"b.$": 0}, "b.$", "last part"),
        ({"b.$.c": 1}, "b.$.c", "last part"),
        ({"$.b": 1}, None, "value of a path"),
        ({"b.$": {"$slice": 1}}, "b.$", "can't be combined"),
        ({"b.$": 1, "b.c": 1}, "b.c", "overlaps"),
        (["-b.$"], "b.$", "last part"),
    ],
)
def test_what_is_no_object_of_fields(fields: Any, path: str | None, finding: str) -> None:
    with pytest.raises(InvalidInput, match=finding) as raised:
        parse_fields(fields, lambda: parse_filter({"b.c": 1, "a": {"$size": 2}, "$nor": [{"a": 1}], "a.0": 5}))
    assert raised.value.path == path
    assert len(str(raised.value)) < 1_000


def test_fields_that_nest_too_deep_are_refused() -> None:
    fields: Any = 1
    expression: Any = "$a"
    for _ in range(150):
        fields, expression = {"a": fields}, {"$first": expression}
    for deep in fields, {"a": expression}:
        with pytest.raises(InvalidInput, match="levels deep"):
            parse_fields(deep)
