"""Filters, sorts and updates mean the same in PostgreSQL and in Python."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from pgdoc.errors import InvalidUpdate
from pgdoc.model.json_codec import decode, encode, encode_value
from pgdoc.query import (
    apply_update,
    compare,
    compile_sort,
    compile_update,
    matches,
    parse_filter,
    parse_sort,
    parse_update,
)
from tests import json_values
from tests.indexed import times_found

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS = "(SELECT * FROM unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS row(id, data, place)) AS documents"

laws = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def rows_of(documents: list[tuple[str, dict[str, Any]]]) -> list[list[str]]:
    return [[name for name, _ in documents], [encode(data).decode() for _, data in documents]]


@laws
@given(st.lists(st.tuples(json_values.ids, json_values.documents), max_size=6), json_values.filters)
@example([("a", {"a": [["b"], "c"]}), ("b", {"a": {"b": 1}})], {"$or": [{"a": {"$in": ["c"]}}, {"a": {"$in": ["b"]}}]})
def test_a_filter_compiled_to_sql_and_matched_in_python_agree(
    connection: psycopg.Connection, documents: list[tuple[str, dict[str, Any]]], wanted: dict[str, Any]
) -> None:
    assert found_in_sql(connection, documents, wanted) == found_in_python(documents, wanted)


@laws
@given(json_values.documents_with_filters())
@example(({"a": [[1, 2]]}, {"a.0.1": 2}))
@example(({"a": [{"b": 1}]}, {"a.0.b": None}))
@example(({"a": [[1], [2]]}, {"a": {"$size": 1}}))
@example(({"a": [[[1], [2]]]}, {"a.0": {"$size": 1}}))
@example(({"a": [[{"b": 1}]]}, {"a": {"$elemMatch": {"b": 1}}}))
@example(({"a": [[[5]]]}, {"a": {"$elemMatch": {"$elemMatch": {"$eq": 5}}}}))
@example(({"a": [[5]]}, {"a": {"$elemMatch": {"$eq": 5}}}))
@example(({"a": [{"_id": "x"}]}, {"a": {"$elemMatch": {"_id": "x"}}}))
@example(({"a": 2**63}, {"a": {"$mod": [1, 0]}}))
@example(({"a": -7.5}, {"a": {"$mod": [4, -3]}}))
@example(({"a": ["é"]}, {"a": {"$regex": r"^\W$"}}))
@example(({"a": 2**63}, {"a": {"$bitsAnyClear": [0]}}))
@example(({"a": -(2**63)}, {"a": {"$bitsAllSet": [63], "$bitsAllClear": 2**63 - 1}}))
@example(({"a": 10**400}, {"a": {"$bitsAllSet": []}}))
@example(({"a": [1.5, 4.0]}, {"a": {"$bitsAllSet": 4}}))
@example(({"a": {"0": 3}}, {"a.0": {"$bitsAllSet": [0, 1]}}))
def test_a_filter_on_values_of_the_document_agrees_in_sql_and_in_python(
    connection: psycopg.Connection, drawn: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    data, wanted = drawn
    assert found_in_sql(connection, [("a", data)], wanted) == found_in_python([("a", data)], wanted)


def found_in_sql(
    connection: psycopg.Connection, documents: list[tuple[str, dict[str, Any]]], wanted: dict[str, Any]
) -> list[bool]:
    compiled = times_found(parse_filter(wanted))
    query = f"SELECT {compiled.text} FROM {DOCUMENTS} ORDER BY place"
    rows = connection.execute(query, [*compiled.params, *rows_of(documents)]).fetchall()
    assert all(set(times) in ({0}, {1}) for (times,) in rows)
    return [set(times) == {1} for (times,) in rows]


def found_in_python(documents: list[tuple[str, dict[str, Any]]], wanted: dict[str, Any]) -> list[bool]:
    node = parse_filter(wanted)
    return [matches(node, name, decode(encode(data))) for name, data in documents]


@laws
@given(json_values.small_json, json_values.small_json)
def test_values_have_the_same_order_in_sql_and_in_python(connection: psycopg.Connection, left: Any, right: Any) -> None:
    texts = [encode_value(value, "").decode() for value in (left, right)]
    found = connection.execute("SELECT pgdoc.compare(%s::jsonb, %s::jsonb)", texts).fetchone()
    expected = compare(left, right)
    assert found == ((expected > 0) - (expected < 0),)


@laws
@given(st.tuples(json_values.documents, json_values.updates) | json_values.documents_with_updates())
@example(({"a": [1, {"b": 2}]}, {"$unset": {"a.0": 1, "a.1.b": 1}}))
@example(({"a": [1]}, {"$set": {"a.3": [2], "a.2.b": {}}, "$inc": {"a.1": 1e23}}))
@example(({"a": []}, {"$set": {"a.1500000": 1}}))
@example(({"a": []}, {"$set": {"a.1500001": 1}}))
def test_an_update_compiled_to_sql_and_applied_in_python_agree(
    connection: psycopg.Connection, drawn: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    data, wanted = drawn
    try:
        update = parse_update(wanted)
    except InvalidUpdate:
        reject()  # conflicting paths
    before = decode(encode(data))
    compiled = compile_update(update)
    query = f"SELECT ({compiled.text})::text FROM (SELECT %s::jsonb AS data) AS documents"
    row = connection.execute(query, [*compiled.params, encode(data).decode()]).fetchone()
    assert row is not None
    try:
        after = apply_update(update, before)
    except InvalidUpdate:
        assert row[0] is None
    else:
        assert compare(decode(row[0]), after) == 0
    assert compare(before, decode(encode(data))) == 0


@laws
@given(st.lists(json_values.documents, max_size=6), json_values.sort_paths, st.booleans())
def test_a_sort_orders_scalars_as_python_compares_them_and_equal_ones_by_id(
    connection: psycopg.Connection, data: list[dict[str, Any]], path: str, descending: bool
) -> None:
    documents = {str(number): item for number, item in enumerate(data)}
    compiled = compile_sort(parse_sort(f"-{path}" if descending else path))
    query = f"SELECT id FROM {DOCUMENTS} ORDER BY {compiled.text}"
    order = [row[0] for row in connection.execute(query, [*rows_of(list(documents.items())), *compiled.params])]
    assert sorted(order) == sorted(documents)
    for first, second in itertools.pairwise(order):
        left, right = (value_at(documents[name], path.split(".")) for name in (first, second))
        if not isinstance(left, dict | list) or not isinstance(right, dict | list):
            relation = compare(right, left) if descending else compare(left, right)
            assert relation < 0 or (relation == 0 and first < second)


def value_at(value: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part in map(str, range(len(value))):
            value = value[int(part)]
        else:
            return None
    return value
