"""Parse filters.

A new operator needs a line in `_OPERATORS`, a node, and the node's meaning in both interpreters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidDocument, InvalidFilter
from pgdoc.model.json_codec import MAX_DIGITS, decode_comparable, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.bits import BIT_TESTS, mask_of
from pgdoc.query.filters.collations import check_collation, with_collation
from pgdoc.query.filters.fold import check_conditions
from pgdoc.query.filters.nodes import (
    ELEMENT,
    And,
    AnyElement,
    Equal,
    Exists,
    HasBits,
    HasSize,
    HasType,
    In,
    Matches,
    Node,
    Not,
    Operand,
    Or,
    Ordered,
    Path,
    Remainder,
)
from pgdoc.query.filters.paths import split_path
from pgdoc.query.filters.types import INTEGER_LIMITS, TYPE_NAMES, types_of
from pgdoc.query.regex.parse import BadPattern, parse_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.model.values import Encoder

MAX_DEPTH: Final = 100
"""How deep `$and`, `$or`, `$nor`, `$not`, `$all` and `$elemMatch` may nest."""

_COMMENT: Final = "$comment"
"""Accepted in every filter, and without a meaning, as in MongoDB."""

MAX_ELEM_MATCH: Final = 8
"""How deep `$elemMatch` may nest in itself: beyond that, PostgreSQL's cost estimate triggers JIT compilation."""


@dataclass(frozen=True, slots=True)
class _FieldPath:
    """The field that an operator applies to.

    Attributes:
        path: the path in the node; empty for the element of an `$elemMatch` itself.
        dotted: the full path from the root, for messages.
        elem_match_depth: the number of `$elemMatch` around it.
        encoder: that of the store, for the values to compare with.
    """

    path: Path
    dotted: str
    elem_match_depth: int = 0
    encoder: Encoder | None = None


_DOCUMENT: Final = _FieldPath((), "")


def parse_filter(
    filter: Mapping[str, Any] | None,  # noqa: A002 (the name in the public calls)
    encoder: Encoder | None = None,
    collation: str | None = None,
) -> Node:
    """Parse a filter; `None` and `{}` match every document.

    Equalities that fold into one list count as one condition.
    """
    check_collation(collation)
    if filter is None:
        return And(())
    node = _parse_object(filter, 0, _DOCUMENT if encoder is None else _FieldPath((), "", encoder=encoder))
    check_conditions(node)
    return with_collation(node, collation)


def parse_filter_of_write(filter: Any, encoder: Encoder | None, collation: str | None) -> Node:  # noqa: A002
    """Parse the filter of a call that writes; `None`, which a mistake may leave in a variable, does not match all."""
    if filter is None:
        raise InvalidFilter("a call that writes needs a filter, got None: use {} for every document")
    return parse_filter(filter, encoder, collation)


def parse_condition(value: Mapping[str, Any], dotted: str, encoder: Encoder | None = None) -> Node:
    """Parse a condition of `$pull`; each element of the array is the field `ELEMENT`.

    Unlike in `$elemMatch`, operators apply to an element and, if it is an array, to its items.
    """
    if is_operators(value):
        return _parse_field(_FieldPath((ELEMENT,), dotted, encoder=encoder), value, 0)
    return _parse_object(value, 0, _FieldPath((), dotted, encoder=encoder))


def is_operators(value: Mapping[Any, Any]) -> bool:
    """Whether the keys are operators on a value, not a filter on a document, which may contain `$and`."""
    return any(isinstance(key, str) and key.startswith("$") and key not in {*_COMBINATIONS, _COMMENT} for key in value)


def _parse_object(filter: Any, depth: int, array: _FieldPath) -> Node:  # noqa: A002
    """Parse a filter on the elements of `array`; without a path, it stands for the document."""
    if not isinstance(filter, Mapping):
        raise InvalidFilter(f"a filter must be a dict such as {{'status': 'new'}}, got {short_repr(filter)}")
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"the filter is nested more than {MAX_DEPTH} levels deep: flatten it")
    entries = (item for item in filter.items() if item[0] != _COMMENT)
    return _conjunction(tuple(_parse_entry(key, value, depth, array) for key, value in entries))


