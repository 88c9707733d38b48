"""What the update language is parsed into. Both interpreters, SQL and Python, read these and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from pgdoc.query.filters.nodes import Operand

if TYPE_CHECKING:
    from pgdoc.query.filters.nodes import Node, Path, SortKey

EACH: Final = "$[]"
"""The part of a path that stands for every element of the array there."""

NO_TIME: Final = Operand(None, "null")
"""What stands for the time of a transaction where it is not known."""


@dataclass(frozen=True, slots=True)
class Set:
    """`$set`: put the value there, making the objects on the way."""

    operator: ClassVar = "$set"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class SetOnInsert:
    """`$setOnInsert`: as `$set`, where an upsert makes the document; nothing else."""

    operator: ClassVar = "$setOnInsert"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Unset:
    """`$unset`: take the field away; an item of an array becomes null."""

    operator: ClassVar = "$unset"
    path: Path


@dataclass(frozen=True, slots=True)
class Increment:
    """`$inc`: add to the number there, exactly and in decimal; a missing one is set."""

    operator: ClassVar = "$inc"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Multiply:
    """`$mul`: multiply the number there, in decimal; a missing one becomes 0."""

    operator: ClassVar = "$mul"
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Bound:
    """`$min` and `$max`: put the operand there if it is less, or greater, than what is there."""

    operator: str
    path: Path
    operand: Operand


@dataclass(frozen=True, slots=True)
class Rename:
    """`$rename`: move the value to the target, whatever was there; neither path goes through an array."""

    operator: ClassVar = "$rename"
    path: Path
    target: Path


@dataclass(frozen=True, slots=True)
class CurrentDate:
    """`$currentDate`: put the time of the transaction there, which is the operand once it is known."""

    operator: ClassVar = "$currentDate"
    path: Path
    operand: Operand = NO_TIME


@dataclass(frozen=True, slots=True)
class Push:
    """`$push`: put items into the array there, at a position or its end; then sort it; then cut it.

    Attributes:
        items: an array.
        position: before which item; from the end where negative; `None` for the end.
        order: what to sort by, of each item that is an object; an empty path is the item itself.
        size: how many items to keep, of the end where negative; `None` for all.
    """

    operator: ClassVar = "$push"
    path: Path
    items: Operand
    position: int | None = None
    order: tuple[SortKey, ...] = ()
    size: int | None = None


@dataclass(frozen=True, slots=True)
class AddToSet:
    """`$addToSet`: put those items at the array's end that equal none of it, and none before them."""

    operator: ClassVar = "$addToSet"
    path: Path
    items: Operand


@dataclass(frozen=True, slots=True)
class Pop:
    """`$pop`: take the first or the last item of the array."""

    operator: ClassVar = "$pop"
    path: Path
    first: bool


@dataclass(frozen=True, slots=True)
class Pull:
    """`$pull` with a condition: take the items that match it.

    Attributes:
        node: a filter on `{ELEMENT: item}`.
        objects_only: whether an item that is no object stays.
    """

    operator: ClassVar = "$pull"
    path: Path
    node: Node
    objects_only: bool


@dataclass(frozen=True, slots=True)
class PullAll:
    """`$pullAll`, and `$pull` with a value: take all items that equal one of these."""

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
    """Changes on paths of which none is, or lies within, another, in the order of the paths."""

    changes: tuple[FieldChange, ...]

    def making_dollar_fields(self) -> list[FieldChange]:
        """Return the changes that could make a field of the document itself that begins with `$`.

        As in MongoDB they fit only where that field is there already: else it is an operator in the wrong place.
        """
        never = SetOnInsert | Unset | Rename | Pop | Pull | PullAll
        return [change for change in self.changes if change.path[0][0] == "$" and not isinstance(change, never)]
