"""Parts of documents: which fields to give out, parsed once, cut out by the server or by Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.parse import parse_sort
from pgdoc.query.indexes.keys import Compiled

Tree: TypeAlias = dict[str, Any]
"""A field's name leads to the tree of the fields in it, or to true for all of it."""

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Projection:
    """The fields to include, or the fields to leave out."""

    tree: Tree
    leaves_out: bool


def parse_fields(fields: str | Sequence[str] | None) -> Projection | None:
    """Parse `["total", "address.city"]`, or `["-lines"]` for all but that; `None` asks for whole documents.

    Raises:
        InvalidInput: not fields, both kinds at once, or one inside another; `path` names the place.
    """
    if fields is None:
        return None
    if not isinstance(fields, Sequence):
        raise InvalidInput(f"{short_repr(fields)} are no fields: give paths such as 'total', or such as '-total'")
    try:
        keys = parse_sort(fields)
    except InvalidInput as exc:
        raise InvalidInput(f"among the fields: {exc}", path=exc.path) from exc
    tree: Tree = {}
    for key in keys:
        if key.descending != keys[0].descending:
            raise InvalidInput("fields are to include, or with a leading - to leave out: not both in one call")
        if key.path == ("_id",):
            _check_id(leaves_out=key.descending)
        else:
            _plant(tree, key.path)
    return Projection(tree, bool(keys) and keys[0].descending)


def _check_id(*, leaves_out: bool) -> None:
    if leaves_out:
        raise InvalidInput("a document always has its id: leave '-_id' out of the fields", path="_id")


def _plant(tree: Tree, path: tuple[str, ...]) -> None:
    """Add the path to the tree; a field is asked for whole or in part, else who reads it can't know which."""
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
        f"{short_repr(dotted)} overlaps with another of the fields: give the outer one only", path=dotted
    )


def compile_fields(projection: Projection | None) -> Compiled:
    """Compile to what is selected instead of the whole data."""
    if projection is None:
        return Compiled("data", [])
    name = "exclude" if projection.leaves_out else "include"
    return Compiled(f"pgdoc.{name}(data, %s::jsonb)", [json.dumps(projection.tree, ensure_ascii=False)])


def project(projection: Projection | None, data: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the data.

    As in MongoDB a path goes on in each item of the arrays on its way, and digits are names of fields. What is no
    object there is not included, and not left out.
    """
    if projection is None:
        return data
    part: dict[str, Any] = (_exclude if projection.leaves_out else _include)(data, projection.tree)
    return part


def _include(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        parts = {
            key: value[key] if below is True else _include(value[key], below)
            for key, below in tree.items()
            if key in value
        }
        return {key: part for key, part in parts.items() if part is not _NOTHING}
    if isinstance(value, list):
        items = (_include(item, tree) for item in value)
        return [item for item in items if item is not _NOTHING]
    return _NOTHING


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
