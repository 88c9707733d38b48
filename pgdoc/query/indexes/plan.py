"""What of a filter an index can answer: the tree of a filter, with its nodes on indexed paths asked by their keys.

Where there is no index on a path, its nodes stay as they are: to work out keys would only cost time. What is known of
the indexes may be old; the answers are the same then, but come slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeGuard

from pgdoc.query.filters.nodes import ELEMENT, And, ByKey, Equal, In, Lookup, Or, Ordered
from pgdoc.query.indexes.keys import MAX_PARTS, tells_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.query.filters.nodes import Node, Path, SortKey
    from pgdoc.query.filters.template import Template


@dataclass(frozen=True, slots=True)
class IndexedPaths:
    """What an index is on.

    Attributes:
        paths: its paths, in their order.
        where: the nodes that all of its documents match.
    """

    paths: tuple[Path, ...]
    where: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Indexes:
    """Those of a collection.

    Attributes:
        paths: of each of them.
        templates: what filters of the same shape are compiled to, while these are the indexes.
    """

    paths: tuple[IndexedPaths, ...]
    templates: dict[object, Template] = field(default_factory=dict)


NO_INDEXES: Final = Indexes(())


def may_use_index(node: Node) -> bool:
    """Whether it matters which indexes there are."""
    return next(lookups(node), None) is not None


def by_key(node: Node, indexes: Indexes) -> Node:
    """Return the filter as one condition that PostgreSQL answers by the indexes there are."""
    paths, wheres = _useful(node, indexes)
    parts = _keyed(node, paths)
    return And((*parts, *(where for where in wheres if where not in parts)))


@dataclass(frozen=True, slots=True)
class Branches:
    """A filter as conditions of which a document meets one at most.

    Attributes:
        nodes: the conditions.
        in_turn: whether all documents of one come before those of the next in the order that is asked for.
    """

    nodes: tuple[Node, ...]
    in_turn: bool = False


def branches(node: Node, indexes: Indexes, first: SortKey | None = None) -> Branches:
    """Return the filter as conditions for documents with arrays at the indexed paths, and for all others.

    Those others are read from the btrees in their order, as if there were no arrays. Where they are sorted by the path
    whose range is wanted, arrays stand before and behind them, and are not read at all where others are enough.

    Args:
        node: the filter.
        indexes: of the collection.
        first: what is sorted by before all else.
    """
    paths, wheres = _useful(node, indexes)
    parts = _keyed(node, paths)
    keyed = [part for part in parts if isinstance(part, ByKey)]
    if not keyed:
        return Branches((by_key(node, indexes),))
    rest: list[Node] = [part for part in parts if not isinstance(part, ByKey)]
    rest += [where for where in wheres if where not in rest]
    if first is not None and _is_range_of(first, keyed):
        sides = ["value", "ending"] if len(first.path) == 1 else ["through", "value", "ending"]
        if any(isinstance(node, Ordered) and isinstance(node.operand.value, bool) for node in keyed[0].nodes):
            sides = [*sides[:-2], "ending", "value"]  # booleans are the only values behind arrays
        parts = [And((ByKey(first.path, keyed[0].nodes, side), *rest)) for side in sides]
        return Branches(tuple(reversed(parts) if first.descending else parts), in_turn=True)
    values = [ByKey(part.path, part.nodes, "value") for part in keyed]
    arrays: list[Node] = [ByKey(part.path, part.nodes, "array") for part in keyed]
    if len(keyed) > 1:
        arrays = [Or(tuple(arrays)), *(ByKey(part.path, part.nodes, "exact") for part in keyed)]
    return Branches((And((*values, *rest)), And((*arrays, *rest))))


def _is_range_of(first: SortKey, keyed: list[ByKey]) -> bool:
    """Keys that were cut say too little of the order, and with an index in its path an array is a value."""
    operands = [node.operand for node in keyed[0].nodes if isinstance(node, Ordered)]
    return len(keyed) == 1 and keyed[0].path == first.path and bool(operands) and tells_all(first.path, operands)


def has_range(node: Node) -> bool:
    """Whether a plan for all values of the filter may be bad for some, and a document is to be found in a range."""
    return isinstance(node, Ordered) or (isinstance(node, And | Or) and any(map(has_range, node.nodes)))


def _useful(node: Node, indexes: Indexes) -> tuple[frozenset[Path], tuple[Node, ...]]:
    """Return the paths that the indexes answer for this filter, and the conditions of those that hold a part."""
    given = list(conjuncts(node))
    asked = {lookup.path for lookup in lookups(node)}
    paths: set[Path] = set()
    wheres: dict[Node, None] = {}
    for index in indexes.paths:
        if all(part in given for part in index.where):
            served = set(_leading(index.paths, asked))
            paths |= served
            wheres |= dict.fromkeys(index.where if served else ())
    return frozenset(paths), tuple(wheres)


def _leading(paths: tuple[Path, ...], asked: set[Path]) -> Iterator[Path]:
    """An index is read by its first path, and by another where the filter has all before it."""
    for path in paths:
        if path not in asked:
            return
        yield path


def conjuncts(node: Node) -> Iterator[Node]:
    """Give out what must hold, each for itself."""
    if isinstance(node, And):
        for part in node.nodes:
            yield from conjuncts(part)
    else:
        yield node


def lookups(node: Node) -> Iterator[Lookup]:
    """Give out what an index could answer."""
    if isinstance(node, And | Or):
        for part in node.nodes:
            yield from lookups(part)
    elif _is_lookup(node):
        yield node


def _is_lookup(node: Node) -> TypeGuard[Lookup]:
    if not isinstance(node, Equal | In | Ordered) or node.path[:1] in {(), ("_id",), (ELEMENT,)}:
        return False
    if isinstance(node, In):
        return len(node.path) <= MAX_PARTS and bool(node.operands)
    if isinstance(node, Ordered) and (node.operand.value is None or isinstance(node.operand.value, list)):
        return False  # null is no range, and spans say nothing of arrays in arrays
    return len(node.path) <= MAX_PARTS


def _keyed(node: Node, paths: frozenset[Path]) -> list[Node]:
    """Return the conjuncts, in which the sides of a range stand together, else an index would be read to its end."""
    groups: dict[Path | int, list[Lookup]] = {}
    parts: list[Node] = []
    for number, part in enumerate(conjuncts(node)):
        if _is_lookup(part) and part.path in paths:
            groups.setdefault(part.path if isinstance(part, Ordered) else number, []).append(part)
        elif isinstance(part, Or):
            parts.append(Or(tuple(And(tuple(_keyed(item, paths))) for item in part.nodes)))
        else:
            parts.append(part)
    return [*(ByKey(group[0].path, tuple(group), "either") for group in groups.values()), *parts]
