"""What the server says about documents that are too large to be stored or printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.errors import DocumentTooLarge

if TYPE_CHECKING:
    import psycopg

__all__ = ["is_unprintable", "size_error"]

_CONSTRAINTS: Final = {"pgdoc_size", "pgdoc_size_new"}  # see `pgdoc.set_max_size` in the migrations

# The functions of PostgreSQL that raise program_limit_exceeded for a jsonb value that is too large, or whose text is.
_PRINTING: Final = {"enlargeStringInfo"}
_SIZES: Final = {*_PRINTING, "convertJsonbArray", "convertJsonbObject", "checkStringLen"}
_CHECK_VIOLATION, _LIMIT_EXCEEDED, _OUT_OF_MEMORY = "23514", "54000", "53200"


def size_error(exc: psycopg.Error, subject: str) -> DocumentTooLarge | None:
    """Return the error for a document that the server refused for its size; `None` for another exception."""
    if exc.sqlstate == _CHECK_VIOLATION and exc.diag.constraint_name in _CONSTRAINTS:
        return DocumentTooLarge(
            f"a document of {subject} would have more JSON text than the collection's max_size: split the document, or "
            "raise the limit with set_limits(). Nothing was changed"
        )
    if exc.sqlstate == _LIMIT_EXCEEDED and exc.diag.source_function in _SIZES:
        return DocumentTooLarge(
            f"a document of {subject} would be larger than PostgreSQL can store, or print as JSON: split the document, "
            "or store shorter numbers. Nothing was changed"
        )
    return None


def is_unprintable(exc: psycopg.Error) -> bool:
    """Return whether the server failed to print a value."""
    return exc.sqlstate == _OUT_OF_MEMORY or (exc.sqlstate == _LIMIT_EXCEEDED and exc.diag.source_function in _PRINTING)
