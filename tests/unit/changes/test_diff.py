from __future__ import annotations

import copy
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgdoc.changes.diff import UpdateDescription, _diff_any, _diff_plain, diff

# Keys that join to one text in several ways, digits that look like indexes, and what people write.
keys = st.sampled_from(["", ".", "..", "0", "1", "01", "a", "b", "a.b", "a.", ".a", "a.0", "b.a.b", "🙂", "é", "x y"])
numbers = st.sampled_from([0, 1, -1, 0.0, 1.0, 1.5, 2**53, 2**53 + 1, float(2**53), 10**40, Decimal("1e400")])
numbers |= st.sampled_from([Decimal("1.0"), Decimal("1.50"), Decimal("1.5"), Decimal("0.000")])  # `decimals=True`
scalars = st.none() | st.booleans() | numbers | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(keys, values, max_size=5)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two images; the second is often the first with a few changes deep inside."""
    before = draw(objects)
    if draw(st.booleans()):
        return before, draw(objects)
    after = copy.deepcopy(before)
    for _ in range(draw(st.integers(0, 4))):
        _disturb(draw, after)
    return before, after


def _disturb(draw: st.DrawFn, container: Any) -> None:
    inner: list[Any] = [
        child for child in (container.values() if isinstance(container, dict) else container) if _is_container(child)
    ]
    if draw(st.booleans()) and inner:
        deeper: Any = draw(st.sampled_from(inner))
        return _disturb(draw, deeper)
    if isinstance(container, dict):
        key = draw(keys)
        if key in container and draw(st.booleans()):
            del container[key]
        else:
            container[key] = draw(values)
    else:
        at = draw(st.integers(0, len(container)))
        container[at : at + draw(st.integers(0, 2))] = draw(st.lists(values, max_size=2))
    return None


def _is_container(value: Any) -> bool:
    return isinstance(value, (dict, list))


def same(one: Any, other: Any) -> bool:
    """The equality of jsonb, implemented the slow and obvious way."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def containers(value: Any) -> set[int]:
    """Return the identities of all lists and dicts inside a value."""
    if not _is_container(value):
        return set()
    children = value.values() if isinstance(value, dict) else value
    return {id(value)}.union(*map(containers, children))


@settings(max_examples=300, deadline=None)
@given(pairs())
@example(({"a.b": 1, "a": {"b": 2}}, {"a.b": 2, "a": {"b": 3}}))
@example(({"a.b": 1, "a": {"b": 2}}, {"a": {}}))
@example(({"a.b.a.b": 1, "a": {"b.a": {"b": 1}}, "a.b": {"a": {"b": 1}}}, {"a": {"b.a": {}}, "a.b": {"a": {}}}))
def test_the_diff_applied_to_the_before_image_gives_the_after_image(pair):
    before, after = pair
    assert same(diff(before, after).apply(before), after)


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_a_description_is_empty_exactly_if_the_images_are_equal(pair):
    before, after = pair
    assert (diff(before, after) == UpdateDescription({}, [], [], {})) is same(before, after)


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_every_path_is_described_once_and_is_never_ambiguous(pair):
    description = diff(*pair)
    truncated = [text for text, _ in description.truncated_arrays]
    described = [*description.updated_fields, *description.removed_fields, *truncated]
    assert len(described) == len(set(described))
    assert description.disambiguated_paths.keys() <= set(described)
    for text, parts in description.disambiguated_paths.items():
        assert ".".join(map(str, parts)) == text


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_images_and_results_share_no_mutable_value(pair):
    before, after = pair
    kept = copy.deepcopy((before, after))
    description = diff(before, after)
    result = description.apply(before)
    images = containers(before) | containers(after)
    described = set().union(*map(containers, description.updated_fields.values()))
    assert (before, after) == kept
    assert not containers(result) & (images | described)
    assert not described & images


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_a_description_does_not_depend_on_the_order_of_its_keys(pair):
    before, after = pair
    described = diff(before, after)
    backwards = dict(reversed(described.updated_fields.items()))
    again = UpdateDescription(
        backwards, described.removed_fields[::-1], described.truncated_arrays[::-1], described.disambiguated_paths
    )
    assert same(again.apply(before), after)


