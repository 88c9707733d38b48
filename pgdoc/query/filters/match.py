"""Match one document with a filter in Python, with the same result as `pgdoc.query.filters.sql`.

A matcher takes a subject of any type; a `Root` says where in it a path starts. The subject for a document is `(id,
data)`, and for the filter in `$elemMatch` the item.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.model.json_numbers import comparable, decimal_of
from pgdoc.query.filters.bits import has_bits
from pgdoc.query.filters.collations import collated
from pgdoc.query.filters.fold import fold_equalities
from pgdoc.query.filters.nodes import (
    MISSING,
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
    Or,
    Ordered,
    Path,
    Remainder,
    is_array_index,
)
from pgdoc.query.filters.types import INTEGER_LIMITS, type_of
from pgdoc.query.regex.parse import searcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check: TypeAlias = Callable[[Any], bool]
    Matcher: TypeAlias = Callable[[Any], bool]
    Root: TypeAlias = Callable[[Path], tuple[Callable[[Any], Any], Path]]
    """Splits a path into a function from the subject to the value to start at, and the rest of the path."""


def matches(node: Node, document_id: str, data: dict[str, Any]) -> bool:
    """Whether the document matches; to test many documents, call `matcher` once."""
    return matcher(node)((document_id, data))


def item_matches(node: Node) -> Matcher:
    """Compile the filter on an array's item to a function of the item."""
    return matcher(node, _in_item)


def in_document(path: Path) -> tuple[Callable[[Any], Any], Path]:
    """Return where a path starts in a document's `(id, data)`, and the rest of the path."""
    return (itemgetter(0), path[1:]) if path[0] == "_id" else (itemgetter(1), path)


def _in_item(path: Path) -> tuple[Callable[[Any], Any], Path]:
    return _identity, path[1:]  # without `ELEMENT`


def _identity(value: Any) -> Any:
    return value


def matcher(node: Node, root: Root = in_document) -> Matcher:
    """Compile the node to a function of the subject, by default a document's `(id, data)`."""
    build: Callable[[Any, Root], Matcher] = _MATCHERS[type(node)]
    return build(node, root)


def _match_and(node: And, root: Root) -> Matcher:
    parts = [matcher(part, root) for part in node.nodes]
    if len(parts) == 1:
        return parts[0]
    return lambda subject: all(part(subject) for part in parts)


def _match_or(node: Or, root: Root) -> Matcher:
    merged = fold_equalities(node)
    parts = [matcher(part, root) for part in (merged.nodes if isinstance(merged, Or) else (merged,))]
    if len(parts) == 1:
        return parts[0]
    return lambda subject: any(part(subject) for part in parts)


def _match_not(node: Not, root: Root) -> Matcher:
    part = matcher(node.node, root)
    return lambda subject: not part(subject)


def _match_equal(node: Equal, root: Root) -> Matcher:
    return _match_path(node.path, root, _with_collation(_equals(node.operand.value), node.collation))


def _with_collation(check: Check, collation: str | None) -> Check:
    return check if collation is None else lambda value: check(collated(value, collation))


def _match_in(node: In, root: Root) -> Matcher:
    values = [operand.value for operand in node.operands]
    known = frozenset(map(scalar_key, values)) - {None}  # one lookup, however many scalars there are
    checks = [_equals(value) for value in values if scalar_key(value) is None]

    def check(value: Any) -> bool:
        return scalar_key(value) in known or any(check(value) for check in checks)

    return _match_path(node.path, root, _with_collation(check, node.collation))


def scalar_key(value: Any) -> Any:
    """Return a hashable key that equal texts, numbers or booleans share; `None` for other values."""
    if isinstance(value, bool):
        return (value,)  # to Python, True equals 1
    if isinstance(value, Decimal):
        return comparable(value)
    return value if isinstance(value, str | int | float) else None


def _match_ordered(node: Ordered, root: Root) -> Matcher:
    check = _compares(node.operator, node.operand.value)
    return _match_path(node.path, root, _with_collation(check, node.collation))


