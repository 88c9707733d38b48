"""Which changes a stream selects, and an index over what all streams of a reader select.

A `Selection` is what a stream asked for: collections, and a filter. Equal ones are one to the `Router`, which works
out once for all of their streams which changes they want. It looks a row up by its table, by its kind, and by one value
that the filter pins, such as the document id, and so meets only the selections that may want it: a stream costs nothing
for what these exclude. Only what is then still to be decided is matched by the filter, on one view of the change that
all share.

What becomes of a whole collection is rare and concerns the life of a stream, whatever its filter says of it: it is
selected for each stream that names the collection, and the stream itself looks whether its filter matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pgdoc.decoding.records import ROW_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.changes.change import Change

    View: TypeAlias = Callable[[Change], Any]


@dataclass(frozen=True, slots=True)
class RouteKey:
    """A part of the view that has to be one of some values.

    Attributes:
        path: which part; lookups of one path have the same `find`.
        keys: of the values.
        find: gives the keys of all values that a view has there.
    """

    path: str
    keys: frozenset[Any]
    find: Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter on changes, as far as an index can look it up, and the rest.

    Attributes:
        text: of the filter; conditions of the same text are the same.
        tables, kinds: what the change's table and kind must be one of; `None` where it may be any.
        lookup: what else must be one of some values; `None` where nothing has to.
        rest: tells of a view whether the filter matches, given that the others hold; `None` where nothing is left.
        matches: tells it of any view.
    """

    text: bytes
    tables: frozenset[str] | None
    kinds: frozenset[str] | None
    lookup: RouteKey | None
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

    @property
    def tables(self) -> frozenset[str] | tuple[None]:
        """The tables of its rows, or `None` for any."""
        restricted = self.where.tables if self.where is not None else None
        names = [names for names in (self.collections, restricted) if names is not None]
        return frozenset.intersection(*names) if names else (None,)

    @property
    def lookup(self) -> RouteKey | None:
        """By what its rows are looked up, besides the table."""
        return self.where.lookup if self.where is not None else None

    @property
    def kinds(self) -> frozenset[str] | tuple[None]:
        """The kinds of its rows, or `None` for any."""
        kinds = self.where.kinds if self.where is not None else None
        return (None,) if kinds is None else kinds & ROW_KINDS

    def reaches(self, table: str, kind: str) -> bool:
        """Tell whether it may want rows of a table and kind."""
        tables, kinds = self.tables, self.kinds
        return (table in tables or None in tables) and (kind in kinds or None in kinds)

    def wants_row(self, change: Change, view: View) -> bool:
        """Tell whether it wants a row of one of its tables that has the value by which it is looked up."""
        where = self.where
        if where is None:
            return True
        if where.kinds is not None and change.row.kind not in where.kinds:
            return False
        return where.rest is None or where.rest(view(change))

    def concerns(self, change: Change, view: View) -> bool:
        """Tell whether it is to be given what became of a whole collection."""
        row, names = change.row, self.collections
        if names is None:
            return self.where is None or self.where.matches(view(change))
        return row.table in names or (row.kind == "rename" and row.renamed_to in names)


Lists: TypeAlias = "dict[Selection, list[Change]]"
Shelf: TypeAlias = dict[Selection, None]


class _Index:
    """The selections that are looked up by the value at one path."""

    def __init__(self, find: Callable[[Any], Iterable[Any]]) -> None:
        self._find = find
        self._shelves: dict[Any, Shelf] = {}

    def __len__(self) -> int:
        return len(self._shelves)

    def add(self, selection: Selection, keys: Iterable[Any]) -> None:
        for key in keys:
            self._shelves.setdefault(key, {})[selection] = None

    def remove(self, selection: Selection, keys: Iterable[Any]) -> None:
        for key in keys:
            del self._shelves[key][selection]
            if not self._shelves[key]:
                del self._shelves[key]

    def found(self, view: Any) -> Shelf:
        """Give those of the view's values; all, where these can't be read: who reads the change is told why."""
        try:
            keys = self._find(view)
        except Exception:  # noqa: BLE001 (see above)
            keys = self._shelves.keys()
        shelves = [self._shelves[key] for key in keys if key in self._shelves]
        return {selection: None for shelf in shelves for selection in shelf}


