"""Which changes a stream selects, and an index over what all streams of a reader select.

A `Selection` is what a stream asked for: collections, and a filter. Equal ones are one to the `Router`, which works
out once for all of their streams which changes they want. It looks a row up by its table, kind and document id, and so
meets only the selections that may want it: a stream costs nothing for changes of collections, kinds or ids that it
excludes. Only what is then still to be decided is matched by the filter, on one view of the change that all share.

What becomes of a whole collection is rare and concerns the life of a stream, whatever its filter says of it: it is
selected for each stream that names the collection, and the stream itself looks whether its filter matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.changes.assemble import Change

    Key: TypeAlias = tuple[str | None, str | None, str | None]
    Look: TypeAlias = Callable[[Change], Any]

ROWS = frozenset("IUDT")


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter on changes, as far as an index can look it up, and the rest.

    Attributes:
        text: of the filter; conditions of the same text are the same.
        tables, kinds, ids: what the change's table, kind and document id must be one of; `None` where it may be any.
        rest: tells of a view whether the filter matches, given that the others hold; `None` where nothing is left.
        matches: tells it of any view.
    """

    text: bytes
    tables: frozenset[str] | None
    kinds: frozenset[str] | None
    ids: frozenset[str] | None
    rest: Callable[[Any], bool] | None
    matches: Callable[[Any], bool]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a stream asked for.

    Attributes:
        collections: the names; `None` for all.
        where: the filter; `None` for all changes of them.
    """

    collections: frozenset[str] | None = None
    where: Condition | None = None

    def row_keys(self) -> Iterator[Key]:
        """Give the keys of the rows that it may want; an id says more than a kind."""
        where = self.where
        if where is None:
            return product(self.collections or (None,), (None,), (None,))
        kinds = (None,) if where.kinds is None or where.ids is not None else where.kinds & ROWS
        ids = (None,) if where.ids is None else where.ids
        return product(self._tables(where), kinds, ids)

    @property
    def is_by_id(self) -> bool:
        """Whether its rows are looked up by their id."""
        return self.where is not None and self.where.ids is not None

    def _tables(self, where: Condition) -> tuple[None] | frozenset[str]:
        names = [names for names in (self.collections, where.tables) if names is not None]
        return frozenset.intersection(*names) if names else (None,)

    def wants_row(self, change: Change, look: Look) -> bool:
        """Tell whether it wants a row that has one of its keys."""
        where = self.where
        if where is None:
            return True
        if where.kinds is not None and change.row.kind not in where.kinds:
            return False
        return where.rest is None or where.rest(look(change))

    def reaches(self, table: str) -> bool:
        """Tell whether it may want rows of a table."""
        names, where = self.collections, self.where
        return (names is None or table in names) and (where is None or where.tables is None or table in where.tables)

    def concerns(self, change: Change, look: Look) -> bool:
        """Tell whether it is to be given what became of a whole collection."""
        row, names = change.row, self.collections
        if names is None:
            return self.where is None or self.where.matches(look(change))
        return row.table in names or (row.kind == "rename" and row.renamed_to in names)


Lists: TypeAlias = "dict[Selection, list[Change]]"


class Router:
    """Finds, for each change, the selections that want it.

    Args:
        look: makes the view of a change that filters are asked of.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._counts: dict[Selection, int] = {}
        self._shelves: dict[Key, dict[Selection, None]] = {}
        self._with_ids: dict[str | None, int] = {}

    def add(self, selection: Selection) -> None:
        """Take a selection in, once more where it is in already."""
        count = self._counts[selection] = self._counts.get(selection, 0) + 1
        if count == 1:
            for key in selection.row_keys():
                self._shelves.setdefault(key, {})[selection] = None
                self._count_id(key, 1)

    def remove(self, selection: Selection) -> None:
        """Take it out, once."""
        count = self._counts.pop(selection) - 1
        if count:
            self._counts[selection] = count
            return
        for key in selection.row_keys():
            del self._shelves[key][selection]
            if not self._shelves[key]:
                del self._shelves[key]
            self._count_id(key, -1)

    def _count_id(self, key: Key, by: int) -> None:
        table, _, document_id = key
        if document_id is not None:
            self._with_ids[table] = self._with_ids.get(table, 0) + by

    def route(self, changes: list[Change]) -> Lists:
        """Give the changes that each selection wants, in order; only for those that want one."""
        burst = _Burst(self._look)
        shelves: dict[tuple[str, str], tuple[list[list[Change]], list[Selection], bool]] = {}
        for change in changes:
            row = change.row
            kind = row.kind
            if kind not in ROWS:
                burst.give(change, [each for each in self._counts if each.concerns(change, burst.look)])
                continue
            if not row.complete:  # nothing can be looked up: who reads it is told
                burst.give(change, [each for each in self._counts if each.reaches(row.table)])
                continue
            found = shelves.get((row.table, kind))
            if found is None:
                found = shelves[row.table, kind] = self._find(row.table, kind, burst)
            for chosen in found[0]:
                chosen.append(change)
            if found[1]:
                burst.give(change, [each for each in found[1] if each.wants_row(change, burst.look)])
            if found[2]:
                burst.give(change, self._by_id(change, burst))
        return {selection: chosen for selection, chosen in burst.lists.items() if chosen}

    def _find(self, table: str, kind: str, burst: _Burst) -> tuple[list[list[Change]], list[Selection], bool]:
        """Find who wants all rows of this table and kind, who wants some, and whether some are looked up by id."""
        shelves = [self._shelves.get(key, ()) for key in product((table, None), (kind, None), (None,))]
        found = [selection for shelf in shelves for selection in shelf]
        plain = [each for each in found if each.where is None or each.where.rest is None]
        some = [each for each in found if each.where is not None and each.where.rest is not None]
        with_ids = kind != "T" and bool(self._with_ids.get(table) or self._with_ids.get(None))
        return [burst.list_of(each) for each in plain], some, with_ids

    def _by_id(self, change: Change, burst: _Burst) -> list[Selection]:
        try:
            document_id = burst.look(change).document_id
        except Exception:  # noqa: BLE001 (a broken message: who reads it is told)
            return [each for each in self._counts if each.reaches(change.row.table) and each.is_by_id]
        shelves = [self._shelves.get((table, None, document_id), ()) for table in (change.row.table, None)]
        return [each for shelf in shelves for each in shelf if each.wants_row(change, burst.look)]


class _Burst:
    """What is made for one burst of changes: the lists, and one view a change."""

    def __init__(self, look: Look) -> None:
        self.lists: Lists = {}
        self._look = look
        self._seen: tuple[Change | None, Any] = (None, None)

    def look(self, change: Change) -> Any:
        if self._seen[0] is not change:
            self._seen = (change, self._look(change))
        return self._seen[1]

    def list_of(self, selection: Selection) -> list[Change]:
        return self.lists.setdefault(selection, [])

    def give(self, change: Change, selections: list[Selection]) -> None:
        for selection in selections:
            self.list_of(selection).append(change)
