"""Apply an update to one document in Python, with the same result as `pgdoc.query.updates.sql`."""

from __future__ import annotations

import decimal
from dataclasses import replace
from decimal import Decimal
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.errors import InvalidUpdate
from pgdoc.model.json_codec import MAX_DIGITS, decode_decimals, encode_value
from pgdoc.model.json_numbers import with_floats
from pgdoc.model.short_repr import short_repr
from pgdoc.model.values import datetime_text
from pgdoc.query.filters.match import compare, matcher
from pgdoc.query.filters.nodes import ELEMENT, MISSING, Operand, Path, is_array_index
from pgdoc.query.filters.types import type_of
from pgdoc.query.updates.element_tests import ElementTests, child, find_value
from pgdoc.query.updates.nodes import (
    NO_TIME,
    AddToSet,
    Bit,
    Bound,
    CurrentDate,
    FieldChange,
    Increment,
    Multiply,
    Pop,
    Pull,
    PullAll,
    Push,
    Rename,
    Set,
    SetOnInsert,
    Unset,
    Update,
)
from pgdoc.query.updates.positions import ArrayStep, Branch, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    _Replace: TypeAlias = Callable[[Any], Any]

MAX_PADDING: Final = 1_500_000
"""The most nulls that a `$set` beyond the end of an array may add before its value (MongoDB's limit)."""

MAX_DECIMAL_PLACES: Final = 400
"""The most decimal places of a product, unless a factor has more: enough for the exact value of any float."""

_TOO_LARGE: Final = 10**MAX_DIGITS
_EXACT: Final = decimal.Context(prec=150_000, traps=[decimal.Inexact])
_ROUNDED: Final = decimal.Context(prec=150_000, rounding=decimal.ROUND_HALF_UP)


def apply_update(  # noqa: PLR0913
    update: Update,
    data: Mapping[str, Any],
    *,
    now: datetime | None = None,
    inserting: bool = False,
    document_id: str = "",
    decimals: bool = False,
) -> dict[str, Any]:
    """Return the updated data. The given data does not change, and shares its unchanged parts with the result.

    `now` is the time of the transaction, for `$currentDate`; `None` sets null. For a new document, `data` is what its
    filter says of it, and `inserting` applies `$setOnInsert`. The id is for the filter in which `$` finds its element.
    With `decimals`, new numbers with a fraction are Decimals with the digits that the server stores.

    Raises:
        InvalidUpdate: a change does not fit this data.
    """
    for change in () if inserting else update.creating_dollar_fields():
        if change.path[0] not in data:
            raise _does_not_fit(
                change,
                f"there is no field {short_repr(change.path[0])}, and an update can't create a top-level field "
                "that starts with '$'",
            )
    changes = [
        (change.path, replace(change, operand=_time(now)) if isinstance(change, CurrentDate) else change)
        for change in update.changes
        if inserting or not isinstance(change, SetOnInsert)
    ]
    original = dict(data)
    result: dict[str, Any] = _apply_all(original, changes, ElementTests(update, document_id, original))
    return result if decimals else with_floats(result)


def _time(now: datetime | None) -> Operand:
    if now is None:
        return NO_TIME
    text = datetime_text(now)
    return Operand(text, f'"{text}"')


def _apply_all(data: dict[str, Any], changes: Iterable[tuple[Path, FieldChange]], tests: ElementTests) -> Any:
    for step in steps_of(changes):
        if isinstance(step, ArrayStep):
            data = _apply_to_elements(data, step, tests)
        else:
            path, change = step
            data = _APPLIERS[type(change)](data, path, change)
    return data


def _apply_to_elements(data: dict[str, Any], step: ArrayStep, tests: ElementTests) -> Any:
    def change_all(items: Any) -> list[Any]:
        if not isinstance(items, list):
            found = "no value" if items is MISSING else short_repr(items)
            raise _does_not_fit(step.first_change, f"{short_repr(step.branches[0].part)} needs an array, got {found}")
        passes = [_test_of(step.array, branch, tests) for branch in step.branches]
        return [
            change_item(item, [number for number, test in enumerate(passes) if test(at, item)])
            for at, item in enumerate(items)
        ]

    def change_item(item: Any, chosen: list[int]) -> Any:
        for one, other in step.conflicts:
            if one in chosen and other in chosen:
                parts = " and ".join(short_repr(step.branches[number].part) for number in (one, other))
                raise _does_not_fit(step.branches[other].changes[0][1], f"{parts} change the same value of one element")
        document = {ELEMENT: item}
        for number in chosen:
            document = _apply_all(document, step.branches[number].changes, tests)
        return document.get(ELEMENT)

    return _set_at(data, step.array, change_all, step.first_change)


