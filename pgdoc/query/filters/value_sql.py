"""Compile the nodes of a filter to SQL conditions on one value, the column `value`; null for values of other types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.filters.nodes import Equal, Exists, HasBits, HasSize, HasType, In, Matches, Ordered, Remainder
from pgdoc.query.filters.sql_text import EQUALS, Compiled, literal, operator
from pgdoc.query.filters.types import INTEGER_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def value_condition(node: Any) -> Compiled:
    """Compile the node without its path; it can't be an `AnyElement`."""
    return _CONDITIONS[type(node)](node)


def type_is(name: str) -> str:
    """Return the condition that the value has this type of JSON."""
    return f"pg_catalog.jsonb_typeof(value) {EQUALS} '{name}'"


def _value(node: Equal | Ordered | In) -> str:
    """Return the value as it compares with operands; the name of a collation is one of a few."""
    return "value" if node.collation is None else f"pgdoc.collated(value, {literal(node.collation)})"


def _equal(node: Equal) -> Compiled:
    return Compiled(f"{_value(node)} {EQUALS} %s::pg_catalog.jsonb", [node.operand.text])


def _ordered(node: Ordered) -> Compiled:
    if node.operand.value is None:
        return Compiled(f"value {EQUALS} 'null'" if "=" in node.operator else "FALSE", [])
    same_type = f"pgdoc.type_rank(value) {EQUALS} pgdoc.type_rank(%s::pg_catalog.jsonb)"
    compared = f"pgdoc.compare({_value(node)}, %s::pg_catalog.jsonb) {operator(node.operator)} 0"
    return Compiled(f"({same_type} AND {compared})", [node.operand.text, node.operand.text])


def _in(node: In) -> Compiled:
    return Compiled(f"{_value(node)} {EQUALS} ANY(%s::pg_catalog.jsonb[])", [[item.text for item in node.operands]])


def _exists(_node: Exists) -> Compiled:
    return Compiled("value IS NOT NULL", [])


def _has_type(node: HasType) -> Compiled:
    return Compiled(f"pgdoc.type_of(value) {EQUALS} ANY(%s::pg_catalog.text[])", [list(node.types)])


def _has_size(node: HasSize) -> Compiled:
    size = f"pg_catalog.jsonb_array_length(value) {EQUALS} %s"
    return Compiled(f"CASE WHEN {type_is('array')} THEN {size} END", [node.size])


def _matches(node: Matches) -> Compiled:
    text = f"(value {operator('#>>')} '{{}}') COLLATE pg_catalog.\"C\" {operator('~')} %s::pg_catalog.text"
    return Compiled(f"CASE WHEN {type_is('string')} THEN {text} END", [node.pattern.postgresql])


def _remainder(node: Remainder) -> Compiled:
    limit = INTEGER_LIMITS["long"]
    number = "pg_catalog.trunc(value::numeric)"
    is_long = f"{number} {operator('>=')} {-limit} AND {number} {operator('<')} {limit}"
    text = f"{is_long} AND pg_catalog.mod({number}, %s::numeric) {EQUALS} %s::numeric"
    return Compiled(f"CASE WHEN {type_is('number')} THEN {text} END", [node.divisor, node.remainder])


def _bits(node: HasBits) -> Compiled:
    limit = INTEGER_LIMITS["long"]
    number = "value::numeric"
    is_long = (
        f"{number} {operator('>=')} {-limit} AND {number} {operator('<')} {limit} "
        f"AND {number} {EQUALS} pg_catalog.trunc({number})"
    )
    masked = f"({number}::bigint {operator('&')} %s::bigint)"
    params = [node.mask]
    if node.operator in {"$bitsAllSet", "$bitsAnyClear"}:
        test, params = f"{masked} {operator('=' if node.operator == '$bitsAllSet' else '<>')} %s::bigint", params * 2
    else:
        test = f"{masked} {operator('=' if node.operator == '$bitsAllClear' else '<>')} 0"
    # A CASE, not an AND: its order keeps larger numbers from the cast.
    return Compiled(f"CASE WHEN {type_is('number')} THEN CASE WHEN {is_long} THEN {test} END END", params)


_CONDITIONS: Final[Mapping[type, Callable[[Any], Compiled]]] = {
    Equal: _equal,
    Ordered: _ordered,
    In: _in,
    Exists: _exists,
    HasType: _has_type,
    HasSize: _has_size,
    Matches: _matches,
    Remainder: _remainder,
    HasBits: _bits,
}
