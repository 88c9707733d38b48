from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import InvalidInput
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