def _match_exists(node: Exists, root: Root) -> Matcher:
    return _match_path(node.path, root, lambda value: value is not MISSING)


def _match_type(node: HasType, root: Root) -> Matcher:
    types = frozenset(node.types)
    return _match_path(node.path, root, lambda value: type_of(value) in types)


def _match_size(node: HasSize, root: Root) -> Matcher:
    def check(value: Any) -> bool:
        return isinstance(value, list) and len(value) == node.size

    return _match_path(node.path, root, check, items=False)


def _match_pattern(node: Matches, root: Root) -> Matcher:
    search = searcher(node.pattern.re2)
    return _match_path(node.path, root, lambda value: isinstance(value, str) and search(value.encode()) is not None)


def _match_remainder(node: Remainder, root: Root) -> Matcher:
    return _match_path(node.path, root, lambda value: _leaves_remainder(value, node.divisor, node.remainder))


def _match_bits(node: HasBits, root: Root) -> Matcher:
    return _match_path(node.path, root, lambda value: has_bits(value, node.operator, node.mask))


def _leaves_remainder(value: Any, divisor: int, remainder: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    # Before int(): converting a large Decimal can take a second.
    if not -INTEGER_LIMITS["long"] - 1 < value < INTEGER_LIMITS["long"]:
        return False
    number = int(value)
    rest = abs(number) % abs(divisor)
    return (rest if number >= 0 else -rest) == remainder


def _match_any_element(node: AnyElement, root: Root) -> Matcher:
    matches_item = item_matches(node.node)

    def matches_as_document(item: Any) -> bool:
        if isinstance(item, list):
            item = {str(index): value for index, value in enumerate(item)}
        return isinstance(item, dict) and matches_item(item)

    check = matches_as_document if node.as_document else matches_item
    return _match_path(node.path, root, lambda value: isinstance(value, list) and any(map(check, value)), items=False)


_MATCHERS: Final[Mapping[type, Callable[[Any, Root], Matcher]]] = {
    And: _match_and,
    Or: _match_or,
    Not: _match_not,
    Equal: _match_equal,
    In: _match_in,
    Ordered: _match_ordered,
    Exists: _match_exists,
    HasType: _match_type,
    HasSize: _match_size,
    Matches: _match_pattern,
    Remainder: _match_remainder,
    HasBits: _match_bits,
    AnyElement: _match_any_element,
}


def _equals(operand: Any) -> Check:
    if operand is None:
        return lambda value: value is None or value is MISSING
    if isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, str):
        return lambda value: bool(value == operand)
    if isinstance(operand, int | float | Decimal):
        exact = _exact(operand)
        if operand.__class__ is Decimal:
            return lambda value: bool(_exact(value) == exact) and not isinstance(value, bool)
        return lambda value: (
            bool(value == (exact if value.__class__ is Decimal else operand)) and not isinstance(value, bool)
        )
    return lambda value: type(value) is type(operand) and compare(value, operand) == 0


def _compares(name: str, operand: Any) -> Check:
    if operand is None:
        return _equals(None) if "=" in name else lambda _value: False
    rank = _RANKS[type(operand)]
    holds = _COMPARISONS[name]
    return lambda value: _RANKS.get(type(value)) == rank and holds(compare(value, operand), 0)


_COMPARISONS: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

_RANKS: Final[Mapping[type, int]] = {type(None): 1, int: 2, float: 2, Decimal: 2, str: 3, dict: 4, list: 5, bool: 6}


def compare(left: Any, right: Any) -> int:
    """Compare two JSON values in MongoDB's order: null, numbers, text, objects, arrays, booleans.

    Text compares by code point, arrays item by item. `jsonb` does not keep the order of an object's keys, so objects
    compare by their fields sorted by key: by the type of the value, then key, then value. The result is less than,
    equal to, or greater than zero.
    """
    rank = _RANKS[type(left)]
    if rank != _RANKS[type(right)]:
        return rank - _RANKS[type(right)]
    if isinstance(left, dict):
        return _compare_objects(left, right)
    if isinstance(left, list):
        return next(filter(None, map(compare, left, right)), len(left) - len(right))
    if left is None:
        return 0
    if (left.__class__ is Decimal) is not (right.__class__ is Decimal):
        left, right = _exact(left), _exact(right)
    return int(left > right) - int(left < right)


