"""The read of counts and sums by group, from which live aggregates start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.crud.statements import find_statement
from pgdoc.query.filters.key_sql import value_sql

if TYPE_CHECKING:
    from pgdoc.crud.find_query import Search
    from pgdoc.crud.guard import GuardedQuery
    from pgdoc.query.filters.nodes import Path
    from pgdoc.query.indexes.plan import Indexes

__all__ = ["totals_statement"]

_NO_VALUE: Final = "NULL::pg_catalog.jsonb"


def totals_statement(
    search: Search, table: str, indexes: Indexes, path: Path | None, by: Path | None
) -> tuple[GuardedQuery, list[Any]]:
    """Return the statement and its parameters; its rows are `Totals`.

    Args:
        search: has the filter.
        table: the quoted name.
        indexes: those of the table.
        path: where the numbers are; `None` for only the number of documents.
        by: where the group is; `None` for one group, which has no row without documents.
    """
    conditions = search.conditions(indexes)
    query = find_statement(
        "totals",
        table,
        tuple(part.text for part in conditions.parts),
        group=_NO_VALUE if by is None else value_sql(by),
        value=_NO_VALUE if path is None else value_sql(path),
    )
    return query, [item for part in conditions.parts for item in part.params]
