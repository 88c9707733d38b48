"""Each filter operator means what MongoDB's manual says, in PostgreSQL and in Python.

The cases are in `filters_of_values` and `filters_of_arrays`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.errors import InvalidFilter
from pgdoc.query import parse_filter
from tests.conformance.filters_of_arrays import OF_ARRAYS
from tests.conformance.filters_of_values import OF_VALUES
from tests.conformance.interpreters import found_in_python, found_in_sql

if TYPE_CHECKING:
    import psycopg

    from tests.conformance.interpreters import Group


CASES = [
    pytest.param(group, wanted, ids.split(), id=f"{name}-{wanted}")
    for name, group in {**OF_VALUES, **OF_ARRAYS}.items()
    for wanted, ids in group.cases
]


@pytest.mark.parametrize(("group", "wanted", "ids"), CASES)
def test_a_filter_finds(connection: psycopg.Connection, group: Group, wanted: dict[str, Any], ids: list[str]) -> None:
    node = parse_filter(wanted)
    assert (found_in_python(node, group.documents), found_in_sql(connection, node, group.documents)) == (ids, ids)


@pytest.mark.parametrize(
    "wanted",
    [
        {"$where": "true"},
        {"$expr": {"$eq": ["$a", 1]}},
        {"$not": {"a": 1}},
        {"$and": []},
        {"$or": {"a": 1}},
        {"$nor": [1]},
        {"a": {"$bitsAllSet": -1}},
        {"a": {"$gt": 1, "b": 1}},
        {"a": {"$in": 1}},
        {"a": {"$in": [{"$gt": 1}]}},
        {"a": {"$nin": {"$regex": "a"}}},
        {"a": {"$not": 1}},
        {"a": {"$not": {}}},
        {"a": {"$ne": {"$regex": "a"}}},
        {"a": {"$lte": {"$regex": "a", "$options": "i"}}},
        {"a": {"$all": "a"}},
        {"a": {"$all": [{"$elemMatch": {"x": 1}}, {"x": 1}]}},
        {"a": {"$all": [{"$or": [{"x": 1}]}]}},
        {"a": {"$elemMatch": 1}},
        {"a": {"$elemMatch": {"x": 1, "$gt": 1}}},
        {"a": {"$size": -1}},
        {"a": {"$size": 1.5}},
        {"a": {"$size": "1"}},
        {"a": {"$mod": [4]}},
        {"a": {"$mod": [4, 0, 0]}},
        {"a": {"$mod": [0, 1]}},
        {"a": {"$mod": ["4", 0]}},
        {"a": {"$type": []}},
        {"a": {"$type": "integer"}},
        {"a": {"$type": 20}},
        {"a": {"$options": "i"}},
        {"a": {"$regex": "a", "$options": "q"}},
        {"a": {"$regex": "(?=a)"}},
        {"a": {"$regex": r"(a)\1"}},
    ],
    ids=str,
)
def test_an_invalid_filter_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilter):
        parse_filter(wanted)
