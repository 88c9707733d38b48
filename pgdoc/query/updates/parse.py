"""Parse updates.

A new operator needs a line in `_OPERATORS`, a node, and the node's meaning in `pgdoc.query.updates.apply` and
`pgdoc.query.updates.sql`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidUpdate
from pgdoc.model.json_codec import MAX_DEPTH, decode_comparable, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.nodes import Operand, Path, SortKey
from pgdoc.query.filters.parse import integer_of, is_operators, parse_condition
from pgdoc.query.filters.types import INTEGER_LIMITS
from pgdoc.query.updates.nodes import (
    MATCHED,
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
from pgdoc.query.updates.overlaps import check_overlaps, path_order
from pgdoc.query.updates.positions import (
    check_dynamic_parts,
    check_filters_used,
    parse_array_filters,
    positions_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Node

_MAX_INT: Final = 2**31 - 1
_BIT_OPERATIONS: Final = {"and", "or", "xor"}
_MODIFIERS: Final = ("$each", "$position", "$slice", "$sort")


def parse_update(
    update: Mapping[str, Any],
    encoder: Encoder | None = None,
    *,
    array_filters: Any = None,
    matched: Node | None = None,
    collation: str | None = None,
) -> Update:
    """Parse an update.

    Args:
        update: operators, each with paths and operands.
        encoder: that of the store.
        array_filters: the filters for the parts `$[name]` of paths.
        collation: how texts in the array filters compare.
        matched: the filter of the call, for the part `$`; `None` if it can't be used.
    """
    if not isinstance(update, Mapping) or not update:
        raise InvalidUpdate(
            f"an update must be a dict of operators such as {{'$set': {{'status': 'paid'}}}}, got {short_repr(update)}"
        )
    changes = [
        _OPERATORS[name](name, _parse_path(name, dotted), value, encoder)
        for name, operands in update.items()
        for dotted, value in _check_entry(name, operands).items()
    ]
    check_overlaps(changes)
    filters = parse_array_filters(array_filters, encoder, collation)
    check_filters_used(changes, filters)
    has_matched = any(MATCHED in change.path for change in changes)
    ordered = tuple(sorted(changes, key=lambda change: path_order(change.path)))
    parsed = Update(ordered, filters, matched if has_matched else None)
    positions_of(parsed)  # raises if there is none
    return parsed


def _check_entry(name: Any, operands: Any) -> Mapping[Any, Any]:
    if not isinstance(name, str) or not name.startswith("$"):
        raise InvalidUpdate(
            f"{short_repr(name)} is not an update operator: change fields with {_known_operators()}, "
            "or the whole document with replace()"
        )
    if name not in _OPERATORS:
        raise InvalidUpdate(f"unknown operator {short_repr(name)}: use one of {_known_operators()}", operator=name)
    if not isinstance(operands, Mapping):
        raise InvalidUpdate(f"{name} needs a dict of paths and operands, got {short_repr(operands)}", operator=name)
    return operands


def _parse_path(name: str, dotted: Any) -> Path:
    path = _split_dotted(name, dotted)
    if path[0] == "_id":
        raise _invalid(name, path, "can't change the id of a document: insert a document with the new id")
    check_dynamic_parts(name, path)
    return path


def _split_dotted(name: str, dotted: Any) -> Path:
    if not isinstance(dotted, str):
        raise InvalidUpdate(f"{name} needs dotted text as a path, got {short_repr(dotted)}", operator=name)
    if not dotted.isascii() or "\0" in dotted:
        _encode(name, dotted, dotted)  # raises if no document can contain it
    path = tuple(dotted.split("."))
    if len(path) > MAX_DEPTH:
        raise InvalidUpdate(
            f"{name} has a path of {len(path):,} parts: use at most {MAX_DEPTH}, the greatest depth of a document",
            path=dotted,
            operator=name,
        )
    if "" in path:
        raise _invalid(name, path, "has an empty path part: use replace(), or set the object that contains the field")
    return path


def _parse_set(name: str, path: Path, value: Any, encoder: Encoder | None) -> Set:
    return Set(path, _storable(name, path, value, encoder))


def _parse_set_on_insert(name: str, path: Path, value: Any, encoder: Encoder | None) -> SetOnInsert:
    return SetOnInsert(path, _storable(name, path, value, encoder))


def _parse_unset(_name: str, path: Path, _value: Any, _encoder: Encoder | None) -> Unset:
    return Unset(path)


def _parse_increment(name: str, path: Path, value: Any, encoder: Encoder | None) -> Increment:
    return Increment(path, _number(name, path, value, encoder))


def _parse_multiply(name: str, path: Path, value: Any, encoder: Encoder | None) -> Multiply:
    return Multiply(path, _number(name, path, value, encoder))


def _parse_bound(name: str, path: Path, value: Any, encoder: Encoder | None) -> Bound:
    return Bound(name, path, _storable(name, path, value, encoder))


def _parse_bit(name: str, path: Path, value: Any, _encoder: Encoder | None) -> Bit:
    if not isinstance(value, Mapping) or not value or not set(value) <= _BIT_OPERATIONS:
        raise _invalid(name, path, f"needs a dict of and, or, xor and integers, got {short_repr(value)}")
    limit = INTEGER_LIMITS["long"]
    for number in value.values():
        if not isinstance(number, int) or isinstance(number, bool) or not -limit <= number < limit:
            raise _invalid(name, path, f"needs integers of at most 64 bits, got {short_repr(number)}")
    return Bit(path, tuple((operation, int(number)) for operation, number in value.items()))


def _parse_rename(name: str, path: Path, value: Any, _encoder: Encoder | None) -> Rename:
    if not isinstance(value, str):
        raise _invalid(name, path, f"needs another path, got {short_repr(value)}")
    target = _parse_path(name, value)
    if target[0].startswith("$"):
        raise _invalid(
            name, path, f"can't create {short_repr(target[0])}: the name of a new top-level field can't start with '$'"
        )
    return Rename(path, target)


def _parse_current_date(name: str, path: Path, value: Any, _encoder: Encoder | None) -> CurrentDate:
    """Accept both of MongoDB's types, which mean the same here: JSON has one form of a time."""
    if not isinstance(value, bool) and value not in ({"$type": "date"}, {"$type": "timestamp"}):
        raise _invalid(name, path, f"needs True or {{'$type': 'date'}}, got {short_repr(value)}")
    return CurrentDate(path)


