"""Which indexes a filter can use: lookups on indexed paths become lookups of sort keys.

A lookup on a path without an index stays as it is, since computing keys only costs time. If the known indexes are
outdated, the results are the same, but slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from pgdoc.query.filters.fold import fold_equalities, operands_of
from pgdoc.query.filters.key_sql import MAX_PARTS, keys_suffice, rank_of
from pgdoc.query.filters.match import compare
from pgdoc.query.filters.nodes import (
    ELEMENT,
    And,
    ByKey,
    Equal,
    Exact,
    In,
    Lookup,
    Matches,
    MeetsArray,
    Or,
    Ordered,
    has_array_index,
    may_be_missing_in_array,
)
from pgdoc.query.indexes.prefixes import is_range, is_served, may_have_range, with_equalities, with_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.query.filters.nodes import Node, Operand, Path, Scope, SortKey
    from pgdoc.query.filters.template import Template


@dataclass(frozen=True, slots=True)
class IndexedPaths:
    """The paths of an index, in order, the nodes that every document in it matches, and the collation of its keys."""

    paths: tuple[Path, ...]
    where: tuple[Node, ...] = ()
    collation: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Indexes:
    """The indexes of a collection, the names of the unique ones, and what was compiled for them, by shape."""

    paths: tuple[IndexedPaths, ...]
    templates: dict[object, Template] = field(default_factory=dict)
    statements: dict[object, tuple[Any, Template, bool | None]] = field(default_factory=dict)
    unique: tuple[str, ...] = ()


NO_INDEXES: Final = Indexes(())

_FEW_BRANCHES: Final = 8
"""The most alternatives that each use all their indexed paths; of more, each uses one."""

_MOST_RANGES: Final = 64
"""The most ranges on one path that use its index: of more, neighbours become one range that covers them."""

_FEW_EQUALITIES: Final = 4
"""The most equalities on one path that use its index together: PostgreSQL compares all pairs of indexed conditions."""


def may_use_index(node: Node) -> bool:
    """Whether the compiled filter depends on the indexes."""
    return next(lookups(node), None) is not None


def by_key(node: Node, indexes: Indexes) -> Node:
    """Return the filter as one condition that PostgreSQL can evaluate with the indexes."""
    parts, wheres = _parts(node, indexes)
    return And((*parts, *(where for where in wheres if where not in parts)))


def _parts(node: Node, indexes: Indexes) -> tuple[list[Node], tuple[Node, ...]]:
    """Return the conjuncts, as `_by_key` does, and the conditions of the partial indexes."""
    by_code_point = {path for index in indexes.paths if index.collation is None for path in index.paths}
    node = with_equalities(node, {path for index in indexes.paths for path in index.paths} - by_code_point)
    paths, wheres = _usable_paths(node, indexes)
    return _by_key(with_ranges(fold_equalities(node), paths), paths), wheres


@dataclass(frozen=True, slots=True)
class Branches:
    """A filter as conditions, like `Conditions` but not compiled."""

    nodes: tuple[Node, ...]
    in_turn: bool = False


def branches(node: Node, indexes: Indexes, first: SortKey | None = None) -> Branches:
    """Split the filter into conditions on documents with arrays at the indexed paths, and on all others.

    PostgreSQL reads the others from a btree in its order, as if there were no arrays. If `first`, the first sort key,
    is the path of a range, arrays come before and after the range; PostgreSQL does not read them if the other documents
    are enough.
    """
    parts, wheres = _parts(node, indexes)
    keyed = [part for part in parts if isinstance(part, ByKey)]
    if not keyed:
        return Branches((by_key(node, indexes),))
    rest: list[Node] = [part for part in parts if not isinstance(part, ByKey)]
    rest += [where for where in wheres if where not in rest]
    exact = {part.path for part in keyed if part.collation is None}
    remaining = [part for part in rest if not (is_range(part) and part.path in exact)]  # of documents without arrays
    if first is not None and _is_range_of(first, keyed):
        scopes = _scopes_in_order(first, keyed[0])
        return Branches(
            tuple(
                And((replace(keyed[0], scope=scope), *(remaining if scope == "no_array" else rest))) for scope in scopes
            ),
            in_turn=True,
        )
    values = [replace(part, scope="no_array") for part in keyed]
    arrays: list[Node] = [replace(part, scope="array") for part in keyed]
    if len(keyed) > 1:  # an array at one of the paths is enough, and then the keys of the others do not tell
        arrays = [Or(tuple(arrays)), *(replace(part, scope="exact") for part in keyed)]
    return Branches((And((*values, *remaining)), And((*arrays, *rest))))


def _is_range_of(first: SortKey, keyed: list[ByKey]) -> bool:
    """Whether the only keyed condition is a range on the sort's path whose keys determine the order.

    Truncated keys do not, nor do those of a path with an array index, where an item can be the path's one value.
    """
    operands = [node.operand for node in keyed[0].nodes if isinstance(node, Ordered)]
    is_same = (keyed[0].path, keyed[0].collation) == (first.path, first.collation)
    return len(keyed) == 1 and is_same and bool(operands) and keys_suffice(first.path, operands)


def _scopes_in_order(first: SortKey, keyed: ByKey) -> list[Scope]:
    scopes: list[Scope] = ["no_array", "array_at_end"]
    if any(isinstance(node, Ordered) and isinstance(node.operand.value, bool) for node in keyed.nodes):
        scopes.reverse()  # only booleans sort after arrays
    if len(first.path) > 1:
        scopes.insert(0, "array_on_way")  # sorts as missing, before all values
    return scopes[::-1] if first.descending else scopes


def has_range(node: Node) -> bool:
    """Whether the filter has a range, so that a plan that is good for some values may be bad for others."""
    if isinstance(node, And | Or):
        return any(map(has_range, node.nodes))
    return isinstance(node, Ordered) or may_have_range(node)


def _usable_paths(node: Node, indexes: Indexes) -> tuple[dict[Path, str | None], tuple[Node, ...]]:
    """Return the paths that indexes can serve for this filter, and the conditions of the partial indexes.

    Each path has the collation of the keys that serve it: those of the index that serves most paths.
    """
    given = list(conjuncts(node))
    asked: dict[Path, list[Lookup | Matches]] = {}
    for lookup in lookups(node):
        asked.setdefault(lookup.path, []).append(lookup)
    usable = [index for index in indexes.paths if all(part in given for part in index.where)]
    found = [(index, tuple(_served_paths(index, asked))) for index in usable]
    found.sort(key=lambda item: len(item[1]), reverse=True)
    paths: dict[Path, str | None] = {}
    wheres: dict[Node, None] = {}
    for index, served in found:
        for path in served:
            paths.setdefault(path, index.collation)
        wheres |= dict.fromkeys(index.where if served else ())
    return paths, tuple(wheres)


def _served_paths(index: IndexedPaths, asked: dict[Path, list[Lookup | Matches]]) -> Iterator[Path]:
    """Yield the leading paths that the filter has: an index serves a path only with all before it."""
    for path in index.paths:
        if not any(is_served(lookup, index.collation) for lookup in asked.get(path, ())):
            return
        yield path


def conjuncts(node: Node) -> Iterator[Node]:
    """Yield the conditions that must all match."""
    if isinstance(node, And):
        for part in node.nodes:
            yield from conjuncts(part)
    else:
        yield node


def lookups(node: Node) -> Iterator[Lookup | Matches]:
    """Yield the nodes that an index could serve."""
    if isinstance(node, And | Or):
        for part in node.nodes:
            yield from lookups(part)
    elif _is_lookup(node) or (may_have_range(node) and _is_on_indexable_path(node)):
        yield node


def _is_lookup(node: Node) -> TypeGuard[Lookup]:
    if not isinstance(node, Equal | In | Ordered) or not _is_on_indexable_path(node):
        return False
    if isinstance(node, Ordered):  # null is not a range, and the span of keys does not cover arrays within arrays
        return node.operand.value is not None and not isinstance(node.operand.value, list)
    if may_be_missing_in_array(node) and has_array_index(node.path):
        return False  # a value can be missing in one array, and there in another
    return isinstance(node, Equal) or bool(node.operands)


def _is_on_indexable_path(node: Lookup | Matches) -> bool:
    return node.path[:1] not in {(), ("_id",), (ELEMENT,)} and len(node.path) <= MAX_PARTS


def _by_key(node: Node, paths: dict[Path, str | None]) -> list[Node]:
    """Return the conjuncts with the lookups on the paths as `ByKey`.

    Both bounds of a range become one: with one bound, PostgreSQL would read an index to its end.
    """
    found, parts = _grouped(node, paths, "all")
    rest: list[Node] = []
    for part in parts:
        keyed = _any_by_key(part, paths) if isinstance(part, Or) else None
        rest += [part] if keyed is None else [keyed, Exact(part)]
    return [*found, *rest]


def _grouped(node: Node, paths: dict[Path, str | None], scope: Scope) -> tuple[list[ByKey], list[Node]]:
    """Split the conjuncts into lookups that indexes serve, equalities first, and all others."""
    equalities: dict[Path, list[ByKey]] = {}
    ranges: dict[Path, list[Lookup]] = {}
    parts: list[Node] = []
    for part in conjuncts(node):
        if not _is_lookup(part) or part.path not in paths or not is_served(part, paths[part.path]):
            parts.append(part)
        elif isinstance(part, Ordered):
            ranges.setdefault(part.path, []).append(part)
        elif len(same := equalities.setdefault(part.path, [])) < _FEW_EQUALITIES:
            same.append(ByKey(part.path, (part,), scope, paths[part.path]))
        else:
            parts.append(part)
    found = [item for same in equalities.values() for item in same]
    return found + [ByKey(path, tuple(group), scope, paths[path]) for path, group in ranges.items()], parts


def _any_by_key(node: Or, paths: dict[Path, str | None]) -> Node | None:
    """Return a condition on keys that is true for all matches; `None` if an alternative has no index."""
    alternatives: list[list[Node]] = []
    for branch in node.nodes:
        lookups, parts = _grouped(branch, paths, "keys")
        nested = (_any_by_key(part, paths) for part in parts if isinstance(part, Or))
        alternatives.append([*lookups, *(item for item in nested if item is not None)])
    if not all(alternatives):
        return None
    if len(alternatives) <= _FEW_BRANCHES:
        return Or(tuple(And(tuple(every)) for every in alternatives))
    return _merged([every[0] for every in alternatives])


def _merged(alternatives: list[Node]) -> Node:
    """Return the alternatives with all equalities on one path as one lookup, and neighbouring ranges as one.

    Of documents with arrays, the ranges find all: their spans could overlap each of the ranges.
    """
    operands: dict[Path, dict[str, Operand]] = {}
    collations: dict[Path, str | None] = {}
    ranges: dict[Path, list[ByKey]] = {}
    others: dict[Node, None] = {}
    for item in alternatives:
        if not isinstance(item, ByKey):
            others[item] = None
        elif isinstance(item.nodes[0], Equal | In):
            operands.setdefault(item.path, {}).update({found.text: found for found in operands_of(item.nodes[0])})
            collations[item.path] = item.collation
        else:
            ranges.setdefault(item.path, []).append(replace(item, scope="own_key"))
    lists: list[Node] = [
        ByKey(path, (In(path, tuple(values.values())),), "keys", collations[path]) for path, values in operands.items()
    ]
    hulls: list[Node] = [*map(MeetsArray, ranges)]
    for path, found in ranges.items():
        hulls += _neighbours(path, found)
    return Or((*lists, *hulls, *others))


def _neighbours(path: Path, ranges: list[ByKey]) -> list[ByKey]:
    """Return as many ranges as an index should read, which cover these for documents with one value at the path."""
    if len(ranges) <= _MOST_RANGES:
        return ranges
    by_value = cmp_to_key(compare)
    open_ended: dict[tuple[int, str], Operand] = {}
    bounded: list[tuple[Operand, Operand]] = []
    for item in ranges:
        bounds = {node.operator[0]: node.operand for node in item.nodes if isinstance(node, Ordered)}
        (symbol, operand), *_ = bounds.items()
        if len(bounds) == 1:
            widest = open_ended.setdefault((rank_of(operand), symbol), operand)
            order = compare(operand.value, widest.value)
            if (order < 0) == (symbol == ">"):
                open_ended[rank_of(operand), symbol] = operand
        elif rank_of(bounds[">"]) == rank_of(bounds["<"]):  # no value is of two types
            bounded.append((bounds[">"], bounds["<"]))
    bounded.sort(key=lambda pair: by_value(pair[0].value))
    size = max(1, -(-len(bounded) // _MOST_RANGES))
    groups = [bounded[start : start + size] for start in range(0, len(bounded), size)]
    hulls = [(group[0][0], max((high for _, high in group), key=lambda high: by_value(high.value))) for group in groups]
    found: list[tuple[Lookup, ...]] = [(Ordered(path, ">=", low), Ordered(path, "<=", high)) for low, high in hulls]
    found += [(Ordered(path, f"{symbol}=", operand),) for (_, symbol), operand in open_ended.items()]
    return [ByKey(path, nodes, "own_key", ranges[0].collation) for nodes in found]
