"""Live counts, sums and averages, against a model that computes them of all documents."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgdoc.errors import UnreadableDocument
from pgdoc.live.aggregates import (
    Aggregate,
    AggregateKind,
    Groups,
    LiveAggregateChange,
    Totals,
    changes_between,
    with_changes,
)
from pgdoc.live.images import RowImage
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import encode
from pgdoc.query import parse_filter

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE = parse_filter({"on": True})
TIME = "2026-11-30 10:00:00+00"
COUNT, SUM, AVERAGE = AggregateKind.COUNT, AggregateKind.SUM, AggregateKind.AVERAGE
EVENT: Any = object()
DEEP = '{"on": true, "a": ' + "[" * 100_000 + "]" * 100_000 + "}"


def image(document_id: str, data: dict[str, Any] | str) -> RowImage:
    text = data if isinstance(data, str) else encode(data)
    return RowImage(Document.from_text(document_id, text, 1, TIME, TIME))


def computed(kind: AggregateKind, documents: list[dict[str, Any]]) -> Any:
    numbers = [each["a"] for each in documents if isinstance(each.get("a"), Decimal)]
    if kind is COUNT:
        return len(documents)
    total = sum(map(Fraction, numbers))
    if kind is SUM:
        return total
    return round(total / len(numbers), 20) if numbers else None


def comparable(kind: AggregateKind, value: Any) -> Any:
    if kind is COUNT or value is None:
        return value
    return Fraction(value) if kind is SUM else round(Fraction(value), 20)


def expected(kind: AggregateKind, by: str | None, collection: Mapping[str, dict[str, Any]]) -> dict[Any, Any]:
    matching = [each for each in collection.values() if each["on"]]
    if by is None:
        return {None: computed(kind, matching)}
    groups: dict[Any, list[dict[str, Any]]] = {}
    for each in matching:
        groups.setdefault(each.get("by"), []).append(each)
    return {group: computed(kind, documents) for group, documents in groups.items()}


def follow(shown: dict[Any, Any], change: LiveAggregateChange[Any]) -> None:
    assert (change.kind == "added") == (change.group not in shown)
    assert change.old_value == shown.pop(change.group, None)
    if change.kind != "removed":
        shown[change.group] = change.value


data = st.fixed_dictionaries(
    {"on": st.booleans()},
    optional={
        "a": st.decimals(-(10**6), 10**6, places=3) | st.sampled_from(["1", None, True]),
        "by": st.sampled_from([None, "x", 2]),
    },
)
steps = st.lists(
    st.tuples(st.sampled_from("abcde"), data | st.none()) | st.sampled_from([("commit", None), ("truncate", None)]),
    min_size=5,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(AggregateKind), st.sampled_from([None, "by"]), steps)
def test_after_each_commit_the_values_are_those_of_all_documents(
    kind: AggregateKind, by: str | None, drawn: list[tuple[str, Any]]
) -> None:
    aggregate = Aggregate(NODE, kind, ("a",), None if by is None else (by,))
    collection: dict[str, dict[str, Any]] = {}
    shown: dict[Any, Any] = dict(aggregate.values.values())
    aggregate.load([], is_all=True)
    for name, value in [*drawn, ("commit", None)]:
        if name == "truncate":
            collection.clear()
            aggregate.clear(EVENT)
        elif name == "commit":
            former, changes = aggregate.values, aggregate.commit()
            for change in changes:
                follow(shown, change)
            assert with_changes(former, changes, has_groups=by is not None) == aggregate.values
            assert changes_between(former, aggregate.values) == [replace(each, event=None) for each in changes]
            assert {group: comparable(kind, each) for group, each in shown.items()} == expected(kind, by, collection)
        else:
            before = collection.pop(name, None)
            if value is not None:
                collection[name] = value
            old, new = (None if each is None else image(name, each) for each in (before, value))
            aggregate.apply(old, new, EVENT)


def test_a_document_that_python_can_not_read_makes_the_values_be_read_again():
    aggregate = Aggregate(NODE, SUM, ("a",))
    aggregate.load([Totals("null", 2, 1, Decimal(5))], is_all=True)
    assert [change.value for change in aggregate.commit()] == [5]
    assert aggregate.apply(image("x", DEEP), None, EVENT)
    assert (aggregate.needs_read, aggregate.commit()) == (True, [])
    aggregate.apply(None, image("y", {"on": True, "a": 1}), EVENT)
    aggregate.load([Totals("null", 2, 2, Decimal(6))], is_all=True)
    (change,) = aggregate.commit()
    assert (change.old_value, change.value, change.event) == (5, 6, None)


def test_a_sum_has_all_digits_of_its_numbers():
    aggregate = Aggregate(NODE, SUM, ("a",))
    aggregate.load([], is_all=True)
    for number, value in enumerate([10**60, Decimal("1e-30"), 0.1, -(10**60)]):
        aggregate.apply(None, image(str(number), {"on": True, "a": value}), EVENT)
    assert aggregate.commit()[0].value == Decimal("0.100000000000000000000000000001")


def test_groups_are_found_by_any_value_that_is_stored_as_them_and_sorted():
    aggregate = Aggregate(NODE, COUNT, by=("by",))
    values: list[Any] = [True, "x", 1, 1.0, [1], {"k": 1}, None]
    aggregate.load(aggregate.totals_of(image("a", {"on": True, "by": each}) for each in values), is_all=True)
    aggregate.commit()
    groups: Groups[int] = Groups(aggregate.values)
    assert list(groups) == [None, 1, "x", {"k": 1}, [1], True]
    assert (groups[True], groups[Decimal("1.00")], groups[(1,)], groups[{"k": 1.0}]) == (1, 2, 1, 1)
    assert repr(groups).startswith("Groups({None: 1, 1: 2, 'x': 1, ")
    with pytest.raises(KeyError):
        groups["y"]
    with pytest.raises(KeyError):
        groups[object()]
    assert 2 not in groups


def test_groups_equal_a_mapping_with_the_same_values():
    groups: Groups[int] = Groups({"3x": ("x", 1), "1": (None, 2)})
    assert groups == {"x": 1, None: 2}
    assert groups != {"x": 1}
    assert groups != {"x": 1, None: 3}


def test_groups_that_are_nested_deeply_are_told_apart():
    aggregate = Aggregate(NODE, COUNT, by=("by",))
    texts = [f'{{"on": true, "by": {"[" * 300}{each}{"]" * 300}}}' for each in ("1", "2", "2.0")]
    aggregate.load([], is_all=True)
    for each in map(image, "abc", texts):
        aggregate.apply(None, each, EVENT)
    assert [change.value for change in aggregate.commit()] == [1, 2]


def test_a_group_that_is_nested_too_deeply_is_an_error_that_says_so():
    aggregate = Aggregate(NODE, COUNT, by=("by",))
    with pytest.raises(UnreadableDocument, match="nested too deeply"):
        aggregate.load([Totals("[" * 700 + "]" * 700, 1, 0, None)], is_all=True)
