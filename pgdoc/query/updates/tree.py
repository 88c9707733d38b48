"""Write many changes as one tree, which the server applies in one pass (`pgdoc.change_tree` in `migrations/sql`).

An array is a step: an operator and its operands. `null` is `$unset`. An object has the trees of the fields or items
below; if it has the field `""`, a path, they are below that path.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.query.updates.nodes import (
    AddToSet,
    Bit,
    Bound,
    CurrentDate,
    Increment,
    Multiply,
    Pop,
    PullAll,
    Push,
    Set,
    Unset,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pgdoc.query.filters.nodes import SortKey
    from pgdoc.query.updates.nodes import FieldChange

    ChangeTree: TypeAlias = dict[str, Any]  # at the leaves, the text of a step

__all__ = ["STEPS", "bit_operations", "push_order", "tree_text"]


def bit_operations(operations: Iterable[tuple[str, int]]) -> str:
    """Return the operations of a `$bit` as JSON."""
    return json.dumps(list(operations))


def push_order(order: Iterable[SortKey]) -> str:
    """Return the `$sort` of a `$push` as JSON."""
    return json.dumps([{"path": key.path, "descending": key.descending} for key in order])


def _with_operand(change: Any) -> str:
    return f"[{json.dumps(change.operator)},{change.operand.text}]"


def _with_items(change: Any) -> str:
    return f"[{json.dumps(change.operator)},{change.items.text}]"


def _push(change: Push) -> str:
    place, size = json.dumps(change.position), json.dumps(change.size)
    return f'["$push",{change.items.text},{place},{push_order(change.order)},{size}]'


STEPS: Final[Mapping[type, Callable[[Any], str]]] = {
    Set: _with_operand,
    Unset: lambda _: "null",
    Increment: _with_operand,
    Multiply: _with_operand,
    Bound: _with_operand,
    Bit: lambda change: f'["$bit",{bit_operations(change.operations)}]',
    CurrentDate: lambda _: '["$currentDate"]',
    Push: _push,
    AddToSet: _with_items,
    Pop: lambda change: f'["$pop",{json.dumps(change.first)}]',
    PullAll: lambda change: f'["$pullAll",{change.items.text}]',
}
"""The changes that a tree can have, and how their steps are written."""


def tree_text(changes: Iterable[FieldChange]) -> str:
    """Return the tree of these changes as JSON. No path equals or contains another, or has a part for elements."""
    tree: ChangeTree = {}
    for change in changes:
        *above, last = change.path
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = STEPS[type(change)](change)
    return _written(tree)


def _written(tree: ChangeTree) -> str:
    return "{" + ",".join(f"{json.dumps(part)}:{_below(node)}" for part, node in tree.items()) + "}"


def _below(node: ChangeTree | str) -> str:
    """Write what is below a part. Objects with one object as their only field become a path."""
    if isinstance(node, str):
        return node
    path: list[str] = []
    while len(node) == 1 and isinstance(child := next(iter(node.values())), dict):
        path += node
        node = child
    text = _written(node)
    return f'{{"":{json.dumps(path)},{text[1:]}' if path else text
