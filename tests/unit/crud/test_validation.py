"""JSON Schemas that are odd, or hostile: each is refused, or costs little."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pgdoc.crud.validation import check_json_schema, read_json_schema
from pgdoc.crud.validation_path import resolve_pointer
from pgdoc.errors import InvalidInput, SchemaViolation

TEXT: dict[str, Any] = {"type": "string"}
HUGE = Decimal(f"1{'0' * 400}.5")  # Python's float is infinite


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth else {}


def found(schema: dict[str, Any], data: Any) -> SchemaViolation | None:
    checked = check_json_schema(schema)
    assert checked is not None
    return checked.find("the collection", "a", data)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/a%25"}}, "$defs": {"a%25": TEXT}}, "no schema is there"),
        ({"properties": {"a": {"$ref": "#/prefixItems/\u00b2"}}, "prefixItems": [TEXT]}, "no schema is there"),
        (nested(240), "nested too deep"),
    ],
)
def test_what_the_library_can_not_use_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_json_schema(schema)


def test_a_pointer_is_decoded_as_the_library_does() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/a%20b"}}, "$defs": {"a b": TEXT}}
    assert found(schema, {"a": "text"}) is None
    assert found(schema, {"a": 1}) is not None
    assert resolve_pointer(schema, "#/$defs/a%20b") == TEXT


@pytest.mark.parametrize("value", [5, None, {"$ref": []}, ["#"]])
def test_a_keyword_that_is_not_known_may_hold_anything(value: Any) -> None:
    assert found({"x-keyword": {"$ref": value}}, {}) is None


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"$ref": "https://example.com/a.json"}', {}),
        ('{"properties": {"a": {"pattern": "("}}}', {"a": "text"}),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}', {}),
        ('{"properties": {"a": {"multipleOf": 0.1}}}', {"a": 10**400}),
    ],
)
def test_what_can_not_be_compared_does_not_conform(text: str, data: Any) -> None:
    """SQL can set a schema that `check_json_schema` would refuse."""
    problem = read_json_schema(text, "the collection").find("the collection", "a", data)
    assert problem is not None
    assert problem.document_id == "a"
    assert "can't be compared" in str(problem)


def test_references_that_repeat_a_part_without_end_cost_little() -> None:
    levels = {
        f"d{level}": {"properties": {name: {"$ref": f"#/$defs/d{level + 1}"} for name in "abcdefgh"}}
        for level in range(12)
    }
    checked = check_json_schema({"$ref": "#/$defs/d0", "$defs": {**levels, "d12": TEXT}})
    assert checked is not None
    assert len(checked.violation or "") < 1_000_000


@pytest.mark.parametrize("rule", [{"maximum": HUGE}, {"minimum": HUGE.copy_negate()}])
def test_a_limit_out_of_the_range_of_python_is_left_to_python(rule: dict[str, Any]) -> None:
    checked = check_json_schema({"properties": {"a": rule}})
    assert checked is not None
    assert checked.violation is None


def test_a_listed_number_out_of_the_range_of_python_may_be_any_number() -> None:
    checked = check_json_schema({"properties": {"a": {"enum": [HUGE, "x"]}}})
    assert checked is not None
    assert "Infinity" not in (checked.violation or "")
