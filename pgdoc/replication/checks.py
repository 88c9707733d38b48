"""Checks that a server can still serve a position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import HistoryLost, InvalidResumeToken
from pgdoc.model.positions import Lsn, Position

if TYPE_CHECKING:
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.replication.source import Cluster


def check_position(place: ResumeToken | Lsn, origin: Cluster, wal_end: int) -> Position:
    """Give the position to resume after, if this server has it.

    Raises:
        InvalidResumeToken: of another cluster or timeline, or beyond the end of the WAL.
    """
    if isinstance(place, Lsn):
        position = Position(place)
    else:
        position = place.position
        origin.check(position, place.system_id, place.timeline)
    if position.commit_lsn > wal_end:
        raise InvalidResumeToken(
            f"position {Lsn(position.commit_lsn)} lies beyond the end of this server's WAL, {Lsn(wal_end)}: "
            "it was issued by another server, or this one was restored; start without it"
        )
    return position


def check_reach(position: Position, oldest: int | None) -> None:
    """Refuse a position that history does not reach back to.

    Raises:
        HistoryLost: with the oldest place that it does.
    """
    if oldest is None or oldest > position.commit_lsn:
        raise history_lost(position.commit_lsn, oldest)


def history_lost(at: int, oldest: int | None, limit: str = "") -> HistoryLost:
    """Make the error for a position that no bookmark reaches back to.

    Args:
        at: the position.
        oldest: how far the oldest bookmark reaches back; `None` where there is none.
        limit: the value of `max_slot_wal_keep_size` where that made the server remove WAL.
    """
    found = "no history is kept" if oldest is None else f"history reaches back to {Lsn(oldest)}"
    cause = f", as the server removed what exceeds its max_slot_wal_keep_size of {limit}" if limit else ""
    cure = "raise that" if limit else "keep more with set_history()"
    return HistoryLost(
        f"position {Lsn(at)} is no longer kept ({found}{cause}): rebuild from the collections, stream from now, and "
        f"{cure}",
        oldest_available=None if oldest is None else str(Lsn(oldest)),
    )


def check_published(at: int, since: int, schema: str) -> None:
    """Refuse a place from which pgoutput would leave something out.

    Args:
        at: the place.
        since: from where on it does not.
        schema: that is read.

    Raises:
        HistoryLost: it would.
    """
    if at < since:
        raise HistoryLost(
            f'position {Lsn(at)} is older than the publication "pgdoc" as it is for the schema "{schema}" since '
            f"{Lsn(since)}, so pgoutput would leave changes out: resume through wal2json, or rebuild from the "
            "collections and stream from now",
            oldest_available=str(Lsn(since)),
        )
