"""The keys of values sort as the values do. `tests/integration/test_live_order_laws.py` asks the server."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given

from pgdoc.live.sort_keys import LONGEST, key_of_value, rest_of_value
from pgdoc.model.json_codec import decode_comparable, encode_value
from pgdoc.query import compare
from tests import json_values


def whole_key(value: Any) -> str:
    return rest_of_value(value) or key_of_value(value)


@given(json_values.any_json | json_values.small_json, json_values.any_json | json_values.small_json)
def test_the_keys_of_two_values_compare_as_the_values(one: Any, other: Any) -> None:
    one, other = (decode_comparable(encode_value(each, "")) for each in (one, other))
    keys = whole_key(one), whole_key(other)
    assert (keys[0] > keys[1]) - (keys[0] < keys[1]) == (compare(one, other) > 0) - (compare(one, other) < 0)
    assert len(key_of_value(one)) <= LONGEST


def test_a_number_that_postgresql_does_not_have_sorts_at_the_end_of_its_range():
    numbers = [
        Decimal("-1e999999999"),
        -1,
        Decimal("-1e-999999999"),
        0,
        Decimal("1e-999999999"),
        1,
        Decimal("1e999999999"),
    ]
    assert sorted(numbers, key=key_of_value) == numbers


def test_a_value_that_is_nested_too_deep_has_no_rest():
    deep: Any = "x" * 100
    for _ in range(300):
        deep = [deep]
    assert (key_of_value(deep), rest_of_value(deep)) == ("5" * LONGEST, "")
