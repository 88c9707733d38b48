"""The order of documents in Python, which is that of `find(sort=...)`.

The keys are the texts that the catalog's functions `sort_key` and `sort_rest` return. A key is cut to 80 characters,
and with several paths, the keys of all decide before the rest of any.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from pgdoc.live.sort_keys import LONGEST, key_of_value, rest_of_value
from pgdoc.query.filters.collations import collated
from pgdoc.query.filters.order import value_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.live.images import RowImage
    from pgdoc.query.filters.nodes import SortKey

__all__ = ["DocumentOrder", "FirstImages", "SortPlace"]

SortPlace: TypeAlias = tuple[str, ...]
"""What a document sorts by, less or greater than that of every other one. Its last item is the id."""

_ID: Final = ("_id",)
_AFTER_ALL: Final = "~"
"""After all keys: they begin with a digit."""


class _Descending(str):
    """A text that sorts the other way round."""

    __slots__ = ()
    __lt__, __gt__, __le__, __ge__ = str.__gt__, str.__lt__, str.__ge__, str.__le__


class DocumentOrder:
    """The order of a parsed sort. Documents with equal values sort by id, and so do all without a sort.

    Documents that Python can't read come first, whichever way the sort goes.
    """

    def __init__(self, sort: tuple[SortKey, ...]) -> None:
        self._sort = sort

    def place(self, image: RowImage) -> SortPlace:
        """Return where the document sorts."""
        keys: list[str] = []
        rests: list[str] = []
        for each in self._sort:
            if each.path == _ID:
                key, rest = image.id, ""
            else:
                key, rest = _key_of(image, each)
            if each.descending:
                key, rest = _Descending(key), _Descending(rest)
            keys.append(key)
            rests.append(rest)
        return (*keys, *rests, image.id)


class FirstImages:
    """Collects the first images in an order.

    Args:
        limit: how many; `None` for all.

    Attributes:
        is_all: whether none was left out.
    """

    def __init__(self, order: DocumentOrder, limit: int | None) -> None:
        self._order, self._limit = order, limit
        self._found: list[tuple[SortPlace, RowImage]] = []
        self.is_all = True

    def add(self, images: Iterable[RowImage]) -> None:
        """Take more images; they are released."""
        for image in images:
            self._found.append((self._order.place(image), image))
            image.release()
        if self._limit is not None and len(self._found) > self._limit:
            self._found.sort(key=itemgetter(0))
            del self._found[self._limit :]
            self.is_all = False

    @property
    def images(self) -> list[RowImage]:
        """What was collected, in any order."""
        return [image for _, image in self._found]


def _key_of(image: RowImage, part: SortKey) -> tuple[str, str]:
    try:
        value = value_at(image.data, part.path)
        if part.collation is not None:
            value = collated(value, part.collation)
        key = key_of_value(value)
        return key, rest_of_value(value) if len(key) == LONGEST else ""
    except Exception:  # noqa: BLE001 (Python can't read the document, or compare it)
        return _AFTER_ALL if part.descending else "", ""