def _parse_push(name: str, path: Path, value: Any, encoder: Encoder | None) -> Push:
    given = _modifiers(name, path, value, _MODIFIERS)
    return Push(
        path,
        _items(name, path, given["$each"], "a list in $each", encoder),
        _integer(path, "$position", given["$position"]) if "$position" in given else None,
        _parse_sort_modifier(path, given["$sort"]) if "$sort" in given else (),
        _integer(path, "$slice", given["$slice"]) if "$slice" in given else None,
    )


def _parse_add_to_set(name: str, path: Path, value: Any, encoder: Encoder | None) -> AddToSet:
    return AddToSet(
        path, _items(name, path, _modifiers(name, path, value, ("$each",))["$each"], "a list in $each", encoder)
    )


def _modifiers(name: str, path: Path, value: Any, known: tuple[str, ...]) -> Mapping[Any, Any]:
    """Return the modifiers; as in MongoDB, an object without `$each` is a value, whatever its keys."""
    if not isinstance(value, Mapping) or "$each" not in value:
        return {"$each": [value]}
    for key in value:
        if key not in known:
            raise _invalid(name, path, f"has an unknown modifier {short_repr(key)}: use {', '.join(known)}")
    return value


def _parse_sort_modifier(path: Path, value: Any) -> tuple[SortKey, ...]:
    if not isinstance(value, Mapping):
        return (SortKey((), _descends(path, value)),)
    if not value:
        raise _invalid("$push", path, "has an empty $sort: use 1, -1, or a dict of paths with 1 or -1")
    try:
        return tuple(
            SortKey(_split_dotted("$sort", dotted), _descends(path, direction)) for dotted, direction in value.items()
        )
    except InvalidUpdate as exc:
        raise _invalid("$push", path, f"has an invalid $sort: {exc}") from exc


def _descends(path: Path, value: Any) -> bool:
    return _direction(value, "$push", path, "needs 1 or -1 in $sort") < 0


