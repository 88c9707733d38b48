"""An index over live queries: finds those that a change of a row can concern.

A query whose filter requires one of some values at a path, such as `{"customer": "c-7"}`, is found by that value in the
row before or after the change. All others are told of every change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pgdoc.query.filters.match import finder, in_document, scalar_key
from pgdoc.query.filters.nodes import And, Equal, In

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from pgdoc.live.images import RowImage
    from pgdoc.query.filters.nodes import Node, Path

__all__ = ["LiveRouter", "RequiredValue", "required_value"]

Q = TypeVar("Q", bound="Hashable")


class RequiredValue(NamedTuple):
    """What a document must have at a path: one of the values with these keys; see `scalar_key`."""

    path: Path
    keys: frozenset[Any]


def required_value(node: Node) -> RequiredValue | None:
    """Return the most selective value that a filter requires: the id, else that of the fewest values."""
    nodes = node.nodes if isinstance(node, And) else (node,)
    found: list[RequiredValue] = []
    for each in nodes:
        if isinstance(each, Equal | In) and each.collation is None:
            operands = (each.operand,) if isinstance(each, Equal) else each.operands
            keys = frozenset(scalar_key(operand.value) for operand in operands)
            if None not in keys:  # an object, an array, or null, which a missing value equals, too
                found.append(RequiredValue(each.path, keys))
    return min(found, key=lambda value: (value.path != ("_id",), len(value.keys)), default=None)


class LiveRouter(Generic[Q]):
    """Finds the queries that a change can concern."""

    def __init__(self) -> None:
        self._others: dict[Q, None] = {}
        self._indexes: dict[Path, _ValueIndex[Q]] = {}

    def add(self, query: Q, required: RequiredValue | None) -> None:
        """Add a query."""
        if required is None:
            self._others[query] = None
            return
        index = self._indexes.get(required.path)
        if index is None:
            index = self._indexes[required.path] = _ValueIndex(finder(required.path, in_document))
        index.add(query, required.keys)

    def remove(self, query: Q, required: RequiredValue | None) -> None:
        """Remove a query that was added with the same `required`."""
        if required is None:
            self._others.pop(query, None)
            return
        index = self._indexes.get(required.path)
        if index is not None:
            index.remove(query, required.keys)
            if not index.by_key:
                del self._indexes[required.path]

    def find(self, images: Iterable[RowImage]) -> Iterable[Q]:
        """Return the queries that can want a change with these images, each once."""
        if not self._indexes:
            return self._others
        found = dict(self._others)
        for index in self._indexes.values():
            for image in images:
                index.find(image, found)
        return found


class _ValueIndex(Generic[Q]):
    """The queries that require a value at one path."""

    def __init__(self, find: Callable[[Any], list[Any]]) -> None:
        self._find = find
        self.by_key: dict[Any, dict[Q, None]] = {}

    def add(self, query: Q, keys: Iterable[Any]) -> None:
        for key in keys:
            self.by_key.setdefault(key, {})[query] = None

    def remove(self, query: Q, keys: Iterable[Any]) -> None:
        for key in keys:
            queries = self.by_key.get(key, {})
            queries.pop(query, None)
            if not queries:
                self.by_key.pop(key, None)

    def find(self, image: RowImage, found: dict[Q, None]) -> None:
        """Add the queries that the image's values lead to; all of them if it can't be read."""
        try:
            keys: Iterable[Any] = self._find(image.subject)
        except Exception:  # noqa: BLE001 (such an image passes every filter, see `RowImage.passes`)
            keys = list(self.by_key)
        for key in keys:
            queries = self.by_key.get(key)
            if queries:
                found.update(queries)