def _parse_entry(key: Any, value: Any, depth: int, array: _FieldPath) -> Node:
    dotted = array.dotted or None
    if not isinstance(key, str):
        raise InvalidFilter(
            f"the keys of a filter must be text, got {short_repr(key)}: use a dotted path or an operator", path=dotted
        )
    if not key.startswith("$"):
        return _parse_field(_field_path(key, array), value, depth)
    combine = _COMBINATIONS.get(key)
    if combine is None:
        known = ", ".join(_COMBINATIONS)
        raise InvalidFilter(
            f"unknown operator {short_repr(key)}: use a path or one of {known} here", path=dotted, operator=key
        )
    if not isinstance(value, list | tuple) or not value:
        raise InvalidFilter(
            f"{key} needs a list of at least one filter, got {short_repr(value)}", path=dotted, operator=key
        )
    return combine(tuple(_parse_object(item, depth + 1, array) for item in value))


def _field_path(dotted: str, array: _FieldPath) -> _FieldPath:
    if not array.dotted:
        return _FieldPath(split_path(dotted, dotted), dotted, encoder=array.encoder)
    full = f"{array.dotted}.{dotted}"
    return _FieldPath((ELEMENT, *split_path(dotted, full)), full, array.elem_match_depth, array.encoder)


def _parse_field(field: _FieldPath, value: Any, depth: int) -> Node:
    value = _spelled_out(value)
    if not _has_operators(value):
        return _equal(field, "$eq", value)
    pattern = value if "$regex" in value else None
    names = [name for name in value if name != "$options" or pattern is None]
    return _conjunction(tuple(_parse_operator(field, name, value[name], depth, pattern) for name in names))


def _parse_operator(field: _FieldPath, name: Any, value: Any, depth: int, pattern: Mapping[str, Any] | None) -> Node:
    if name == "$regex" and pattern is not None:
        return _matches(field, pattern)
    parse_nested = _NESTING_OPERATORS.get(name)
    if parse_nested is not None:
        if depth >= MAX_DEPTH:
            raise _invalid(field, name, f"is nested more than {MAX_DEPTH} levels deep: flatten the filter")
        return parse_nested(field, name, value, depth + 1)
    parse = _OPERATORS.get(name)
    if parse is None:
        known = ", ".join((*_OPERATORS, *_NESTING_OPERATORS, "$regex"))
        hint = "use it together with $regex" if name == "$options" else f"use one of {known}"
        raise InvalidFilter(
            f"unknown operator {short_repr(name)} at {short_repr(field.dotted)}: {hint}",
            path=field.dotted,
            operator=str(name),
        )
    return parse(field, name, value)


def _not(field: _FieldPath, name: str, value: Any, depth: int) -> Node:
    value = _spelled_out(value)
    if not _has_operators(value):
        raise _invalid(field, name, f"needs operators such as {{'$gt': 5}}, got {short_repr(value)}")
    return Not(_parse_field(field, value, depth))


def _elem_match(field: _FieldPath, name: str, value: Any, depth: int) -> Node:
    """Parse operators on the element, or a filter on it as a document: as in MongoDB, the first key decides which."""
    if not isinstance(value, Mapping):
        raise _invalid(field, name, f"needs operators or a filter, got {short_repr(value)}")
    if field.elem_match_depth == MAX_ELEM_MATCH:
        raise _invalid(field, name, f"is nested in itself more than {MAX_ELEM_MATCH} levels deep: flatten the filter")
    element = _FieldPath((), field.dotted, field.elem_match_depth + 1, field.encoder)
    first = next((key for key in value if key != _COMMENT), "")
    if isinstance(first, str) and first.startswith("$") and first not in _COMBINATIONS:
        return AnyElement(field.path, _parse_field(element, value, depth), as_document=False)
    return AnyElement(field.path, _parse_object(value, depth, element), as_document=True)


