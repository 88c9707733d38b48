"""The calls that look for documents."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from pgdoc.crud.find_query import Search
from pgdoc.crud.statements import find_statement
from pgdoc.errors import InvalidInput
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import decode
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.parse import parse_filter, parse_sort

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from pgdoc._async.session import AsyncSession
    from pgdoc._async.table import AsyncTable, Rows

__all__ = ["AsyncReads"]

_FEW: Final = 100
"""Documents are fetched at once; as many as a stream holds in memory."""


class AsyncReads:
    """What a collection inherits: each call is one statement."""

    _table: AsyncTable
    _session: AsyncSession

    def find(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        fields: str | Sequence[str] | None = None,
    ) -> AsyncGenerator[Document]:
        """Return an iterator over the documents that match, in bounded memory.

        It sees the collection as it was when the first document was asked for. A hundred documents are fetched at
        once; where there are more, it takes a connection of the pool, outside a transaction, until it is exhausted or
        closed.

        Args:
            filter: as the filter language has it; `None` for all.
            sort: a path, with a leading `-` to descend, or a sequence of these.
            limit: how many documents at most.
            skip: how many to leave out first.
            fields: paths to include, or with a leading `-` to leave out; `None` for whole documents. What is left out
                does not leave the server.

        Raises:
            InvalidFilter: not a filter.
            InvalidInput: not a sort, or not fields, or not a count of documents.
        """
        return self._documents(Search(filter, sort=sort, limit=limit, skip=skip, fields=fields))

    async def find_one(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        fields: str | Sequence[str] | None = None,
    ) -> Document | None:
        """Return the first document that matches, or `None`; the arguments are those of `find`."""
        search = Search(filter, sort=sort, limit=1, fields=fields)
        rows = await self._few(*await self._compiled("find", search), search, 1)
        return Document.from_text(*rows[0]) if rows else None

    async def count(self, filter: Mapping[str, Any] | None = None) -> int:  # noqa: A002
        """Return how many documents match."""
        search = Search(filter)
        query, params, prepare = await self._compiled("count", search)
        rows = await self._table.read(query, params, prepare=prepare)
        return int(rows[0][0]) if rows else 0

    async def distinct(self, path: str, filter: Mapping[str, Any] | None = None) -> list[Any]:  # noqa: A002
        """Return the different values at a path, in the order of a sort; an array counts as its items.

        Args:
            path: dotted; `_id` for the ids.
            filter: of which documents; `None` for all.

        Raises:
            InvalidInput: not a path.
            InvalidFilter: not a filter.
        """
        parts, wanted = _parse_path(path), parse_filter(filter)
        condition = await self._table.condition(wanted)
        if parts == ["_id"]:
            values, params = "(VALUES (to_jsonb(id)))", []
        else:
            values, params = "pgdoc.elements_at(data, %s::text[])", [parts]
        query = find_statement("distinct", self._table.name, (condition.text,), values=values)
        rows = await self._table.read(query, [*params, *condition.params])
        return [decode(row[0]) for row in rows]

    async def explain(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> str:
        """Return PostgreSQL's plan of that `find`, which is not executed.

        Raises:
            InvalidFilter: not a filter.
            InvalidInput: not a sort.
        """
        search = Search(filter, sort=sort, limit=limit, skip=skip)
        query, params, _ = await self._compiled("explain", search)
        rows = await self._table.read(query, [*params, *search.last_param(limit)], prepare=False)
        return "\n".join(row[0] for row in rows)

    async def _compiled(self, name: str, search: Search) -> tuple[bytes, list[Any], bool | None]:
        """Return the statement, its parameters but the limit, and whether it must not be prepared.

        One plan is good for all values of a lookup, or a range in its own order. A lookup in another order is for many
        documents read from the order's index, and for few from its own.
        """
        conditions = await self._table.conditions(search)
        query = find_statement(
            name,
            self._table.name,
            tuple(part.text for part in conditions.parts),
            order=search.order,
            limit=search.limit if search.order else None,
            skip=search.skip,
            in_turn=conditions.in_turn,
            fields=search.fields.text,
        )
        params = [*search.fields.params, *(item for part in conditions.parts for item in part.params)]
        has_one_plan = not search.order or conditions.in_turn or not (params or search.skip)
        return query, params, None if has_one_plan else False

    async def _documents(self, search: Search) -> AsyncGenerator[Document]:
        async with aclosing(self._chunks(search)) as chunks:
            async for rows in chunks:
                for row in rows:
                    yield Document.from_text(*row)

    async def _chunks(self, search: Search) -> AsyncGenerator[Rows]:
        """Fetch a few documents at once, by a statement that is prepared; stream more, in bounded memory.

        How many there are is seen when they are fetched. Without an order that costs little where there are more,
        and it is remembered of the statement.
        """
        query, params, prepare = await self._compiled("find", search)
        limit, large = search.limit, self._session.large_results
        if limit is not None and limit <= _FEW:
            yield await self._few(query, params, prepare, search, limit)
            return
        if not search.order and not large.get(query):
            rows = await self._few(query, params, prepare, search, _FEW + 1)
            if len(rows) <= _FEW:
                yield rows
                return
            large.put(query, value=True)
        async with aclosing(self._table.stream(query, [*params, *search.last_param(limit)])) as chunks:
            async for rows in chunks:
                yield rows

    async def _few(self, query: bytes, params: list[Any], prepare: bool | None, search: Search, limit: int) -> Rows:
        return await self._table.read(query, [*params, *search.last_param(limit)], prepare=prepare)


def _parse_path(path: str) -> list[str]:
    if not isinstance(path, str) or path.startswith("-"):
        raise InvalidInput(f"{short_repr(path)} is no path: give one such as 'address.city'")
    (key,) = parse_sort(path)
    return list(key.path)
