"""Which elements `$[]`, `$[name]` and `$` stand for in one document, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.query.filters.match import matcher
from pgdoc.query.filters.nodes import ELEMENT, MISSING, is_array_index
from pgdoc.query.updates.nodes import EACH, MATCHED
from pgdoc.query.updates.positions import filter_name, is_dynamic, position_finder, positions_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.query.filters.nodes import Path
    from pgdoc.query.updates.nodes import Update

__all__ = ["ElementTests", "child", "find_value"]


class ElementTests:
    """The tests of an update for the elements of one document, as it was before the update."""

    def __init__(self, update: Update, document_id: str, data: dict[str, Any]) -> None:
        self._filters = {name: matcher(node) for name, node in update.filters.items()}
        self._indexes = {
            array: _index(position_finder(position), document_id, data, array)
            for array, position in positions_of(update).items()
        }

    def of(self, array: Path, part: str) -> Callable[[int, Any], bool] | None:
        """Return the test of an index and its item for a part below an array; `None` if `$` stands for nothing."""
        if part == EACH:
            return lambda _at, _item: True
        if part == MATCHED:
            index = self._indexes[array]
            return None if index is None else lambda at, _item: at == index
        passes = self._filters[str(filter_name(part))]
        return lambda _at, item: passes(("", {ELEMENT: item}))

    def paths(self, node: Any, path: Path) -> list[Path]:
        """Return the paths with indexes that a path with parts for elements stands for in this data."""
        at = next((number for number, part in enumerate(path) if is_dynamic(part)), None)
        if at is None:
            return [path]
        items = find_value(node, path[:at])
        test = self.of(path[:at], path[at])
        if not isinstance(items, list) or test is None:
            return []
        return [
            (*path[:at], str(index), *rest)
            for index, item in enumerate(items)
            if test(index, item)
            for rest in self.paths(item, path[at + 1 :])
        ]


def _index(
    find: Callable[[str, dict[str, Any], list[Any]], int | None], document_id: str, data: dict[str, Any], array: Path
) -> int | None:
    items = find_value(data, array)
    return find(document_id, data, items) if isinstance(items, list) else None


def find_value(node: Any, path: Path) -> Any:
    """Return the value that an update finds at a path; `MISSING` if there is none."""
    for part in path:
        node = child(node, part)
    return node


def child(node: Any, part: str) -> Any:
    """Return the field or item; `MISSING` if there is none."""
    if isinstance(node, dict):
        return node.get(part, MISSING)
    if isinstance(node, list) and is_array_index(part) and int(part) < len(node):
        return node[int(part)]
    return MISSING