@pytest.mark.parametrize(
    ("before", "after", "described"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "c": 3}, UpdateDescription({"c": 3}, ["b"], [], {})),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, UpdateDescription({"a.b.c": 2}, [], [], {})),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, UpdateDescription({"a.1": 3, "a.2": 4}, [], [], {})),
        ({"a": [1, 2, 3]}, {"a": [0]}, UpdateDescription({"a.0": 0}, [], [("a", 1)], {})),
        ({"a": [{"b": [1]}]}, {"a": [{"b": []}]}, UpdateDescription({}, [], [("a.0.b", 0)], {})),
        ({"a": [1]}, {"a": {"0": 1}}, UpdateDescription({"a": {"0": 1}}, [], [], {})),
        ({"a": {"0": 1}}, {"a": {"0": 2}}, UpdateDescription({"a.0": 2}, [], [], {"a.0": ["a", "0"]})),
        ({"a.b": [1]}, {"a.b": [2]}, UpdateDescription({"a.b.0": 2}, [], [], {"a.b.0": ["a.b", 0]})),
        ({"": {"x": 1}}, {"": {}}, UpdateDescription({}, [".x"], [], {".x": ["", "x"]})),
        ({"a": 1, "b": [1]}, {"a": 1.0, "b": [1.0]}, UpdateDescription({}, [], [], {})),
        ({"a": 1, "b": [1], "c": False}, {"a": True, "b": [True], "c": 0}, {"a": True, "c": 0, "b.0": True}),
        ({"a": None}, {}, UpdateDescription({}, ["a"], [], {})),
        ({}, {"a": None}, UpdateDescription({"a": None}, [], [], {})),
    ],
)
def test_examples(before, after, described):
    description = diff(before, after)
    found: Any = description if isinstance(described, UpdateDescription) else description.updated_fields
    assert repr(found) == repr(described)


def test_two_changed_paths_of_one_text_are_described_by_the_field_above():
    before = {"a.b": 1, "a": {"b": 2, "c": 0}}
    after = {"a.b": 3, "a": {"b": 4, "c": 0}}
    assert diff(before, after).updated_fields == {"a.b": 3, "a": {"b": 4, "c": 0}}
    assert diff(before, {**before, "a.b": 3}).updated_fields == {"a.b": 3}


def test_a_path_can_be_split_into_its_parts():
    described = diff({"a": [1, {"0": 1, "b.c": 1}]}, {"a": [2, {"0": 2, "b.c": 2}]})
    assert [described.parts(path) for path in described.updated_fields] == [["a", 0], ["a", 1, "0"], ["a", 1, "b.c"]]


@pytest.mark.parametrize("leaf", [(1, 2), (1, True), (1, 1.0), (Decimal("1e400"), Decimal("2e400"))])
def test_depth_has_no_limit(leaf):
    before, after = map(_nested, leaf)
    described = diff(before, after)
    deepest = described.apply(before)
    for level in range(_DEPTH):
        deepest = deepest["k"] if level % 2 else deepest["k"][0]
    assert same(deepest, leaf[1])
    assert bool(described.updated_fields) is not same(*leaf)


_DEPTH = sys.getrecursionlimit() * 3


def _nested(leaf: Any) -> Any:
    value = leaf
    for level in reversed(range(_DEPTH)):
        value = {"k": value} if level % 2 else {"k": [value]}
    return value


@settings(max_examples=300, deadline=None)
@given(pairs())
def test_one_pass_over_plain_paths_describes_the_same(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    plain = _diff_plain(*pair)

    assert plain is None or plain == _diff_any(*pair)


@pytest.mark.parametrize("key", ["", "a.b", "0", "."])
def test_an_ambiguous_path_is_left_to_the_exact_walk(key: str) -> None:
    assert _diff_plain({}, {key: 1}) is None
    assert _diff_plain({key: 1}, {}) is None
    assert _diff_plain({"a": {key: 1, "b": 1}}, {"a": {key: 1, "b": 2}}) is not None
