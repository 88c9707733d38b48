# Written by .ci/twins.py from pgdoc/_async/reads.py: change that file, and run it.
"""The calls that find documents."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Generic, overload

from pgdoc.crud.explain import NO_CHANGE, check_call
from pgdoc.crud.find_query import Search
from pgdoc.crud.guard import explained
from pgdoc.crud.statements import CHANGING, distinct_statement, write_statement
from pgdoc.errors import InvalidInput, UnreadableDocument
from pgdoc.model.short_repr import short_repr
from pgdoc.model.type_variables import M
from pgdoc.query.filters.parse import parse_filter
from pgdoc.query.filters.paths import parse_sort

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from pgdoc._sync.session import Session
    from pgdoc._sync.table import Table, Rows
    from pgdoc.crud.guard import GuardedQuery
    from pgdoc.model.documents import Document
    from pgdoc.query.filters.nodes import Node, SortKey
    from pgdoc.query.filters.projection_parse import Fields

__all__ = ["Reads"]

_FEW: Final = 100
"""As many documents are fetched at once, and held in memory; more are streamed."""


class Reads(Generic[M]):
    """The reads of a collection, which inherits them: each call is one statement."""

    _name: str
    _table: Table[M]
    _session: Session

    @overload
    def find(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        fields: None = None,
        after: Document[Any] | Sequence[Any] | None = None,
        collation: str | None = None,
    ) -> Generator[Document[M]]: ...

    @overload
    def find(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        fields: Fields,
        after: Document[Any] | Sequence[Any] | None = None,
        collation: str | None = None,
    ) -> Generator[Document]: ...

    def find(  # noqa: PLR0913
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        fields: Fields | None = None,
        after: Document[Any] | Sequence[Any] | None = None,
        collation: str | None = None,
    ) -> Generator[Document[Any]]:
        """Return an iterator over the documents that match, in bounded memory.

        The iterator sees the collection as it was when the first document was asked for. Up to a hundred documents are
        fetched at once. With more, an iterator outside a transaction keeps a connection until it is exhausted or
        closed. That connection is none of those that calls inside the loop need: there are `pool_size` for each.

        Args:
            filter: a filter in the filter language; `None` for all documents.
            sort: a path, or a sequence of paths; a leading `-` sorts in descending order.
            limit: return at most this many documents; none with 0.
            skip: leave out this many documents first.
            fields: a path to include, or to leave out with a leading `-`, or a sequence of these; or an object with
                `1`, `0`, `$slice`, `$elemMatch` or a computed field for each path; `None` for whole documents. The
                server does not send what is left out.
            after: return only what follows this position in the `sort`: the last document of the page before, or a
                list of its values at the paths of the sort, then its id.
            collation: how texts in the filter and in the sort compare: `"ci"` regardless of case, `"ci_ai"` regardless
                of case and accents; by default by code point.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `sort`, `limit`, `skip`, `fields`, `after` or `collation` is invalid.
            PoolExhausted: raised by the first step, if `pool_size` iterators keep a connection.
        """
        return self._documents(
            Search(
                filter,
                sort=sort,
                limit=limit,
                skip=skip,
                fields=fields,
                after=after,
                encoder=self._table.encoder,
                collation=collation,
            )
        )

    @overload
    def find_one(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        fields: None = None,
        collation: str | None = None,
    ) -> Document[M] | None: ...

    @overload
    def find_one(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        fields: Fields,
        collation: str | None = None,
    ) -> Document | None: ...

    def find_one(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        fields: Fields | None = None,
        collation: str | None = None,
    ) -> Document[Any] | None:
        """Return the first document that matches, or `None`.

        Args:
            filter: as for `find`.
            sort: as for `find`; without it, any document that matches.
            fields: as for `find`.
            collation: as for `find`.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `sort`, `fields` or `collation` is invalid.
        """
        search = Search(filter, sort=sort, limit=1, fields=fields, encoder=self._table.encoder, collation=collation)
        rows = self._few(*self._table.search_statement("find", search), search, 1)
        return self._table.document(*rows[0], projection=search.projection) if rows else None

    def count(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        collation: str | None = None,
    ) -> int:
        """Return how many documents match; all of them without a filter.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `collation` is invalid.
        """
        search = Search(filter, encoder=self._table.encoder, collation=collation)
        query, params, prepare = self._table.search_statement("count", search)
        rows = self._table.read(query, params, prepare=prepare)
        return int(rows[0][0]) if rows else 0

    def distinct(
        self,
        path: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        collation: str | None = None,
    ) -> list[Any]:
        """Return the distinct values at a path, in the order of `sort`; an array counts as its items.

        Args:
            path: a dotted path; `_id` for the ids.
            filter: selects the documents; `None` for all.
            collation: as for `find`. Of values that are equal under it, the first by code point is returned.

        Raises:
            InvalidInput: `path` is not a path, or `collation` is invalid.
            InvalidFilter: `filter` is not a filter.
            UnreadableDocument: a value can't be read.
        """
        parts, wanted = _parse_path(path), parse_filter(filter, self._table.encoder, collation)
        condition = self._table.condition(wanted)
        if parts == ["_id"]:
            values, params = "(VALUES (pg_catalog.to_jsonb(id)))", []
        else:
            values, params = "pgdoc.elements_at(data, %s::pg_catalog.text[])", [parts]
        if parts == ["_id"]:
            collation = None
        query = distinct_statement(self._table.name, condition.text, values, collation)
        rows = self._table.read(query, [*params, *condition.params])
        try:
            return [self._table.form.decoded(row[0]) for row in rows]
        except UnreadableDocument as exc:
            raise UnreadableDocument(
                f"a value at {path!r} of {self._table.subject} is unreadable: {exc}", collection=self._name
            ) from exc

    def explain(  # noqa: PLR0913
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        call: str = "find",
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        after: Document[Any] | Sequence[Any] | None = None,
        collation: str | None = None,
    ) -> str:
        """Return PostgreSQL's plan for a call with these arguments, without executing it.

        Args:
            filter: as for the call.
            call: `find`, `find_one`, `count`, `update_one`, `update_many`, `delete_one` or `delete_many`.
            sort: as for the call.
            limit: as for `find`.
            skip: as for `find`.
            after: as for `find`.
            collation: as for the call.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: there is no such call, it lacks an argument that is given, or an argument is invalid.
        """
        check_call(call, sort=sort, limit=limit is not None, skip=skip, after=after is not None)
        if call.startswith(("update", "delete")):
            query, params = self._explained_write(
                call, parse_filter(filter, self._table.encoder, collation), parse_sort(sort, collation)
            )
        else:
            limit = 1 if call == "find_one" else limit
            search = Search(
                filter,
                sort=sort,
                limit=limit,
                skip=skip,
                after=after,
                encoder=self._table.encoder,
                collation=collation,
            )
            query, params, _ = self._table.search_statement("count" if call == "count" else "find", search)
            params += () if call == "count" else search.last_param(limit)
        rows = self._table.read(explained(query), params, prepare=False)
        return "\n".join(row[0] for row in rows)

    def _explained_write(self, call: str, wanted: Node, sort: tuple[SortKey, ...]) -> tuple[GuardedQuery, list[Any]]:
        clauses = {} if call.startswith("delete") else {"change": NO_CHANGE}
        if call.endswith("_one"):
            found = self._table.first(wanted, sort, CHANGING if clauses else "FOR UPDATE")
            clauses["first"] = found.text
        else:
            found = self._table.condition(wanted)
            clauses["condition"] = found.text
        return write_statement(call, self._table.name, with_metadata=False, **clauses), found.params

    def _documents(self, search: Search) -> Generator[Document[Any]]:
        """Fetch few documents at once, with a prepared statement; stream more of them, in bounded memory.

        Fetching finds out how many there are. Without an order, that costs little, and the result is cached for the
        statement.
        """
        query, params, prepare = self._table.search_statement("find", search)
        limit, large = search.limit, self._session.large_results
        rows: Rows | None = None
        if limit is not None and limit <= _FEW:
            rows = self._few(query, params, prepare, search, limit)
        elif not search.order and not large.get(query):
            rows = self._few(query, params, prepare, search, _FEW + 1)
            if len(rows) > _FEW:
                large.put(query, value=True)
                rows = None
        if rows is not None:
            for row in rows:
                yield self._table.document(*row, projection=search.projection)
            return
        with closing(self._table.stream(query, [*params, *search.last_param(limit)])) as chunks:
            for chunk in chunks:
                for row in chunk:
                    yield self._table.document(*row, projection=search.projection)

    def _few(self, query: GuardedQuery, params: list[Any], prepare: bool | None, search: Search, limit: int) -> Rows:
        return self._table.read(query, [*params, *search.last_param(limit)], prepare=prepare)


def _parse_path(path: str) -> list[str]:
    if not isinstance(path, str) or path.startswith("-"):
        raise InvalidInput(f"{short_repr(path)} is not a path: use one such as 'address.city'")
    (key,) = parse_sort(path)
    return list(key.path)