def _test_of(array: Path, branch: Branch, tests: ElementTests) -> Callable[[int, Any], bool]:
    test = tests.of(array, branch.part)
    if test is None:
        raise _does_not_fit(
            branch.changes[0][1], f"the filter matched no element of {short_repr('.'.join(array))}, so '$' has no index"
        )
    return test


def _apply_set(data: dict[str, Any], path: Path, change: Set | SetOnInsert | CurrentDate) -> Any:
    return _set_at(data, path, lambda _old: decode_decimals(change.operand.text), change)


def _apply_unset(data: dict[str, Any], path: Path, _change: Unset) -> Any:
    return _unset_at(data, path)


def _apply_increment(data: dict[str, Any], path: Path, change: Increment) -> Any:
    return _calculate(
        data, path, change, lambda old: _sum(0 if old is MISSING else old, decode_decimals(change.operand.text))
    )


def _apply_multiply(data: dict[str, Any], path: Path, change: Multiply) -> Any:
    return _calculate(
        data, path, change, lambda old: 0 if old is MISSING else _product(old, decode_decimals(change.operand.text))
    )


def _calculate(data: dict[str, Any], path: Path, change: FieldChange, calculate: _Replace) -> Any:
    def replacement(old: Any) -> Any:
        if old is not MISSING and not _is_number(old):
            raise _does_not_fit(change, f"the value is {short_repr(old)}, not a number")
        result = calculate(old)
        if not -_TOO_LARGE < result < _TOO_LARGE:
            raise _does_not_fit(change, f"the result has more than {MAX_DIGITS:,} digits")
        return result if isinstance(result, int) else decode_decimals(format(result, "f"))

    return _set_at(data, path, replacement, change)


def _apply_bound(data: dict[str, Any], path: Path, change: Bound) -> Any:
    def choose(old: Any) -> Any:
        order = 0 if old is MISSING else compare(change.operand.value, old)
        passes = old is MISSING or (order < 0 if change.operator == "$min" else order > 0)
        return decode_decimals(change.operand.text) if passes else old

    return _set_at(data, path, choose, change)


def _apply_bit(data: dict[str, Any], path: Path, change: Bit) -> Any:
    def combine(old: Any) -> int:
        result = 0 if old is MISSING else old
        if type_of(result) not in {"int", "long"}:
            raise _does_not_fit(change, f"the value is {short_repr(old)}, not an integer of at most 64 bits")
        for name, operand in change.operations:
            result = result & operand if name == "and" else result | operand if name == "or" else result ^ operand
        return int(result)

    return _set_at(data, path, combine, change)


def _apply_rename(data: dict[str, Any], path: Path, change: Rename) -> Any:
    node: Any = data
    in_array = False
    for part in path:
        _check_container(node, part, change)
        in_array = in_array or isinstance(node, list)
        node = child(node, part)
        if node is MISSING:
            return data
    rest = _unset_at(data, path)
    parent: Any = rest
    for part in change.target:
        in_array = in_array or isinstance(parent, list)
        parent = child(parent, part)
    if in_array:
        target = short_repr(".".join(change.target))
        raise _does_not_fit(change, f"neither the field nor its new path {target} can be in an array")
    return _set_at(rest, change.target, lambda _old: node, change)


def _apply_push(data: dict[str, Any], path: Path, change: Push) -> Any:
    def push(old: Any) -> list[Any]:
        items = _array(old, change)
        at = len(items) if change.position is None else slice(change.position).indices(len(items))[1]
        result: list[Any] = items[:at] + decode_decimals(change.items.text) + items[at:]
        for key in reversed(change.order):
            result.sort(key=_sort_key(key.path), reverse=key.descending)
        if change.size is None:
            return result
        return result[: change.size] if change.size >= 0 else result[change.size :]

    return _set_at(data, path, push, change)


def _sort_key(path: Path) -> Callable[[Any], Any]:
    comparable = cmp_to_key(compare)

    def sorted_by(item: Any) -> Any:
        found = find_value(item, path) if not path or isinstance(item, dict) else MISSING
        return comparable(None if found is MISSING else found)

    return sorted_by


def _apply_add_to_set(data: dict[str, Any], path: Path, change: AddToSet) -> Any:
    def add(old: Any) -> list[Any]:
        items = list(_array(old, change))
        for item in decode_decimals(change.items.text):
            if not _is_in(items, item):
                items.append(item)
        return items

    return _set_at(data, path, add, change)


def _apply_pop(data: dict[str, Any], path: Path, change: Pop) -> Any:
    return _keep_at(data, path, change, lambda items: items[1:] if change.first else items[:-1])


