"""What the filter language is parsed into. Both interpreters, SQL and Python, read these and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class Absence(Enum):
    """What stands where a path finds nothing; null is a value, this is none."""

    MISSING = "missing"


MISSING: Final = Absence.MISSING

Path: TypeAlias = tuple[str, ...]
"""The parts of a dotted path; a part of digits is a key of an object or an index of an array, whichever it meets."""


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


Field: TypeAlias = Equal | Ordered | In | Exists
Node: TypeAlias = And | Or | Not | Field


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
