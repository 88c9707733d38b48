"""Parse updates.

A new operator is one line in `_OPERATORS`, a node, and the node's meaning in each of the two interpreters:
`pgdoc.query.updates.apply` is Python's, `pgdoc.query.updates.sql` the server's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidUpdate
from pgdoc.model.json_codec import MAX_DEPTH, decode, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.nodes import Operand, Path, SortKey, is_index
from pgdoc.query.filters.parse import integer_of, is_operators, parse_condition
from pgdoc.query.updates.nodes import (
    EACH,
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
    from collections.abc import Callable, Iterable

_MANY: Final = 2**31 - 1
_MODIFIERS: Final = ("$each", "$position", "$slice", "$sort")


def parse_update(update: Mapping[str, Any]) -> Update:
    """Parse an update.

    Raises:
        InvalidUpdate: not an update; `operator` and `path` name the place.
    """
    if not isinstance(update, Mapping) or not update:
        raise InvalidUpdate(
            f"{short_repr(update)} is no update: give operators such as {{'$set': {{'status': 'paid'}}}}"
        )
    changes = [
        _OPERATORS[name](name, _split(name, dotted), value)
        for name, named in update.items()
        for dotted, value in _named(name, named).items()
    ]
    _refuse_overlaps(changes)
    return Update(tuple(sorted(changes, key=lambda change: _order(change.path))))


def _named(name: Any, named: Any) -> Mapping[Any, Any]:
    if not isinstance(name, str) or not name.startswith("$"):
        raise InvalidUpdate(
            f"{short_repr(name)} is no operator: change single fields with {_known()}, or use replace()"
        )
    if name not in _OPERATORS:
        raise InvalidUpdate(f"unknown operator {short_repr(name)}: known are {_known()}", operator=name)
    if not isinstance(named, Mapping):
        raise InvalidUpdate(f"{name} takes a dict of paths, not {short_repr(named)}", operator=name)
    return named


def _refuse_overlaps(changes: list[FieldChange]) -> None:
    """Raise where a path is, or lies within, another; the order brings such paths together, but for `$[]`."""
    places = [(change.path, change.operator) for change in changes]
    places += [(change.target, change.operator) for change in changes if isinstance(change, Rename)]
    places.sort(key=lambda place: _order(place[0]))
    pairs: Iterable[Any] = itertools.pairwise(places)
    if any(EACH in path for path, _ in places):
        places.sort(key=lambda place: (place[0][0], len(place[0])))
        fields = itertools.groupby(places, key=lambda place: place[0][0])  # which is never `$[]`
        pairs = itertools.chain.from_iterable(itertools.combinations(group, 2) for _, group in fields)
    for (above, _), (path, operator) in pairs:
        if len(above) <= len(path) and all(_may_meet(*parts) for parts in zip(above, path, strict=False)):
            at, other = ".".join(path), ".".join(above)
            raise InvalidUpdate(
                f"{short_repr(at)} and {short_repr(other)} are changed at once: change each path once",
                path=at,
                operator=operator,
            )


def _may_meet(part: str, other: str) -> bool:
    return part == other or EACH in (part, other)


def _order(path: Path) -> list[tuple[int, str]]:
    """Indexes by number and behind `$[]`, so that a change never meets the padding that another one made."""
    return [(-1, part) if part == EACH else (len(part), part) if is_index(part) else (1 << 30, part) for part in path]


def _split(name: str, dotted: Any) -> Path:
    path = _split_any(name, dotted)
    if path[0] == "_id":
        raise _invalid(name, path, "the id of a document can't change")
    for place, part in enumerate(path):
        if _is_positional(part) and (part != EACH or not place or name == "$rename"):
            known = "" if name == "$rename" else ", or '$[]' behind the name of an array for all of its elements"
            raise _invalid(name, path, f"{short_repr(part)} is no part of a path here: give the index{known}")
    return path


def _is_positional(part: str) -> bool:
    return part == "$" or part.startswith("$[")


def _split_any(name: str, dotted: Any) -> Path:
    if not isinstance(dotted, str):
        raise InvalidUpdate(f"{name} has {short_repr(dotted)} for a path: give dotted text", operator=name)
    if not dotted.isascii() or "\0" in dotted:
        _encode(name, dotted, dotted)  # what can't be in a document
    path = tuple(dotted.split("."))
    if len(path) > MAX_DEPTH:
        raise InvalidUpdate(f"{name} has a path of over {MAX_DEPTH} parts", path=dotted, operator=name)
    if "" in path:
        raise _invalid(name, path, "a part of the path is empty: such a field can only be changed with replace()")
    return path


def _parse_set(name: str, path: Path, value: Any) -> Set:
    return Set(path, _fitting(name, path, value))


def _parse_set_on_insert(name: str, path: Path, value: Any) -> SetOnInsert:
    return SetOnInsert(path, _fitting(name, path, value))


def _parse_unset(_name: str, path: Path, _value: Any) -> Unset:
    return Unset(path)


def _parse_increment(name: str, path: Path, value: Any) -> Increment:
    return Increment(path, _number(name, path, value))


def _parse_multiply(name: str, path: Path, value: Any) -> Multiply:
    return Multiply(path, _number(name, path, value))


def _parse_bound(name: str, path: Path, value: Any) -> Bound:
    return Bound(name, path, _fitting(name, path, value))


def _parse_rename(name: str, path: Path, value: Any) -> Rename:
    if not isinstance(value, str):
        raise _invalid(name, path, f"takes another path, not {short_repr(value)}")
    target = _split(name, value)
    if target[0].startswith("$"):
        raise _invalid(
            name, path, f"can't make {short_repr(target[0])}, a field of the document itself that begins with '$'"
        )
    return Rename(path, target)


def _parse_current_date(name: str, path: Path, value: Any) -> CurrentDate:
    """There is one form of a time, so both of MongoDB's types are the same."""
    if not isinstance(value, bool) and value not in ({"$type": "date"}, {"$type": "timestamp"}):
        raise _invalid(name, path, f"takes True or {{'$type': 'date'}}, not {short_repr(value)}")
    return CurrentDate(path)


