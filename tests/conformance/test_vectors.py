"""Another system's answers, from the folder that `PGDOC_VECTORS` names; without it none of this is collected.

Each file `*.json` there is `{"cases": [...]}`. A case of filters has `documents`, each with `id` and `data`, a
`filter`, and the `ids` that it finds or the `error` that it is; one of updates has the data `before`, an `update`, and
the data `after` it, `null` where it changes nothing, or the `error`. Each is run in PostgreSQL and in Python.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.errors import InvalidFilter, InvalidUpdate
from pgdoc.model.json_codec import decode, encode
from pgdoc.query import compare, parse_filter, parse_update
from tests.conformance.interpreters import changed_in_python, changed_in_sql, found_in_python, found_in_sql

if TYPE_CHECKING:
    import psycopg

FILES = sorted(Path(os.environ["PGDOC_VECTORS"]).glob("*.json"))
ENOUGH = 0.95


def test_there_are_vectors() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_other_system_answers_so(
    connection: psycopg.Connection, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    results = [(case, *answers(connection, case)) for case in cases]
    differing = [(case, found, wanted) for case, found, wanted in results if not same(found, wanted)]
    reasons = Counter(reason_of(found, wanted) for _, found, wanted in differing)
    agreeing = len(cases) - len(differing)
    lines = [f"{agreeing} of {len(cases)} cases agree, {agreeing / len(cases):.1%}"]
    lines += [f"{count} differ: {reason or 'for no known reason'}" for reason, count in reasons.items()]
    with capsys.disabled():
        sys.stdout.write("".join(f"\n{path.name}: {line}" for line in lines) + "\n")
    unknown = [item for item in differing if reason_of(*item[1:]) is None]
    assert not unknown, "\n".join(f"{case}: {found}" for case, found, _ in unknown)
    assert agreeing >= ENOUGH * len(cases)


def answers(connection: psycopg.Connection, case: dict[str, Any]) -> tuple[Any, Any]:
    """Return what pgdoc finds, in both interpreters, and what the other system does; `None` for an error."""
    in_python, in_sql, wanted = (filtered if "filter" in case else updated)(connection, case)
    assert same(in_python, in_sql), f"{case}: {in_python} in Python, {in_sql} in SQL"
    return in_python, wanted


def filtered(connection: psycopg.Connection, case: dict[str, Any]) -> tuple[Any, Any, Any]:
    documents = {item["id"]: item["data"] for item in case["documents"]}
    wanted = None if "error" in case else sorted(case["ids"])
    try:
        node = parse_filter(case["filter"])
    except InvalidFilter:
        return None, None, wanted
    return sorted(found_in_python(node, documents)), sorted(found_in_sql(connection, node, documents)), wanted


def updated(connection: psycopg.Connection, case: dict[str, Any]) -> tuple[Any, Any, Any]:
    before = decode(encode(case["before"]))
    wanted = None if "error" in case else before if case["after"] is None else case["after"]
    try:
        update = parse_update(case["update"])
    except InvalidUpdate:
        return None, None, wanted
    return changed_in_python(update, before), changed_in_sql(connection, update, before), wanted


def same(left: Any, right: Any) -> bool:
    return left is right if left is None or right is None else compare(left, right) == 0


def reason_of(found: Any, wanted: Any) -> str | None:
    """Say why pgdoc answers otherwise, as docs/reference/updates.md explains it; `None` for no known reason."""
    if wanted is None and has_large_integer(found):
        return "integers have any size"
    return "numbers are added and multiplied in decimal" if nearly_same(found, wanted) else None


def has_large_integer(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(has_large_integer, value.values() if isinstance(value, dict) else value))
    return type(value) is int and not -(2**63) <= value < 2**63


def nearly_same(left: Any, right: Any) -> bool:
    """Whether only numbers differ, and those by no more than floats do that were calculated with."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(nearly_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(nearly_same, left, right))
    if {type(left), type(right)} <= {int, float, Decimal}:
        return math.isclose(left, right, rel_tol=1e-12)
    return same(left, right)
