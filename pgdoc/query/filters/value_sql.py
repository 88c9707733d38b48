"""Compile the nodes of a filter to SQL conditions on one value, the column `value`; null for values of other types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.filters.nodes import Equal, Exists, HasSize, HasType, In, Matches, Ordered, Remainder
from pgdoc.query.filters.sql_text import Compiled
from pgdoc.query.filters.types import INTEGER_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def value_condition(node: Any) -> Compiled:
    """Compile the node without its path; it can't be an `AnyElement`."""
    return _CONDITIONS[type(node)](node)


def _equal(node: Equal) -> Compiled:
    return Compiled("value = %s::jsonb", [node.operand.text])


def _ordered(node: Ordered) -> Compiled:
    if node.operand.value is None:
        return Compiled("value = 'null'" if "=" in node.operator else "FALSE", [])
    text = f"pgdoc.type_rank(value) = pgdoc.type_rank(%s::jsonb) AND pgdoc.compare(value, %s::jsonb) {node.operator} 0"
    return Compiled(f"({text})", [node.operand.text, node.operand.text])


def _in(node: In) -> Compiled:
    return Compiled("value = ANY(%s::jsonb[])", [[item.text for item in node.operands]])


def _exists(_node: Exists) -> Compiled:
    return Compiled("value IS NOT NULL", [])


def _has_type(node: HasType) -> Compiled:
    return Compiled("pgdoc.type_of(value) = ANY(%s::text[])", [list(node.types)])


def _has_size(node: HasSize) -> Compiled:
    return Compiled("CASE jsonb_typeof(value) WHEN 'array' THEN jsonb_array_length(value) = %s END", [node.size])


def _matches(node: Matches) -> Compiled:
    text = "CASE jsonb_typeof(value) WHEN 'string' THEN (value #>> '{}') COLLATE \"C\" ~ %s::text END"
    return Compiled(text, [node.pattern.postgresql])


def _remainder(node: Remainder) -> Compiled:
    limit = INTEGER_LIMITS["long"]
    number = "trunc(value::numeric)"
    text = f"{number} BETWEEN {-limit} AND {limit - 1} AND mod({number}, %s::numeric) = %s::numeric"
    return Compiled(f"CASE jsonb_typeof(value) WHEN 'number' THEN {text} END", [node.divisor, node.remainder])


_CONDITIONS: Final[Mapping[type, Callable[[Any], Compiled]]] = {
    Equal: _equal,
    Ordered: _ordered,
    In: _in,
    Exists: _exists,
    HasType: _has_type,
    HasSize: _has_size,
    Matches: _matches,
    Remainder: _remainder,
}
