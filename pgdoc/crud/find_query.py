"""The arguments of `find` and of the calls like it."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final

from pgdoc.crud.statements import check_count, find_statement
from pgdoc.query.filters.collations import check_collation, fold_text
from pgdoc.query.filters.order import compile_after, compile_sort, parse_after
from pgdoc.query.filters.parse import parse_filter
from pgdoc.query.filters.paths import parse_sort
from pgdoc.query.filters.projection import compile_fields
from pgdoc.query.filters.projection_parse import parse_fields
from pgdoc.query.filters.sql import compile_filter
from pgdoc.query.filters.sql_text import join
from pgdoc.query.filters.template import Conditions, Template, shape_of, with_placeholders
from pgdoc.query.indexes.plan import Branches, branches, by_key, has_range, may_use_index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc.crud.guard import GuardedQuery
    from pgdoc.model.documents import Document
    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Node, SortKey
    from pgdoc.query.filters.projection import Projection
    from pgdoc.query.filters.projection_parse import Fields
    from pgdoc.query.filters.sql_text import Compiled
    from pgdoc.query.filters.template import Shape
    from pgdoc.query.indexes.plan import Indexes

__all__ = ["Search"]


_valid_shapes: set[Shape] = set()
"""Shapes of which a filter was parsed: every other filter of such a shape is valid, too.

