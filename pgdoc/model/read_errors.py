"""The last document that could not be read, for a caller that is not told.

What reads a document can lose the error: pydantic, and so FastAPI, raises one of its own with only the text of it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from pgdoc.errors import UnreadableDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["last_read_error", "noted", "noting_read_errors"]

ErrorT = TypeVar("ErrorT", bound=UnreadableDocument)

# A list of at most one error. Threads and tasks have a copy of the context with the same list.
_last: ContextVar[list[UnreadableDocument] | None] = ContextVar("pgdoc_read_errors", default=None)


@contextmanager
def noting_read_errors() -> Iterator[None]:
    """Keep the last error of the block, for `last_read_error`."""
    last: list[UnreadableDocument] = []
    token = _last.set(last)
    try:
        yield
    finally:
        _last.reset(token)
        last.clear()


def noted(error: ErrorT) -> ErrorT:
    """Return an error that is about to be raised, and keep it if a block around the caller asks for it."""
    last = _last.get()
    if last is not None:
        last[:] = [error]
    return error


def last_read_error() -> UnreadableDocument | None:
    """Return the last error of the block around the caller; `None` if there was none, or if there is no block."""
    return next(iter(_last.get() or ()), None)
