"""The error that a stream gets when a thread of pgdoc fails for a reason that only a bug explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import StreamError

if TYPE_CHECKING:
    import logging

__all__ = ["internal_error"]


def internal_error(what_failed: str, exc: Exception, logger: logging.Logger) -> StreamError:
    """Log an unexpected exception with its traceback, and return the error for the streams that it ends.

    Without this the exception would end the thread, and its streams would wait forever.

    Args:
        what_failed: the beginning of the message, such as `the hub failed`.
        exc: the exception; it becomes the error's `__cause__`.
        logger: the logger of the module that caught it.
    """
    logger.error(what_failed, exc_info=exc)
    error = StreamError(f"{what_failed}: {exc!r}; this is a bug in pgdoc, please report it")
    error.__cause__ = exc
    return error
