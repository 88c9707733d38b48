"""What the filter language is parsed into. Both interpreters, SQL and Python, read these and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from pgdoc.query.regex.parse import Pattern

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class Absence(Enum):
    """What stands where a path finds nothing; null is a value, this is none."""

    MISSING = "missing"


MISSING: Final = Absence.MISSING

Path: TypeAlias = tuple[str, ...]
"""The parts of a dotted path; a part of digits is a key of an object or an index of an array, whichever it meets.

The empty path is the element that `$elemMatch` looks at, itself and not its items.
"""

ELEMENT: Final = ""
"""The key under which an element stands for the filter in `$elemMatch`, and for `$pull` and `$[]`, in a document of its
own: so its `_id` is a field like any other."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A JSON value to compare with: as Python reads it back from the server, and as JSON text."""

    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class And:
    """All of them; of none, true."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Whatever the node does not match: `$ne`, `$nin` and `$nor` are this around their opposite."""

    node: Node


@dataclass(frozen=True, slots=True)
class Equal:
    """A value at the path equals the operand; null equals what is missing too."""

    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Ordered:
    """A value at the path is of the operand's type and stands to it as the operator says: `<`, `<=`, `>` or `>=`."""

    path: Path
    operator: str
    operand: Operand


@dataclass(frozen=True, slots=True)
class In:
    """A value at the path equals one of the operands."""

    path: Path
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value at the path; null is one."""

    path: Path


@dataclass(frozen=True, slots=True)
class HasType:
    """A value at the path is of one of these types; numbers count by the way they are written."""

    path: Path
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasSize:
    """There is an array of this length at the end of the path; its items do not count as such."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Matches:
    """A text at the path has a place that matches the pattern."""

    path: Path
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Remainder:
    """A number at the path, without its fraction, leaves this when divided, with its own sign; 64 bits at most."""

    path: Path
    divisor: int
    remainder: int


@dataclass(frozen=True, slots=True)
class AnyElement:
    """There is an array at the end of the path, and one of its items matches.

    Attributes:
        whole: whether the node is of filters on the item as a document, all paths beginning with `ELEMENT`: an array
            counts as the object of its indexes then, and what is neither does not match. Else all paths are empty.
    """

    path: Path
    node: Node
    whole: bool


Lookup: TypeAlias = Equal | In | Ordered


@dataclass(frozen=True, slots=True)
class ByKey:
    """One lookup, or the sides of a range, at a path that has an index; only `pgdoc.query.indexes.plan` makes it.

    Attributes:
        path: of all the nodes.
        nodes: what holds.
        side: of which documents it is said: those whose path has one `value`, those in which it meets an `array`, or
            `either`. `through` and `ending` are those of `array` in which it goes on through the array, so that they
            are sorted as if the value was missing, and in which it ends there. `exact` is a test that asks no index.
    """

    path: Path
    nodes: tuple[Lookup, ...]
    side: str


Field: TypeAlias = Equal | Ordered | In | Exists | HasType | HasSize | Matches | Remainder | AnyElement
Node: TypeAlias = And | Or | Not | ByKey | Field


@dataclass(frozen=True, slots=True)
class SortKey:
    """One path to sort by."""

    path: Path
    descending: bool


def is_index(part: str) -> bool:
    """Whether the part of a path can be an index of an array: up to nine digits without leading zeros."""
    return _INDEX.fullmatch(part) is not None


def has_index(path: Path) -> bool:
    """Whether a part behind the first can be an index: the root is an object, so the first part is always a key."""
    return any(map(is_index, path[1:]))
