"""The documents that match a filter, sorted, and as many of them as a limit asks for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Final, NamedTuple

from pgdoc.live.changes import LiveChange, LiveChangeKind
from pgdoc.live.order import DocumentOrder, SortPlace
from pgdoc.query.filters.match import matcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.images import RowImage
    from pgdoc.model.documents import Document
    from pgdoc.query.filters.nodes import Node, SortKey

__all__ = ["SPARE", "LiveWindow"]

SPARE: Final = 100
"""How many documents beyond the limit are held, to replace those that leave without reading again."""

_MOST_SPARE: Final = 50_000

_BEFORE_ALL: Final[SortPlace] = ()

_ADDED, _MODIFIED, _REMOVED = LiveChangeKind.ADDED, LiveChangeKind.MODIFIED, LiveChangeKind.REMOVED


class _Placed(NamedTuple):
    """A document that matches, and where it sorts."""

    place: SortPlace
    image: RowImage


class PreparedRows(NamedTuple):
    """Documents that match, as a window holds them.

    Attributes:
        known: by their ids.
        places: theirs, sorted.
        last: the last place of all that were read.
    """

    known: dict[str, _Placed]
    places: list[SortPlace]
    last: SortPlace


class LiveWindow:
    """The result of a live query: a `LiveState` that returns each `LiveChange`.

    With a limit, it knows a prefix of the documents that match: all up to a boundary. A document that comes to lie
    beyond the boundary is forgotten. When fewer than `limit` are left, and there may be more, it needs a read.

    Args:
        node: the parsed filter.
        sort: the parsed sort; empty for the order of ids.
        limit: the most documents to show; `None` for all.
        spare: how many documents beyond the limit to hold.

    Attributes:
        read_limit: how many documents to read for `load`; `None` for all.
    """

    def __init__(
        self, node: Node, sort: tuple[SortKey, ...] = (), limit: int | None = None, *, spare: int = SPARE
    ) -> None:
        self._match = matcher(node)
        self._order = DocumentOrder(sort)
        self.limit = limit
        self.read_limit = None if limit is None else limit + spare if limit else 0
        # What is known: all documents that match and do not sort after the boundary, of which `None` means none.
        self._known: dict[str, _Placed] = {}
        self._places: list[SortPlace] = []  # those of `_known`, sorted
        self._boundary: SortPlace | None = None
        self._is_loaded = False
        # What was shown by the last commit, and what may have changed since.
        self._shown: dict[str, _Placed] = {}
        self._shown_places: list[SortPlace] = []
        self._touched: dict[str, ChangeEvent | None] = {}

    def widen(self) -> None:
        """Hold more documents: those read have been used up before they counted."""
        if self.limit is not None and self.read_limit is not None and self.read_limit < self.limit + _MOST_SPARE:
            self.read_limit += self.read_limit - self.limit

    @property
    def documents(self) -> list[Document]:
        """What the last commit showed, in order."""
        return [self._shown[place[-1]].image.document for place in self._shown_places]

    @property
    def needs_read(self) -> bool:
        """Whether fewer than `limit` documents are known, and there may be more."""
        if not self._is_loaded:
            return True
        return self._boundary is not None and self.limit is not None and len(self._places) < self.limit

    def prepared(self, images: Iterable[RowImage]) -> PreparedRows:
        """Return what `load` takes of documents in any order; those that do not match are left out.

        That is most of the work, and changes nothing here: any thread may do it.
        """
        known, last = dict[str, _Placed](), _BEFORE_ALL
        for image in images:
            place = self._order.place(image)
            last = max(last, place)
            if image.passes(self._match):
                known[image.id] = _Placed(place, image)
            image.release()
        return PreparedRows(known, sorted(held.place for held in known.values()), last)

    def load(self, rows: PreparedRows, *, is_all: bool) -> None:
        """Replace what is known by what was read: the first documents that match, or all that may match.

        Args:
            rows: the documents.
            is_all: whether no other document matches.
        """
        former, known = self._known, rows.known
        for document_id in former.keys() | known.keys():
            if not _is_same(former.get(document_id), known.get(document_id)):
                self._touched[document_id] = None
        self._known, self._places = known, rows.places
        self._boundary = None if is_all else rows.last
        self._is_loaded = True
        self._forget_beyond()

    def apply(self, before: RowImage | None, after: RowImage | None, event: ChangeEvent) -> bool:
        """Apply a change of one row; return whether it may change what is shown."""
        is_touched = False
        if before is not None and (after is None or after.id != before.id):
            is_touched = self._remove(before.id, event)
        if after is None:
            return is_touched
        if not after.passes(self._match):
            return self._remove(after.id, event) or is_touched
        return self._put(after, event) or is_touched

    def clear(self, event: ChangeEvent) -> bool:
        """Apply a truncation of the collection."""
        for document_id in self._known.keys() | self._shown.keys():
            if document_id in self._known or self._touched.get(document_id) is None:  # else an event has removed it
                self._touched[document_id] = event
        self._known, self._places, self._boundary = {}, [], None
        self._is_loaded = True
        return bool(self._touched)

    def commit(self) -> list[LiveChange]:
        """Return the changes since the last commit, of which each assumes that those before it are applied.

        Documents that leave come first, in their order, then all others in their new order. While the window needs a
        read, there are none, and those to come stay due.
        """
        if self.needs_read:
            return []
        touched, self._touched = self._touched, {}
        if not touched:
            return []
        if not self._shown:
            return self._show_all(touched)
        last = self._last_shown()
        leaving = self._leaving(touched, last)
        coming = self._coming(touched, last)
        places = self._shown_places
        changes = [self._leave(places, place, touched.get(place[-1])) for place in leaving]
        for held in coming:
            change = self._come(places, held, touched.get(held.image.id))
            if change is not None:
                changes.append(change)
        return changes

    def _show_all(self, touched: dict[str, ChangeEvent | None]) -> list[LiveChange]:
        """Show what is known where nothing was shown."""
        self._shown_places = self._places[: self.limit]
        self._shown = {place[-1]: self._known[place[-1]] for place in self._shown_places}
        return [
            LiveChange(_ADDED, held.image.document, None, index, touched.get(held.image.id))
            for index, held in enumerate(self._shown.values())
        ]

    def _put(self, image: RowImage, event: ChangeEvent) -> bool:
        place = self._order.place(image)
        former = self._known.get(image.id)
        if self._boundary is not None and place > self._boundary:
            return self._remove(image.id, event)
        if former is None:
            insort(self._places, place)
        elif former.place != place:
            del self._places[bisect_left(self._places, former.place)]
            insort(self._places, place)
        self._known[image.id] = _Placed(place, image)
        self._touched[image.id] = event
        self._forget_beyond()
        return True

    def _remove(self, document_id: str, event: ChangeEvent) -> bool:
        former = self._known.pop(document_id, None)
        if former is not None:
            del self._places[bisect_left(self._places, former.place)]
        elif document_id not in self._shown:
            return False
        if document_id in self._shown:
            self._touched[document_id] = event
        else:
            self._touched.pop(document_id, None)
        return True

    def _forget_beyond(self) -> None:
        """Forget the documents beyond the limit and the spare ones, and move the boundary."""
        most, places = self.read_limit, self._places
        if most is None or len(places) <= most:
            return
        for place in places[most:]:
            document_id = place[-1]
            del self._known[document_id]
            if document_id in self._shown:
                self._touched.setdefault(document_id, None)
            else:  # a large transaction may touch many that no one has seen
                self._touched.pop(document_id, None)
        del places[most:]
        self._boundary = places[-1] if places else _BEFORE_ALL

    def _last_shown(self) -> SortPlace | None:
        """Return the place of the last document to show; `None` if all are shown."""
        limit, places = self.limit, self._places
        if limit is None or len(places) <= limit:
            return None
        return places[limit - 1] if limit else _BEFORE_ALL

    def _leaving(self, touched: dict[str, ChangeEvent | None], last: SortPlace | None) -> list[SortPlace]:
        """Return the places, in order, of those that were shown and no longer are."""
        found = [held.place for each in touched if (held := self._shown.get(each)) and not self._shows(each, last)]
        if last is not None:
            beyond = self._shown_places[bisect_right(self._shown_places, last) :]
            found += [place for place in beyond if place[-1] not in touched]
        return sorted(found)

    def _coming(self, touched: dict[str, ChangeEvent | None], last: SortPlace | None) -> list[_Placed]:
        """Return, in order, those to show that may have changed, or were not shown."""
        found = [self._known[each] for each in touched if self._shows(each, last)]
        if self.limit is not None:
            # Only what lay beyond the last one shown can move into the limit without being touched.
            start = bisect_right(self._places, self._shown_places[-1]) if self._shown_places else 0
            found += [
                self._known[place[-1]]
                for place in self._places[start : self.limit]
                if place[-1] not in touched and place[-1] not in self._shown
            ]
        return sorted(found, key=_place_of)

    def _shows(self, document_id: str, last: SortPlace | None) -> bool:
        held = self._known.get(document_id)
        return held is not None and (last is None or held.place <= last)

    def _leave(self, places: list[SortPlace], place: SortPlace, event: ChangeEvent | None) -> LiveChange:
        index = bisect_left(places, place)
        del places[index]
        return LiveChange(_REMOVED, self._shown.pop(place[-1]).image.document, index, None, event)

    def _come(self, places: list[SortPlace], held: _Placed, event: ChangeEvent | None) -> LiveChange | None:
        """Show a document; return `None` if it was shown and is the same."""
        document_id = held.image.id
        former = self._shown.get(document_id)
        if former is None:
            index = bisect_left(places, held.place)
            places.insert(index, held.place)
            self._shown[document_id] = held
            return LiveChange(_ADDED, held.image.document, None, index, event)
        if _is_same(former, held):
            return None
        old_index = bisect_left(places, former.place)
        del places[old_index]
        index = bisect_left(places, held.place)
        places.insert(index, held.place)
        self._shown[document_id] = held
        return LiveChange(_MODIFIED, held.image.document, old_index, index, event)


def _place_of(held: _Placed) -> SortPlace:
    return held.place


def _is_same(one: _Placed | None, two: _Placed | None) -> bool:
    if one is None or two is None:
        return one is two
    return one is two or (one.place == two.place and one.image.is_state_of(two.image))