def _contains_all(field: _FieldPath, name: str, value: Any, depth: int) -> Node:
    items = _list(field, name, value)
    if not items:
        return In(field.path, ())  # as in MongoDB, an empty $all matches nothing
    if not any(map(_is_elem_match, items)):
        return _conjunction(tuple(_equal_or_matches(field, name, item) for item in items))
    if not all(map(_is_elem_match, items)):
        raise _invalid(field, name, "mixes $elemMatch with other items: use $elemMatch for all of them, or for none")
    return _conjunction(tuple(_elem_match(field, "$elemMatch", item["$elemMatch"], depth) for item in items))


def _is_elem_match(value: Any) -> bool:
    return isinstance(value, Mapping) and list(value) == ["$elemMatch"]


def _equal(field: _FieldPath, name: str, value: Any) -> Node:
    return Equal(field.path, _operand(field, name, value))


def _not_equal(field: _FieldPath, name: str, value: Any) -> Node:
    _refuse_pattern(field, name, value)
    return Not(_equal(field, name, value))


def _ordered(field: _FieldPath, name: str, value: Any) -> Node:
    _refuse_pattern(field, name, value)
    return Ordered(field.path, _COMPARISONS[name], _operand(field, name, value))


def _refuse_pattern(field: _FieldPath, name: str, value: Any) -> None:
    if _is_pattern(_spelled_out(value)):
        raise _invalid(field, name, "needs a value, got $regex: use {'$regex': ...} directly, or in $not")


def _in(field: _FieldPath, name: str, value: Any) -> Node:
    items = _list(field, name, value)
    patterns = [_equal_or_matches(field, name, item) for item in items if _has_operators(item)]
    operands = tuple(_operand(field, name, item) for item in items if not _has_operators(item))
    if not patterns:
        return In(field.path, operands)
    return Or((*([In(field.path, operands)] if operands else []), *patterns))


def _not_in(field: _FieldPath, name: str, value: Any) -> Node:
    return Not(_in(field, name, value))


