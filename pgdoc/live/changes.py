"""The changes of a live query's result."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pgdoc.model.type_variables import M_co

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.documents import Document

    T = TypeVar("T")

__all__ = ["LiveChange", "LiveChangeKind", "applied"]


class LiveChangeKind(StrEnum):
    """What a change does to the result of a live query. Each member is also a `str`."""

    ADDED = "added"
    MODIFIED = "modified"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class LiveChange(Generic[M_co]):
    """One change of the result of a live query.

    The changes of a batch are sequential: the indexes of each assume that those before it are applied.

    Attributes:
        kind: what happened to the document: `added`, `modified` or `removed`.
        document: the document as the result has it now; as it had it last, if it was removed.
        old_index: where the document was in the result; `None` if it was added.
        new_index: where it is in the result; `None` if it was removed.
        event: the event that caused the change, the last one if there are several; `None` if the document moved into
            or out of the limit because of another one, if the result was read again, or if the handle was far behind.
    """

    kind: LiveChangeKind
    document: Document[M_co]
    old_index: int | None
    new_index: int | None
    event: ChangeEvent[M_co] | None


def applied(result: list[T], change: LiveChange[Any], item: T) -> None:
    """Apply a change to a list that stands for the result; `item` stands for the change's document."""
    if change.old_index is not None:
        del result[change.old_index]
    if change.new_index is not None:
        result.insert(change.new_index, item)
