"""What an index holds has the order of the values, and what is projected in the server is what Python would leave."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgdoc.documents import decode, encode_value
from pgdoc.query import compare, compile_filter, matches, parse_filter
from tests import json_values

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
@example([{"a" * 90: 1}, {"a" * 90: 2}, {"a" * 90: 2, "b": 1}, ["é" * 100, 1], ["é" * 100, 2]])
def test_the_keys_have_the_order_of_the_values(connection: psycopg.Connection, items: list[Any]) -> None:
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
def test_a_key_that_was_cut_changes_no_answer(
    connection: psycopg.Connection, value: Any, operator: str, operand: Any
) -> None:
    wanted = parse_filter({"a": {operator: [operand, 1] if operator == "$in" else operand}})
    compiled = compile_filter(wanted)
    query = f"SELECT ({compiled.text}) IS TRUE FROM (SELECT %s::jsonb AS data) AS documents"
    text = encode_value({"a": value}, "")
    assert connection.execute(query, [*compiled.params, text.decode()]).fetchone() == (
        matches(wanted, "a", decode(text)),
    )
