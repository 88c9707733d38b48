"""The check of a table refuses no document that the JSON Schema allows, and all others as far as it is translated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgdoc.crud.validation import check_json_schema
from pgdoc.crud.validation_path import violation_path

if TYPE_CHECKING:
    import psycopg

KEYS = st.sampled_from(["a", "b", 'q"\\', "1", "é"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.0, -2.5, 1e-7, 1e22])
    | st.text("ab\n'", max_size=3)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
NUMBERS = st.integers(-2, 3) | st.sampled_from([0.5, -2.5, 1e-7])
TYPES = st.sampled_from(["null", "boolean", "number", "integer", "string", "array", "object"])
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
    "enum": st.lists(SCALARS, min_size=1, max_size=4),
    "const": SCALARS,
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "exclusiveMinimum": NUMBERS,
    "exclusiveMaximum": NUMBERS,
    "multipleOf": st.integers(1, 3),
    "minLength": st.integers(0, 3),
    "maxLength": st.integers(0, 3),
    "minItems": st.integers(0, 3),
    "maxItems": st.integers(0, 3),
    "required": st.lists(KEYS, max_size=2, unique=True),
    "dependentRequired": st.dictionaries(KEYS, st.lists(KEYS, max_size=2, unique=True), max_size=2),
}
LOOSE: dict[str, st.SearchStrategy[Any]] = {
    "enum": st.lists(VALUES, min_size=1, max_size=4),
    "const": VALUES,
    "multipleOf": st.sampled_from([0.5, 2]),
    "pattern": st.just("^a"),
    "uniqueItems": st.booleans(),
    "minProperties": st.integers(0, 2),
}


def schemas(rules: dict[str, st.SearchStrategy[Any]], *, exact: bool) -> st.SearchStrategy[Any]:
    def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        more: dict[str, st.SearchStrategy[Any]] = {
            "properties": st.dictionaries(KEYS, inner, max_size=3),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
        }
        if not exact:
            more |= {"not": inner, "if": inner, "then": inner, "oneOf": st.lists(inner, min_size=1, max_size=2)}
            more |= {"contains": inner, "patternProperties": st.dictionaries(st.just("^a"), inner, max_size=1)}
        return st.fixed_dictionaries({}, optional={**rules, **more})

    return st.recursive(st.booleans() | st.fixed_dictionaries({}, optional=rules), nested, max_leaves=6)


EXACT, ANY = schemas(SIMPLE, exact=True), schemas({**SIMPLE, **LOOSE}, exact=False)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
QUIET = settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)


def refuses(sql: psycopg.Connection[Any], schema: Any, data: Any) -> bool:
    """Whether the table's check refuses the document."""
    row = sql.execute(
        "SELECT NOT jsonb_path_exists(%s::jsonb, %s::jsonpath, '{}', true)", [json.dumps(data), violation_path(schema)]
    ).fetchone()
    assert row is not None
    return row[0] is False


def allows(schema: Any, data: Any) -> bool:
    found = check_json_schema(schema)
    assert found is not None
    return found.find("the collection", "a", data) is None


@QUIET
@given(EXACT.filter(lambda schema: isinstance(schema, dict)), OBJECTS)
@example({"properties": {"a": {"enum": [1, "a"]}}}, {"a": ["a"]})
@example({"properties": {"a": {"enum": [True]}}}, {"a": 1})
@example({"properties": {"a": {"items": {"type": "array"}}}}, {"a": [[1]]})
def test_what_can_be_translated_is_refused_exactly(sql: psycopg.Connection[Any], schema: Any, data: Any) -> None:
    assert refuses(sql, schema, data) == (not allows(schema, data))


@QUIET
@given(ANY.filter(lambda schema: isinstance(schema, dict)), OBJECTS)
def test_nothing_that_a_schema_allows_is_refused(sql: psycopg.Connection[Any], schema: Any, data: Any) -> None:
    if refuses(sql, schema, data):
        assert not allows(schema, data)


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 510, 1000, 2000])
def test_the_length_of_a_text_is_exact(sql: psycopg.Connection[Any], length: int) -> None:
    for schema in ({"maxLength": length}, {"minLength": length}):
        wanted = {"properties": {"a": schema}}
        for size in {max(length - 1, 0), length, length + 1}:
            data = {"a": "\n\U0001f600" * (size // 2) + "x" * (size % 2)}
            assert refuses(sql, wanted, data) == (not allows(wanted, data))


def test_references_are_followed_but_not_in_a_circle(sql: psycopg.Connection[Any]) -> None:
    schema = {
        "$defs": {
            "node": {"type": "object", "properties": {"n": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}
        },
        "properties": {"root": {"$ref": "#/$defs/node"}},
    }
    assert refuses(sql, schema, {"root": {"n": "x"}})
    assert not refuses(sql, schema, {"root": {"n": 1, "next": {"n": "x"}}})
    assert not allows(schema, {"root": {"n": 1, "next": {"n": "x"}}})
