"""Parse filters and sorts.

A new operator is one line in `_OPERATORS`, a node, and the node's meaning in each of the two interpreters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidInput
from pgdoc.model.json_codec import MAX_DEPTH as MAX_PATH
from pgdoc.model.json_codec import MAX_DIGITS, decode, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.nodes import (
    ELEMENT,
    And,
    AnyElement,
    Equal,
    Exists,
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
    SortKey,
)
from pgdoc.query.filters.types import INTEGERS, TYPE_NAMES, types_of
from pgdoc.query.regex.parse import BadPattern, parse_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH: Final = 100
"""How deep `$and`, `$or`, `$nor`, `$not`, `$all` and `$elemMatch` may nest."""

MAX_ELEMENTS: Final = 8
"""How deep `$elemMatch` may nest: PostgreSQL takes a query that is nested deeper for one that is worth compiling."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What an operator is about.

    Attributes:
        path: as the node has it; empty for an element itself.
        at: the whole path from the document's root, for messages.
        inside: how many `$elemMatch` are around it.
    """

    path: Path
    at: str
    inside: int = 0


def parse_filter(filter: Mapping[str, Any] | None) -> Node:  # noqa: A002 (the name in the public calls)
    """Parse a filter; `None` and `{}` match every document.

    Raises:
        InvalidFilter: not a filter; `operator` and `path` name the place.
    """
    return And(()) if filter is None else _parse_object(filter, 0, None)


def parse_condition(value: Mapping[str, Any], at: str) -> Node:
    """Parse what is said of the elements of the array at the path, each of which stands under `ELEMENT`.

    As in `$elemMatch`, but operators hold for an element and, where that is an array, for its items.

    Raises:
        InvalidFilter: as `parse_filter`.
    """
    if is_operators(value):
        return _parse_field(_Place((ELEMENT,), at), value, 0)
    return _parse_object(value, 0, _Place((), at))


def is_operators(value: Mapping[Any, Any]) -> bool:
    """Whether these are operators on a value, and no filter on a document, which may have `$and` and its like."""
    return any(isinstance(key, str) and key.startswith("$") and key not in _COMBINATIONS for key in value)


def _parse_object(filter: Any, depth: int, array: _Place | None) -> Node:  # noqa: A002
    """Parse the filter of a document, or of an element of the array."""
    if not isinstance(filter, Mapping):
        raise InvalidFilter(f"{short_repr(filter)} is no filter: give a dict such as {{'status': 'new'}}")
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"the filter is nested deeper than {MAX_DEPTH} levels: flatten it")
    return _all(tuple(_parse_entry(key, value, depth, array) for key, value in filter.items()))


def _parse_entry(key: Any, value: Any, depth: int, array: _Place | None) -> Node:
    at = array.at if array else None
    if not isinstance(key, str):
        raise InvalidFilter(
            f"the key {short_repr(key)} of the filter is no text: give a dotted path or an operator", path=at
        )
    if not key.startswith("$"):
        return _parse_field(_place(key, array), value, depth)
    combine = _COMBINATIONS.get(key)
    if combine is None:
        known = ", ".join(_COMBINATIONS)
        raise InvalidFilter(f"unknown operator {short_repr(key)}: {known} stand here, or a path", path=at, operator=key)
    if not isinstance(value, list | tuple) or not value:
        raise InvalidFilter(f"{key} takes a list of one filter or more, not {short_repr(value)}", path=at, operator=key)
    return combine(tuple(_parse_object(item, depth + 1, array) for item in value))


def _place(dotted: str, array: _Place | None) -> _Place:
    if array is None:
        return _Place(_split(dotted, dotted), dotted)
    at = f"{array.at}.{dotted}"
    return _Place((ELEMENT, *_split(dotted, at)), at, array.inside)


def _parse_field(place: _Place, value: Any, depth: int) -> Node:
    if not _has_operators(value):
        return _equal(place, "$eq", value)
    pattern = value if "$regex" in value else None
    names = [name for name in value if name != "$options" or pattern is None]
    return _all(tuple(_parse_operator(place, name, value[name], depth, pattern) for name in names))


def _parse_operator(place: _Place, name: Any, value: Any, depth: int, pattern: Mapping[str, Any] | None) -> Node:
    if name == "$regex" and pattern is not None:
        return _matches(place, pattern)
    deep = _DEEP_OPERATORS.get(name)
    if deep is not None:
        if depth >= MAX_DEPTH:
            raise _invalid(place, name, f"is nested deeper than {MAX_DEPTH} levels: flatten it")
        return deep(place, name, value, depth + 1)
    parse = _OPERATORS.get(name)
    if parse is None:
        known = ", ".join((*_OPERATORS, *_DEEP_OPERATORS, "$regex"))
        hint = "$options stands beside $regex only" if name == "$options" else f"known are {known}"
        raise InvalidFilter(
            f"unknown operator {short_repr(name)} at {short_repr(place.at)}: {hint}", path=place.at, operator=str(name)
        )
    return parse(place, name, value)


def _not(place: _Place, name: str, value: Any, depth: int) -> Node:
    if not _has_operators(value):
        raise _invalid(place, name, f"takes operators such as {{'$gt': 5}}, not {short_repr(value)}")
    return Not(_parse_field(place, value, depth))


def _element_match(place: _Place, name: str, value: Any, depth: int) -> Node:
    """Parse operators on the element, or a filter on it as a document: the first key tells, as in MongoDB."""
    if not isinstance(value, Mapping):
        raise _invalid(place, name, f"takes operators or a filter, not {short_repr(value)}")
    if place.inside == MAX_ELEMENTS:
        raise _invalid(place, name, f"is nested deeper than {MAX_ELEMENTS} times in itself")
    element = _Place((), place.at, place.inside + 1)
    first = next(iter(value), "")
    if isinstance(first, str) and first.startswith("$") and first not in _COMBINATIONS:
        return AnyElement(place.path, _parse_field(element, value, depth), whole=False)
    return AnyElement(place.path, _parse_object(value, depth, element), whole=True)


def _every(place: _Place, name: str, value: Any, depth: int) -> Node:
    items = _list(place, name, value)
    if not items:
        return In(place.path, ())
    if not any(map(_is_element_match, items)):
        return _all(tuple(_equal_or_matches(place, name, item) for item in items))
    if not all(map(_is_element_match, items)):
        raise _invalid(place, name, "takes $elemMatch for each of its items, or for none")
    return _all(tuple(_element_match(place, "$elemMatch", item["$elemMatch"], depth) for item in items))


def _is_element_match(value: Any) -> bool:
    return isinstance(value, Mapping) and list(value) == ["$elemMatch"]


def _equal(place: _Place, name: str, value: Any) -> Node:
    return Equal(place.path, _operand(place, name, value))


def _not_equal(place: _Place, name: str, value: Any) -> Node:
    _refuse_pattern(place, name, value)
    return Not(_equal(place, name, value))


def _ordered(place: _Place, name: str, value: Any) -> Node:
    _refuse_pattern(place, name, value)
    return Ordered(place.path, _COMPARISONS[name], _operand(place, name, value))


def _refuse_pattern(place: _Place, name: str, value: Any) -> None:
    if _is_pattern(value):
        raise _invalid(place, name, "takes a value, not $regex: use {'$regex': ...} itself, or in $not")


def _in(place: _Place, name: str, value: Any) -> Node:
    items = _list(place, name, value)
    patterns = [_equal_or_matches(place, name, item) for item in items if _has_operators(item)]
    operands = tuple(_operand(place, name, item) for item in items if not _has_operators(item))
    if not patterns:
        return In(place.path, operands)
    return Or((*([In(place.path, operands)] if operands else []), *patterns))


def _not_in(place: _Place, name: str, value: Any) -> Node:
    return Not(_in(place, name, value))


def _list(place: _Place, name: str, value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _invalid(place, name, f"takes a list, not {short_repr(value)}")
    return value


def _equal_or_matches(place: _Place, name: str, value: Any) -> Node:
    if _is_pattern(value):
        return _matches(place, value)
    if _has_operators(value):
        raise _invalid(place, name, f"takes values and $regex, not other operators: {short_repr(value)}")
    return _equal(place, name, value)


def _is_pattern(value: Any) -> bool:
    return isinstance(value, Mapping) and "$regex" in value and set(value) <= {"$regex", "$options"}


def _matches(place: _Place, value: Mapping[str, Any]) -> Node:
    pattern, options = value["$regex"], value.get("$options", "")
    for name, text in (("$regex", pattern), ("$options", options)):
        if not isinstance(text, str):
            raise _invalid(place, name, f"takes text, not {short_repr(text)}")
    try:
        return Matches(place.path, parse_pattern(pattern, options))
    except BadPattern as exc:
        raise _invalid(place, "$regex", f"can't use {short_repr(pattern)}: it {exc}") from exc


def _exists(place: _Place, _name: str, value: Any) -> Node:
    """As MongoDB reads a truth value: null, false and zero are false, all else is true."""
    node = Exists(place.path)
    return Not(node) if value is None or (isinstance(value, int | float | Decimal) and not value) else node


def _has_type(place: _Place, name: str, value: Any) -> Node:
    wanted = value if isinstance(value, list | tuple) else [value]
    if not wanted:
        raise _invalid(place, name, "takes a type, or a list of at least one")
    found = [types_of(item) for item in wanted]
    if None in found:
        raise _invalid(place, name, f"has an unknown type in {short_repr(value)}: such as {TYPE_NAMES} are known")
    return HasType(place.path, tuple(dict.fromkeys(item for types in found if types for item in types)))


def _has_size(place: _Place, name: str, value: Any) -> Node:
    size = integer_of(value)
    if size is None or size != value or not 0 <= size < INTEGERS["int"]:
        raise _invalid(place, name, f"takes an integer from 0 to 2,147,483,647, not {short_repr(value)}")
    return HasSize(place.path, size)


def _remainder(place: _Place, name: str, value: Any) -> Node:
    """The two numbers lose their fractions, as in MongoDB."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _invalid(place, name, f"takes a list of divisor and remainder, not {short_repr(value)}")
    limit = INTEGERS["long"]
    divisor, remainder = (number for number in map(integer_of, value))
    if divisor is None or remainder is None or not (-limit <= divisor < limit and -limit <= remainder < limit):
        raise _invalid(place, name, f"takes two numbers of 64 bits, not {short_repr(value)}")
    if not divisor:
        raise _invalid(place, name, "can't divide by zero")
    return Remainder(place.path, divisor, remainder)


