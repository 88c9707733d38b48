from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgdoc.crud.find_query import Search
from pgdoc.errors import InvalidFilter
from pgdoc.query.filters.template import shape_of, with_placeholders
from pgdoc.query.indexes.plan import IndexedPaths, Indexes
from tests import json_values

_paths = json_values.paths | st.sampled_from(["_id", "_id.a", "a.0", "=mark0=", "x918273645000", "%s", "it's"])
_values = (
    st.text(max_size=90) | st.integers() | st.sampled_from(["=mark1=", "918273645001", 918273645001, "$a", "-", 0])
)


@given(st.dictionaries(_paths, _values, min_size=1, max_size=4), st.sampled_from([None, "a"]), st.sets(_paths))
@example({"a": "=mark1=", "b": 918273645000}, None, {"a"})
@example({"_id": "=mark0=", "a": -5}, None, {"a"})
def test_what_comes_of_a_template_is_what_the_filter_is_compiled_to(
    wanted: dict[str, Any], sort: str | None, indexed: set[str]
) -> None:
    indexes = Indexes(tuple(IndexedPaths((tuple(path.split(".")),)) for path in indexed))
    try:
        whole = Search({"$and": [wanted]}, sort=sort, limit=5)
    except InvalidFilter:
        return
    assert whole.shape is None
    for _ in range(2):  # of which the first may make the template
        assert Search(dict(wanted), sort=sort, limit=5).conditions(indexes) == whole.conditions(indexes)


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        {},
        7,
        {"a": True},
        {"a": None},
        {"a": 1.5},
        {"a": ["x"]},
        {"a": {"$gt": 1}},
        {"a": "é"},
        {"a": 'x"'},
        {"a": "\\"},
        {"a": "\n"},
        {"a": "x" * 79},
        {"a": 10**15},
        dict.fromkeys("abcde", 1),
    ],
    ids=str,
)
def test_what_has_no_shape(wanted: Any) -> None:
    assert shape_of(wanted) is None


def test_filters_of_one_shape_are_compiled_once() -> None:
    indexes = Indexes((IndexedPaths((("a",),)),))
    texts = {Search({"a": value, "b": 1}).conditions(indexes).parts[0].text for value in ("x", "y", "z")}
    assert len(texts) == len(indexes.templates) == 1
    Search({"a": 5, "b": 1}).conditions(indexes)
    assert len(indexes.templates) == 2


def test_a_path_that_looks_like_a_mark_has_no_template() -> None:
    assert with_placeholders(("=mark0=", str)) is None
    assert with_placeholders(("a918273645000", int)) is None
    assert with_placeholders(("a", str)) == {"a": "=mark0="}


def test_a_wrong_filter_of_a_shape_is_refused_every_time() -> None:
    for _ in range(2):
        with pytest.raises(InvalidFilter, match="nothing"):
            Search({"$nothing": 1})


def test_a_filter_may_be_changed_after_the_call() -> None:
    wanted = {"a": "x"}
    search = Search(wanted)
    wanted["a"] = "y"
    assert search.conditions(Indexes(())) == Search({"a": "x"}).conditions(Indexes(()))
