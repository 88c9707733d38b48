"""The computed fields of a projection: references, constants, and what makes an array smaller.

Everything else can be computed in Python from fields that are sent anyway. `pgdoc.evaluate` is the same in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.errors import InvalidDocument, InvalidInput
from pgdoc.model.json_codec import decode_comparable, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.nodes import MISSING
from pgdoc.query.filters.paths import parse_path
from pgdoc.query.filters.types import INTEGER_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.query.filters.nodes import Path

__all__ = ["Expression", "evaluate", "expression_text", "is_reference", "known_operators", "parse_expression"]

MAX_DEPTH: Final = 100
"""How deep operators may nest."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The value at a path. An array on the way yields the array of what its objects have there."""

    path: Path


@dataclass(frozen=True, slots=True)
class Constant:
    """A value, as JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class Size:
    """The number of items of an array; null for any other value."""

    array: Expression


@dataclass(frozen=True, slots=True)
class Item:
    """An item of an array, from the end if `index` is negative; null for a value that is not an array."""

    array: Expression
    index: int


@dataclass(frozen=True, slots=True)
class IfNull:
    """The first operand that is neither null nor missing; otherwise the last."""

    operands: tuple[Expression, ...]


Expression: TypeAlias = Reference | Constant | Size | Item | IfNull


def known_operators() -> str:
    """Return the names of the operators, for error messages."""
    return ", ".join(_OPERATORS)


def is_reference(value: Any) -> bool:
    """Whether the value is text such as `"$address.city"`."""
    return isinstance(value, str) and value.startswith("$")


def parse_expression(value: Any, name: str, depth: int = 0) -> Expression:
    """Parse the expression of the computed field `name`."""
    if depth > MAX_DEPTH:
        raise _invalid(name, f"nests operators more than {MAX_DEPTH} levels deep: flatten it")
    if is_reference(value):
        return _reference(value, name)
    if isinstance(value, Mapping) and any(isinstance(key, str) and key.startswith("$") for key in value):
        return _operation(value, name, depth)
    if _has_expression(value):
        raise _invalid(
            name, f"has an expression inside the value {short_repr(value)}: use $literal, or compute it in Python"
        )
    return _constant(value, name)


def _reference(value: str, name: str) -> Reference:
    if value.startswith("$$"):
        raise _invalid(name, f"uses the variable {short_repr(value)}: there are only paths such as '$address.city'")
    return Reference(parse_path(value[1:]))


def _operation(value: Mapping[str, Any], name: str, depth: int) -> Expression:
    if len(value) != 1:
        raise _invalid(name, f"needs one operator, got {short_repr(value)}")
    ((operator, operand),) = value.items()
    parse = _OPERATORS.get(operator)
    if parse is None:
        raise _invalid(
            name,
            f"has the unknown operator {short_repr(operator)}: use one of {known_operators()}, or compute the field in "
            "Python",
        )
    return parse(operand, name, depth + 1)


def _literal(operand: Any, name: str, _depth: int) -> Constant:
    return _constant(operand, name)


def _constant(value: Any, name: str) -> Constant:
    try:
        return Constant(encode_value(value, name).decode())
    except InvalidDocument as exc:
        raise InvalidInput(f"fields has a value that no document can contain: {exc}", path=exc.path) from exc


def _has_expression(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_expression, value)) or any(map(_has_expression, value.values()))
    return any(map(_has_expression, value)) if isinstance(value, list | tuple) else is_reference(value)


def _size(operand: Any, name: str, depth: int) -> Size:
    return Size(_array("$size", operand, name, depth))


def _first(operand: Any, name: str, depth: int) -> Item:
    return Item(_array("$first", operand, name, depth), 0)


def _last(operand: Any, name: str, depth: int) -> Item:
    return Item(_array("$last", operand, name, depth), -1)


def _array(operator: str, operand: Any, name: str, depth: int) -> Expression:
    # MongoDB also takes the operand in a list of its own.
    if isinstance(operand, list | tuple):
        if len(operand) != 1:
            raise _invalid(name, f"{operator} needs one array, such as '$items', got {short_repr(operand)}")
        operand = operand[0]
    return parse_expression(operand, name, depth)


def _array_item(operand: Any, name: str, depth: int) -> Item:
    if not isinstance(operand, list | tuple) or len(operand) != 2:
        raise _invalid(name, f"$arrayElemAt needs a list of array and index, got {short_repr(operand)}")
    array, index = operand
    limit = INTEGER_LIMITS["int"]
    if not isinstance(index, int) or isinstance(index, bool) or not -limit <= index < limit:
        raise _invalid(name, f"$arrayElemAt needs a 32-bit integer as its index, got {short_repr(index)}")
    return Item(parse_expression(array, name, depth), index)


def _if_null(operand: Any, name: str, depth: int) -> IfNull:
    if not isinstance(operand, list | tuple) or len(operand) < 2:
        raise _invalid(name, f"$ifNull needs a list of at least two expressions, got {short_repr(operand)}")
    return IfNull(tuple(parse_expression(item, name, depth) for item in operand))


_OPERATORS: Final[Mapping[Any, Callable[[Any, str, int], Expression]]] = {
    "$literal": _literal,
    "$size": _size,
    "$first": _first,
    "$last": _last,
    "$arrayElemAt": _array_item,
    "$ifNull": _if_null,
}


def _invalid(name: str, finding: str) -> InvalidInput:
    return InvalidInput(f"the computed field {short_repr(name)} {finding}", path=name)


def expression_text(expression: Expression) -> str:
    """Write the expression as JSON, for `pgdoc.evaluate`."""
    if isinstance(expression, Constant):
        return f'["value",{expression.text}]'
    if isinstance(expression, Reference):
        return '["path",' + json.dumps(expression.path) + "]"
    if isinstance(expression, Size):
        return f'["size",{expression_text(expression.array)}]'
    if isinstance(expression, Item):
        return f'["item",{expression_text(expression.array)},{expression.index}]'
    return '["ifNull",' + ",".join(map(expression_text, expression.operands)) + "]"


def evaluate(expression: Expression, document_id: str, data: dict[str, Any]) -> Any:
    """Return the value of the expression, or `MISSING`."""
    if isinstance(expression, Constant):
        return decode_comparable(expression.text)
    if isinstance(expression, Reference):
        return _referred({**data, "_id": document_id}, expression.path)
    if isinstance(expression, IfNull):
        value: Any = None
        for operand in expression.operands:
            value = evaluate(operand, document_id, data)
            if value is not None and value is not MISSING:
                break
        return value
    value = evaluate(expression.array, document_id, data)
    if not isinstance(value, list):
        return None
    if isinstance(expression, Size):
        return len(value)
    return value[expression.index] if -len(value) <= expression.index < len(value) else MISSING


def _referred(value: Any, path: Path) -> Any:
    for at, part in enumerate(path):
        if isinstance(value, list):
            found = (_referred(item, path[at:]) for item in value if isinstance(item, dict))
            return [item for item in found if item is not MISSING]
        if not isinstance(value, dict):
            return MISSING
        value = value.get(part, MISSING)
    return value
