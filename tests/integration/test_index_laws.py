"""Index keys have the order of the values."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgdoc.model.json_codec import decode, encode, encode_value
from pgdoc.query import compare, matches, parse_filter
from tests import json_values
from tests.indexed import times_found

if TYPE_CHECKING:
    from collections.abc import Iterator

laws = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

_long = st.sampled_from(
    ["x" * 78, "x" * 79, "x" * 80, "x" * 80 + "a", "x" * 200, "é" * 79, "\x01" * 40, "\x01", "\x02"]
)
_numbers = st.integers(-(10**12), 10**12) | st.sampled_from([0.1, -0.1, 1e300, -1e300, 1e-300, 10**500, -(10**500) - 1])
_leaves = _long | _numbers | json_values.scalars
values = json_values.small_json | st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_values.texts | _long, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


KEYS = """
SELECT place::integer - 1, pgdoc.sort_key(value), pgdoc.sort_rest(value)
FROM unnest(%s::jsonb[]) WITH ORDINALITY AS row(value, place)
ORDER BY pgdoc.sort_key(value) COLLATE "C", pgdoc.sort_rest(value) COLLATE "C" NULLS FIRST
"""


@laws
@given(st.lists(values, min_size=2, max_size=6))
@example([[], [[]], [1], [1, 2], [10], [-1], {}, {"a": 1}, {"a": 1, "b": 0}, {"b": 0}, "a", "a\x01", "a\x01\x01"])
@example([["a"], ["a\x01"], ["a\x02"], ["a", 1], [["a"]], [-1.5], [-1], [-1, 5], [1.5], [1, 5]])
@example([-2, -1, -10000, -9999, -10001, -0.5, -0.25, -1e300, -1e-300, 0, 1e-300, 0.5, 2, 1, 9999, 10000, 1e300])
@example([{"a" * 90: 1}, {"a" * 90: 2}, {"a" * 90: 2, "b": 1}, ["é" * 100, 1], ["é" * 100, 2]])
def test_sort_keys_have_the_order_of_the_values(connection: psycopg.Connection, items: list[Any]) -> None:
    read = [decode(encode_value(item, "")) for item in items]
    rows = connection.execute(KEYS, [[encode_value(item, "").decode() for item in items]]).fetchall()
    for (first, *key), (second, *other) in itertools.pairwise(rows):
        relation = compare(read[first], read[second])
        assert relation <= 0
        assert (relation == 0) == (key == other)
    assert all(len(row[1]) <= 80 for row in rows)


@laws
@given(values | st.lists(values, max_size=2), st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$in"]), values)
@example("x" * 80 + "b", "$gt", "x" * 80 + "a")
@example("x" * 80, "$lt", "x" * 80 + "a")
@example({"a": "x" * 80}, "$lt", {"a": "x" * 81})
@example(10**100 + 1, "$gt", 10**100 - 1)
@example(10**100 + 1, "$eq", 10**100 + 2)
@example(-(10**77) - 1, "$lt", -(10**77))
@example("x" * 79, "$eq", "x" * 78)
@example([], "$eq", None)
def test_a_truncated_sort_key_changes_no_result(
    connection: psycopg.Connection, value: Any, operator: str, operand: Any
) -> None:
    wanted = parse_filter({"a": {operator: [operand, 1] if operator == "$in" else operand}})
    compiled = times_found(wanted)
    query = f"SELECT {compiled.text} FROM (SELECT %s::jsonb AS data) AS documents"
    text = encode_value({"a": value}, "")
    expected = int(matches(wanted, "a", decode(text)))
    (found,) = connection.execute(query, [*compiled.params, text.decode()]).fetchall()
    assert set(found[0]) == {expected}


@laws
@given(
    values | st.lists(values, max_size=3),
    st.tuples(st.sampled_from(["$gt", "$gte"]), st.sampled_from(["$lt", "$lte"])),
    st.tuples(values, values),
)
@example([1, 10], ("$gt", "$lt"), (5, 3))
@example(["x" * 80, 3], ("$gte", "$lt"), ("x" * 79, 4))
@example([[], {}], ("$gt", "$lt"), (1, 5))
def test_different_items_of_an_array_may_match_the_two_sides_of_a_range(
    connection: psycopg.Connection, value: Any, operators: tuple[str, str], operands: tuple[Any, Any]
) -> None:
    wanted = parse_filter({"a": dict(zip(operators, operands, strict=True))})
    compiled = times_found(wanted)
    text = encode_value({"a": value}, "")
    expected = int(matches(wanted, "a", decode(text)))
    query = f"SELECT {compiled.text} FROM (SELECT %s::jsonb AS data) AS documents"
    (found,) = connection.execute(query, [*compiled.params, text.decode()]).fetchall()
    assert set(found[0]) == {expected}


@laws
@given(json_values.documents | st.just({"a": [{"a": [1, [1]]}, {"a": None}, [{"a": 5}]]}), json_values.sort_paths)
@example({"a": [{"a": [1, [1]]}, {"a": None}, [{"a": 5}]]}, "a.a.1")
@example({"a": [{"1": 2}, [3, [4]]]}, "a.1")
def test_elements_at_a_path_in_sql_and_in_python_agree(
    connection: psycopg.Connection, data: dict[str, Any], path: str
) -> None:
    query = "SELECT value::text FROM pgdoc.elements_at(%s::jsonb, %s::text[]) AS found(value)"
    rows = connection.execute(query, [encode(data).decode(), path.split(".")])
    assert [decode(text) for (text,) in rows] == elements(decode(encode(data)), path.split("."))


def elements(value: Any, parts: list[str]) -> list[Any]:
    """Return the values at a path; an array at the end gives its items, even one reached by index."""
    if not parts:
        return value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        return elements(value[parts[0]], parts[1:]) if parts[0] in value else []
    found = []
    for index, item in enumerate(value if isinstance(value, list) else []):
        found += elements(item, parts) if isinstance(item, dict) else []
        found += elements(item, parts[1:]) if parts[0] == str(index) else []
    return found
