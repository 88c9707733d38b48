"""The filter of a stream: the language of documents, on what `ChangeEvent.to_dict()` gives.

It is checked when the stream opens, a path that no event has included. An event is asked only for the parts that the
filter's paths lead to, and a part that several filters ask for is worked out once. What the filter pins to certain
values, the collection, the type of event, and one more, such as the document's id, is told apart, for an index to look
it up (`pgdoc.changes.router`).

A filter that can't be decided, as when the stored data can't be read in Python, matches: an event that somebody may
wait for is not kept back, and whoever reads it gets the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.changes.events import FIELDS, EventType, plain_field
from pgdoc.changes.router import Condition, RouteKey
from pgdoc.errors import InvalidFilter
from pgdoc.model.json_codec import encode_value
from pgdoc.query import finder, matcher, parse_filter, scalar_key
from pgdoc.query.filters.nodes import MISSING, And, Equal, In, Not, Or

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.query.filters.nodes import Node, Path

__all__ = ["parse_where"]

_ROW_KINDS: Final = {"insert": "I", "update": "U", "replace": "U", "delete": "D", "truncate": "T"}


def parse_where(where: Mapping[str, Any]) -> Condition:
    """Parse the filter of a stream.

    Raises:
        InvalidFilter: not a filter, or one on what events don't have; `operator` and `path` name the place.
    """
    node = parse_filter(where)
    _check_types(node)
    matches = _decided(node)
    rest = node.nodes if isinstance(node, And) else (node,)
    tables, rest = _take_out("collection", rest)
    types, others = _take_out("event_type", rest)
    kinds = None if types is None else frozenset(_ROW_KINDS.get(each, each) for each in types)
    if types is not None and ("update" in types) == ("replace" in types):  # else the row has to be looked at
        rest = others
    lookup, rest = _take_lookup(rest)
    return Condition(
        text=encode_value(where, ""),
        tables=tables,
        kinds=kinds,
        lookup=lookup,
        rest=_decided(And(rest)) if rest else None,
        matches=matches,
    )


def _take_out(field: str, nodes: tuple[Node, ...]) -> tuple[frozenset[str] | None, tuple[Node, ...]]:
    """Give the texts that a field must be one of, and the nodes that say something else."""
    for node in nodes:
        keys = _keys(node) if isinstance(node, Equal | In) and node.path == (field,) else None
        if keys is not None and all(isinstance(key, str) for key in keys):
            return keys, tuple(other for other in nodes if other is not node)
    return None, nodes


def _take_lookup(nodes: tuple[Node, ...]) -> tuple[RouteKey | None, tuple[Node, ...]]:
    """Take out the equality that says most: that of the document's id, or else the first; not of the event's type."""
    pinned = [node for node in nodes if isinstance(node, Equal | In) and node.path != ("event_type",) and _keys(node)]
    for node in sorted(pinned, key=lambda node: node.path != ("document_id",)):
        keys = _keys(node) or frozenset()
        lookup = RouteKey(".".join(node.path), keys, finder(node.path, _root))
        return lookup, tuple(other for other in nodes if other is not node)
    return None, nodes


def _keys(node: Equal | In) -> frozenset[Any] | None:
    """Give the keys of the values that equal it; `None` where one is no scalar: null, say, equals what is missing."""
    operands = (node.operand,) if isinstance(node, Equal) else node.operands
    keys = frozenset(scalar_key(operand.value) for operand in operands)
    return None if None in keys else keys


def _check_types(node: Node) -> None:
    """Refuse a type that no event has, wherever it is compared: it would match nothing, without a word."""
    match node:
        case And(nodes) | Or(nodes):
            for each in nodes:
                _check_types(each)
        case Not(inner):
            _check_types(inner)
        case Equal(("event_type",), operand):
            _check_type(operand.value)
        case In(("event_type",), operands):
            for operand in operands:
                _check_type(operand.value)


def _check_type(value: Any) -> None:
    if isinstance(value, str) and value not in set(EventType):
        known = ", ".join(EventType)
        raise InvalidFilter(f"no event has the event_type {value!r}: there are {known}", path="event_type")


def _decided(node: Node) -> Callable[[ChangeEvent], bool]:
    match = matcher(node, _root)

    def matches(event: ChangeEvent) -> bool:
        try:
            return match(event)
        except Exception:  # noqa: BLE001 (nothing of one event, or of one filter, may end the streams of others)
            return True

    return matches


def _root(path: Path) -> tuple[Callable[[ChangeEvent], Any], Path]:
    """Find the part of an event that a path leads to, and what of the path is left.

    Raises:
        InvalidFilter: no event has it.
    """
    field, *rest = path
    if field not in FIELDS:
        raise _unknown(path, "use document_id" if field == "_id" else f"an event has {', '.join(FIELDS)}")
    known = _PARTS.get(field)
    if not rest or known is None:
        return lambda event: plain_field(event, field), tuple(rest)
    name = rest[0]
    if name not in known:
        example = f", such as {field}.data.{name}" if "data" in known else ""
        raise _unknown(path, f"{field} has {', '.join(known)}{example}")
    if name == "data":  # without the times beside it, which cost as much
        return lambda event: MISSING if (image := getattr(event, field)) is None else image.data, tuple(rest[1:])
    if name in _BY_PATH and rest[1:]:
        rest = [name, ".".join(rest[1:])]  # a dotted path is one key there
    return lambda event: plain_field(event, field), tuple(rest)


def _unknown(path: Path, hint: str) -> InvalidFilter:
    dotted = ".".join(path)
    return InvalidFilter(f"no event has {dotted!r}: {hint}", path=dotted)


_IMAGE: Final = ("id", "data", "version", "created_at", "updated_at")
_PARTS: Final = {
    "full_document": _IMAGE,
    "full_document_before_change": _IMAGE,
    "update_description": ("updated_fields", "removed_fields", "truncated_arrays", "disambiguated_paths"),
}
_BY_PATH: Final = ("updated_fields", "disambiguated_paths")
