"""Checks whether a server can still serve a position."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from pgdoc.errors import DatabaseError, HistoryLost, InvalidResumeToken, ServerUnreachable
from pgdoc.model.positions import Lsn, Position

if TYPE_CHECKING:
    from pgdoc.database.slot_losses import HistoryLimits
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.replication.source import Cluster


FLUSH_LIMIT_S: Final = 60.0
"""How long to wait for WAL to be flushed, which takes milliseconds."""


def check_position(after: ResumeToken | Lsn, cluster: Cluster, wal_end: int) -> Position:
    """Return the position to resume after; refuse one that this server does not have.

    `wal_end` is the LSN up to which the WAL is flushed.
    """
    if isinstance(after, Lsn):
        position = Position(after)
    else:
        position = after.position
        cluster.check(position, (after.system_id, after.timeline, after.database_oid))
    if position.commit_lsn > wal_end:
        raise beyond_the_end(position.commit_lsn, wal_end)
    return position


def beyond_the_end(at: int, wal_end: int) -> InvalidResumeToken:
    """Make the error for a position that this server has not come to."""
    return InvalidResumeToken(
        f"position {Lsn(at)} lies beyond the end of this server's WAL, {Lsn(wal_end)}: "
        "another server issued it, or this one was restored from a backup; start without it"
    )


def check_flush(deadline: float) -> None:
    """Raise `ServerUnreachable` if the server has not flushed its WAL by `deadline`, a time of `time.monotonic()`."""
    if time.monotonic() > deadline:
        raise ServerUnreachable(
            f"the server has not flushed its WAL for {FLUSH_LIMIT_S:.0f} s: check its disk and its log, and try again"
        )


def history_lost(at: int, oldest: int | None, limits: HistoryLimits) -> HistoryLost:
    """Make the error for a position that no bookmark reaches back to; `oldest` is `None` if there is no bookmark."""
    found = "no history is kept" if oldest is None else f"history reaches back to {Lsn(oldest)}"
    return HistoryLost(
        f"position {Lsn(at)} is no longer kept ({found}{limits.cause}): rebuild from the collections, stream from now, "
        f"and {limits.cure}",
        oldest_available=None if oldest is None else str(Lsn(oldest)),
    )


def check_exact(at: int, since: int, schema: str) -> None:
    """Refuse an LSN from before DDL that was found late: wal2json names tables, and may have sent the wrong ones."""
    if at < since:
        raise HistoryLost(
            f"position {Lsn(at)} is older than {Lsn(since)}, where pgdoc found that SQL had renamed, moved or dropped "
            f'collections of the schema "{schema}", so wal2json may leave changes out: rebuild from the collections, '
            "stream from now through pgoutput. Only a catalog that a superuser owns has triggers that note it at once",
            oldest_available=str(Lsn(since)),
        )


def hidden_documents(subject: str) -> DatabaseError:
    """Make the error for a snapshot under row-level security, with the SQLSTATE of pg_dump's refusal."""
    return DatabaseError(
        f"{subject} has row-level security, so the snapshot would lack the documents that its policies hide from this "
        "role, while the stream has every change: read it as the owner of the table, or as a role with BYPASSRLS "
        "(ALTER ROLE ... BYPASSRLS as a superuser), or watch without snapshot=True",
        sqlstate="42501",
    )


def check_published(at: int, since: int, schema: str) -> None:
    """Refuse an LSN from before the publication covered the schema: pgoutput would leave changes out."""
    if at < since:
        raise HistoryLost(
            f'position {Lsn(at)} is older than the publication "pgdoc", which covers the schema "{schema}" since '
            f"{Lsn(since)}, so pgoutput would leave changes out: resume through wal2json, or rebuild from the "
            "collections and stream from now",
            oldest_available=str(Lsn(since)),
        )