def integer_of(value: Any) -> int | None:
    """Return the number without its fraction; `None` for what is no number, not finite, or too large for JSON."""
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value.adjusted() < MAX_DIGITS else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _nor(nodes: tuple[Node, ...]) -> Node:
    return Not(Or(nodes))


_COMPARISONS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

_OPERATORS: Final[Mapping[Any, Callable[[_Place, str, Any], Node]]] = {
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
}

_DEEP_OPERATORS: Final[Mapping[Any, Callable[[_Place, str, Any, int], Node]]] = {
    "$not": _not,
    "$all": _every,
    "$elemMatch": _element_match,
}

_COMBINATIONS: Final[Mapping[str, Callable[[tuple[Node, ...]], Node]]] = {"$and": And, "$or": Or, "$nor": _nor}


def _all(nodes: tuple[Node, ...]) -> Node:
    return nodes[0] if len(nodes) == 1 else And(nodes)


def _has_operators(value: Any) -> bool:
    """Whether the value is an object of operators, such as `{"$gt": 5}`, and no value to be equal to."""
    return isinstance(value, Mapping) and any(isinstance(key, str) and key.startswith("$") for key in value)


def _operand(place: _Place, name: str, value: Any) -> Operand:
    try:
        text = encode_value(value, place.at)
    except InvalidDocument as exc:
        raise InvalidFilter(f"the value of {name} can't be in a document: {exc}", path=exc.path, operator=name) from exc
    return Operand(decode(text), text.decode())


