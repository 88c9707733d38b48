"""Which changes a stream selects, and an index over the selections of all streams of a reader.

Equal selections are one to the `Router`, which decides once for all their streams. It looks a row up by its table, its
kind, and one value that the filter requires, such as the document id, so selections that exclude the row cost nothing.
The remaining filters are evaluated on one view of the change that all of them share.

Changes of a whole collection are rare, and decide whether a stream ends, whatever its filter says. The router returns
such a change for every stream that names the collection, and the stream itself evaluates its filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from pgdoc.decoding.records import ROW_KINDS
from pgdoc.model.table_names import is_table_name
from pgdoc.model.topics import ANY_TOPIC, is_topic, selectors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.changes.change import Change

    View: TypeAlias = Callable[[Change], Any]


@dataclass(frozen=True, slots=True)
class RouteKey:
    """A part of the view that must have one of some values.

    Attributes:
        path: the part. All route keys of one path have the same `find`.
        keys: of the values.
        find: returns the keys of a view's values at the path.
    """

    path: str
    keys: frozenset[Any]
    find: Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter on changes, divided into what an index can look up and the rest.

    Attributes:
        text: conditions of the same text are equal.
        tables: those that can match; `None` for any.
        kinds: the kinds of change that can match; `None` for any.
        lookup: what else can be looked up; `None` for nothing.
        rest: whether a view matches, given that the tables, kinds and lookup do; `None` if nothing is left to evaluate.
        matches: whether a view matches.
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
    """The collections and the filter that a stream asked for; `None` for all collections, or all changes.

    Attributes:
        collections: may name watched tables, too; empty for none, of a stream on topics only.
        with_tables: whether all watched tables belong to all collections.
        topics: the names that select the topics, see `pgdoc.model.topics`.
    """

    collections: frozenset[str] | None = None
    where: Condition | None = None
    with_tables: bool = False
    topics: frozenset[str] = frozenset()

    @property
    def tables(self) -> frozenset[str | None] | frozenset[str]:
        """The tables whose rows it can want. `None` stands for any collection, `ANY_TABLE` for any watched table."""
        restricted = self.where.tables if self.where is not None else None
        if restricted is not None:
            return frozenset(filter(self.covers, restricted))
        if self.collections is None:
            return (_ALL if self.with_tables else _COLLECTIONS) | self.topics
        return self.collections | self.topics

    @property
    def vital(self) -> frozenset[str] | None:
        """The collections and tables without which its stream ends; `None` if it never does for that."""
        return None if self.topics else self.collections

    def covers(self, name: str) -> bool:
        """Return whether it is on a collection, table or topic, whatever its filter says."""
        if is_topic(name):
            return not self.topics.isdisjoint(selectors_of(name))
        if self.collections is None:
            return self.with_tables or not is_table_name(name)
        return name in self.collections

    @property
    def names(self) -> list[str] | None:
        """What the catalog's functions take for it: `None` for all collections, `ANY_TABLE` for them and all tables."""
        if self.collections is None:
            return [ANY_TABLE] if self.with_tables else None
        return sorted(self.collections)

    @property
    def lookup(self) -> RouteKey | None:
        """What its rows are looked up by, besides their table."""
        return self.where.lookup if self.where is not None else None

    @property
    def kinds(self) -> frozenset[str] | tuple[None]:
        """The kinds of row that it can want; `(None,)` for any."""
        kinds = self.where.kinds if self.where is not None else None
        return (None,) if kinds is None else kinds & ROW_KINDS

    def may_want(self, table: str, kind: str) -> bool:
        """Return whether it can want rows of a table and kind."""
        tables, kinds = self.tables, self.kinds
        return not tables.isdisjoint(_keys_of(table)) and (kind in kinds or None in kinds)

    def wants_row(self, change: Change, view: View) -> bool:
        """Return whether it wants a row whose table and looked-up value match."""
        where = self.where
        if where is None:
            return True
        if where.kinds is not None and change.row.kind not in where.kinds:
            return False
        return where.rest is None or where.rest(view(change))

    def wants_collection_change(self, change: Change, view: View) -> bool:
        """Return whether its stream needs a change of a whole collection."""
        row, names = change.row, self.collections
        if names is None:
            return self.covers(row.table) and (
                not row.complete or self.where is None or self.where.matches(view(change))
            )
        return row.table in names or (row.kind == "rename" and row.renamed_to in names)


