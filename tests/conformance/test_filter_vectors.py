"""Another system's answers to filters: DocumentDB's, an implementation of MongoDB's language on PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgdoc.documents import decode, encode
from pgdoc.errors import InvalidFilter
from pgdoc.query import compile_filter, matches, parse_filter

VECTORS = json.loads((Path(__file__).parent / "filter.json").read_text())
CASES: list[dict[str, Any]] = VECTORS["cases"]

# The numbers of those cases where pgdoc's answer is another, each with the reason in docs/reference/filters.md.
DIFFERENT: dict[int, str] = {}


def numbered(kind: str) -> list[Any]:
    return [
        pytest.param(number, case, id=f"{number}-{json.dumps(case['filter'])}")
        for number, case in enumerate(CASES)
        if kind in case
    ]


def test_nearly_all_agree() -> None:
    assert len(CASES) == 116
    assert len(DIFFERENT) <= len(CASES) * 0.05


@pytest.mark.parametrize(("number", "case"), numbered("ids"))
def test_python_finds_the_same(number: int, case: dict[str, Any]) -> None:
    node = parse_filter(case["filter"])
    found = [item["id"] for item in case["documents"] if matches(node, item["id"], decode(encode(item["data"])))]
    assert (sorted(found) == sorted(case["ids"])) == (number not in DIFFERENT)


def test_sql_finds_the_same(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        different = {
            number
            for number, case in enumerate(CASES)
            if "ids" in case and found_in_sql(connection, case) != case["ids"]
        }
    assert different == set(DIFFERENT)


def found_in_sql(connection: psycopg.Connection, case: dict[str, Any]) -> list[str]:
    compiled = compile_filter(parse_filter(case["filter"]))
    texts = [[item["id"] for item in case["documents"]], [encode(item["data"]).decode() for item in case["documents"]]]
    query = f"SELECT id FROM unnest(%s::text[], %s::jsonb[]) AS documents(id, data) WHERE {compiled.text}"
    return sorted(row[0] for row in connection.execute(query, [*texts, *compiled.params]))


@pytest.mark.parametrize(("number", "case"), numbered("error"))
def test_the_same_are_no_filters(number: int, case: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilter):
        parse_filter(case["filter"])
