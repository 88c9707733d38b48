"""Projections: which fields of a document the server or Python returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.paths import parse_sort
from pgdoc.query.filters.sql_text import Compiled

Tree: TypeAlias = dict[str, Any]
"""Maps the name of a field to the tree of its fields, or to true for the whole field."""

_NOT_INCLUDED = object()


@dataclass(frozen=True, slots=True)
class Projection:
    """The fields to include or, with `exclude`, to leave out."""

    tree: Tree
    exclude: bool


def parse_fields(fields: str | Sequence[str] | None) -> Projection | None:
    """Parse fields such as `["total", "address.city"]`, or `["-lines"]` for all others; `None` means all.

    They must not mix both kinds, or contain one another.
    """
    if fields is None:
        return None
    if not isinstance(fields, Sequence):
        raise InvalidInput(f"fields must be a list of paths such as 'total' or '-total', got {short_repr(fields)}")
    try:
        keys = parse_sort(fields)
    except InvalidInput as exc:
        raise InvalidInput(f"fields has an invalid entry: {exc}", path=exc.path) from exc
    tree: Tree = {}
    for key in keys:
        if key.descending != keys[0].descending:
            raise InvalidInput("fields mixes paths with and without a leading -: either include or exclude fields")
        if key.path == ("_id",):
            _check_id(excluded=key.descending)
        else:
            _add_path(tree, key.path)
    return Projection(tree, bool(keys) and keys[0].descending)


def _check_id(*, excluded: bool) -> None:
    if excluded:
        raise InvalidInput("fields can't exclude '_id', which every document has: remove '-_id'", path="_id")


def _add_path(tree: Tree, path: tuple[str, ...]) -> None:
    """Add the path to the tree, which has a field either whole or in part."""
    for part in path[:-1]:
        below = tree.setdefault(part, {})
        if below is True:
            raise _overlapping(path)
        tree = below
    if tree.setdefault(path[-1], True) is not True:
        raise _overlapping(path)


def _overlapping(path: tuple[str, ...]) -> InvalidInput:
    dotted = ".".join(path)
    return InvalidInput(
        f"fields has {short_repr(dotted)} and another path that overlaps it: keep the outer one", path=dotted
    )


def compile_fields(projection: Projection | None) -> Compiled:
    """Compile to the expression to select in place of `data`."""
    if projection is None:
        return Compiled("data", [])
    name = "exclude" if projection.exclude else "include"
    return Compiled(f"pgdoc.{name}(data, %s::pg_catalog.jsonb)", [json.dumps(projection.tree, ensure_ascii=False)])


def project(projection: Projection | None, data: dict[str, Any]) -> dict[str, Any]:
    """Return the selected part of the data.

    As in MongoDB, a path continues in each item of an array, and a part of digits names a field. Below a value that is
    neither object nor array, nothing is included and nothing is excluded.
    """
    if projection is None:
        return data
    part: dict[str, Any] = (_exclude if projection.exclude else _include)(data, projection.tree)
    return part


def _include(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        parts = {
            key: value[key] if below is True else _include(value[key], below)
            for key, below in tree.items()
            if key in value
        }
        return {key: part for key, part in parts.items() if part is not _NOT_INCLUDED}
    if isinstance(value, list):
        items = (_include(item, tree) for item in value)
        return [item for item in items if item is not _NOT_INCLUDED]
    return _NOT_INCLUDED


def _exclude(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        return {
            key: _exclude(item, tree[key]) if key in tree else item
            for key, item in value.items()
            if tree.get(key) is not True
        }
    if isinstance(value, list):
        return [_exclude(item, tree) for item in value]
    return value
