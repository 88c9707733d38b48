"""Parse filters and sorts.

A new operator is one line in `_OPERATORS`, a node, and the node's meaning in each of the two interpreters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any, Final

from pgdoc.documents import MAX_DEPTH as MAX_PATH
from pgdoc.documents import decode, encode_value
from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidInput
from pgdoc.query.nodes import And, Equal, Exists, In, Node, Not, Operand, Or, Ordered, Path, SortKey

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH: Final = 100
"""How deep `$and`, `$or`, `$nor` and `$not` may nest."""


def parse_filter(filter: Mapping[str, Any] | None) -> Node:  # noqa: A002 (the name in the public calls)
    """Parse a filter; `None` and `{}` match every document.

    Raises:
        InvalidFilter: not a filter; `operator` and `path` name the place.
    """
    return And(()) if filter is None else _parse_object(filter, 0)


def _parse_object(filter: Any, depth: int) -> Node:  # noqa: A002
    if not isinstance(filter, Mapping):
        raise InvalidFilter(f"{shown(filter)} is no filter: give a dict such as {{'status': 'new'}}")
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"the filter is nested deeper than {MAX_DEPTH} levels: flatten it")
    return _all(tuple(_parse_entry(key, value, depth) for key, value in filter.items()))


def _parse_entry(key: Any, value: Any, depth: int) -> Node:
    if not isinstance(key, str):
        raise InvalidFilter(f"the key {key!r} of the filter is no text: give a dotted path or an operator")
    if not key.startswith("$"):
        return _parse_field(_split(key), value, depth)
    combine = _COMBINATIONS.get(key)
    if combine is None:
        raise InvalidFilter(f"unknown operator {key!r}: {_known(_COMBINATIONS)} stand here, or a path", operator=key)
    if not isinstance(value, list | tuple) or not value:
        raise InvalidFilter(f"{key} takes a list of one filter or more, not {shown(value)}", operator=key)
    return combine(tuple(_parse_object(item, depth + 1) for item in value))


def _parse_field(path: Path, value: Any, depth: int) -> Node:
    if not _has_operators(value):
        return _equal(path, "$eq", value)
    return _all(tuple(_parse_operator(path, name, operand, depth) for name, operand in value.items()))


def _parse_operator(path: Path, name: Any, value: Any, depth: int) -> Node:
    if name == "$not":
        return _parse_not(path, value, depth + 1)
    parse = _OPERATORS.get(name)
    if parse is None:
        at = ".".join(path)
        known = _known((*_OPERATORS, "$not"))
        raise InvalidFilter(f"unknown operator {name!r} at {at!r}: known are {known}", path=at, operator=str(name))
    return parse(path, name, value)


def _parse_not(path: Path, value: Any, depth: int) -> Node:
    if not _has_operators(value) or depth > MAX_DEPTH:
        raise _invalid(path, "$not", f"takes operators such as {{'$gt': 5}}, nested at most {MAX_DEPTH} deep")
    return Not(_parse_field(path, value, depth))


def _equal(path: Path, name: str, value: Any) -> Node:
    return Equal(path, _operand(path, name, value))


def _not_equal(path: Path, name: str, value: Any) -> Node:
    return Not(_equal(path, name, value))


def _ordered(path: Path, name: str, value: Any) -> Node:
    return Ordered(path, _COMPARISONS[name], _operand(path, name, value))


def _in(path: Path, name: str, value: Any) -> Node:
    if not isinstance(value, list | tuple):
        raise _invalid(path, name, f"takes a list, not {shown(value)}")
    for item in value:
        if _has_operators(item):
            raise _invalid(path, name, f"takes values, not operators: {shown(item)}")
    return In(path, tuple(_operand(path, name, item) for item in value))


def _not_in(path: Path, name: str, value: Any) -> Node:
    return Not(_in(path, name, value))


def _exists(path: Path, _name: str, value: Any) -> Node:
    """As MongoDB reads a truth value: null, false and zero are false, all else is true."""
    node = Exists(path)
    return Not(node) if value is None or (isinstance(value, int | float) and not value) else node


def _nor(nodes: tuple[Node, ...]) -> Node:
    return Not(Or(nodes))


_COMPARISONS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

_OPERATORS: Final[Mapping[Any, Callable[[Path, str, Any], Node]]] = {
    "$eq": _equal,
    "$ne": _not_equal,
    "$gt": _ordered,
    "$gte": _ordered,
    "$lt": _ordered,
    "$lte": _ordered,
    "$in": _in,
    "$nin": _not_in,
    "$exists": _exists,
}

_COMBINATIONS: Final[Mapping[str, Callable[[tuple[Node, ...]], Node]]] = {"$and": And, "$or": Or, "$nor": _nor}


def _all(nodes: tuple[Node, ...]) -> Node:
    return nodes[0] if len(nodes) == 1 else And(nodes)


def _has_operators(value: Any) -> bool:
    """Whether the value is an object of operators, such as `{"$gt": 5}`, and no value to be equal to."""
    return isinstance(value, Mapping) and any(isinstance(key, str) and key.startswith("$") for key in value)


def _operand(path: Path, name: str, value: Any) -> Operand:
    try:
        text = encode_value(value, ".".join(path))
    except InvalidDocument as exc:
        raise InvalidFilter(f"the value of {name} can't be in a document: {exc}", path=exc.path, operator=name) from exc
    return Operand(decode(text), text.decode())


def _invalid(path: Path, name: str, reason: str) -> InvalidFilter:
    at = ".".join(path)
    return InvalidFilter(f"{name} at {at!r} {reason}", path=at, operator=name)


def _known(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)


def _split(dotted: str) -> Path:
    if not dotted.isascii() or "\0" in dotted:
        _check_text(dotted)
    path = tuple(dotted.split("."))
    if len(path) > MAX_PATH:
        raise InvalidFilter(f"a path of {len(path):,} parts: documents are {MAX_PATH} deep at most", path=dotted)
    return path


def _check_text(dotted: str) -> None:
    try:
        encode_value(dotted, "")
    except InvalidDocument as exc:
        raise InvalidFilter(f"{dotted!r} can't be a path: {exc}", path=dotted) from exc


def parse_sort(sort: str | Sequence[str] | None) -> tuple[SortKey, ...]:
    """Parse `"total"`, `"-total"`, or a sequence of these; `None` asks for no order.

    Raises:
        InvalidInput: not a sort; `path` names the place.
    """
    keys = () if sort is None else (sort,) if isinstance(sort, str) else sort
    if not isinstance(keys, Sequence):
        raise InvalidInput(f"{shown(sort)} is no sort: give a path such as 'total' or '-total', or a list of them")
    return tuple(map(_parse_key, keys))


def _parse_key(key: Any) -> SortKey:
    dotted = key.removeprefix("-") if isinstance(key, str) else ""
    if not dotted:
        raise InvalidInput(f"{key!r} is nothing to sort by: give a path such as 'total' or '-total'")
    try:
        return SortKey(_split(dotted), key.startswith("-"))
    except InvalidFilter as exc:
        raise InvalidInput(f"the sort {exc}", path=exc.path) from exc