All threads share it without a lock: each call adds or clears it in one step, and a lost entry only costs a parse.
"""

_MAX_SHAPES: Final = 1024

_WHOLE: Final = compile_fields(None)


class Search:
    """The checked arguments of a search for documents.

    Attributes:
        shape: that of the filter, if filters like it are compiled once; else `None`.
        values: the values of such a filter.
        collation: how texts compare; `None` for by code point.
        is_plain: whether nothing but the filter and a limit is given.
        keys: the parsed sort.
        order: the list after ORDER BY; empty for any order.
        first: the first sort key, if there is a limit; else `None`.
        fields: the expression over `data` to return.
        projection: what `fields` returns of a document; `None` for all.
        limit: the most documents to return; `None` for all.
    """

    keys: tuple[SortKey, ...] = ()
    order: str = ""
    first: SortKey | None = None
    fields: Compiled = _WHOLE
    projection: Projection | None = None
    limit: int | None = None
    skip: int = 0
    is_plain: bool = True
    _after: Compiled | None = None

    def __init__(  # noqa: PLR0913
        self,
        filter: Mapping[str, Any] | None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        fields: Fields | None = None,
        after: Document | Sequence[Any] | None = None,
        encoder: Encoder | None = None,
        collation: str | None = None,
    ) -> None:
        self.collation = check_collation(collation)
        self.shape = shape_of(filter)
        self.values = () if self.shape is None or filter is None else self._compared(filter)
        self._node = None if self.shape in _valid_shapes else parse_filter(filter, encoder, collation)
        if self._node is not None and self.shape is not None:
            _remember(self.shape)
        # Both become part of the SQL, so a subclass of int with a text of its own must not get there.
        if skip or skip is False:
            check_count("skip", skip)
            self.skip, self.is_plain = int(skip), False
        if limit is not None:
            check_count("limit", limit)
            self.limit = int(limit)
        if sort is not None or fields is not None or after is not None:
            self._parse(sort, fields, after, encoder)

    def _parse(
        self,
        sort: str | Sequence[str] | None,
        fields: Fields | None,
        after: Document | Sequence[Any] | None,
        encoder: Encoder | None,
    ) -> None:
        self.is_plain = False
        self.keys = keys = parse_sort(sort, self.collation) if sort is not None else ()
        self.order = compile_sort(keys).text
        self.first = keys[0] if keys and self.limit is not None else None
        self.projection = parse_fields(fields, lambda: self.node, encoder, self.collation)
        self.fields = compile_fields(self.projection)
        self._after = None if after is None else compile_after(keys, parse_after(after, keys, encoder))

    def _compared(self, filter: Mapping[str, Any]) -> tuple[Any, ...]:  # noqa: A002
        """Return the values of a filter that has a shape as they compare under the collation, which ids do not have."""
        if self.collation is None:
            return tuple(filter.values())
        return tuple(
            fold_text(value, self.collation) if isinstance(value, str) and path != "_id" else value
            for path, value in filter.items()
        )

    def limited(self, limit: int | None) -> Search:
        """Return the same search with another limit; with one, it has an order."""
        search = copy(self)
        search.limit = limit
        if limit is not None and not self.keys:
            search.keys, search.is_plain = parse_sort("_id"), False
            search.order = compile_sort(search.keys).text
        search.first = search.keys[0] if search.keys and limit is not None else None
        return search

    def unprojected(self) -> Search:
        """Return the same search for whole documents."""
        search = copy(self)
        search.fields, search.projection = _WHOLE, None
        return search

    @property
    def node(self) -> Node:
        """The parsed filter."""
        if self._node is None:
            self._node = parse_filter(dict(zip(self.shape or (), self.values, strict=False)), None, self.collation)
        return self._node

    @property
    def may_use_index(self) -> bool:
        """Whether the conditions depend on the indexes."""
        return self.shape is not None or may_use_index(self.node)

    def statement(self, name: str, table: str, indexes: Indexes) -> tuple[GuardedQuery, list[Any], bool | None]:
        """Return a statement of `reading.sql`, its parameters except the limit, and `prepare` for `AsyncSession.fetch`.

        One plan suits all values of a lookup, and of a range in its own order. It does not suit a lookup in another
        order: many matches are best read from the order's index, few from the lookup's own.
        """
        if self.shape is None or not self.is_plain:
            return self._statement(name, table, indexes)
        key = (name, table, self.shape, self.collation)
        if known := indexes.statements.get(key):
            return known[0], known[1].params_for(self.values), known[2]
        query, params, prepare = self._statement(name, table, indexes)
        template = indexes.templates.get((self.shape, self.collation, self.first))
        if template is not None and len(indexes.statements) < _MAX_SHAPES:
            indexes.statements[key] = (query, template, prepare)
        return query, params, prepare

    def _statement(self, name: str, table: str, indexes: Indexes) -> tuple[GuardedQuery, list[Any], bool | None]:
        conditions = self.conditions(indexes)
        query = find_statement(
            name,
            table,
            tuple(part.text for part in conditions.parts),
            order=self.order,
            limit=self.limit if self.order else None,
            skip=self.skip,
            in_turn=conditions.in_turn,
            fields=self.fields.text,
        )
        params = [*self.fields.params, *(item for part in conditions.parts for item in part.params)]
        has_one_plan = not self.order or conditions.in_turn or not (params or self.skip)
        return query, params, None if has_one_plan else False

    def conditions(self, indexes: Indexes) -> Conditions:
        """Compile the filter, or fill in the template of its shape; add the position to start after."""
        found, after = self._filtered(indexes), self._after
        if after is None:
            return found
        return Conditions(tuple(join(" AND ", [part, after]) for part in found.parts), found.in_turn)

    def _filtered(self, indexes: Indexes) -> Conditions:
        shape = self.shape
        if shape is None:
            return self._compile(self.node, indexes)
        key = (shape, self.collation, self.first)
        template = indexes.templates.get(key)
        if template is None:
            placeholders = with_placeholders(shape)
            if placeholders is None:
                return self._compile(self.node, indexes)
            template = Template.of(
                placeholders, self._compile(parse_filter(placeholders, None, self.collation), indexes)
            )
            if len(indexes.templates) < _MAX_SHAPES:
                indexes.templates[key] = template
        return template.fill(self.values)

    def last_param(self, limit: int | None) -> tuple[str | None, ...]:
        """Return the parameter for the limit, if the statement has one: as text, which psycopg sends fastest."""
        return () if self.order else (None if limit is None else str(limit),)

    def _compile(self, node: Node, indexes: Indexes) -> Conditions:
        # With separate conditions for documents with arrays, PostgreSQL can read all others from an index in its order.
        # For lookups alone, one condition is cheaper.
        if self.first is not None or has_range(node):
            found = branches(node, indexes, self.first)
        else:
            found = Branches((by_key(node, indexes),))
        return Conditions(tuple(map(compile_filter, found.nodes)), found.in_turn)


def _remember(shape: Shape) -> None:
    if len(_valid_shapes) >= _MAX_SHAPES:
        _valid_shapes.clear()
    _valid_shapes.add(shape)