def _parse_push(name: str, path: Path, value: Any) -> Push:
    given = _modifiers(name, path, value, _MODIFIERS)
    return Push(
        path,
        _items(name, path, given["$each"], "$each"),
        _integer(path, "$position", given["$position"]) if "$position" in given else None,
        _parse_order(path, given["$sort"]) if "$sort" in given else (),
        _integer(path, "$slice", given["$slice"]) if "$slice" in given else None,
    )


def _parse_add_to_set(name: str, path: Path, value: Any) -> AddToSet:
    return AddToSet(path, _items(name, path, _modifiers(name, path, value, ("$each",))["$each"], "$each"))


def _modifiers(name: str, path: Path, value: Any, known: tuple[str, ...]) -> Mapping[Any, Any]:
    """Return the modifiers; as in MongoDB an object without `$each` is a value, whatever its keys."""
    if not isinstance(value, Mapping) or "$each" not in value:
        return {"$each": [value]}
    for key in value:
        if key not in known:
            raise _invalid(name, path, f"knows {', '.join(known)} here, not {short_repr(key)}")
    return value


def _parse_order(path: Path, value: Any) -> tuple[SortKey, ...]:
    if not isinstance(value, Mapping):
        return (SortKey((), _descends(path, value)),)
    if not value:
        raise _invalid("$push", path, "has an empty $sort: give 1, -1, or paths with 1 or -1")
    try:
        return tuple(SortKey(_split_any("$sort", dotted), _descends(path, way)) for dotted, way in value.items())
    except InvalidUpdate as exc:
        raise _invalid("$push", path, f"can't sort: {exc}") from exc


