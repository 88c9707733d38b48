"""The limits of a collection: the JSON text of its documents, and its partitions."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgdoc.errors import DocumentTooLarge, InvalidInput, SchemaViolation
from pgdoc.model.short_repr import short_repr
from pgdoc.model.sizes import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LARGE", "SizeLimit", "check_max_size", "check_partitions", "naming", "oversized"]

LARGE: Final = 64 << 10
"""For a document of this many bytes, it is worth looking up the limit before sending it."""


class SizeLimit(NamedTuple):
    """What is known about the sizes of a collection's documents.

    Attributes:
        max_size: the limit that all documents keep; `None` if there is none.
        has_unprintable: whether the server failed to print one a moment ago.
    """

    max_size: int | None
    has_unprintable: bool = False


def check_max_size(value: Any) -> int | None:
    """Check the argument `max_size`."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise InvalidInput(
            f"max_size must be a number of bytes from 1 to {MOST:,}, or None for no limit, got {short_repr(value)}"
        )
    return int(value)


_MOST_PARTITIONS: Final = 256


def check_partitions(value: Any) -> int:
    """Check the argument `partitions`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_PARTITIONS:
        raise InvalidInput(
            f"partitions must be a number from 1 to {_MOST_PARTITIONS}, or None for one table, got {short_repr(value)}"
        )
    return int(value)


@contextmanager
def naming(key: str | None) -> Iterator[None]:
    """Name the document that a statement writes in the error of the server, which does not."""
    try:
        yield
    except DocumentTooLarge as exc:
        if key is None:
            raise
        message = str(exc).replace("a document of", f"document {key!r} of", 1)
        raise DocumentTooLarge(message, document_id=key) from exc.__cause__
    except SchemaViolation as exc:
        if key is None or exc.document_id is not None:
            raise
        message = str(exc).replace("a document of", f"document {key!r} of", 1)
        raise SchemaViolation(message, document_id=key) from exc.__cause__


def oversized(
    subject: str, key: str | None, size: int | None, max_size: int | None, *, is_new_limit: bool = False
) -> DocumentTooLarge:
    """Return the error for a document whose JSON text has `size` bytes; `None` if the server can't print it.

    `key` is `None` if the call does not know the id. `is_new_limit` says that `max_size` is not yet the collection's
    limit.
    """
    document = "a document" if key is None else f"document {key!r}"
    found = "more JSON text than PostgreSQL can print (1 GB)" if size is None else f"{size:,} bytes of JSON text"
    if max_size is None:
        advice = f"pgdoc stores at most {MOST:,} bytes: split the document"
    elif is_new_limit:
        advice = (
            f"the new max_size is {max_size:,}: split the document, or set a larger limit. The limit was not changed"
        )
    else:
        advice = f"the collection's max_size is {max_size:,}: split the document, or raise the limit with set_limits()"
    return DocumentTooLarge(
        f"{document} of {subject} has {found}, and {advice}", document_id=key, size=size, max_size=max_size
    )
