# Written by .ci/twins.py from pgdoc/_async/reading.py: change that file, and run it.
"""The calls that look for documents."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from pgdoc._sync.writing import document_of
from pgdoc.documents import decode
from pgdoc.errors import InvalidInput
from pgdoc.query.parse import parse_filter, parse_sort
from pgdoc.query.project import compile_fields, parse_fields
from pgdoc.query.sql import compile_filter, compile_sort
from pgdoc.reading import check_count, reading_statement
from pgdoc.shown import shown

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from pgdoc._sync.table import Table
    from pgdoc.documents import Document

__all__ = ["Reads"]


class Reads:
    """What a collection inherits: each call is one statement."""

    _table: Table

    def find(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
        fields: str | Sequence[str] | None = None,
    ) -> Generator[Document]:
        """Return an iterator over the documents that match, in bounded memory.

        It sees the collection as it was when the first document was asked for. Outside a transaction it takes a
        connection of the pool until it is exhausted or closed.

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
        query, params = self._find("find", filter, sort=sort, limit=limit, skip=skip, fields=fields)
        return self._documents(query, params)

    def find_one(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        fields: str | Sequence[str] | None = None,
    ) -> Document | None:
        """Return the first document that matches, or `None`; the arguments are those of `find`."""
        rows = self._table.read(*self._find("find", filter, sort=sort, limit=1, fields=fields))
        return document_of(*rows[0]) if rows else None

    def count(self, filter: Mapping[str, Any] | None = None) -> int:  # noqa: A002
        """Return how many documents match."""
        condition = compile_filter(parse_filter(filter))
        query = reading_statement("count", self._table.name, condition=condition.text)
        rows = self._table.read(query, condition.params)
        return int(rows[0][0]) if rows else 0

    def distinct(self, path: str, filter: Mapping[str, Any] | None = None) -> list[Any]:  # noqa: A002
        """Return the different values at a path, in the order of a sort; an array counts as its items.

        Args:
            path: dotted; `_id` for the ids.
            filter: of which documents; `None` for all.

        Raises:
            InvalidInput: not a path.
            InvalidFilter: not a filter.
        """
        parts, condition = _parse_path(path), compile_filter(parse_filter(filter))
        if parts == ["_id"]:
            values, params = "(VALUES (to_jsonb(id)))", []
        else:
            values, params = "pgdoc.elements_at(data, %s::text[])", [parts]
        query = reading_statement("distinct", self._table.name, condition=condition.text, values=values)
        rows = self._table.read(query, [*params, *condition.params])
        return [decode(row[0]) for row in rows]

    def explain(
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
        rows = self._table.read(*self._find("explain", filter, sort=sort, limit=limit, skip=skip))
        return "\n".join(row[0] for row in rows)

    def _find(  # noqa: PLR0913 (the contract)
        self,
        name: str,
        filter: Mapping[str, Any] | None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None,
        limit: int | None = None,
        skip: int = 0,
        fields: str | Sequence[str] | None = None,
    ) -> tuple[bytes, list[Any]]:
        check_count("skip", skip)
        if limit is not None:
            check_count("limit", limit)
        condition, order = compile_filter(parse_filter(filter)), compile_sort(parse_sort(sort))
        selected = compile_fields(parse_fields(fields))
        query = reading_statement(
            name, self._table.name, condition=condition.text, order=order.text, fields=selected.text
        )
        return query, [*selected.params, *condition.params, *order.params, limit, skip]

    def _documents(self, query: bytes, params: Sequence[Any]) -> Generator[Document]:
        with closing(self._table.stream(query, params)) as rows:
            for row in rows:
                yield document_of(*row)


def _parse_path(path: str) -> list[str]:
    if not isinstance(path, str) or path.startswith("-"):
        raise InvalidInput(f"{shown(path)} is no path: give one such as 'address.city'")
    (key,) = parse_sort(path)
    return list(key.path)
