"""The position that a page starts after."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import InvalidInput
from pgdoc.model.documents import Document
from pgdoc.query import parse_sort
from pgdoc.query.filters.order import compile_after, parse_after
from pgdoc.query.filters.projection import project
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
    found = parse_after(ORDER, keys)
    assert [operand.value for operand in found] == values
    assert found == parse_after(values, keys) == parse_after(tuple(values), keys)


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
        parse_after(after, parse_sort("total"))
    assert len(str(caught.value)) < 1_000


def test_a_position_needs_a_sort() -> None:
    with pytest.raises(InvalidInput, match="sort='_id'"):
        parse_after(ORDER, ())


def read_with(fields: Any, data: dict[str, Any] | None = None) -> Document:
    """Return a document as a call with these fields returns it."""
    projection = parse_fields(fields)
    text = json.dumps(project(projection, ORDER.data if data is None else data))
    return Document.from_text("o-1", text, 1, MOMENT, MOMENT, projection=projection)


@pytest.mark.parametrize(
    ("sort", "fields"),
    [
        *(("to.city", fields) for fields in ("total", "-to", "-to.city", ["to.name"], [])),
        *(("to", fields) for fields in ("to.city", "-to.city")),
        *(("lines.1", fields) for fields in ("lines.1", "lines.city", "-lines.city", "-lines.1")),
        (["total", "to.city"], "total"),
    ],
)
def test_a_document_without_the_whole_value_at_a_path_of_the_sort_is_refused(sort: Any, fields: Any) -> None:
    path = sort if isinstance(sort, str) else sort[-1]
    with pytest.raises(InvalidInput, match=f"document 'o-1'.* leave +out or change '{re.escape(path)}'") as caught:
        parse_after(read_with(fields), parse_sort(sort))
    assert caught.value.path == path


@pytest.mark.parametrize("fields", ["to", "to.city", "-total", None])
def test_a_document_with_all_paths_of_the_sort_is_accepted(fields: Any) -> None:
    assert parse_after(read_with(fields), parse_sort("to.city")) == parse_after(["Bern", "o-1"], parse_sort("to.city"))


PARTS = st.sampled_from(["a", "b", "0", "1"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(".".join)
VALUES = st.recursive(
    st.none() | st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner, max_size=3),
    max_leaves=8,
)


@given(
    data=st.dictionaries(PARTS, VALUES, max_size=3), path=PATHS, fields=st.lists(PATHS, max_size=3), sign=st.booleans()
)
def test_a_document_read_with_fields_is_refused_or_stands_for_the_whole_one(
    data: dict[str, Any], path: str, fields: list[str], *, sign: bool
) -> None:
    keys = parse_sort(path)
    try:
        part = read_with([f"-{each}" if sign else each for each in fields], data)
        found = parse_after(part, keys)
    except InvalidInput:
        return
    assert found == parse_after(read_with(None, data), keys)


def test_a_copy_of_a_document_keeps_the_fields_that_it_was_read_with() -> None:
    for found in copy.copy(read_with("total")), pickle.loads(pickle.dumps(read_with("total"))):  # noqa: S301
        with pytest.raises(InvalidInput, match="leave out"):
            parse_after(found, parse_sort("to.city"))


def test_the_values_of_a_position_are_parameters() -> None:
    keys = parse_sort(["total", "-to.city"])
    compiled = compile_after(keys, parse_after(["'; DROP TABLE x; --", "%s", "{guard}"], keys))
    assert "DROP" not in compiled.text
    assert compiled.text.count("%s") == len(compiled.params)
