"""Makes bookmarks that a standby can synchronize although transactions were open when they were made.

A standby takes a slot over only if the WAL between the slot's `restart_lsn` and `confirmed_flush_lsn` holds a
consistent point, and does not look again until the slot moves (PostgreSQL's `slotsync.c`). The primary needs no such
point: it has stored a snapshot at `restart_lsn`, which the standby lacks. A point is consistent if no transaction is
running there. Else the WAL needs three records of the running transactions: all that ran at the first must have ended
at the second, and all that ran at the second must have ended at the third (`snapbuild.c`). A bookmark is a copy of a
slot that moves, so it begins a record or two before its end. Therefore:

1. Once a bookmark fits (`failover`), the keeper logs the first record, and each other one as soon as the transactions
   before it have ended. It looks in each pass, and never waits for them.
2. After the third record, it advances a copy of the bookmark to the end of the WAL. It does so in one step, in which
   `restart_lsn` moves once at most, and not beyond the first record.
3. That copy becomes a bookmark with a name of that moment, as no bookmark may be younger than its name says. So the
   other bookmark stays until `retention` finds that it is not needed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.database.errors import one_line
from pgdoc.replication import slots
from pgdoc.replication.connection import quote_literal
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ConsistentCopy"]

logger = logging.getLogger("pgdoc.history")

_RECORDS = 3
_UNAVAILABLE = (  # the bookmark was dropped, or has lost its WAL; no slot is free
    psycopg.errors.UndefinedObject,
    psycopg.errors.ObjectNotInPrerequisiteState,
    psycopg.errors.ConfigurationLimitExceeded,
)


class ConsistentCopy:
    """The copy that is made of one bookmark at a time, on one server; a keeper that takes over begins again."""

    def __init__(self) -> None:
        self._bookmark: str | None = None
        self._records = 0  # of the running transactions, logged since the bookmark was there
        self._id = ""  # of a transaction after the last record

    def make(self, connection: psycopg.Connection[Any], bookmarks: Sequence[str]) -> bool:
        """Do what is possible now; return whether a copy was made. Any of `bookmarks`, oldest first, will do.

        The bookmark stays the same as long as it will do: newer ones would begin again and again.
        """
        if self._bookmark not in bookmarks:
            self._bookmark, self._records = (bookmarks[-1] if bookmarks else None), 0
        if self._bookmark is None or not self._has_logged_all(connection):
            return False
        bookmark, self._bookmark = self._bookmark, None
        try:
            _copy(connection, bookmark)
        except _UNAVAILABLE as exc:
            logger.info('bookmark "%s" was not copied for the standbys: %s', bookmark, one_line(exc))
            return False
        return True

    def _has_logged_all(self, connection: psycopg.Connection[Any]) -> bool:
        while self._records < _RECORDS:
            if self._records and not _have_ended(connection, self._id):
                return False
            if not slots.log_running_transactions(connection):
                return False
            self._records += 1
            self._id = _ask(connection, statement("replication", "next_transaction"))
        return True


def _have_ended(connection: psycopg.Connection[Any], before: str) -> bool:
    return bool(_ask(connection, statement("replication", "have_ended").format(before=quote_literal(before))))


def _copy(connection: psycopg.Connection[Any], bookmark: str) -> None:
    """Make a bookmark from this one's start to now, through a temporary slot: nobody sees it half made.

    The server drops temporary slots after an error.
    """
    now = slots.flushed(connection)  # read before the name is made
    copy = slots.slot_name(connection, "pgdocr")
    slots.copy_slot(connection, bookmark, copy, temporary=True, plugin=slots.BOOKMARK_PLUGIN)
    slots.advance(connection, copy, now - 1, now)  # in one step
    name = slots.bookmark_name(connection) + slots.SYNCHRONIZABLE
    slots.copy_slot(connection, copy, name, temporary=False, plugin=slots.BOOKMARK_PLUGIN)
    slots.drop_slot_if_free(connection, copy)


def _ask(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101
    return row[0]
