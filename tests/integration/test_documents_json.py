"""Data read from a `jsonb` column equals the data that was stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings

from pgdoc.errors import UnreadableDocument
from pgdoc.model.json_codec import MAX_DEPTH, MAX_DIGITS, decode, encode
from tests import json_values

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connection(bare_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(bare_dsn, autocommit=True) as connection:
        yield connection


def stored(connection: psycopg.Connection, text: str) -> str:
    row = connection.execute("SELECT %s::jsonb::text", [text]).fetchone()
    assert row is not None
    return str(row[0])


def nested(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(levels - 1):
        data = {"a": data}
    return data


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values.any_documents)
@example({"large": [1e16, 1e22, 1e23, 2.0**63, -1e300, 1.7976931348623157e308], "small": [5e-324, 1e-7, -0.0]})
@example({"digits": [10 ** (MAX_DIGITS - 1), 2**63, -(2**63) - 1, 2**64, 10**18]})
@example({"text": "\\u0000 1e23, 00000000000000000000", "keys": {"": 1, ".": 2, "$x": 3, "1": 4}})
@example(nested(MAX_DEPTH))
def test_data_comes_back_equal(connection: psycopg.Connection, data: dict[str, Any]) -> None:
    assert decode(stored(connection, encode(data).decode())) == data


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("1500.50", "1500.5"),
        ("0.1234567890123456789012345", "0.12345678901234568"),
        ("1e25", "10000000000000000000000000"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("0." + "0" * 400 + "1", "Decimal('1E-401')"),
        (f"{10**400}.5", f"Decimal('{10**400}.5')"),
    ],
)
def test_numbers_written_by_sql_are_read_as_exactly_as_python_can(
    connection: psycopg.Connection, written: str, shown: str
) -> None:
    assert repr(decode(stored(connection, f"[{written}]"))) == f"[{shown}]"


@pytest.mark.parametrize("text", ["1e4300", "[" * 2000 + "]" * 2000])
def test_a_value_that_python_cannot_hold_is_unreadable(connection: psycopg.Connection, text: str) -> None:
    with pytest.raises(UnreadableDocument, match="change it with SQL"):
        decode(stored(connection, text))
