"""Python values that JSON does not have sort and match in PostgreSQL as they do in Python."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgdoc.model.json_codec import decode_comparable, decode_decimals, encode, encode_value
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
from tests.indexed import times_found

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS = "(SELECT * FROM unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS row(id, data, place)) AS documents"
EXACT = Decimal("0.10000000000000000001")

laws = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])

zones = st.sampled_from([UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-4, minutes=-30))])
FIRST, LAST = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001 (the strategy adds the zone)
close = st.integers(-3, 3).map(
    lambda microseconds: datetime(2026, 7, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
moments = st.datetimes(FIRST, LAST, timezones=zones) | close
numbers = (
    st.decimals(allow_nan=False, allow_infinity=False, places=25, min_value=-(10**20), max_value=10**20)
    | st.integers(-2, 2).map(lambda last: Decimal("0.1") + last * Decimal("1e-20"))
    | st.sampled_from([Decimal("9.90"), Decimal("9.9"), Decimal("1E+400"), Decimal("-1E-400"), Decimal("1E+23")])
)
durations = st.timedeltas() | st.integers(-3, 3).map(lambda microseconds: timedelta(microseconds=microseconds))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "datetime": moments,
    "date": st.dates(),
    "time": st.times(),
    "timedelta": durations,
    "UUID": st.uuids(),
    "Decimal": numbers,
}
several: st.SearchStrategy[list[Any]] = st.one_of(
    [st.lists(strategy, min_size=2, max_size=5) for strategy in KINDS.values()]
)


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def rows_of(values: list[Any]) -> list[list[str]]:
    return [[str(number) for number in range(len(values))], [encode({"a": value}).decode() for value in values]]


@laws
@given(several)
@example([datetime(1, 1, 2, tzinfo=UTC), datetime(999, 1, 1, tzinfo=UTC), datetime(1000, 1, 1, tzinfo=UTC)])
@example([Decimal("0.1"), EXACT, Decimal("0.10000000000000000002")])
def test_values_sort_in_sql_as_in_python(connection: psycopg.Connection, values: list[Any]) -> None:
    order = compile_sort(parse_sort(["a", "_id"]))
    query = f"SELECT id FROM {DOCUMENTS} ORDER BY {order.text}"
    found = [int(name) for (name,) in connection.execute(query, [*order.params, *rows_of(values)]).fetchall()]
    assert found == sorted(range(len(values)), key=lambda number: values[number])
    decoded = [decode_comparable(encode_value(value, "")) for value in values]
    assert found == sorted(range(len(values)), key=lambda number: cmp_to_key(compare)(decoded[number]))


@laws
@given(several, st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"]), st.booleans())
@example([0.1, EXACT, 0.1], "$gt", False)
@example([Decimal("9.90"), 9.9, 9.9], "$in", False)
@example([1e23, Decimal(99999999999999991611392), Decimal("1E+23")], "$eq", True)
def test_a_filter_on_values_agrees_in_sql_in_python_and_with_python_itself(
    connection: psycopg.Connection, values: list[Any], operator: str, in_array: bool
) -> None:
    *stored, operand = values
    node = parse_filter({"a": {operator: [operand] if operator.endswith("in") else operand}})
    compiled = times_found(node)
    documents = [[value] for value in stored] if in_array else stored
    query = f"SELECT {compiled.text} FROM {DOCUMENTS} ORDER BY place"
    rows = connection.execute(query, [*compiled.params, *rows_of(documents)]).fetchall()
    in_sql = [set(times) == {1} for (times,) in rows]
    data = [encode({"a": value}) for value in documents]
    assert in_sql == [matches(node, "x", decode_comparable(text)) for text in data]
    assert in_sql == [matches(node, "x", decode_decimals(text)) for text in data]
    if not any(isinstance(value, float) for value in values):
        assert in_sql == [PYTHON[operator](value, operand) for value in stored]


PYTHON = {
    "$eq": lambda value, operand: value == operand,
    "$ne": lambda value, operand: value != operand,
    "$gt": lambda value, operand: value > operand,
    "$gte": lambda value, operand: value >= operand,
    "$lt": lambda value, operand: value < operand,
    "$lte": lambda value, operand: value <= operand,
    "$in": lambda value, operand: value == operand,
    "$nin": lambda value, operand: value != operand,
}


@laws
@given(st.sampled_from(["$set", "$inc", "$mul", "$min", "$max", "$push"]), numbers, numbers)
def test_an_update_keeps_the_digits_in_sql_and_in_python(
    connection: psycopg.Connection, operator: str, old: Decimal, new: Decimal
) -> None:
    data = {"a": [old]} if operator == "$push" else {"a": old}
    update = parse_update({operator: {"a": new}})
    compiled = compile_update(update)
    text = encode(data)
    row = connection.execute(
        f"SELECT ({compiled.text})::text FROM (SELECT %s::jsonb AS data) AS documents",
        [*compiled.params, text.decode()],
    ).fetchone()
    assert row is not None
    assert digits(decode_decimals(row[0])["a"]) == digits(
        apply_update(update, decode_decimals(text), decimals=True)["a"]
    )


def digits(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(digits, value))
    return f"{value or abs(value):f}" if isinstance(value, Decimal) else str(value)  # PostgreSQL has no -0


@laws
@given(st.tuples(moments, st.dates(), st.times(), st.uuids(), numbers))
def test_values_come_back_from_the_server(connection: psycopg.Connection, values: tuple[Any, ...]) -> None:
    moment, day, hour, number, price = values
    text = encode({"moment": moment, "day": day, "hour": hour, "number": number, "price": price})
    row = connection.execute("SELECT %s::jsonb::text", [text.decode()]).fetchone()
    assert row is not None
    found = decode_decimals(row[0])
    assert datetime.fromisoformat(found["moment"]) == moment
    assert date.fromisoformat(found["day"]) == day
    assert time.fromisoformat(found["hour"]) == hour
    assert found["number"] == str(number)
    assert digits(found["price"]) == digits(price)
