"""Why a server has invalidated a slot, which limit shortens history, and what to do about either. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HistoryLimits", "cure_of_loss", "describe_loss"]

_WAL_REMOVED = "wal_removed"
_LOSSES = {
    _WAL_REMOVED: (
        "has lost its WAL, which exceeded max_slot_wal_keep_size",
        "raise max_slot_wal_keep_size, or keep its consumer open",
    ),
    "idle_timeout": (
        "was invalidated, because nobody read it for longer than idle_replication_slot_timeout",
        "set idle_replication_slot_timeout to 0, or to longer than its consumer stays closed",
    ),
    "rows_removed": (
        "was invalidated, because the primary removed rows of system catalogs that decoding on the standby needed",
        "set hot_standby_feedback on the standby, and let it use a physical slot",
    ),
    "wal_level_insufficient": (
        "was invalidated, because the primary's wal_level was not logical for a time",
        "keep wal_level = logical",
    ),
}
"""What `invalidation_reason` of `pg_replication_slots` means, and how to keep it from happening again."""

_CONFLICTS = {
    "rows_removed": (
        "as the primary removed rows of its catalog that the slots of this standby needed",
        "run ALTER SYSTEM SET hot_standby_feedback = on on the standby, and set its primary_slot_name",
    ),
    "wal_level_insufficient": (
        "as the primary had a wal_level lower than logical, which ends the slots of its standbys",
        "leave it at logical",
    ),
}
"""How a standby shortened history, and what to change."""


def describe_loss(reason: str | None) -> str:
    """Say what happened to a slot that is `lost`; `reason` is `None` on servers that do not tell."""
    if reason is None:
        return "has lost its WAL"
    return _LOSSES.get(reason, (f"was invalidated ({reason})", ""))[0]


def cure_of_loss(reason: str | None) -> str:
    """Say how to keep it from happening again; empty for a reason that is not known."""
    return _LOSSES.get(reason or _WAL_REMOVED, ("", ""))[1]


class HistoryLimits(NamedTuple):
    """Settings of the server that removed history which `set_history` would keep.

    Attributes:
        wal: the value of `max_slot_wal_keep_size`, if bookmarks lost their WAL.
        idle: the value of `idle_replication_slot_timeout` (PostgreSQL 18), if bookmarks are invalidated by it: nobody
            reads a bookmark.
        conflicts: the reasons for which a standby invalidated bookmarks.
    """

    wal: str | None = None
    idle: str | None = None
    conflicts: Sequence[str] = ()

    @property
    def cause(self) -> str:
        """How they shortened history, as the end of a sentence; empty if they did not."""
        found = []
        if self.wal is not None:
            found.append(f"as the server removed what exceeds its max_slot_wal_keep_size of {self.wal}")
        if self.idle is not None:
            found.append(
                f"as the server ends slots that nobody reads for its idle_replication_slot_timeout of {self.idle}"
            )
        found += [_CONFLICTS[reason][0] for reason in self.conflicts]
        return f", {', and '.join(found)}" if found else ""

    @property
    def cure(self) -> str:
        """What to change."""
        found = ["raise that"] if self.wal is not None else []
        if self.idle is not None:
            found.append("set idle_replication_slot_timeout to 0")
        found += [_CONFLICTS[reason][1] for reason in self.conflicts]
        return " and ".join(found) or "keep more with set_history()"
