"""Fold the equalities of a filter on one path into one list: many branches then cost about as much as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.errors import InvalidFilter
from pgdoc.query.filters.nodes import And, AnyElement, Equal, In, Not, Or

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from pgdoc.query.filters.nodes import Node, Operand, Path

    _Place: TypeAlias = tuple[Path, str | None]
    """A path and the collation of its texts."""


MOST_CONDITIONS: Final = 65_535
"""Each has a parameter, and PostgreSQL's protocol numbers the parameters of a statement with 16 bits."""


def fold_equalities(node: Node) -> Node:
    """Return an equivalent filter in which no `Or` has two equalities on one path, and no `And` two negated ones."""
    if isinstance(node, Or):
        return _fold_or(tuple(map(fold_equalities, node.nodes)))
    if isinstance(node, And):
        return _fold_and(tuple(map(fold_equalities, node.nodes)))
    if isinstance(node, Not):
        return Not(fold_equalities(node.node))
    if isinstance(node, AnyElement):
        return AnyElement(node.path, fold_equalities(node.node), node.as_document)
    return node


def check_conditions(node: Node) -> None:
    """Raise `InvalidFilter` for more conditions than a statement can have, where folded equalities count as one."""
    if _count(node) > MOST_CONDITIONS and (count := _count(fold_equalities(node))) > MOST_CONDITIONS:
        raise InvalidFilter(
            f"the filter has {count:,} conditions, and PostgreSQL takes {MOST_CONDITIONS:,}: split the call, or "
            "compare one path with a list ($in), which is one condition"
        )


def _count(node: Node) -> int:
    if isinstance(node, Or | And):
        return sum(map(_count, node.nodes))
    if isinstance(node, Not):
        return _count(node.node)
    return 1 + _count(node.node) if isinstance(node, AnyElement) else 1


def operands_of(node: Equal | In) -> tuple[Operand, ...]:
    """Return the values of which one must be equal."""
    return (node.operand,) if isinstance(node, Equal) else node.operands


def _fold_or(nodes: tuple[Node, ...]) -> Node:
    alternatives = [part for node in nodes for part in (node.nodes if isinstance(node, Or) else (node,))]
    equalities: dict[_Place, list[Equal | In]] = {}
    for part in alternatives:
        if isinstance(part, Equal | In):
            equalities.setdefault((part.path, part.collation), []).append(part)
    if len(equalities) == sum(map(len, equalities.values())):
        return _unwrapped(alternatives)
    return _unwrapped(list(_merged(alternatives, equalities)))


def _merged(alternatives: list[Node], equalities: dict[_Place, list[Equal | In]]) -> Iterator[Node]:
    """Yield the alternatives, with all equalities on a path in the place of the first."""
    for part in alternatives:
        if not isinstance(part, Equal | In):
            yield part
        elif same := equalities.pop((part.path, part.collation), None):
            operands = {operand.text: operand for node in same for operand in operands_of(node)}
            yield part if len(same) == 1 else In(part.path, tuple(operands.values()), part.collation)


def _unwrapped(alternatives: list[Node]) -> Node:
    return alternatives[0] if len(alternatives) == 1 else Or(tuple(alternatives))


def _fold_and(nodes: tuple[Node, ...]) -> Node:
    conditions = [part for node in nodes for part in (node.nodes if isinstance(node, And) else (node,))]
    negated = [part.node for part in conditions if isinstance(part, Not)]
    if len(negated) > 1:
        neither = _fold_or(tuple(negated))
        refused = neither.nodes if isinstance(neither, Or) else (neither,)
        conditions = [part for part in conditions if not isinstance(part, Not)] + [Not(part) for part in refused]
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))
