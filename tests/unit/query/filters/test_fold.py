"""Equalities on one path become one list."""

from __future__ import annotations

from typing import Any

import pytest

from pgdoc.query import parse_filter
from pgdoc.query.filters.fold import fold_equalities


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"$or": [{"a": 1}, {"a": 2}, {"a": 1}]}, {"a": {"$in": [1, 2]}}),
        ({"$or": [{"a": 1}, {"a": {"$in": [2, None]}}]}, {"a": {"$in": [1, 2, None]}}),
        ({"$or": [{"a": 1}, {"b": 1}, {"a": 2}]}, {"$or": [{"a": {"$in": [1, 2]}}, {"b": 1}]}),
        ({"$or": [{"a": 1}, {"$or": [{"a": 2}, {"$or": [{"a": 3}]}]}]}, {"a": {"$in": [1, 2, 3]}}),
        ({"$or": [{"a": 1}, {"a": {"$gt": 5}}, {"a": 2}]}, {"$or": [{"a": {"$in": [1, 2]}}, {"a": {"$gt": 5}}]}),
        ({"$nor": [{"a": 1}, {"a": 2}]}, {"a": {"$nin": [1, 2]}}),
        ({"$and": [{"a": {"$ne": 1}}, {"a": {"$ne": 2}}]}, {"a": {"$nin": [1, 2]}}),
        ({"$and": [{"a": {"$ne": 1}}, {"b": 3}, {"a": {"$nin": [2]}}]}, {"$and": [{"b": 3}, {"a": {"$nin": [1, 2]}}]}),
        ({"a": {"$elemMatch": {"$or": [{"b": 1}, {"b": 2}]}}}, {"a": {"$elemMatch": {"b": {"$in": [1, 2]}}}}),
    ],
)
def test_equalities_on_one_path_become_one_list(wanted: dict[str, Any], expected: dict[str, Any]) -> None:
    assert fold_equalities(parse_filter(wanted)) == parse_filter(expected)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"a": 1},
        {"$or": [{"a": 1}, {"b": 1}]},
        {"$or": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]},
        {"$and": [{"a": 1}, {"a": 2}]},
        {"$or": [{"a": {"$ne": 1}}, {"a": {"$ne": 2}}]},
        {"a": {"$ne": 1}, "b": 2},
    ],
)
def test_other_filters_stay_as_they_are(wanted: dict[str, Any]) -> None:
    assert fold_equalities(parse_filter(wanted)) == parse_filter(wanted)