def _exact(number: Any) -> Any:
    """Return a float as the decimal that it stands for: to Python, 9.9 differs from Decimal("9.9")."""
    return decimal_of(number) if isinstance(number, float) else number


def _compare_objects(left: dict[str, Any], right: dict[str, Any]) -> int:
    for (key, value), (other_key, other) in zip(
        sorted(left.items(), key=itemgetter(0)), sorted(right.items(), key=itemgetter(0)), strict=False
    ):
        order = (
            _RANKS[type(value)] - _RANKS[type(other)] or (key > other_key) - (key < other_key) or compare(value, other)
        )
        if order:
            return order
    return len(left) - len(right)


def _match_path(path: Path, root: Root, check: Check, *, items: bool = True) -> Matcher:
    if not path:  # the element of an `$elemMatch` itself
        return check
    find_start, rest = root(path)
    walk = _Walk(rest, check, items)
    if len(rest) != 1:
        return lambda subject: walk.matches(find_start(subject), 0)
    (key,) = rest

    def match_field(subject: Any) -> bool:
        """Shortcut for a path of one part, the most common case: takes half the time."""
        value = find_start(subject)
        if value.__class__ is not dict:
            return walk.matches(value, 0)
        field = value.get(key, MISSING)
        return check(field) or (items and field.__class__ is list and any(map(check, field)))

    return match_field


def finder(path: Path, root: Root) -> Callable[[Any], list[Any]]:
    """Return a function from the subject to the `scalar_key` of every value that an equality on the path tests."""
    find_start, rest = root(path)

    def keys(subject: Any) -> list[Any]:
        found: list[Any] = []

        def collect(value: Any) -> bool:
            found.append(scalar_key(value))
            return False

        _Walk(rest, collect, items=True).matches(find_start(subject), 0)
        return found

    return keys


@dataclass(frozen=True, slots=True)
class _Walk:
    """Follows a path to the values to check; with `items`, also to each item of an array at its end."""

    path: Path
    check: Check
    items: bool

    def matches(self, value: Any, start: int, seen: set[tuple[int, int]] | None = None) -> bool:
        """Whether the check passes for a value that the path, from part `start` on, reaches from this value.

        Works as MongoDB's `ElementPath`: at the end of the path, an array stands for itself and for each of its items;
        on the way, the path continues in each item that is an object. A missing field yields `MISSING`.

        Since MongoDB 9.0, so does an array on the way that is empty or has an item that is no object, unless the next
        part of the path is the index of one of its items.

        `seen` has the arrays already tested, each by its id and a part of the path. A number in the path can be an
        index or a key, so the ways to reach an array double with each number.
        """
        for at in range(start, len(self.path)):
            if isinstance(value, list):
                seen = set() if seen is None else seen
                if (id(value), at) in seen:
                    return False
                seen.add((id(value), at))
                return self._matches_array(value, at, seen)
            if not isinstance(value, dict) or self.path[at] not in value:
                return self.check(MISSING)
            value = value[self.path[at]]
        return self.check(value) or (self.items and isinstance(value, list) and any(map(self.check, value)))

    def _matches_array(self, items: list[Any], at: int, seen: set[tuple[int, int]]) -> bool:
        """Follow the path through an array: into each object, and into the item that its next part is the index of."""
        part = self.path[at]
        index = int(part) if is_array_index(part) and int(part) < len(items) else None
        if index is None and not all(isinstance(item, dict) for item in items or [MISSING]) and self.check(MISSING):
            return True
        if any(isinstance(item, dict) and self.matches(item, at, seen) for item in items):
            return True
        if index is None:
            return False
        item = items[index]
        return self.check(item) if at + 1 == len(self.path) else self.matches(item, at + 1, seen)
