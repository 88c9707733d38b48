"""The changes that lead from one result of a live query to another."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from pgdoc.live.changes import LiveChange, LiveChangeKind
from pgdoc.live.images import RowImage

if TYPE_CHECKING:
    from pgdoc.live.order import DocumentOrder, SortPlace
    from pgdoc.model.documents import Document

__all__ = ["difference"]


def difference(order: DocumentOrder, old: list[Document[Any]], new: list[Document[Any]]) -> list[LiveChange[Any]]:
    """Return the changes from `old` to `new`, both in order, as a window's commit does.

    The documents that leave come first, then all others in their new order.
    """
    before, after = ({document.id: document for document in documents} for documents in (old, new))
    return _Difference(order, [*old]).changes(before, after, new)


class _Difference:
    def __init__(self, order: DocumentOrder, result: list[Document[Any]]) -> None:
        self._order, self._result = order, result
        self._places: dict[int, SortPlace] = {}  # by the id of the object

    def changes(
        self, before: dict[str, Document[Any]], after: dict[str, Document[Any]], new: list[Document[Any]]
    ) -> list[LiveChange[Any]]:
        leaving = [document for document in self._result if document.id not in after]
        found = [self._leave(document) for document in leaving]
        for document in new:
            former = before.get(document.id)
            if former is None:
                found.append(self._come(document, None, LiveChangeKind.ADDED))
            elif former is not document and not RowImage(former).is_state_of(RowImage(document)):
                found.append(self._come(document, self._index(former), LiveChangeKind.MODIFIED))
        return found

    def _leave(self, document: Document[Any]) -> LiveChange[Any]:
        index = self._index(document)
        del self._result[index]
        return LiveChange(LiveChangeKind.REMOVED, document, index, None, None)

    def _come(self, document: Document[Any], old_index: int | None, kind: LiveChangeKind) -> LiveChange[Any]:
        if old_index is not None:
            del self._result[old_index]
        index = self._index(document)
        self._result.insert(index, document)
        return LiveChange(kind, document, old_index, index, None)

    def _index(self, document: Document[Any]) -> int:
        return bisect_left(self._result, self._place(document), key=self._place)

    def _place(self, document: Document[Any]) -> SortPlace:
        place = self._places.get(id(document))
        if place is None:
            place = self._places[id(document)] = self._order.place(RowImage(document))
        return place
