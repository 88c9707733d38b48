"""The syntax tree of a filter. Both interpreters, SQL and Python, work from these nodes alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.query.regex.parse import Pattern

_ARRAY_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class Absence(Enum):
    """The type of `MISSING`, which a path without a value yields; null is a value."""

    MISSING = "missing"


MISSING: Final = Absence.MISSING

Path: TypeAlias = tuple[str, ...]
"""The parts of a dotted path. A part of digits is a key in an object and an index in an array.

The empty path is the element that `$elemMatch` tests: the element itself, not its items.
"""

ELEMENT: Final = ""
"""In `$elemMatch` with a filter, in `$pull` and for `$[]`, an element is the field `ELEMENT` of a document of its own.

So the `_id` of an element is a field like any other."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A JSON value to compare with: decoded as from the server, and as JSON text."""

    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class And:
    """All nodes match; true if there are none."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one node matches."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The node does not match. `$ne`, `$nin` and `$nor` are `Not` around their opposite."""

    node: Node


@dataclass(frozen=True, slots=True)
class Equal:
    """A value at the path equals the operand; null also equals a missing value.

    Attributes:
        collation: how texts compare; `None` for by code point. The texts in the operand are folded for it.
    """

    path: Path
    operand: Operand
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """A value at the path has the operand's type and compares with it by `<`, `<=`, `>` or `>=`."""

    path: Path
    operator: str
    operand: Operand
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class In:
    """A value at the path equals one of the operands."""

    path: Path
    operands: tuple[Operand, ...]
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value at the path; null is a value."""

    path: Path


@dataclass(frozen=True, slots=True)
class HasType:
    """A value at the path has one of the types; the type of a number depends on how it is written."""

    path: Path
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasSize:
    """There is an array of this length at the end of the path; arrays among its items do not count."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Matches:
    """The pattern matches somewhere in a text at the path."""

    path: Path
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Remainder:
    """A number at the path, truncated to a 64-bit integer, leaves this remainder, which has the number's sign."""

    path: Path
    divisor: int
    remainder: int


@dataclass(frozen=True, slots=True)
class HasBits:
    """A number at the path passes the test of an operator in `pgdoc.query.filters.bits`; the mask has 64 bits."""

    path: Path
    operator: str
    mask: int


@dataclass(frozen=True, slots=True)
class AnyElement:
    """There is an array at the end of the path, and at least one of its items matches.

    Attributes:
        as_document: whether `node` is a filter on the item as a document. Then its paths start with `ELEMENT`, an array
            counts as the object of its indexes, and a scalar does not match. Otherwise its paths are empty.
    """

    path: Path
    node: Node
    as_document: bool


Lookup: TypeAlias = Equal | In | Ordered

Scope: TypeAlias = Literal["all", "no_array", "array", "array_on_way", "array_at_end", "exact", "keys", "own_key"]
"""The documents that a `ByKey` covers, by whether their path meets an array; their sort keys differ.

`all` covers every document, `no_array` those whose path has one value, `array` those whose path meets an array. Two
scopes split `array`: in `array_on_way` the path continues through the array, so the document sorts as if the value
were missing; in `array_at_end` the path ends at the array. `exact` covers every document, and compares values instead
of keys. `keys` covers every document, and compares nothing but keys: it also finds some documents that do not match.
`own_key` is the same for documents that have one value at their path.
"""


@dataclass(frozen=True, slots=True)
class ByKey:
    """One lookup, or both bounds of a range, on a path that has an index.

    Only `pgdoc.query.indexes.plan` creates it. All nodes have this path, and must match.

    Attributes:
        collation: that of the keys. Keys of any collation serve nodes without texts.
    """

    path: Path
    nodes: tuple[Lookup, ...]
    scope: Scope
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class MeetsArray:
    """The path meets an array, at its end or on the way; created as `ByKey` is."""

    path: Path


@dataclass(frozen=True, slots=True)
class Exact:
    """The same node beside a condition on keys that serves an index; created as `ByKey` is.

    PostgreSQL evaluates it first where it scans the whole table: it costs less than the keys.
    """

    node: Node


Field: TypeAlias = Equal | Ordered | In | Exists | HasType | HasSize | Matches | Remainder | HasBits | AnyElement
Node: TypeAlias = And | Or | Not | ByKey | MeetsArray | Exact | Field


@dataclass(frozen=True, slots=True)
class SortKey:
    """One path to sort by."""

    path: Path
    descending: bool
    collation: str | None = None


def map_fields(node: Node, change: Callable[[Any], Node]) -> Node:
    """Return the filter with each node on a path replaced, also of those in `$elemMatch`."""
    if isinstance(node, And | Or):
        return type(node)(tuple(map_fields(part, change) for part in node.nodes))
    if isinstance(node, Not):
        return Not(map_fields(node.node, change))
    if isinstance(node, AnyElement):
        return AnyElement(node.path, map_fields(node.node, change), node.as_document)
    return change(node)


def is_array_index(part: str) -> bool:
    """Whether the part of a path can be an array index: up to nine digits without leading zeros."""
    return _ARRAY_INDEX.fullmatch(part) is not None


def may_be_missing_in_array(node: Equal | In) -> bool:
    """Whether it is an equality to null that an array on the way can match by having no value at all."""
    operands = (node.operand,) if isinstance(node, Equal) else node.operands
    return len(node.path) > 1 and any(operand.value is None for operand in operands)


def has_array_index(path: Path) -> bool:
    """Whether a part after the first can be an array index; the first is a key, since the root is an object."""
    return any(map(is_array_index, path[1:]))
