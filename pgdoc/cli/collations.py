"""Collations of the operating system whose versions have changed: what `pgdoc doctor` finds.

pgdoc's own collations never change, but the ids of documents are indexed under the database's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["find_changed_collations"]


def find_changed_collations(connection: psycopg.Connection[Any], schema: str) -> Iterator[tuple[str, str]]:
    """Check that no library has changed its order since indexes were built in it."""
    rows = connection.execute(statement("doctor", "collations").encode(), [schema]).fetchall()
    for found in rows:
        versions = f"version {found.recorded} when its indexes were built, and {found.actual} now"
        lost = "an index in the old order misses rows, and a unique one lets in duplicates"
        if found.schema is None:
            database = _quoted(found.name)
            cure = f"REINDEX DATABASE {database}, then ALTER DATABASE {database} REFRESH COLLATION VERSION"
            yield "wrong", f"the collation of database {database} had {versions}; {lost}: run {cure}"
        else:
            collation = _quoted(found.schema, found.name)
            reindex = "; ".join(f"REINDEX INDEX {_quoted(schema, index)}" for index in found.indexes)
            cure = f"{reindex}; ALTER COLLATION {collation} REFRESH VERSION"
            yield "wrong", f"collation {collation} had {versions}; {lost}: run {cure}"
    if not rows:
        yield "ok", "no collation has changed since indexes were built"


def _quoted(*names: str) -> str:
    return sql.Identifier(*names).as_string(None)