def _list(field: _FieldPath, name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _invalid(field, name, f"needs a list, got {short_repr(value)}")
    return list(map(_spelled_out, value))


def _equal_or_matches(field: _FieldPath, name: str, value: Any) -> Node:
    if _is_pattern(value):
        return _matches(field, value)
    if _has_operators(value):
        raise _invalid(field, name, f"accepts values and $regex, but no other operators: got {short_repr(value)}")
    return _equal(field, name, value)


def _spelled_out(value: Any) -> Any:
    """Return a compiled expression of Python as its text and options; other values as they are."""
    if not isinstance(value, re.Pattern):
        return value
    return {"$regex": value.pattern, "$options": "".join(name for name, flag in _FLAGS.items() if value.flags & flag)}


def _is_pattern(value: Any) -> bool:
    return isinstance(value, Mapping) and "$regex" in value and set(value) <= {"$regex", "$options"}


def _matches(field: _FieldPath, value: Mapping[str, Any]) -> Node:
    pattern, options = value["$regex"], value.get("$options", "")
    if isinstance(pattern, re.Pattern):
        spelled = _spelled_out(pattern)
        pattern, options = spelled["$regex"], value.get("$options", spelled["$options"])
    for name, text in (("$regex", pattern), ("$options", options)):
        if not isinstance(text, str):
            raise _invalid(field, name, f"needs text, got {short_repr(text)}")
    try:
        return Matches(field.path, parse_pattern(pattern, options))
    except BadPattern as exc:
        raise _invalid(field, "$regex", f"can't use the pattern {short_repr(pattern)}: {exc}") from exc


def _exists(field: _FieldPath, _name: str, value: Any) -> Node:
    """Read the operand as MongoDB reads a boolean: only null, false and zero are false."""
    node = Exists(field.path)
    return Not(node) if value is None or (isinstance(value, int | float | Decimal) and not value) else node


def _has_type(field: _FieldPath, name: str, value: Any) -> Node:
    wanted = value if isinstance(value, list | tuple) else [value]
    if not wanted:
        raise _invalid(field, name, "needs a type, or a list of at least one type")
    found = [types_of(item) for item in wanted]
    if None in found:
        raise _invalid(field, name, f"has an unknown type in {short_repr(value)}: use types such as {TYPE_NAMES}")
    return HasType(field.path, tuple(dict.fromkeys(item for types in found if types for item in types)))


def _has_size(field: _FieldPath, name: str, value: Any) -> Node:
    size = integer_of(value)
    if size is None or size != value or not 0 <= size < INTEGER_LIMITS["int"]:
        raise _invalid(field, name, f"needs an integer from 0 to 2,147,483,647, got {short_repr(value)}")
    return HasSize(field.path, size)


def _remainder(field: _FieldPath, name: str, value: Any) -> Node:
    """Truncate both numbers to integers, as MongoDB does."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _invalid(field, name, f"needs a list of divisor and remainder, got {short_repr(value)}")
    limit = INTEGER_LIMITS["long"]
    divisor, remainder = (number for number in map(integer_of, value))
    if divisor is None or remainder is None or not (-limit <= divisor < limit and -limit <= remainder < limit):
        raise _invalid(field, name, f"needs two 64-bit numbers, got {short_repr(value)}")
    if not divisor:
        raise _invalid(field, name, f"can't divide by zero: use another divisor in {short_repr(value)}")
    return Remainder(field.path, divisor, remainder)


def _has_bits(field: _FieldPath, name: str, value: Any) -> Node:
    try:
        return HasBits(field.path, name, mask_of(value))
    except ValueError as exc:
        raise _invalid(field, name, str(exc)) from exc


def integer_of(value: Any) -> int | None:
    """Return the number truncated to an integer; `None` if it is no finite number, or too large for a document."""
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value.adjusted() < MAX_DIGITS else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _nor(nodes: tuple[Node, ...]) -> Node:
    return Not(Or(nodes))


_FLAGS: Final = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}

_COMPARISONS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

_OPERATORS: Final[Mapping[Any, Callable[[_FieldPath, str, Any], Node]]] = {
    "$eq": _equal,
    "$ne": _not_equal,
    "$gt": _ordered,
    "$gte": _ordered,
    "$lt": _ordered,
    "$lte": _ordered,
    "$in": _in,
    "$nin": _not_in,
    "$exists": _exists,
    "$type": _has_type,
    "$size": _has_size,
    "$mod": _remainder,
    **dict.fromkeys(BIT_TESTS, _has_bits),
}

_NESTING_OPERATORS: Final[Mapping[Any, Callable[[_FieldPath, str, Any, int], Node]]] = {
    "$not": _not,
    "$all": _contains_all,
    "$elemMatch": _elem_match,
}

_COMBINATIONS: Final[Mapping[str, Callable[[tuple[Node, ...]], Node]]] = {"$and": And, "$or": Or, "$nor": _nor}


def _conjunction(nodes: tuple[Node, ...]) -> Node:
    return nodes[0] if len(nodes) == 1 else And(nodes)


def _has_operators(value: Any) -> bool:
    """Whether the value is an object of operators, such as `{"$gt": 5}`, not a value to compare with."""
    return isinstance(value, Mapping) and any(isinstance(key, str) and key.startswith("$") for key in value)


def _operand(field: _FieldPath, name: str, value: Any) -> Operand:
    try:
        text = encode_value(value, field.dotted, field.encoder)
    except InvalidDocument as exc:
        raise InvalidFilter(
            f"{name} has a value that no document can contain: {exc}", path=exc.path, operator=name
        ) from exc
    return Operand(value if type(value) is str else decode_comparable(text), text.decode())


def _invalid(field: _FieldPath, name: str, finding: str) -> InvalidFilter:
    return InvalidFilter(f"{name} at {short_repr(field.dotted)} {finding}", path=field.dotted, operator=name)