ANY_TABLE: Final = "."
_COLLECTIONS: Final[frozenset[str | None]] = frozenset({None})
_ALL: Final[frozenset[str | None]] = frozenset({None, ANY_TABLE})


def _keys_of(table: str) -> tuple[str | None, ...]:
    """Return what can stand in `Selection.tables` for a collection, table or topic."""
    if is_topic(table):
        return selectors_of(table)
    return table, ANY_TABLE if is_table_name(table) else None


def named_by(selections: Iterable[Selection]) -> frozenset[str] | None:
    """Return the collections and tables that some selections can want; `None` if one can want all.

    One name, `ANY_TOPIC`, stands for all topics that they can want.
    """
    named = _union_of(selections)
    if None in named:
        return None
    return frozenset(ANY_TOPIC if is_topic(name) else name for name in named if name is not None)


def names_of(selections: Iterable[Selection]) -> list[str] | None:
    """Return what the catalog's functions take for what some selections can want, or a little more."""
    named = _union_of(selections)
    others = sorted(name for name in named if name is not None and not is_topic(name))
    if None in named:
        return [ANY_TABLE] if others else None
    return others


def _union_of(selections: Iterable[Selection]) -> frozenset[str | None]:
    return frozenset().union(*(selection.tables for selection in selections))


RoutedChanges: TypeAlias = "dict[Selection, list[Change]]"
SelectionSet: TypeAlias = dict[Selection, None]  # in the order in which they were added


class _Index:
    """The selections that are looked up at one path."""

    def __init__(self, find: Callable[[Any], Iterable[Any]]) -> None:
        self._find = find
        self._by_key: dict[Any, SelectionSet] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, selection: Selection, keys: Iterable[Any]) -> None:
        for key in keys:
            self._by_key.setdefault(key, {})[selection] = None

    def remove(self, selection: Selection, keys: Iterable[Any]) -> None:
        for key in keys:
            del self._by_key[key][selection]
            if not self._by_key[key]:
                del self._by_key[key]

    def find(self, view: Any) -> SelectionSet:
        """Return the selections that a view's values lead to.

        All of them if the view can't be read: the streams raise the error when the change is used.
        """
        try:
            keys = self._find(view)
        except Exception:  # noqa: BLE001 (see above)
            keys = self._by_key.keys()
        found = [self._by_key[key] for key in keys if key in self._by_key]
        return {selection: None for selections in found for selection in selections}


class _Route(NamedTuple):
    """Where the rows of one table and kind go.

    Attributes:
        unfiltered: the selections that want all of them.
    """

    unfiltered: list[Selection]
    filtered: list[Selection]
    indexes: list[_Index]


_MOST_ROUTES = 4096
"""How many routes are kept; they are found again in a few microseconds."""