def _descends(path: Path, value: Any) -> bool:
    return _one(value, "$push", path, "takes 1 or -1 in $sort") < 0


def _parse_pop(name: str, path: Path, value: Any) -> Pop:
    return Pop(path, _one(value, name, path, "takes 1 for the last item or -1 for the first") < 0)


def _one(value: Any, name: str, path: Path, reason: str) -> int:
    way = integer_of(value)
    if way not in (1, -1) or way != value:
        raise _invalid(name, path, f"{reason}, not {short_repr(value)}")
    return way


def _parse_pull(name: str, path: Path, value: Any) -> Pull | PullAll:
    """As MongoDB reads it: an object is a filter on items that are objects, or operators on any; all else a value."""
    if not isinstance(value, Mapping):
        return PullAll(name, path, _operand(name, path, [value]))
    try:
        node = parse_condition(value, ".".join(path))
    except InvalidFilter as exc:
        raise _invalid(name, path, f"can't use this condition: {exc}") from exc
    return Pull(path, node, objects_only=not is_operators(value))


def _parse_pull_all(name: str, path: Path, value: Any) -> PullAll:
    return PullAll(name, path, _items(name, path, value, "a list"))


_OPERATORS: Final[Mapping[str, Callable[[str, Path, Any], FieldChange]]] = {
    "$set": _parse_set,
    "$unset": _parse_unset,
    "$inc": _parse_increment,
    "$mul": _parse_multiply,
    "$min": _parse_bound,
    "$max": _parse_bound,
    "$rename": _parse_rename,
    "$setOnInsert": _parse_set_on_insert,
    "$currentDate": _parse_current_date,
    "$push": _parse_push,
    "$addToSet": _parse_add_to_set,
    "$pop": _parse_pop,
    "$pull": _parse_pull,
    "$pullAll": _parse_pull_all,
}


def _known() -> str:
    return ", ".join(_OPERATORS)


def _items(name: str, path: Path, value: Any, what: str) -> Operand:
    if not isinstance(value, list | tuple):
        raise _invalid(name, path, f"takes {what if what != '$each' else 'a list in $each'}, not {short_repr(value)}")
    return _fitting(name, path, value)


def _integer(path: Path, name: str, value: Any) -> int:
    number = integer_of(value)
    if number is None or number != value:
        raise _invalid("$push", path, f"takes an integer for {name}, not {short_repr(value)}")
    return max(-_MANY, min(number, _MANY))


def _number(name: str, path: Path, value: Any) -> Operand:
    operand = _operand(name, path, value)
    if not _is_number(operand.value):
        raise _invalid(name, path, f"takes a number, not {short_repr(value)}")
    return operand


def _fitting(name: str, path: Path, value: Any) -> Operand:
    """An operand that will stand at the path, with which a document must not become too deep."""
    operand = _operand(name, path, value)
    brackets = operand.text.count("{") + operand.text.count("[")
    if len(path) + brackets > MAX_DEPTH and len(path) + _depth(operand.value) > MAX_DEPTH:
        raise _invalid(name, path, f"the document would be nested deeper than {MAX_DEPTH} levels")
    return operand


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        level = [item for inner in level for item in (inner.values() if isinstance(inner, dict) else inner)]
        depth += 1
    return depth


def _operand(name: str, path: Path, value: Any) -> Operand:
    text = _encode(name, ".".join(path), value)
    return Operand(decode(text), text.decode())


def _encode(name: str, at: str, value: Any) -> bytes:
    try:
        return encode_value(value, at)
    except InvalidDocument as exc:
        raise InvalidUpdate(f"{name} can't use this: {exc}", path=exc.path, operator=name) from exc


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _invalid(name: str, path: Path, reason: str) -> InvalidUpdate:
    at = ".".join(path)
    return InvalidUpdate(f"{name} of {short_repr(at)}: {reason}", path=at, operator=name)
