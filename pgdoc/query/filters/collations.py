"""Collations: how the texts in a comparison, a sort or an index compare.

A collation replaces each text by another one, whose order by code point is the order of the collation. Everything else,
keys of indexes included, works on these texts. `pgdoc.collated` does the same in the server.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput
from pgdoc.model.json_codec import decode_comparable, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.folding import MARKS, foldings
from pgdoc.query.filters.nodes import Equal, In, Operand, Ordered, map_fields

if TYPE_CHECKING:
    from pgdoc.query.filters.nodes import Node

COLLATIONS: Final = ("ci", "ci_ai")
"""`ci` compares letters without their case, `ci_ai` also without their accents."""

_BEFORE_ACCENTS: Final = "\x01"
"""Sorts before all letters, so that a text without accents comes before the same one with accents."""


def check_collation(value: Any) -> str | None:
    """Return the name of a collation; `None` for comparing by code point."""
    if value is None or (isinstance(value, str) and value in COLLATIONS):
        return value
    raise InvalidInput(
        f"{short_repr(value)} is not a collation: use 'ci' (regardless of case, as MongoDB's strength 2), 'ci_ai' "
        "(regardless of case and accents, as strength 1), or None"
    )


def fold_text(text: str, collation: str) -> str:
    """Return what the text compares as under the collation."""
    if text.isascii():
        return text.lower()
    whole = text.translate(foldings())
    letters = MARKS.sub("", whole)
    return letters if collation != "ci" or letters == whole else letters + _BEFORE_ACCENTS + whole


def folded_letter(code: int) -> str:
    """Return what replaces a character at the start of a folded text, under each collation."""
    return fold_text(chr(code), "ci_ai")


def collated(value: Any, collation: str) -> Any:
    """Return the value with each text in it folded; the keys of objects stay as they are."""
    if isinstance(value, str):
        return fold_text(value, collation)
    if isinstance(value, list):
        return [collated(item, collation) for item in value]
    if isinstance(value, dict):
        return {key: collated(item, collation) for key, item in value.items()}
    return value


def contains_text(value: Any) -> bool:
    """Whether a collation changes how the value compares with others."""
    if isinstance(value, list | dict):
        return any(map(contains_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


def collated_operand(operand: Operand, collation: str | None) -> Operand:
    """Return the operand with its texts folded."""
    if collation is None or not contains_text(operand.value):
        return operand
    text = encode_value(collated(operand.value, collation), "")
    return Operand(decode_comparable(text), text.decode())


def with_collation(node: Node, collation: str | None) -> Node:
    """Return the filter with its texts compared under the collation; ids and patterns compare as without one."""
    return node if collation is None else map_fields(node, partial(_field_with_collation, collation))


def _field_with_collation(collation: str, node: Node) -> Node:
    if not isinstance(node, Equal | Ordered | In) or node.path[:1] == ("_id",):
        return node
    operands = node.operands if isinstance(node, In) else (node.operand,)
    if not any(contains_text(operand.value) for operand in operands):
        return node
    compared = tuple(collated_operand(operand, collation) for operand in operands)
    if isinstance(node, In):
        return In(node.path, compared, collation)
    return replace(node, operand=compared[0], collation=collation)
