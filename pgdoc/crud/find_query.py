"""What `find` and its like are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.crud.statements import check_count
from pgdoc.query.filters.parse import parse_filter, parse_sort
from pgdoc.query.filters.projection import compile_fields, parse_fields
from pgdoc.query.filters.sql import compile_filter, compile_sort
from pgdoc.query.filters.template import Conditions, Template, marked, shape_of
from pgdoc.query.indexes.plan import Branches, branches, by_key, has_range, may_use_index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc.query.filters.nodes import Node
    from pgdoc.query.filters.template import Shape
    from pgdoc.query.indexes.plan import Indexes

__all__ = ["Search"]


_seen: set[Shape] = set()
"""Shapes of filters that were parsed, and need not be parsed again to be known for right."""

_MOST: Final = 1024


class Search:
    """A filter with what else is said of the documents that are wanted, checked.

    Attributes:
        shape: of the filter, where it is one of those that are compiled once.
        order: what to sort by, as SQL; empty for any order.
        first: what is sorted by before all else, where only the first documents are wanted.
        fields: what of `data` is given out.
        limit: how many documents at most; `None` for all.
        skip: how many to leave out first.
    """

    __slots__ = ("_node", "_values", "fields", "first", "limit", "order", "shape", "skip")

    def __init__(
        self,
        filter: Mapping[str, Any] | None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        fields: str | Sequence[str] | None = None,
    ) -> None:
        """Check what was given.

        Raises:
            InvalidFilter: not a filter.
            InvalidInput: not a sort, or not fields, or not a count of documents.
        """
        check_count("skip", skip)
        if limit is not None:
            check_count("limit", limit)
        self.shape = shape_of(filter)
        self._values = () if self.shape is None or filter is None else tuple(filter.values())
        self._node = None if self.shape in _seen else parse_filter(filter)
        if self._node is not None and self.shape is not None:
            _remember(self.shape)
        keys = parse_sort(sort) if sort is not None else ()
        self.order = compile_sort(keys).text
        self.first = keys[0] if keys and limit is not None else None
        self.fields = compile_fields(parse_fields(fields))
        self.limit, self.skip = (
            limit if limit is None else int(limit),
            int(skip),
        )  # and no subclass, for the text of SQL

    @property
    def node(self) -> Node:
        """The filter."""
        if self._node is None:
            self._node = parse_filter(dict(zip(self.shape or (), self._values, strict=False)))
        return self._node

    @property
    def may_use_index(self) -> bool:
        """Whether it matters which indexes there are."""
        return self.shape is not None or may_use_index(self.node)

    def conditions(self, indexes: Indexes) -> Conditions:
        """Compile the filter, or look how another of its shape was."""
        shape = self.shape
        if shape is None:
            return self._compiled(self.node, indexes)
        key = (shape, self.first)
        template = indexes.templates.get(key)
        if template is None:
            marks = marked(shape)
            if marks is None:
                return self._compiled(self.node, indexes)
            template = Template.of(marks, self._compiled(parse_filter(marks), indexes))
            if len(indexes.templates) < _MOST:
                indexes.templates[key] = template
        return template.filled(self._values)

    def last_param(self, limit: int | None) -> tuple[str | None, ...]:
        """Return the limit where the statement has not got it; psycopg is quickest with text."""
        return () if self.order else (None if limit is None else str(limit),)

    def _compiled(self, node: Node, indexes: Indexes) -> Conditions:
        """Documents with arrays are taken from elsewhere where all others can be read from an index in its order then.

        For a lookup by itself one condition is cheaper.
        """
        if self.first is not None or has_range(node):
            found = branches(node, indexes, self.first)
        else:
            found = Branches((by_key(node, indexes),))
        return Conditions(tuple(map(compile_filter, found.nodes)), found.in_turn)


def _remember(shape: Shape) -> None:
    if len(_seen) >= _MOST:
        _seen.clear()
    _seen.add(shape)