class _Places(NamedTuple):
    """Where the rows of one table and kind go.

    Attributes:
        lists: of those who want all of them.
        asked: those whose filter is asked.
        indexes: of those who are looked up by a value.
    """

    lists: list[list[Change]]
    asked: list[Selection]
    indexes: list[_Index]


class Router:
    """Finds, for each change, the selections that want it.

    Args:
        view: makes the view of a change that filters are asked of.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._counts: dict[Selection, int] = {}
        self._shelves: dict[tuple[str | None, str | None], Shelf] = {}
        self._indexes: dict[str | None, dict[str, _Index]] = {}

    def add(self, selection: Selection) -> None:
        """Take a selection in, once more where it is in already."""
        self._counts[selection] = self._counts.get(selection, 0) + 1
        if self._counts[selection] > 1:
            return
        lookup = selection.lookup
        for table in selection.tables:
            if lookup is not None:
                indexes = self._indexes.setdefault(table, {})
                indexes.setdefault(lookup.path, _Index(lookup.find)).add(selection, lookup.keys)
                continue
            for kind in selection.kinds:
                self._shelves.setdefault((table, kind), {})[selection] = None

    def remove(self, selection: Selection) -> None:
        """Take it out, once."""
        self._counts[selection] -= 1
        if self._counts[selection]:
            return
        del self._counts[selection]
        lookup = selection.lookup
        for table in selection.tables:
            if lookup is not None:
                indexes = self._indexes[table]
                indexes[lookup.path].remove(selection, lookup.keys)
                if not indexes[lookup.path]:
                    del indexes[lookup.path]
                if not indexes:
                    del self._indexes[table]
                continue
            for kind in selection.kinds:
                del self._shelves[table, kind][selection]
                if not self._shelves[table, kind]:
                    del self._shelves[table, kind]

    def route(self, changes: list[Change]) -> Lists:
        """Give the changes that each selection wants, in order; only for those that want one."""
        burst = _Burst(self._view)
        places: dict[tuple[str, str], _Places] = {}
        for change in changes:
            row = change.row
            if row.kind not in ROW_KINDS:
                burst.give(change, [each for each in self._counts if each.concerns(change, burst.view)])
                continue
            if not row.complete:  # nothing can be looked up: who reads it is told
                burst.give(change, [each for each in self._counts if each.reaches(row.table, row.kind)])
                continue
            found = places.get((row.table, row.kind))
            if found is None:
                found = places[row.table, row.kind] = self._places(row.table, row.kind, burst)
            for chosen in found.lists:
                chosen.append(change)
            for index in found.indexes:
                burst.ask(change, index.found(burst.view(change)))
            if found.asked:
                burst.ask(change, found.asked)
        return {selection: chosen for selection, chosen in burst.lists.items() if chosen}

    def _places(self, table: str, kind: str, burst: _Burst) -> _Places:
        shelves = [self._shelves.get(key, {}) for key in product((table, None), (kind, None))]
        found = [selection for shelf in shelves for selection in shelf]
        plain = [each for each in found if each.where is None or each.where.rest is None]
        asked = [each for each in found if each.where is not None and each.where.rest is not None]
        indexes = [index for key in (table, None) for index in self._indexes.get(key, {}).values()]
        return _Places([burst.list_of(each) for each in plain], asked, indexes)


class _Burst:
    """What is made for one burst of changes: the lists, and one view a change."""

    def __init__(self, view: View) -> None:
        self.lists: Lists = {}
        self._view = view
        self._seen: tuple[Change | None, Any] = (None, None)

    def view(self, change: Change) -> Any:
        if self._seen[0] is not change:
            self._seen = (change, self._view(change))
        return self._seen[1]

    def list_of(self, selection: Selection) -> list[Change]:
        return self.lists.setdefault(selection, [])

    def give(self, change: Change, selections: Iterable[Selection]) -> None:
        for selection in selections:
            self.list_of(selection).append(change)

    def ask(self, change: Change, selections: Iterable[Selection]) -> None:
        self.give(change, [each for each in selections if each.wants_row(change, self.view)])
