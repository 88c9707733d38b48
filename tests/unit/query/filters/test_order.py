"""The position that a page starts after."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from pgdoc.errors import InvalidInput
from pgdoc.model.documents import Document
from pgdoc.query import parse_sort
from pgdoc.query.filters.order import compile_after, parse_after
from pgdoc.query.filters.projection_parse import parse_fields

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = Document.from_text("o-1", '{"total": 5, "to": {"city": "Bern"}, "lines": [1, 2]}', 1, MOMENT, MOMENT)


@pytest.mark.parametrize(
    ("sort", "values"),
    [
        ("total", [5, "o-1"]),
        (["-to.city", "total"], ["Bern", 5, "o-1"]),
        ("none.at.all", [None, "o-1"]),
        ("lines.city", [None, "o-1"]),
        ("lines.1", [2, "o-1"]),
        ("lines.2", [None, "o-1"]),
        ("lines", [[1, 2], "o-1"]),
        ("_id", ["o-1"]),
        (["total", "-_id"], [5, "o-1"]),
    ],
)
def test_a_document_stands_for_its_values_and_its_id(sort: Any, values: list[Any]) -> None:
    keys = parse_sort(sort)
    found = parse_after(ORDER, keys, None)
    assert [operand.value for operand in found] == values
    assert found == parse_after(values, keys, None) == parse_after(tuple(values), keys, None)


@pytest.mark.parametrize(
    ("after", "finding"),
    [
        ("o-1", "must be a document, or a list of its values at 'total', '_id'"),
        (b"o-1", "must be a document"),
        (7, "must be a document"),
        ([], "must be a document"),
        ([5], "must be a document"),
        ([5, "o-1", 5], "must be a document"),
        ({"total": 5}, "must be a document"),
        ([5, ""], "invalid id"),
        ([5, None], "invalid id"),
        ([5, 7], "invalid id"),
        ([5, "a\0"], "invalid id"),
        ([5, "\ud800"], "invalid id"),
        ([5, "x" * 1_025], "invalid id"),
        ([math.nan, "o-1"], "no document can contain"),
        ([b"a", "o-1"], "no document can contain"),
        (["\0", "o-1"], "no document can contain"),
        ([object(), "o-1"], "no document can contain"),
    ],
)
def test_an_invalid_position_is_refused(after: Any, finding: str) -> None:
    with pytest.raises(InvalidInput, match=finding) as caught:
        parse_after(after, parse_sort("total"), None)
    assert len(str(caught.value)) < 1_000


def test_a_position_needs_a_sort() -> None:
    with pytest.raises(InvalidInput, match="sort='_id'"):
        parse_after(ORDER, (), None)


@pytest.mark.parametrize("fields", ["total", "-to", "-to.city", ["to.name"], []])
def test_a_document_without_a_path_of_the_sort_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidInput, match=r"leave out or change 'to\.city'"):
        parse_after(ORDER, parse_sort("to.city"), parse_fields(fields))


@pytest.mark.parametrize("fields", ["to", "to.city", "-total", None])
def test_a_document_with_all_paths_of_the_sort_is_accepted(fields: Any) -> None:
    assert parse_after(ORDER, parse_sort("to.city"), parse_fields(fields))


def test_the_values_of_a_position_are_parameters() -> None:
    keys = parse_sort(["total", "-to.city"])
    compiled = compile_after(keys, parse_after(["'; DROP TABLE x; --", "%s", "{guard}"], keys, None))
    assert "DROP" not in compiled.text
    assert compiled.text.count("%s") == len(compiled.params)
