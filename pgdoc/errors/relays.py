"""Errors of relays and of the logs they write."""

from __future__ import annotations

from pgdoc.errors.base import PgdocError


class LogError(PgdocError):
    """A problem with the log that a relay writes or a `RemoteStream` reads; each subclass names a reason."""


class LogUnreachable(LogError):  # noqa: N818
    """The engine of the log does not answer, or the connection was lost: opened again, it may."""

    resumable = True


class LogFull(LogError):  # noqa: N818
    """The log takes no more entries until somebody makes room: raise its limits, or let it forget old entries."""

    resumable = True


class LogRefused(LogError):  # noqa: N818
    """The log is not one that this relay may write, or this stream can read; the message says why.

    Attributes:
        reason: in one word: `missing`, `foreign`, `other_relay`, `config`, `rights`, `credentials`, `format` or
            `version`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class LogGap(LogError):  # noqa: N818
    """The log lacks events that PostgreSQL no longer keeps: it was put back to an older copy, or made anew.

    Attributes:
        after: the token after which events are missing, as text; `None` if it is not known.
        until: the token from which the relay can go on, as text.
    """

    def __init__(self, message: str, *, after: str | None, until: str) -> None:
        super().__init__(message)
        self.after = after
        self.until = until
