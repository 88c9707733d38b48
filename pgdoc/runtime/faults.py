"""The error that a stream gets when a bug ends a thread of pgdoc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import StreamError

if TYPE_CHECKING:
    import logging

__all__ = ["internal_error"]


def internal_error(what_failed: str, exc: Exception, logger: logging.Logger) -> StreamError:
    """Log an unexpected exception with its traceback, and make the error for the streams that it ends.

    Without this the exception would end the thread, and its streams would wait forever. `what_failed` begins the
    message, such as `the hub failed`.
    """
    logger.error(what_failed, exc_info=exc)
    error = StreamError(f"{what_failed}: {exc!r}; this is a bug in pgdoc, please report it")
    error.__cause__ = exc
    return error
