"""What the server says about documents that do not conform to their collection's JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.errors import SchemaViolation

if TYPE_CHECKING:
    import psycopg

__all__ = ["schema_error"]

_CONSTRAINT: Final = "pgdoc_schema"  # see `pgdoc.set_schema` in the migrations
_CHECK_VIOLATION: Final = "23514"


def schema_error(exc: psycopg.Error, subject: str) -> SchemaViolation | None:
    """Return the error for a document that the table's check refused; `None` for another exception."""
    if exc.sqlstate == _CHECK_VIOLATION and exc.diag.constraint_name == _CONSTRAINT:
        return SchemaViolation(
            f"a document of {subject} would not conform to the collection's JSON Schema: correct the change, or the "
            "schema with set_limits(). Nothing was changed"
        )
    return None
