"""The update language in Python: the same data as the SQL of `pgdoc.query.updates.sql`, for one document at hand."""

from __future__ import annotations

import decimal
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.errors import InvalidUpdate
from pgdoc.model.json_codec import MAX_DIGITS, decode, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.match import compare, matcher
from pgdoc.query.filters.nodes import ELEMENT, MISSING, Operand, Path, is_index
from pgdoc.query.updates.nodes import (
    EACH,
    NO_TIME,
    AddToSet,
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    _Misfit: TypeAlias = Callable[[str], InvalidUpdate]
    _Make: TypeAlias = Callable[[Any], Any]

MAX_PADDING: Final = 1_500_000
"""How many nulls a `$set` beyond the end of an array may put before its value (MongoDB's limit)."""

MAX_PLACES: Final = 400
"""How many digits behind the point a product keeps, where its factors have no more: enough for any float."""

_TOO_LARGE: Final = 10**MAX_DIGITS
_EXACT: Final = decimal.Context(prec=150_000, traps=[decimal.Inexact])
_ROUNDED: Final = decimal.Context(prec=150_000, rounding=decimal.ROUND_HALF_UP)


def apply_update(
    update: Update, data: Mapping[str, Any], *, now: datetime | None = None, inserting: bool = False
) -> dict[str, Any]:
    """Return new data; the given data is left as it is, though the new shares with it what did not change.

    Args:
        update: what to do.
        data: of the document; empty for one that is not there.
        now: the time of the transaction, for `$currentDate`, which puts null without it.
        inserting: whether `$setOnInsert` counts.

    Raises:
        InvalidUpdate: a change does not fit this data; `operator` and `path` name it.
    """
    for change in () if inserting else update.making_dollar_fields():
        if change.path[0] not in data:
            raise _misfit(change)(
                f"there is no {short_repr(change.path[0])}, and an update makes no field that begins with '$'"
            )
    result = dict(data)
    for change in update.changes:
        if inserting or not isinstance(change, SetOnInsert):
            dated = replace(change, operand=_time(now)) if isinstance(change, CurrentDate) else change
            result = _apply(result, change.path, dated)
    return result


def _time(now: datetime | None) -> Operand:
    if now is None:
        return NO_TIME
    text = f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    return Operand(text, f'"{text}"')


def _apply(data: dict[str, Any], path: Path, change: FieldChange) -> Any:
    """Apply the change at the path, which is the change's own but for the elements of an array."""
    if EACH not in path:
        return _APPLIERS[type(change)](data, path, change)
    place, misfit = path.index(EACH), _misfit(change)
    rest = (ELEMENT, *path[place + 1 :])

    def change_each(items: Any) -> list[Any]:
        if not isinstance(items, list):
            raise misfit(
                "'$[]' takes an array" if items is MISSING else f"'$[]' takes an array, not {short_repr(items)}"
            )
        return [_apply({ELEMENT: item}, rest, change).get(ELEMENT) for item in items]

    return _put(data, path[:place], change_each, misfit)


def _apply_set(data: dict[str, Any], path: Path, change: Set | SetOnInsert | CurrentDate) -> Any:
    return _put(data, path, lambda _old: decode(change.operand.text), _misfit(change))


def _apply_unset(data: dict[str, Any], path: Path, _change: Unset) -> Any:
    return _take(data, path)


def _apply_increment(data: dict[str, Any], path: Path, change: Increment) -> Any:
    return _calculate(data, path, change, lambda old: _sum(0 if old is MISSING else old, change.operand.value))


def _apply_multiply(data: dict[str, Any], path: Path, change: Multiply) -> Any:
    return _calculate(data, path, change, lambda old: 0 if old is MISSING else _product(old, change.operand.value))


def _calculate(data: dict[str, Any], path: Path, change: FieldChange, calculate: _Make) -> Any:
    misfit = _misfit(change)

    def make(old: Any) -> Any:
        if old is not MISSING and not _is_number(old):
            raise misfit(f"{short_repr(old)} is there, not a number")
        result = calculate(old)
        if not -_TOO_LARGE < result < _TOO_LARGE:
            raise misfit(f"the number would have more than {MAX_DIGITS:,} digits")
        return result if isinstance(result, int) else decode(format(result, "f"))

    return _put(data, path, make, misfit)


def _apply_bound(data: dict[str, Any], path: Path, change: Bound) -> Any:
    def choose(old: Any) -> Any:
        order = 0 if old is MISSING else compare(change.operand.value, old)
        passes = old is MISSING or (order < 0 if change.operator == "$min" else order > 0)
        return decode(change.operand.text) if passes else old

    return _put(data, path, choose, _misfit(change))


def _apply_rename(data: dict[str, Any], path: Path, change: Rename) -> Any:
    misfit = _misfit(change)
    node: Any = data
    in_array = False
    for part in path:
        _refuse_no_place(node, part, misfit)
        in_array = in_array or isinstance(node, list)
        node = _child(node, part)
        if node is MISSING:
            return data
    rest = _take(data, path)
    there: Any = rest
    for part in change.target:
        in_array = in_array or isinstance(there, list)
        there = _child(there, part)
    if in_array:
        raise misfit(f"neither it nor {short_repr('.'.join(change.target))} can be in an array")
    return _put(rest, change.target, lambda _old: node, misfit)


def _apply_push(data: dict[str, Any], path: Path, change: Push) -> Any:
    misfit = _misfit(change)

    def push(old: Any) -> list[Any]:
        items = _array(old, misfit)
        place = len(items) if change.position is None else slice(change.position).indices(len(items))[1]
        result: list[Any] = items[:place] + decode(change.items.text) + items[place:]
        for key in reversed(change.order):
            result.sort(key=_sort_key(key.path), reverse=key.descending)
        if change.size is None:
            return result
        return result[: change.size] if change.size >= 0 else result[change.size :]

    return _put(data, path, push, misfit)


def _sort_key(path: Path) -> Callable[[Any], Any]:
    comparable = cmp_to_key(compare)

    def sorted_by(item: Any) -> Any:
        found = _find(item, path) if not path or isinstance(item, dict) else MISSING
        return comparable(None if found is MISSING else found)

    return sorted_by


def _apply_add_to_set(data: dict[str, Any], path: Path, change: AddToSet) -> Any:
    misfit = _misfit(change)

    def add(old: Any) -> list[Any]:
        items = list(_array(old, misfit))
        for item in decode(change.items.text):
            if not _is_in(items, item):
                items.append(item)
        return items

    return _put(data, path, add, misfit)


def _apply_pop(data: dict[str, Any], path: Path, change: Pop) -> Any:
    return _keep(data, path, change, lambda items: items[1:] if change.first else items[:-1])


def _apply_pull(data: dict[str, Any], path: Path, change: Pull) -> Any:
    matches = matcher(change.node)

    def stays(item: Any) -> bool:
        return (change.objects_only and not isinstance(item, dict)) or not matches(("", {ELEMENT: item}))

    return _keep(data, path, change, lambda items: list(filter(stays, items)))


def _apply_pull_all(data: dict[str, Any], path: Path, change: PullAll) -> Any:
    pulled = change.items.value
    return _keep(data, path, change, lambda items: [item for item in items if not _is_in(pulled, item)])


_APPLIERS: Final[Mapping[type, Callable[[dict[str, Any], Path, Any], Any]]] = {
    Set: _apply_set,
    SetOnInsert: _apply_set,
    CurrentDate: _apply_set,
    Unset: _apply_unset,
    Increment: _apply_increment,
    Multiply: _apply_multiply,
    Bound: _apply_bound,
    Rename: _apply_rename,
    Push: _apply_push,
    AddToSet: _apply_add_to_set,
    Pop: _apply_pop,
    Pull: _apply_pull,
    PullAll: _apply_pull_all,
}


def _child(node: Any, part: str) -> Any:
    if isinstance(node, dict):
        return node.get(part, MISSING)
    if isinstance(node, list) and is_index(part) and int(part) < len(node):
        return node[int(part)]
    return MISSING


def _find(node: Any, path: Path) -> Any:
    for part in path:
        node = _child(node, part)
    return node


def _refuse_no_place(node: Any, part: str, misfit: _Misfit) -> None:
    if not isinstance(node, dict) and not (isinstance(node, list) and is_index(part)):
        raise misfit(f"{short_repr(part)} is no place in {short_repr(node)}")


def _put(node: Any, path: Path, make: _Make, misfit: _Misfit) -> Any:
    """Copy the node with what `make` makes of the old value at the path, objects made on the way."""
    if not path:
        return make(node)
    part, rest = path[0], path[1:]
    if node is MISSING:
        return {part: _put(MISSING, rest, make, misfit)}
    if isinstance(node, dict):
        return {**node, part: _put(node.get(part, MISSING), rest, make, misfit)}
    _refuse_no_place(node, part, misfit)
    index = int(part)
    missing = index - len(node) + 1
    if missing > MAX_PADDING + 1:
        raise misfit(f"over {MAX_PADDING:,} nulls would have to fill the array")
    items = node + [None] * missing
    items[index] = _put(MISSING if missing > 0 else node[index], rest, make, misfit)
    return items


def _take(node: Any, path: Path) -> Any:
    """Copy the node without the field at the path; the node itself where there is none."""
    part, rest = path[0], path[1:]
    if isinstance(node, dict) and part in node:
        return {**node, part: _take(node[part], rest)} if rest else {key: node[key] for key in node if key != part}
    if isinstance(node, list) and is_index(part) and int(part) < len(node):
        item = _take(node[int(part)], rest) if rest else None
        return [*node[: int(part)], item, *node[int(part) + 1 :]]
    return node


def _keep(data: dict[str, Any], path: Path, change: FieldChange, keep: Callable[[list[Any]], list[Any]]) -> Any:
    """Copy the data with what `keep` keeps of the array at the path; where nothing is but could be, nothing is done."""
    misfit = _misfit(change)
    node: Any = data
    for part in path:
        child = _child(node, part)
        if child is MISSING:
            _refuse_no_place(node, part, misfit)
            return data
        node = child
    return _put(data, path, lambda old: keep(_array(old, misfit)), misfit)


def _array(value: Any, misfit: _Misfit) -> list[Any]:
    if value is MISSING:
        return []
    if not isinstance(value, list):
        raise misfit(f"{short_repr(value)} is there, not an array")
    return value


def _is_in(items: list[Any], wanted: Any) -> bool:
    return any(compare(item, wanted) == 0 for item in items)


def _misfit(change: FieldChange) -> _Misfit:
    name, at = change.operator, ".".join(change.path)
    return lambda reason: InvalidUpdate(
        f"{name} of {short_repr(at)} does not fit the document: {reason}", path=at, operator=name
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _sum(left: Any, right: Any) -> int | Decimal:
    """Add as PostgreSQL's numeric does, so that 0.1 and 0.2 are 0.3."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return _EXACT.add(_exact(left), _exact(right))


def _product(left: Any, right: Any) -> int | Decimal:
    """Multiply as PostgreSQL's numeric does, to a number of digits that does not grow without end."""
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    factors = _exact(left), _exact(right)
    result = _EXACT.multiply(*factors)
    lowest = min(-MAX_PLACES, *map(_exponent, factors))
    return result if _exponent(result) >= lowest else _ROUNDED.quantize(result, Decimal((0, (1,), lowest)))


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _exact(value: Any) -> Decimal:
    return Decimal(encode_value(value, "").decode())
