"""Compile filters as if each of their paths had an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.query import Compiled, compile_filter
from pgdoc.query.filters.nodes import SortKey
from pgdoc.query.indexes.plan import IndexedPaths, Indexes, branches, by_key, lookups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc.query import Node
    from pgdoc.query.filters.nodes import Path


def every_index(node: Node, collation: str | None = None) -> Indexes:
    return Indexes(tuple(IndexedPaths((path,), (), collation) for path in paths_of(node)))


def paths_of(node: Node) -> list[Path]:
    return list(dict.fromkeys(lookup.path for lookup in lookups(node)))


def times_found(node: Node, collations: tuple[str | None, ...] = (None,)) -> Compiled:
    """Return an SQL array: how often a document is found without an index, by one indexed condition, and by branches.

    The branches depend on the sort order, so there is one item per order: none, and each indexed path. There are
    indexes with each of the collations in turn.
    """
    ways: list[Sequence[Node]] = [[node]]
    for collation in collations:
        indexes = every_index(node, collation)
        firsts = [None, *(SortKey(path, descending=False, collation=collation) for path in paths_of(node))]
        ways += [[by_key(node, indexes)], *(branches(node, indexes, first).nodes for first in firsts)]
    compiled = [[compile_filter(part) for part in way] for way in ways]
    sums = (" + ".join(f"(({part.text}) IS TRUE)::integer" for part in way) for way in compiled)
    return Compiled(f"ARRAY[{', '.join(sums)}]", [item for way in compiled for part in way for item in part.params])