def _invalid(place: _Place, name: str, reason: str) -> InvalidFilter:
    return InvalidFilter(f"{name} at {short_repr(place.at)} {reason}", path=place.at, operator=name)


def _split(dotted: str, at: str) -> Path:
    if not dotted.isascii() or "\0" in dotted:
        _check_text(dotted, at)
    path = tuple(dotted.split("."))
    if len(path) > MAX_PATH:
        raise InvalidFilter(
            f"{short_repr(dotted)} has {len(path):,} parts: documents are {MAX_PATH} deep at most", path=at
        )
    if "" in path:
        raise InvalidFilter(f"{short_repr(dotted)} is no path: a part of it is empty", path=at)
    return path


def _check_text(dotted: str, at: str) -> None:
    try:
        encode_value(dotted, "")
    except InvalidDocument as exc:
        raise InvalidFilter(f"{short_repr(dotted)} can't be a path: {exc}", path=at) from exc


def parse_sort(sort: str | Sequence[str] | None) -> tuple[SortKey, ...]:
    """Parse `"total"`, `"-total"`, or a sequence of these; `None` asks for no order.

    Raises:
        InvalidInput: not a sort; `path` names the place.
    """
    keys = () if sort is None else (sort,) if isinstance(sort, str) else sort
    if not isinstance(keys, Sequence):
        raise InvalidInput(f"{short_repr(sort)} is no sort: give a path such as 'total' or '-total', or a list of them")
    return tuple(map(_parse_key, keys))


def _parse_key(key: Any) -> SortKey:
    dotted = key.removeprefix("-") if isinstance(key, str) else ""
    if not dotted:
        raise InvalidInput(
            f"{short_repr(key)} is no path: give one such as 'total' or '-total'",
            path=key if isinstance(key, str) else None,
        )
    try:
        return SortKey(_split(dotted, dotted), key.startswith("-"))
    except InvalidFilter as exc:
        raise InvalidInput(str(exc), path=exc.path) from exc
