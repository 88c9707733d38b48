"""Projections: which fields of a document the server or Python returns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgdoc.query.filters.match import matcher, matches
from pgdoc.query.filters.nodes import MISSING, is_array_index
from pgdoc.query.filters.projection_expressions import evaluate, expression_text
from pgdoc.query.filters.sql import compile_filter
from pgdoc.query.filters.sql_text import Compiled

if TYPE_CHECKING:
    from pgdoc.query.filters.nodes import Node, Path
    from pgdoc.query.filters.projection_expressions import Expression

__all__ = ["ItemTest", "Narrowing", "Projection", "Slice", "Tree", "compile_fields", "project"]

Tree: TypeAlias = dict[str, Any]
"""Maps the name of a field to the tree of its fields, to true for the whole field, or to a `Slice` of it."""

_NOT_INCLUDED = object()


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an array: its first or, with a negative size, its last items; with `skip`, the items from there."""

    skip: int | None
    size: int


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Reduces an array to its first item that passes a test; without such an item, the field is left out.

    Attributes:
        path: leads to the array; the first array on the way counts.
        tests: the test that finds an item first decides.
        keeps_others: whether a document without an array on the path stays as it is.
    """

    path: Path
    tests: tuple[ItemTest, ...]
    keeps_others: bool


@dataclass(frozen=True, slots=True)
class ItemTest:
    """A test for one item of an array.

    Attributes:
        node: the filter that a document must match that has nothing but this array, with nothing but the item.
        guard: the filter that the whole document must match; otherwise the test finds nothing.
    """

    node: Node
    guard: Node | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """The fields to include or, with `exclude`, to leave out.

    Attributes:
        tree: the fields; with `exclude`, those with a `Slice` stay.
        narrowings: what happens to the arrays before.
        computed: the fields to add, by name.
    """

    tree: Tree
    exclude: bool
    narrowings: tuple[Narrowing, ...] = ()
    computed: tuple[tuple[str, Expression], ...] = ()

    def keeps(self, path: Path) -> bool:
        """Whether a sort by the path finds the same value in what is left of any document."""
        changed = [narrowing.path for narrowing in self.narrowings] + [(name,) for name, _ in self.computed]
        return not any(_overlap(other, path) for other in changed) and _keeps(self.tree, path, exclude=self.exclude)


def compile_fields(projection: Projection | None) -> Compiled:
    """Compile to the expression to select in place of `data`."""
    if projection is None:
        return Compiled("data", [])
    text, params = "data", []
    for narrowing in projection.narrowings:
        places = [_place(test, narrowing.path) for test in narrowing.tests]
        place = ", ".join(found.text for found in places)
        text = f"pgdoc.narrow({text}, %s::pg_catalog.text[], COALESCE({place}), {narrowing.keeps_others})"
        params += [list(narrowing.path), *(item for found in places for item in found.params)]
    name = "exclude" if projection.exclude else "include"
    text = f"pgdoc.{name}({text}, %s::pg_catalog.jsonb)"
    params.append(json.dumps(projection.tree, ensure_ascii=False, default=lambda part: [part.skip, part.size]))
    if projection.computed:
        text = f"{text} OPERATOR(pg_catalog.||) pgdoc.computed(id, data, %s::pg_catalog.jsonb)"
        fields = (f"{json.dumps(field)}:{expression_text(value)}" for field, value in projection.computed)
        params.append("{" + ",".join(fields) + "}")
    return Compiled(text, params)


def _place(test: ItemTest, path: Path) -> Compiled:
    """Compile to the place of the first item that passes the test; null if there is none."""
    condition = compile_filter(test.node)
    first = Compiled(
        "(SELECT place FROM pgdoc.candidates(data, %s::pg_catalog.text[]) WITH ORDINALITY AS candidate(data, place) "
        f"WHERE {condition.text} ORDER BY place LIMIT 1)",
        [list(path), *condition.params],
    )
    if test.guard is None:
        return first
    guard = compile_filter(test.guard)
    return Compiled(f"CASE WHEN {guard.text} THEN {first.text} END", [*guard.params, *first.params])


def project(projection: Projection | None, data: dict[str, Any], document_id: str = "") -> dict[str, Any]:
    """Return the selected part of the data.

    As in MongoDB, a path continues in each item of an array, and a part of digits names a field. Below a value that is
    neither object nor array, nothing is included and nothing is excluded.
    """
    if projection is None:
        return data
    narrowed = data
    for narrowing in projection.narrowings:
        narrowed = _narrow(narrowing, document_id, data, narrowed)
    part: dict[str, Any] = (_exclude if projection.exclude else _include)(narrowed, projection.tree)
    added = ((name, evaluate(expression, document_id, data)) for name, expression in projection.computed)
    return {**part, **{name: value for name, value in added if value is not MISSING}}


def _narrow(narrowing: Narrowing, document_id: str, data: dict[str, Any], narrowed: dict[str, Any]) -> dict[str, Any]:
    """Narrow one array; `data` is the whole document."""
    found = _first_array(data, narrowing.path)
    if found is None:
        return narrowed if narrowing.keeps_others else _with_value(narrowed, narrowing.path, None)
    prefix, items = found
    for test in narrowing.tests:
        if test.guard is None or matches(test.guard, document_id, data):
            passes = matcher(test.node)
            for item in items:
                if passes(("", _with_value({}, prefix, [item]))):
                    return _with_value(narrowed, prefix, [item])
    return _with_value(narrowed, prefix, None)


def _first_array(value: Any, path: Path) -> tuple[Path, list[Any]] | None:
    for length, part in enumerate(path, 1):
        value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, list):
            return path[:length], value
    return None


def _with_value(data: dict[str, Any], path: Path, items: list[Any] | None) -> dict[str, Any]:
    """Copy the data with other items at the path, which leads through objects; `None` removes the field."""
    part, rest = path[0], path[1:]
    if not rest and items is None:
        return {key: value for key, value in data.items() if key != part}
    return {**data, part: _with_value(data.get(part, {}), rest, items) if rest else items}


def _include(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        parts = {key: _included(value[key], below) for key, below in tree.items() if key in value}
        return {key: part for key, part in parts.items() if part is not _NOT_INCLUDED}
    if isinstance(value, list):
        items = (_include(item, tree) for item in value)
        return [item for item in items if item is not _NOT_INCLUDED]
    return _NOT_INCLUDED


def _included(value: Any, below: Any) -> Any:
    if below is True:
        return value
    return _sliced(value, below) if isinstance(below, Slice) else _include(value, below)


def _exclude(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        return {
            key: _rest(item, tree[key]) if key in tree else item
            for key, item in value.items()
            if tree.get(key) is not True
        }
    if isinstance(value, list):
        return [_exclude(item, tree) for item in value]
    return value


def _rest(value: Any, below: Any) -> Any:
    return _sliced(value, below) if isinstance(below, Slice) else _exclude(value, below)


def _sliced(value: Any, part: Slice) -> Any:
    if not isinstance(value, list):
        return value
    if part.skip is None:
        return value[: part.size] if part.size >= 0 else value[part.size :]
    start = part.skip if part.skip >= 0 else max(len(value) + part.skip, 0)
    return value[start : start + part.size]


def _keeps(tree: Tree | Slice | Literal[True], path: Path, *, exclude: bool, is_below: bool = False) -> bool:
    if tree is True:
        return not exclude
    if not path or isinstance(tree, Slice):  # a part of the value is left out
        return False
    part, rest = path[0], path[1:]
    # Where the part is the index of an item, the tree goes on in the item; including moves items, as it drops others.
    if is_below and is_array_index(part) and not (exclude and _keeps(tree, rest, exclude=exclude, is_below=True)):
        return False
    return _keeps(tree[part], rest, exclude=exclude, is_below=True) if part in tree else exclude


def _overlap(path: Path, other: Path) -> bool:
    return all(part == second for part, second in zip(path, other, strict=False))
