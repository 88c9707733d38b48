"""Checks of collations of the operating system, whose versions may have changed.

pgdoc's own collations never change, but the ids of documents are indexed under the database's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.cli.doctor.commands import as_identifier
from pgdoc.cli.doctor.finding import good, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_collations"]


def check_collations(on: Examination) -> Iterator[Finding]:
    """Check that no library has changed its order since indexes were built in it."""
    rows = on.rows("collations", on.schema)
    for found in rows:
        versions = f"version {found.recorded} when its indexes were built, and {found.actual} now"
        lost = "an index in the old order misses rows, and a unique one lets in duplicates"
        if found.schema is None:
            name = as_identifier(found.name)
            fix = [f"REINDEX DATABASE {name}", f"ALTER DATABASE {name} REFRESH COLLATION VERSION"]
            text = f"the collation of database {name} had {versions}; {lost}"
            yield wrong("database-collation", text, found.name, found.actual, fix=fix)
        else:
            name = as_identifier(found.schema, found.name)
            fix = [f"REINDEX INDEX {as_identifier(on.schema, index)}" for index in found.indexes]
            fix.append(f"ALTER COLLATION {name} REFRESH VERSION")
            text = f"collation {name} had {versions}; {lost}"
            yield wrong("index-collation", text, f"{found.schema}.{found.name}", found.actual, fix=fix)
    if not rows:
        yield good("collations", "no collation has changed since indexes were built")
