"""Another system's answers to updates, from `update.json`; each runs in Python and in the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc.documents import decode, encode
from pgdoc.errors import InvalidUpdate
from pgdoc.query import apply_update, compare, compile_update, parse_update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("update.json").read_text(encoding="utf-8"))["cases"]

# What pgdoc answers otherwise, by the number of the case; docs/reference/updates.md says why.
OTHERWISE: dict[int, dict[str, Any]] = {
    3: {"a": 2**63},  # an integer of 64 bits does not overflow
    124: {"a": [3.0, 6.6, 9.6, 12.9]},  # decimals are multiplied as decimals
}


@pytest.fixture(scope="module")
def connection(server: Any, shared_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.conninfo_for(shared_database), autocommit=True) as connection:
        yield connection


def in_python(_connection: psycopg.Connection, before: dict[str, Any], update: dict[str, Any]) -> Any:
    try:
        return apply_update(parse_update(update), before)
    except InvalidUpdate:
        return None


def in_sql(connection: psycopg.Connection, before: dict[str, Any], update: dict[str, Any]) -> Any:
    try:
        change = compile_update(parse_update(update))
    except InvalidUpdate:
        return None
    query = f"SELECT ({change.text})::text FROM (SELECT %s::jsonb AS data) AS documents"
    row = connection.execute(query, [*change.params, encode(before).decode()]).fetchone()
    assert row is not None
    return None if row[0] is None else decode(row[0])


def expected(number: int) -> Any:
    """Return the data after the update; `None` for an error."""
    case = CASES[number]
    if number in OTHERWISE:
        return OTHERWISE[number]
    if "error" in case:
        return None
    return case["before"] if case["after"] is None else case["after"]


@pytest.mark.parametrize("number", range(len(CASES)))
@pytest.mark.parametrize("answer", [in_python, in_sql])
def test_updates_mean_what_they_mean_there(
    connection: psycopg.Connection, number: int, answer: Callable[..., Any]
) -> None:
    case, wanted = CASES[number], expected(number)
    found = answer(connection, case["before"], case["update"])
    assert (found is None) == (wanted is None), found
    assert wanted is None or compare(found, wanted) == 0


def test_what_differs_is_one_in_twenty_at_most() -> None:
    assert len(OTHERWISE) <= len(CASES) / 20
    assert all("error" in CASES[number] or CASES[number]["after"] != after for number, after in OTHERWISE.items())
