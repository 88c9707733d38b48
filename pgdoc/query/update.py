"""The update language: parsed, and applied in Python. `pgdoc.query.update_sql` is the same for the server."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.documents import MAX_DEPTH, decode, encode_value
from pgdoc.errors import InvalidDocument, InvalidUpdate
from pgdoc.query.nodes import MISSING, Operand, Path, is_index

if TYPE_CHECKING:
    from collections.abc import Callable

    _Misfit: TypeAlias = Callable[[str], InvalidUpdate]

MAX_PADDING: Final = 1_500_000
"""How many nulls a `$set` beyond the end of an array may put before its value (MongoDB's limit)."""

_EXACT: Final = decimal.Context(prec=150_000, traps=[decimal.Inexact])


@dataclass(frozen=True, slots=True)
class Set:
    """`$set`: put the value there, making the objects on the way."""

    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Unset:
    """`$unset`: take the field away; an item of an array becomes null."""

    path: Path


@dataclass(frozen=True, slots=True)
class Increment:
    """`$inc`: add to the number there, exactly and in decimal; a missing one is set."""

    path: Path
    operand: Operand


Change: TypeAlias = Set | Unset | Increment


@dataclass(frozen=True, slots=True)
class Update:
    """Changes on paths of which none is, or lies within, another, in the order of the paths."""

    changes: tuple[Change, ...]


def parse_update(update: Mapping[str, Any]) -> Update:
    """Parse an update.

    Raises:
        InvalidUpdate: not an update; `operator` and `path` name the place.
    """
    if not isinstance(update, Mapping) or not update:
        raise InvalidUpdate(f"{shown(update)} is no update: give operators such as {{'$set': {{'status': 'paid'}}}}")
    named = [
        (name, _parse_change(name, dotted, value))
        for name, fields in update.items()
        for dotted, value in _fields(name, fields).items()
    ]
    named.sort(key=lambda item: _order(item[1].path))
    for (_, change), (name, follower) in itertools.pairwise(named):
        if follower.path[: len(change.path)] == change.path:
            at, other = ".".join(follower.path), ".".join(change.path)
            raise InvalidUpdate(
                f"{at!r} and {other!r} are changed at once: change each path once", path=at, operator=name
            )
    return Update(tuple(change for _, change in named))


def _fields(name: Any, fields: Any) -> Mapping[str, Any]:
    if not isinstance(name, str) or not name.startswith("$"):
        raise InvalidUpdate(f"{name!r} is no operator: change single fields with {_known()}, or use replace()")
    if name not in _OPERATORS:
        raise InvalidUpdate(f"unknown operator {name!r}: known are {_known()}", operator=name)
    if not isinstance(fields, Mapping):
        raise InvalidUpdate(f"{name} takes a dict of paths, not {shown(fields)}", operator=name)
    return fields


def _parse_change(name: str, dotted: Any, value: Any) -> Change:
    return _OPERATORS[name](_split(name, dotted), value)


def _split(name: str, dotted: Any) -> Path:
    if not isinstance(dotted, str):
        raise InvalidUpdate(f"{name} has {dotted!r} for a path: give dotted text", operator=name)
    if not dotted.isascii() or "\0" in dotted:
        _operand(name, dotted, dotted)  # what can't be in a document
    path = tuple(dotted.split("."))
    if len(path) > MAX_DEPTH:
        raise InvalidUpdate(f"{name} has a path of over {MAX_DEPTH} parts", path=dotted, operator=name)
    if path[0] == "_id":
        raise InvalidUpdate(f"{name} of {dotted!r}: the id of a document can't change", path=dotted, operator=name)
    if any(part.startswith("$") for part in path):
        reason = "a part of a path can't start with '$' here: name the index, or use replace()"
        raise InvalidUpdate(f"{name} of {dotted!r}: {reason}", path=dotted, operator=name)
    return path


def _parse_set(path: Path, value: Any) -> Set:
    return Set(path, _operand("$set", ".".join(path), value))


def _parse_unset(path: Path, _value: Any) -> Unset:
    return Unset(path)


def _parse_increment(path: Path, value: Any) -> Increment:
    at = ".".join(path)
    operand = _operand("$inc", at, value)
    if not _is_number(operand.value):
        raise InvalidUpdate(f"$inc of {at!r} takes a number, not {shown(value)}", path=at, operator="$inc")
    return Increment(path, operand)


_OPERATORS: Final[Mapping[str, Callable[[Path, Any], Change]]] = {
    "$set": _parse_set,
    "$unset": _parse_unset,
    "$inc": _parse_increment,
}


def _known() -> str:
    return ", ".join(_OPERATORS)


def _operand(name: str, at: str, value: Any) -> Operand:
    try:
        text = encode_value(value, at)
    except InvalidDocument as exc:
        raise InvalidUpdate(f"{name} can't use this: {exc}", path=exc.path, operator=name) from exc
    return Operand(decode(text), text.decode())


def _order(path: Path) -> list[tuple[int, str]]:
    """Indexes by number, so that a change never meets the padding that another one made."""
    return [(len(part), part) if is_index(part) else (1 << 30, part) for part in path]


def apply_update(update: Update, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return new data; the given data is left as it is, though the new shares with it what did not change.

    Raises:
        InvalidUpdate: a change does not fit this data; `operator` and `path` name it.
    """
    result = dict(data)
    for change in update.changes:
        result = _APPLIERS[type(change)](result, change)
    return result


def _apply_set(data: dict[str, Any], change: Set) -> Any:
    return _put(data, change.path, 0, lambda _old: decode(change.operand.text), _misfit("$set", change.path))


def _apply_increment(data: dict[str, Any], change: Increment) -> Any:
    misfit = _misfit("$inc", change.path)

    def add(old: Any) -> Any:
        if old is MISSING:
            return change.operand.value
        if not _is_number(old):
            raise misfit(f"{shown(old)} is there, not a number")
        return _sum(old, change.operand.value)

    return _put(data, change.path, 0, add, misfit)


def _apply_unset(data: dict[str, Any], change: Unset) -> Any:
    return _take(data, change.path, 0)


_APPLIERS: Final[Mapping[type, Callable[[dict[str, Any], Any], Any]]] = {
    Set: _apply_set,
    Increment: _apply_increment,
    Unset: _apply_unset,
}


def _put(node: Any, path: Path, at: int, make: Callable[[Any], Any], misfit: _Misfit) -> Any:
    """Copy the node with what `make` makes of the old value at the path, objects made on the way."""
    if at == len(path):
        return make(node)
    part = path[at]
    if node is MISSING:
        return {part: _put(MISSING, path, at + 1, make, misfit)}
    if isinstance(node, dict):
        return {**node, part: _put(node.get(part, MISSING), path, at + 1, make, misfit)}
    if not isinstance(node, list) or not is_index(part):
        raise misfit(f"{part!r} is no place in {shown(node)}")
    index = int(part)
    missing = index - len(node) + 1
    if missing > MAX_PADDING + 1:
        raise misfit(f"over {MAX_PADDING:,} nulls would have to fill the array")
    items = node + [None] * missing
    items[index] = _put(MISSING if missing > 0 else node[index], path, at + 1, make, misfit)
    return items


def _take(node: Any, path: Path, at: int) -> Any:
    """Copy the node without the field at the path; the node itself where there is none."""
    part, is_last = path[at], at + 1 == len(path)
    if isinstance(node, dict) and part in node:
        rest = {key: value for key, value in node.items() if key != part}
        return rest if is_last else {**node, part: _take(node[part], path, at + 1)}
    if isinstance(node, list) and is_index(part) and int(part) < len(node):
        item = None if is_last else _take(node[int(part)], path, at + 1)
        return [*node[: int(part)], item, *node[int(part) + 1 :]]
    return node


def _misfit(name: str, path: Path) -> _Misfit:
    at = ".".join(path)
    return lambda reason: InvalidUpdate(f"{name} of {at!r} does not fit the document: {reason}", path=at, operator=name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _sum(left: Any, right: Any) -> Any:
    """Add as PostgreSQL's numeric does, so that 0.1 and 0.2 are 0.3."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return decode(format(_EXACT.add(_exact(left), _exact(right)), "f"))


def _exact(value: Any) -> Decimal:
    return Decimal(encode_value(value, "").decode())
