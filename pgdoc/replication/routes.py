"""How a session reads the WAL, and the error for a change that it can't get.

An output plugin prints a change into one piece of memory of at most 1 GB. wal2json escapes quotes and control
characters twice, so it fails at smaller changes than pgoutput. Whatever fails, fails at the same place in every session
that reads it in the same way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from pgdoc.decoding.parts import EVERYTHING, Part
from pgdoc.errors import PgdocError
from pgdoc.model.positions import Lsn

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.decoding.records import Begin


class Route(NamedTuple):
    """How a session reads the WAL.

    Attributes:
        plugin: `None` for that of the slot, or the first that the server has and allows.
        part: what the plugin is asked for.
        until: transactions that commit at this LSN or later are not returned; `None` for no end.
    """

    plugin: str | None = None
    part: Part = EVERYTHING
    until: int | None = None


STRAIGHT = Route()
"""The route of a session that has met nothing unreadable."""


class UnsentChange(PgdocError):  # noqa: N818 (as the public ones)
    """The server can't send a change along the route of a session; other routes may pass it.

    Attributes:
        transaction: which it belongs to; `None` for a message that belongs to none.
        lsn: the change's own.
        is_message: whether it is a logical message. One that is too large is no metadata of pgdoc's writers.
        cause: the error that the server reported.
        received: the changes before it that no burst has returned yet.
    """

    def __init__(self, cause: PgdocError, transaction: Begin | None, lsn: int, *, is_message: bool = False) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.transaction = transaction
        self.lsn = lsn
        self.is_message = is_message
        self.received: list[Change] = []

    @property
    def place(self) -> int:
        """The commit LSN of its transaction, or its own LSN."""
        return self.lsn if self.transaction is None else self.transaction.commit_lsn

    @property
    def until(self) -> int:
        """The LSN from which reading goes on.

        A commit's LSN is where its record begins. A message's is where its record ends, and a commit can begin.
        """
        return self.place if self.transaction is None else self.place + 1

    def __str__(self) -> str:
        xid = "" if self.transaction is None else f"of transaction {self.transaction.xid} "
        return f"the server can't send the change at {Lsn(self.lsn)} {xid}({self.cause})"


def as_unsent(exc: PgdocError, transaction: Begin | None) -> UnsentChange | None:
    """Return the `UnsentChange` that an error of a session reports; `None` if it has another cause.

    The server's CONTEXT names the LSN of a change if a callback of the plugin failed, in the server's language.
    """
    cause = exc.__cause__
    if not isinstance(cause, psycopg.Error) or (cause.sqlstate or "")[:2] not in _UNSENT:
        return None
    context = cause.diag.context or ""
    found, is_message = _LSN.search(context), _MESSAGE.search(context) is not None
    if found is None or (
        transaction is None and not is_message
    ):  # it would be met again from any LSN before its commit
        return None
    return UnsentChange(exc, transaction, int(Lsn.parse(found[0])), is_message=is_message)


_UNSENT = {"22", "54", "XX"}
"""SQLSTATE classes of a value that can't be printed: bad data, a limit of the program, or an internal error.

Others are not the change's: a publication that is missing (42), a lost connection, a rollback, a lack of resources, an
operator, a disk.
"""

_LSN = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b")
_MESSAGE = re.compile(r"\bmessage\b")
"""The name of the callback, which the server does not translate. The names of slots do not contain this word."""
