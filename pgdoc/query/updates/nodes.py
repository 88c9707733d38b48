"""The changes of an update. Both interpreters, SQL and Python, work from these nodes alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from pgdoc.query.filters.nodes import Operand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgdoc.query.filters.nodes import Node, Path, SortKey

EACH: Final = "$[]"
"""The part of a path that stands for every element of an array."""

MATCHED: Final = "$"
"""The part of a path that stands for the element that the filter of the call matched."""

NO_TIME: Final = Operand(None, "null")
"""The operand of `$currentDate` where the time of the transaction is not known."""


@dataclass(frozen=True, slots=True)
class Set:
    """Set the value, and create missing objects on the way."""

    operator: ClassVar = "$set"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class SetOnInsert:
    """Apply `$set` if an upsert creates the document; otherwise no change."""

    operator: ClassVar = "$setOnInsert"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Unset:
    """Remove the field; an item of an array becomes null."""

    operator: ClassVar = "$unset"
    path: Path


@dataclass(frozen=True, slots=True)
class Increment:
    """Add to the number, exactly and in decimal; a missing number counts as 0."""

    operator: ClassVar = "$inc"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Multiply:
    """Multiply the number, in decimal; a missing number becomes 0."""

    operator: ClassVar = "$mul"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Bound:
    """`$min` and `$max`: set the operand if it is less, or greater, than the value, or if there is no value."""

    operator: str
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Bit:
    """Apply `and`, `or` and `xor` to a 64-bit integer, one after the other; a missing number counts as 0."""

    operator: ClassVar = "$bit"
    path: Path
    operations: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Rename:
    """Move the value to the target, and replace a value there; neither path may go through an array."""

    operator: ClassVar = "$rename"
    path: Path
    target: Path


@dataclass(frozen=True, slots=True)
class CurrentDate:
    """Set the time of the transaction, which is the operand once it is known."""

    operator: ClassVar = "$currentDate"
    path: Path
    operand: Operand = NO_TIME


@dataclass(frozen=True, slots=True)
class Push:
    """Insert items into the array, then sort the array, then truncate it.

    Attributes:
        position: the index to insert before, counted from the end if negative; `None` for the end.
        order: the keys to sort by, relative to each item that is an object; an empty path is the item itself.
        size: the number of items to keep, from the end if negative; `None` for all.
    """

    operator: ClassVar = "$push"
    path: Path
    items: Operand
    position: int | None = None
    order: tuple[SortKey, ...] = ()
    size: int | None = None


@dataclass(frozen=True, slots=True)
class AddToSet:
    """Append each item that the array does not contain yet, added items included."""

    operator: ClassVar = "$addToSet"
    path: Path
    items: Operand


@dataclass(frozen=True, slots=True)
class Pop:
    """Remove the first or the last item of the array."""

    operator: ClassVar = "$pop"
    path: Path
    first: bool


@dataclass(frozen=True, slots=True)
class Pull:
    """Remove the items that match a condition. `$pull` with a value is a `PullAll`.

    Attributes:
        node: a filter on `{ELEMENT: item}`.
        objects_only: whether only objects can match.
    """

    operator: ClassVar = "$pull"
    path: Path
    node: Node
    objects_only: bool


@dataclass(frozen=True, slots=True)
class PullAll:
    """`$pullAll`, and `$pull` with a value: remove all items that equal one of these."""

    operator: str
    path: Path
    items: Operand


FieldChange: TypeAlias = (
    Set
    | SetOnInsert
    | Unset
    | Increment
    | Multiply
    | Bound
    | Bit
    | Rename
    | CurrentDate
    | Push
    | AddToSet
    | Pop
    | Pull
    | PullAll
)


@dataclass(frozen=True, slots=True)
class Update:
    """Changes, sorted by their paths; no path equals or contains another.

    Attributes:
        filters: the array filters by their names, on `{ELEMENT: item}`.
        matched: the filter of the call, in which `$` finds its element; `None` if no path has `$`.
    """

    changes: tuple[FieldChange, ...]
    filters: Mapping[str, Node] = field(default_factory=dict)
    matched: Node | None = None

    def creating_dollar_fields(self) -> list[FieldChange]:
        """Return the changes that could create a top-level field that starts with `$`.

        As in MongoDB, they fit only if the field exists: such a name is usually an operator in the wrong place.
        """
        never = SetOnInsert | Unset | Rename | Pop | Pull | PullAll
        return [change for change in self.changes if change.path[0][0] == "$" and not isinstance(change, never)]
