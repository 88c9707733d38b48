"""The filter of a stream: the filter language of documents, applied to `ChangeEvent.to_dict()`.

The filter is checked when the stream opens; a path that no event has is an error. Matching computes only the parts of
an event that the filters need, each once. Values that the filter requires (the collection, the event type, and one
more, such as the document id) are taken out of the filter, so that an index can look them up (`pgdoc.changes.router`).

A filter that can't be evaluated, for example because Python can't read the stored data, matches: no event that a stream
may wait for is withheld, and the code that reads the event gets the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pgdoc.changes.event_json import FIELDS, plain_field
from pgdoc.changes.events import EventType
from pgdoc.changes.router import Condition, RouteKey
from pgdoc.decoding.records import MESSAGE_KIND
from pgdoc.errors import InvalidFilter
from pgdoc.model.documents import plain_data
from pgdoc.query import finder, matcher, parse_filter, scalar_key
from pgdoc.query.filters.nodes import MISSING, And, Equal, In, Not, Or

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Node, Path

__all__ = ["parse_where"]

_ROW_KINDS: Final = {
    "insert": "I",
    "update": "U",
    "replace": "U",
    "delete": "D",
    "truncate": "T",
    "message": MESSAGE_KIND,
}


def parse_where(where: Mapping[str, Any], encoder: Encoder | None = None) -> Condition:
    """Parse the filter of a stream; `encoder` is that of its store."""
    where = _with_times(where)
    node = parse_filter(where, encoder)
    _check_types(node)
    matches = _decided(node)
    rest = node.nodes if isinstance(node, And) else (node,)
    tables, rest = _take_out("collection", rest)
    types, others = _take_out("event_type", rest)
    kinds = None if types is None else frozenset(_ROW_KINDS.get(each, each) for each in types)
    if types is not None and ("update" in types) == ("replace" in types):  # else the type depends on the row's versions
        rest = others
    lookup, rest = _take_lookup(rest)
    return Condition(
        text=repr(node).encode(errors="surrogatepass"),
        tables=tables,
        kinds=kinds,
        lookup=lookup,
        rest=_decided(And(rest)) if rest else None,
        matches=matches,
    )


def _with_times(where: Any) -> Any:
    """Return the filter with each datetime that is compared with a time of the event in the form of that time."""
    if not isinstance(where, Mapping):
        return where
    return {
        key: [_with_times(part) for part in value]
        if isinstance(value, list | tuple) and key in _COMBINATIONS
        else _times_of(value)
        if key in _TIMES
        else value
        for key, value in where.items()
    }


def _times_of(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _times_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_times_of(item) for item in value]
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return value.astimezone(UTC).isoformat()
    return value


def _take_out(field: str, nodes: tuple[Node, ...]) -> tuple[frozenset[str] | None, tuple[Node, ...]]:
    """Return the texts that a field must be one of, or `None`, and the other nodes."""
    for node in nodes:
        keys = _keys(node) if isinstance(node, Equal | In) and node.path == (field,) else None
        if keys is not None and all(isinstance(key, str) for key in keys):
            return keys, tuple(other for other in nodes if other is not node)
    return None, nodes


def _take_lookup(nodes: tuple[Node, ...]) -> tuple[RouteKey | None, tuple[Node, ...]]:
    """Take out the most selective equality: on the document id, else the first; never on the event type."""
    pinned = [node for node in nodes if isinstance(node, Equal | In) and node.path != ("event_type",) and _keys(node)]
    for node in sorted(pinned, key=lambda node: node.path != ("document_id",)):
        keys = _keys(node) or frozenset()
        lookup = RouteKey(".".join(node.path), keys, finder(node.path, _root))
        return lookup, tuple(other for other in nodes if other is not node)
    return None, nodes


def _keys(node: Equal | In) -> frozenset[Any] | None:
    """Return the keys of the values; `None` if one is an object, an array, or null, which equals missing."""
    operands = (node.operand,) if isinstance(node, Equal) else node.operands
    keys = frozenset(scalar_key(operand.value) for operand in operands)
    return None if None in keys else keys


def _check_types(node: Node) -> None:
    """Refuse an event type that does not exist: it would silently match nothing."""
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
        raise InvalidFilter(f"no event has the event_type {value!r}: use one of {known}", path="event_type")


def _decided(node: Node) -> Callable[[ChangeEvent], bool]:
    match = matcher(node, _root)

    def matches(event: ChangeEvent) -> bool:
        try:
            return match(event)
        except Exception:  # noqa: BLE001 (one event or filter must not end the streams of others)
            return True

    return matches


def _root(path: Path) -> tuple[Callable[[ChangeEvent], Any], Path]:
    """Return how to get the part of an event that a path leads to, and the rest of the path in it."""
    field, *rest = path
    if field == "columns":
        return lambda event: event.columns, tuple(rest)
    if field in _OF_MESSAGES:
        return lambda event: MISSING if event.topic is None else getattr(event, field), tuple(rest)
    if field not in FIELDS:
        known_fields = ", ".join((*FIELDS, "columns", *_OF_MESSAGES))
        raise _unknown(path, "use document_id" if field == "_id" else f"use one of {known_fields}")
    known = _PARTS.get(field)
    if not rest or known is None:
        return lambda event: plain_field(event, field), tuple(rest)
    name = rest[0]
    if name not in known:
        example = f", for example {field}.data.{name}" if "data" in known else ""
        raise _unknown(path, f"{field} has {', '.join(known)}{example}")
    if name == "data":  # not the whole image: parsing its times takes as long as the data
        return lambda event: MISSING if (image := getattr(event, field)) is None else plain_data(image), tuple(rest[1:])
    if name in _BY_PATH and rest[1:]:
        rest = [name, ".".join(rest[1:])]  # its keys are dotted paths
    return lambda event: plain_field(event, field), tuple(rest)


def _unknown(path: Path, hint: str) -> InvalidFilter:
    dotted = ".".join(path)
    return InvalidFilter(f"no event has {dotted!r}: {hint}", path=dotted)


_COMBINATIONS: Final = ("$and", "$or", "$nor")
_TIMES: Final = (
    "timestamp",
    "full_document.created_at",
    "full_document.updated_at",
    "full_document_before_change.created_at",
    "full_document_before_change.updated_at",
)
_IMAGE: Final = ("id", "data", "version", "created_at", "updated_at")
_PARTS: Final = {
    "full_document": _IMAGE,
    "full_document_before_change": _IMAGE,
    "update_description": ("updated_fields", "removed_fields", "truncated_arrays", "disambiguated_paths"),
}
_BY_PATH: Final = ("updated_fields", "disambiguated_paths")
_OF_MESSAGES: Final = ("topic", "payload")
