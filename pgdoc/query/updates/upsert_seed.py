"""The document that an upsert creates: what its filter says of it, before the update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.errors import InvalidFilter
from pgdoc.model.json_codec import decode_decimals
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.nodes import And, Equal, In, Or

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.query.filters.nodes import Node, Operand, Path

__all__ = ["equal_fields", "equal_id"]


def equal_id(node: Node) -> str | None:
    """Return the id that every document which the filter matches has; `None` if it does not say.

    Raises:
        InvalidFilter: the filter says it in a way that no document can have.
    """
    found: str | None = None
    for path, operand in _equalities(node):
        if path[0] != "_id":
            continue
        if len(path) > 1 or not isinstance(operand.value, str):
            raise InvalidFilter(
                f"the filter compares {'.'.join(path)!r} with {short_repr(operand.value)}, so no document can match, "
                "and the upsert can't create one: an id is text",
                path=".".join(path),
            )
        if found is not None:
            raise _twice(path, path)
        found = operand.value
    return found


def equal_fields(node: Node) -> dict[str, Any]:
    """Return the data that the equalities of a filter describe; dotted paths nest, and a number in one is a key.

    As in MongoDB, they are the conditions outside `$or` and negations that compare with one value.

    Raises:
        InvalidFilter: two equalities contradict each other, or one is about a part of the other.
    """
    data: dict[str, Any] = {}
    seen: set[Path] = set()
    for path, operand in _equalities(node):
        if path[0] == "_id":
            continue
        for other in seen:
            if path[: len(other)] == other[: len(path)]:
                raise _twice(path, other)
        seen.add(path)
        *above, last = path
        inner = data
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = decode_decimals(operand.text)
    return data


def _equalities(node: Node) -> Iterator[tuple[Path, Operand]]:
    if isinstance(node, And) or (isinstance(node, Or) and len(node.nodes) == 1):
        for inner in node.nodes:
            yield from _equalities(inner)
    elif isinstance(node, Equal):
        yield node.path, node.operand
    elif isinstance(node, In) and len(node.operands) == 1:
        yield node.path, node.operands[0]


def _twice(path: Path, other: Path) -> InvalidFilter:
    dotted = ".".join(path)
    both = "twice" if path == other else f"and {short_repr('.'.join(other))}"
    return InvalidFilter(
        f"the filter compares {short_repr(dotted)} {both}, so the upsert can't tell what to insert: compare each field "
        "once",
        path=dotted,
    )
