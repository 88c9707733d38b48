"""Projections in SQL and in Python agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from pgdoc.errors import InvalidInput
from pgdoc.model.json_codec import decode, encode
from pgdoc.query import parse_filter
from pgdoc.query.filters.projection import compile_fields, project
from pgdoc.query.filters.projection_parse import parse_fields
from tests import json_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.query.filters.projection import Projection

laws = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
NESTED = {"a": [{"a": [1, [1], 2], "b": 1}, {"a": None}, [{"a": [5, 6]}], 7], "b": {"c": [{"d": 1}, {"d": 2}]}}


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def agree(connection: psycopg.Connection, projection: Projection | None, data: dict[str, Any]) -> None:
    compiled = compile_fields(projection)
    query = f"SELECT ({compiled.text})::text FROM (SELECT 'o-1' AS id, %s::jsonb AS data) AS documents"
    row = connection.execute(query, [*compiled.params, encode(data).decode()]).fetchone()
    assert row is not None
    assert decode(row[0]) == project(projection, decode(encode(data)), "o-1")


@laws
@given(json_values.documents, st.lists(json_values.sort_paths, min_size=1, max_size=3), st.booleans())
@example({"a": [1, {"a": 1, "b": 2}, [{"a": 3}, []], {}]}, ["a.a"], False)
@example({"a": [1, {"a": 1, "b": 2}, [{"a": 3}, []], {}]}, ["a.a", "b"], True)
def test_paths_in_sql_and_in_python_agree(
    connection: psycopg.Connection, data: dict[str, Any], paths: list[str], leave_out: bool
) -> None:
    try:
        projection = parse_fields([f"-{path}" if leave_out else path for path in paths])
    except InvalidInput:
        reject()  # one path inside another
    agree(connection, projection, data)


@laws
@given(json_values.documents_with_projections())
@example((NESTED, {"a.b": 1}, {"a.$": 1, "b.c": {"$slice": -1}}))
@example((NESTED, {"b.c.d": {"$gt": 1}}, {"b.c.$": 1, "n": {"$size": "$a"}, "x": "$a.a"}))
@example((NESTED, {"$or": [{"b.c.d": 3}, {"a": 7}]}, {"b.c.$": True}))
@example((NESTED, {"b.c.d": 1, "$and": [{"b.c.d": 2}, {"a": 7}]}, {"b.c.$": True}))
@example((NESTED, {"$or": [{"b.c.d": 2, "a": 8}, {"$or": [{"b.c.d": 2, "a": 7}]}, {"b.c.d": 1}]}, {"b.c.$": True}))
@example((NESTED, {"$or": [{"b.c.d": 2, "_id": "o-1"}, {"b.c.d": 1}]}, {"b.c.$": True}))
@example((NESTED, {"a": {"$elemMatch": {"b": 1}}}, {"a.a.$": 1}))
@example((NESTED, {}, {"a.a": {"$slice": [1, 1]}, "b": 0}))
@example((NESTED, {}, {"a": {"$elemMatch": {"$gte": 5}}, "b": 0}))
@example((NESTED, {}, {"a": {"$elemMatch": {"0.a": [5, 6]}}, "_id": 1}))
@example(
    (NESTED, {}, {"x": {"$arrayElemAt": ["$b.c", -2]}, "y": {"$ifNull": ["$q", {"$last": "$b.c.d"}]}, "i": "$_id"})
)
@example(({"a": [3, 4]}, {"a": {"$gt": 3}}, {"a.$": 1}))
@example(({"a": 4}, {"a": {"$gt": 3}}, {"a.$": 1}))
def test_operators_in_sql_and_in_python_agree(
    connection: psycopg.Connection, case: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
) -> None:
    data, wanted, fields = case
    try:
        node = parse_filter(wanted)
        projection = parse_fields(fields, lambda: node)
    except InvalidInput:
        reject()
    agree(connection, projection, data)


@laws
@given(json_values.documents_with_projections(), json_values.paths)
@example(({"a": {"b": 1, "c": 2}}, {}, {"a.b": 0}), "a")
@example(({"a": [1, 2]}, {}, {"a": {"$slice": 1}}), "a")
def test_a_value_that_is_kept_is_the_stored_one(
    case: tuple[dict[str, Any], dict[str, Any], dict[str, Any]], path: str
) -> None:
    data, wanted, fields = case
    try:
        node = parse_filter(wanted)
        projection = parse_fields(fields, lambda: node)
    except InvalidInput:
        reject()
    parts = tuple(path.split("."))
    if projection is None or projection.keeps(parts):
        assert value_at(project(projection, data), parts) == value_at(data, parts)


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
