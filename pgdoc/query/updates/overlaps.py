"""Refuse updates in which two changes concern the same value."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from pgdoc.errors import InvalidUpdate
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.nodes import is_array_index
from pgdoc.query.updates.nodes import Rename
from pgdoc.query.updates.positions import filter_name, is_dynamic, may_coincide

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.query.filters.nodes import Path
    from pgdoc.query.updates.nodes import FieldChange

__all__ = ["check_overlaps", "path_order"]


def check_overlaps(changes: list[FieldChange]) -> None:
    """Check that no two changes concern the same value.

    Two parts such as `$[a]` and `$[b]` may stand for different elements. Whether they do is known only for a document.

    Raises:
        InvalidUpdate: two changes overlap in every document, or only a document could tell for too many arrays.
    """
    paths = [(change.path, change.operator) for change in changes]
    paths += [(change.target, change.operator) for change in changes if isinstance(change, Rename)]
    # Sorting brings overlapping paths together. A part for elements overlaps every index, so then all pairs within a
    # top-level field are compared; the first part of a path is never one.
    paths.sort(key=lambda item: path_order(item[0]))
    pairs: Iterable[Any] = itertools.pairwise(paths)
    if any(is_dynamic(part) for path, _ in paths for part in path):
        paths.sort(key=lambda item: (item[0][0], len(item[0])))
        fields = itertools.groupby(paths, key=lambda item: item[0][0])
        pairs = itertools.chain.from_iterable(itertools.combinations(group, 2) for _, group in fields)
    for (outer, _), (inner, operator) in pairs:
        _check_pair(outer, inner, operator)


def _check_pair(outer: Path, inner: Path, operator: str) -> None:
    """Check two paths, of which the outer one is not longer."""
    parts = list(itertools.takewhile(lambda both: may_coincide(*both), zip(outer, inner, strict=False)))
    differing = next((number for number, (part, other) in enumerate(parts) if part != other), None)
    if differing is not None and any(filter_name(part) for both in parts[differing + 1 :] for part in both):
        raise InvalidUpdate(
            f"{operator} at {short_repr('.'.join(inner))} and a change at {short_repr('.'.join(outer))} may reach the "
            "same inner array in two ways, and each would change what the other tests: split the update",
            path=".".join(inner),
            operator=operator,
        )
    if len(parts) < len(outer) or len(outer) > len(inner):
        return
    if differing is None or not all(map(is_dynamic, parts[differing])):
        raise InvalidUpdate(
            f"{operator} at {short_repr('.'.join(inner))} and a change at {short_repr('.'.join(outer))} overlap: "
            "change each path once in one update",
            path=".".join(inner),
            operator=operator,
        )


def path_order(path: Path) -> list[tuple[int, str]]:
    """Sort indexes by number, after parts for elements, so that no change applies to nulls that another change added.

    And so that the conditions for elements test what no other change has touched.
    """
    return [
        (-1, part) if is_dynamic(part) else (len(part), part) if is_array_index(part) else (1 << 30, part)
        for part in path
    ]
