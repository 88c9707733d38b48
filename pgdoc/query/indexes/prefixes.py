"""Patterns that an index can serve: those that say how a text starts.

`^exact$` is an equality. `^prefix` implies a range, which finds the texts that the pattern then tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeGuard

from pgdoc.model.json_codec import encode_value
from pgdoc.query.filters.key_sql import WHOLE_TEXT
from pgdoc.query.filters.nodes import And, AnyElement, Equal, Matches, Not, Operand, Or, Ordered, has_array_index
from pgdoc.query.regex.prefix import literal_start, next_after

if TYPE_CHECKING:
    from collections.abc import Container

    from pgdoc.query.filters.nodes import Node, Path

_ID: Final = ("_id",)


def with_equalities(node: Node) -> Node:
    """Return an equivalent filter with an equality in the place of each pattern that only one text matches."""
    if isinstance(node, And | Or):
        return type(node)(tuple(map(with_equalities, node.nodes)))
    if isinstance(node, Not):
        return Not(with_equalities(node.node))
    if isinstance(node, AnyElement):
        return AnyElement(node.path, with_equalities(node.node), node.as_document)
    if not isinstance(node, Matches) or node.pattern.rest != "nothing":
        return node
    text = literal_start(node.pattern.start)
    return Equal(node.path, _operand(text)) if len(text) == len(node.pattern.start) else node


def with_ranges(node: Node, paths: Container[Path]) -> Node:
    """Return an equivalent filter with a range beside each pattern on one of the paths that says how a text starts."""
    if isinstance(node, And | Or):
        return type(node)(tuple(with_ranges(part, paths) for part in node.nodes))
    if not isinstance(node, Matches) or not (node.path in paths or node.path == _ID):
        return node
    return And((*range_of(node), node))


def range_of(node: Matches) -> tuple[Ordered, ...]:
    """Return the bounds of the texts that can match; empty if there are none."""
    start = literal_start(node.pattern.start)
    if not start:
        return ()
    end = next_after(start)
    least = Ordered(node.path, ">=", _operand(start))
    return (least,) if end is None else (least, Ordered(node.path, "<", _operand(end)))


def is_range(node: Node) -> TypeGuard[Matches]:
    """Whether a document that has one value at the path, no array, matches if the value is in the `range_of`."""
    if not isinstance(node, Matches) or node.pattern.rest != "anything" or has_array_index(node.path):
        return False
    start = literal_start(node.pattern.start)
    return 0 < len(start) == len(node.pattern.start) < WHOLE_TEXT and next_after(start) is not None


def _operand(text: str) -> Operand:
    return Operand(text, encode_value(text, "").decode())