def _parse_pop(name: str, path: Path, value: Any, _encoder: Encoder | None) -> Pop:
    return Pop(path, _direction(value, name, path, "needs 1 for the last item or -1 for the first") < 0)


def _direction(value: Any, name: str, path: Path, need: str) -> int:
    direction = integer_of(value)
    if direction not in (1, -1) or direction != value:
        raise _invalid(name, path, f"{need}, got {short_repr(value)}")
    return direction


def _parse_pull(name: str, path: Path, value: Any, encoder: Encoder | None) -> Pull | PullAll:
    """Read the operand as MongoDB does: operators on items, a filter on objects among them, or else a value."""
    if not isinstance(value, Mapping):
        return PullAll(name, path, _operand(name, path, [value], encoder))
    try:
        node = parse_condition(value, ".".join(path), encoder)
    except InvalidFilter as exc:
        raise _invalid(name, path, f"has an invalid condition: {exc}") from exc
    return Pull(path, node, objects_only=not is_operators(value))


def _parse_pull_all(name: str, path: Path, value: Any, encoder: Encoder | None) -> PullAll:
    return PullAll(name, path, _items(name, path, value, "a list", encoder))


_OPERATORS: Final[Mapping[str, Callable[[str, Path, Any, Encoder | None], FieldChange]]] = {
    "$set": _parse_set,
    "$unset": _parse_unset,
    "$inc": _parse_increment,
    "$mul": _parse_multiply,
    "$min": _parse_bound,
    "$max": _parse_bound,
    "$bit": _parse_bit,
    "$rename": _parse_rename,
    "$setOnInsert": _parse_set_on_insert,
    "$currentDate": _parse_current_date,
    "$push": _parse_push,
    "$addToSet": _parse_add_to_set,
    "$pop": _parse_pop,
    "$pull": _parse_pull,
    "$pullAll": _parse_pull_all,
}


def _known_operators() -> str:
    return ", ".join(_OPERATORS)


def _items(name: str, path: Path, value: Any, needed: str, encoder: Encoder | None) -> Operand:
    if not isinstance(value, list | tuple):
        raise _invalid(name, path, f"needs {needed}, got {short_repr(value)}")
    return _storable(name, path, value, encoder)


def _integer(path: Path, name: str, value: Any) -> int:
    number = integer_of(value)
    if number is None or number != value:
        raise _invalid("$push", path, f"needs an integer for {name}, got {short_repr(value)}")
    return max(-_MAX_INT, min(number, _MAX_INT))


def _number(name: str, path: Path, value: Any, encoder: Encoder | None) -> Operand:
    operand = _operand(name, path, value, encoder)
    if not _is_number(operand.value):
        raise _invalid(name, path, f"needs a number, got {short_repr(value)}")
    return operand


def _storable(name: str, path: Path, value: Any, encoder: Encoder | None) -> Operand:
    """Return the operand; refuse one that would nest the document too deep."""
    operand = _operand(name, path, value, encoder)
    brackets = operand.text.count("{") + operand.text.count("[")
    if len(path) + brackets > MAX_DEPTH and len(path) + _depth(operand.value) > MAX_DEPTH:
        raise _invalid(
            name,
            path,
            f"would nest the document more than {MAX_DEPTH} levels deep: use a shorter path or flatter value",
        )
    return operand


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        level = [item for inner in level for item in (inner.values() if isinstance(inner, dict) else inner)]
        depth += 1
    return depth


def _operand(name: str, path: Path, value: Any, encoder: Encoder | None) -> Operand:
    text = _encode(name, ".".join(path), value, encoder)
    return Operand(decode_comparable(text), text.decode())


def _encode(name: str, at: str, value: Any, encoder: Encoder | None = None) -> bytes:
    try:
        return encode_value(value, at, encoder)
    except InvalidDocument as exc:
        raise InvalidUpdate(
            f"{name} has a path or value that no document can contain: {exc}", path=exc.path, operator=name
        ) from exc


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _invalid(name: str, path: Path, finding: str) -> InvalidUpdate:
    dotted = ".".join(path)
    return InvalidUpdate(f"{name} at {short_repr(dotted)} {finding}", path=dotted, operator=name)
