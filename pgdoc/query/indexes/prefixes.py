"""Patterns that an index can serve: those that say how a text starts.

`^exact$` is an equality. `^prefix` implies a range, which finds the texts that the pattern then tests.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeGuard

from pgdoc.model.json_codec import encode_value
from pgdoc.query.filters.collations import COLLATIONS, contains_text, folded_letter
from pgdoc.query.filters.key_sql import WHOLE_TEXT
from pgdoc.query.filters.nodes import And, Equal, In, Matches, Operand, Or, Ordered, has_array_index, map_fields
from pgdoc.query.regex.prefix import folded_start, literal_start, next_after

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from pgdoc.query.filters.nodes import Lookup, Node, Path

_ID: Final = ("_id",)


def with_equalities(node: Node, collated: Container[Path]) -> Node:
    """Return an equivalent filter with an equality in the place of each pattern that only one text matches.

    Not on paths with an index of a collation alone, which serves a pattern, but no equality without the collation.
    """
    return map_fields(node, partial(_as_equality, collated))


def _as_equality(collated: Container[Path], node: Node) -> Node:
    if not isinstance(node, Matches) or node.pattern.rest != "nothing" or node.path in collated:
        return node
    text = literal_start(node.pattern.start)
    return Equal(node.path, _operand(text)) if len(text) == len(node.pattern.start) else node


def with_ranges(node: Node, paths: Mapping[Path, str | None]) -> Node:
    """Return an equivalent filter with a range beside each pattern on one of the paths that says how a text starts.

    Args:
        node: the filter.
        paths: the paths with an index, with the index's collation.
    """
    if isinstance(node, And | Or):
        return type(node)(tuple(with_ranges(part, paths) for part in node.nodes))
    if not isinstance(node, Matches) or not (node.path in paths or node.path == _ID):
        return node
    return And((*range_of(node, paths.get(node.path)), node))


def range_of(node: Matches, collation: str | None) -> tuple[Ordered, ...]:
    """Return the bounds of the texts that can match, under the collation; empty if there are none."""
    given = node.pattern.start
    start = literal_start(given) if collation is None else folded_start(given, folded_letter)
    if not start:
        return ()
    end = next_after(start)
    least = Ordered(node.path, ">=", _operand(start), collation)
    return (least,) if end is None else (least, Ordered(node.path, "<", _operand(end), collation))


def may_have_range(node: Node) -> TypeGuard[Matches]:
    """Whether the node is a pattern that an index of some collation can serve."""
    return isinstance(node, Matches) and any(range_of(node, collation) for collation in (None, *COLLATIONS))


def is_served(node: Lookup | Matches, collation: str | None) -> bool:
    """Whether keys of the collation decide, or narrow down, which documents match the node."""
    if isinstance(node, Matches):
        return bool(range_of(node, collation))
    if node.collation == collation:
        return True
    operands = node.operands if isinstance(node, In) else (node.operand,)
    return node.collation is None and not any(contains_text(operand.value) for operand in operands)


def is_range(node: Node) -> TypeGuard[Matches]:
    """Whether a document that has one value at the path, no array, matches if the value is in the `range_of`."""
    if not isinstance(node, Matches) or node.pattern.rest != "anything" or has_array_index(node.path):
        return False
    start = literal_start(node.pattern.start)
    return 0 < len(start) == len(node.pattern.start) < WHOLE_TEXT and next_after(start) is not None


def _operand(text: str) -> Operand:
    return Operand(text, encode_value(text, "").decode())