def _apply_pull(data: dict[str, Any], path: Path, change: Pull) -> Any:
    matches = matcher(change.node)

    def stays(item: Any) -> bool:
        return (change.objects_only and not isinstance(item, dict)) or not matches(("", {ELEMENT: item}))

    return _keep_at(data, path, change, lambda items: list(filter(stays, items)))


def _apply_pull_all(data: dict[str, Any], path: Path, change: PullAll) -> Any:
    pulled = change.items.value
    return _keep_at(data, path, change, lambda items: [item for item in items if not _is_in(pulled, item)])


_APPLIERS: Final[Mapping[type, Callable[[dict[str, Any], Path, Any], Any]]] = {
    Set: _apply_set,
    SetOnInsert: _apply_set,
    CurrentDate: _apply_set,
    Unset: _apply_unset,
    Increment: _apply_increment,
    Multiply: _apply_multiply,
    Bound: _apply_bound,
    Bit: _apply_bit,
    Rename: _apply_rename,
    Push: _apply_push,
    AddToSet: _apply_add_to_set,
    Pop: _apply_pop,
    Pull: _apply_pull,
    PullAll: _apply_pull_all,
}


def _check_container(node: Any, part: str, change: FieldChange) -> None:
    if not isinstance(node, dict) and not (isinstance(node, list) and is_array_index(part)):
        raise _does_not_fit(change, f"{short_repr(node)} can't contain {short_repr(part)}")


def _set_at(node: Any, path: Path, replacement: _Replace, change: FieldChange) -> Any:
    """Copy the node with the value at the path replaced; create missing objects on the way."""
    if not path:
        return replacement(node)
    part, rest = path[0], path[1:]
    if node is MISSING:
        return {part: _set_at(MISSING, rest, replacement, change)}
    if isinstance(node, dict):
        return {**node, part: _set_at(node.get(part, MISSING), rest, replacement, change)}
    _check_container(node, part, change)
    index = int(part)
    missing = index - len(node) + 1
    if missing > MAX_PADDING + 1:
        raise _does_not_fit(change, f"the array would need more than {MAX_PADDING:,} nulls to reach this index")
    items = node + [None] * missing
    items[index] = _set_at(MISSING if missing > 0 else node[index], rest, replacement, change)
    return items


def _unset_at(node: Any, path: Path) -> Any:
    """Copy the node without the field at the path; return the node itself if there is none."""
    part, rest = path[0], path[1:]
    if isinstance(node, dict) and part in node:
        return {**node, part: _unset_at(node[part], rest)} if rest else {key: node[key] for key in node if key != part}
    if isinstance(node, list) and is_array_index(part) and int(part) < len(node):
        item = _unset_at(node[int(part)], rest) if rest else None
        return [*node[: int(part)], item, *node[int(part) + 1 :]]
    return node


def _keep_at(data: dict[str, Any], path: Path, change: FieldChange, keep: Callable[[list[Any]], list[Any]]) -> Any:
    """Copy the data with only the items that `keep` returns of the array at the path, if there is one."""
    node: Any = data
    for part in path:
        inner = child(node, part)
        if inner is MISSING:
            _check_container(node, part, change)
            return data
        node = inner
    return _set_at(data, path, lambda old: keep(_array(old, change)), change)


def _array(value: Any, change: FieldChange) -> list[Any]:
    if value is MISSING:
        return []
    if not isinstance(value, list):
        raise _does_not_fit(change, f"the value is {short_repr(value)}, not an array")
    return value


def _is_in(items: list[Any], wanted: Any) -> bool:
    return any(compare(item, wanted) == 0 for item in items)


def _does_not_fit(change: FieldChange, finding: str) -> InvalidUpdate:
    name, dotted = change.operator, ".".join(change.path)
    return InvalidUpdate(
        f"{name} at {short_repr(dotted)} does not fit the document: {finding}", path=dotted, operator=name
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _sum(left: Any, right: Any) -> int | Decimal:
    """Add as PostgreSQL's numeric does: 0.1 plus 0.2 is 0.3."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return _EXACT.add(_exact(left), _exact(right))


def _product(left: Any, right: Any) -> int | Decimal:
    """Multiply as PostgreSQL's numeric does, rounded so that repeated products do not grow without limit."""
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    factors = _exact(left), _exact(right)
    result = _EXACT.multiply(*factors)
    lowest = min(-MAX_DECIMAL_PLACES, *map(_exponent, factors))
    return result if _exponent(result) >= lowest else _ROUNDED.quantize(result, Decimal((0, (1,), lowest)))


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _exact(value: Any) -> Decimal:
    return Decimal(encode_value(value, "").decode())