class Router:
    """Finds, for each change, the selections that want it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._counts: dict[Selection, int] = {}
        self._by_table_and_kind: dict[tuple[str | None, str | None], SelectionSet] = {}
        self._indexes: dict[str | None, dict[str, _Index]] = {}  # by table and path
        self._routes: dict[tuple[str, str], _Route] = {}  # those in use; forgotten before a selection comes or goes

    def add(self, selection: Selection) -> None:
        """Add a selection; each `add` of an equal one needs its own `remove`."""
        count = self._counts.get(selection, 0)
        if not count:
            self._routes = {}
            self._register(selection)
        self._counts[selection] = count + 1  # last: a selection that counts is found, even if this is interrupted

    def _register(self, selection: Selection) -> None:
        lookup = selection.lookup
        for table in selection.tables:
            if lookup is not None:
                indexes = self._indexes.setdefault(table, {})
                indexes.setdefault(lookup.path, _Index(lookup.find)).add(selection, lookup.keys)
                continue
            for kind in selection.kinds:
                self._by_table_and_kind.setdefault((table, kind), {})[selection] = None

    def remove(self, selection: Selection) -> None:
        """Undo one `add`."""
        count = self._counts[selection]
        if count > 1:
            self._counts[selection] = count - 1
            return
        self._routes = {}
        del self._counts[selection]  # before the rest: the next `add` registers it again, even if this is interrupted
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
                del self._by_table_and_kind[table, kind][selection]
                if not self._by_table_and_kind[table, kind]:
                    del self._by_table_and_kind[table, kind]

    def route(self, changes: list[Change]) -> RoutedChanges:
        """Return the changes that each selection wants, in order; leave out selections that want none."""
        if len(changes) == 1:
            row = changes[0].row
            known = self._routes.get((row.table, row.kind))
            if known is not None and row.complete and not known.filtered and not known.indexes:
                # What a quiet server sends, when no code is in the CPU's cache and less of it saves 10 us of latency.
                return dict.fromkeys(known.unfiltered, changes)
        burst = _RoutedBurst(self._view)
        ways: dict[tuple[str, str], tuple[list[list[Change]], list[Selection], list[_Index]]] = {}
        for change in changes:
            _, kind, table, _, complete, _, _ = change.row  # once: reading one attribute takes as long
            way = ways.get((table, kind))
            if way is None or not complete:
                if not complete or kind not in ROW_KINDS:
                    self._route_unusual(change, burst)
                    continue
                route = self._routes.get((table, kind)) or self._find_route(table, kind)
                way = ways[table, kind] = [burst.list_of(each) for each in route.unfiltered], *route[1:]
            lists, filtered, indexes = way
            for chosen in lists:
                chosen.append(change)
            for index in indexes:
                burst.append_if_wanted(change, index.find(burst.view(change)))
            if filtered:
                burst.append_if_wanted(change, filtered)
        return {selection: chosen for selection, chosen in burst.lists.items() if chosen}

    def _route_unusual(self, change: Change, burst: _RoutedBurst) -> None:
        """Route a change of a whole collection, or of a row that lacks images."""
        row = change.row
        if row.kind not in ROW_KINDS:
            burst.append(change, [each for each in self._counts if each.wants_collection_change(change, burst.view)])
        else:  # without its images no value can be looked up; the streams raise an error for it
            burst.append(change, [each for each in self._counts if each.may_want(row.table, row.kind)])

    def _find_route(self, table: str, kind: str) -> _Route:
        if len(self._routes) >= _MOST_ROUTES:  # tables come and go
            self._routes.clear()
        tables = _keys_of(table)
        sets = [self._by_table_and_kind.get(key, {}) for key in product(tables, (kind, None))]
        found = [selection for selections in sets for selection in selections]
        unfiltered = [each for each in found if each.where is None or each.where.rest is None]
        filtered = [each for each in found if each.where is not None and each.where.rest is not None]
        indexes = [index for key in tables for index in self._indexes.get(key, {}).values()]
        route = self._routes[table, kind] = _Route(unfiltered, filtered, indexes)
        return route


class _RoutedBurst:
    """The lists of one burst, and the view of the current change, which all filters share."""

    def __init__(self, view: View) -> None:
        self.lists: RoutedChanges = {}
        self._view = view
        self._last_view: tuple[Change | None, Any] = (None, None)

    def view(self, change: Change) -> Any:
        if self._last_view[0] is not change:
            self._last_view = (change, self._view(change))
        return self._last_view[1]

    def list_of(self, selection: Selection) -> list[Change]:
        return self.lists.setdefault(selection, [])

    def append(self, change: Change, selections: Iterable[Selection]) -> None:
        for selection in selections:
            self.list_of(selection).append(change)

    def append_if_wanted(self, change: Change, selections: Iterable[Selection]) -> None:
        self.append(change, [each for each in selections if each.wants_row(change, self.view)])
