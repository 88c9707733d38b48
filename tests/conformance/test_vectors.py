"""Compare with recorded results of another system, in the folder `PGDOC_VECTORS`; collected only if it is set.

Each file `*.json` in it is `{"cases": [...]}`. A filter case has `documents`, each with `id` and `data`, a `filter`,
and either the `ids` that it finds or an `error`. An update case has the data `before`, an `update`, and either the data
`after`, which is `null` if nothing changes, or an `error`. Each case runs in PostgreSQL and in Python.
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


def test_the_vectors_folder_has_cases() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pgdoc_agrees_with_the_other_system(
    connection: psycopg.Connection, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    results = [(case, *answers(connection, case)) for case in cases]
    differing = [(case, found, wanted) for case, found, wanted in results if not same(found, wanted)]
    reasons = Counter(known_reason(case, found, wanted) for case, found, wanted in differing)
    agreeing = len(cases) - len(differing)
    lines = [f"{agreeing} of {len(cases)} cases agree, {agreeing / len(cases):.1%}"]
    lines += [f"{count} differ: {reason or 'no known reason'}" for reason, count in reasons.items()]
    with capsys.disabled():
        sys.stdout.write("".join(f"\n{path.name}: {line}" for line in lines) + "\n")
    unknown = [item for item in differing if known_reason(*item) is None]
    assert not unknown, "\n".join(f"{case}: {found}" for case, found, _ in unknown)
    assert agreeing >= ENOUGH * len(cases)


def answers(connection: psycopg.Connection, case: dict[str, Any]) -> tuple[Any, Any]:
    """Return the result of pgdoc, the same in both interpreters, and of the other system; `None` for an error."""
    in_python, in_sql, wanted = (filtered if "filter" in case else updated)(connection, case)
    assert same(in_python, in_sql), f"{case}: Python returns {in_python}, SQL {in_sql}"
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


NEWER_NULL = ({"a.b": {"$lte": None}},)
"""Filters whose recorded ids follow MongoDB before 9.0: null did not match arrays on the way without objects."""


def known_reason(case: dict[str, Any], found: Any, wanted: Any) -> str | None:
    """Return why pgdoc differs, as in docs/reference, or `None` if the reason is unknown."""
    if "filter" in case:
        more = found is not None and wanted is not None and set(found) > set(wanted)
        return "null in arrays has the meaning of MongoDB 9.0" if more and case["filter"] in NEWER_NULL else None
    if wanted is None and has_large_integer(found):
        return "integers have any size"
    return "numbers are added and multiplied in decimal" if nearly_same(found, wanted) else None


def has_large_integer(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(has_large_integer, value.values() if isinstance(value, dict) else value))
    return type(value) is int and not -(2**63) <= value < 2**63


def nearly_same(left: Any, right: Any) -> bool:
    """Return whether only numbers differ, by no more than a floating-point rounding error."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(nearly_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(nearly_same, left, right))
    if {type(left), type(right)} <= {int, float, Decimal}:
        return math.isclose(left, right, rel_tol=1e-12)
    return same(left, right)
