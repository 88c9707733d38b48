"""What the server has reported to a consumer, across its readers, for the figures of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.replication.reading import UNKNOWN, Reading

if TYPE_CHECKING:
    from pgdoc.consumers.owned_slot import OwnedSlot
    from pgdoc.consumers.sharing import HubShare
    from pgdoc.model.positions import Ids


__all__ = ["Reading", "Reported"]


class Reported:
    """Remembers what the last reader heard; the consumer's thread writes, and any thread may read."""

    def __init__(self, share: HubShare) -> None:
        self._share = share
        self._ids: Ids | None = None
        self._wal_end = 0
        self._reading = UNKNOWN

    def wal_end(self, owned: OwnedSlot | None) -> int:
        """Return the highest LSN that the server has reported."""
        return max(self._wal_end, self._share.wal_end, owned.wal_end if owned is not None else 0)

    def reading(self, owned: OwnedSlot | None, mode: str) -> Reading:
        """Return how far the reader that feeds the stream has come in time: the hub's, or the consumer's own."""
        shared = self._share.reading
        if shared is not None:
            return shared
        if owned is None or not owned.is_reading:
            return self._reading
        # A reader that catches up waits for the server, which is the one that is behind.
        return owned.reading if mode == "live" else owned.reading._replace(waited_at=None)

    def note(self, owned: OwnedSlot | None) -> None:
        """Remember what was reported so far; called before the consumer changes its reader."""
        self._wal_end = self.wal_end(owned)
        if owned is not None:
            self._reading = owned.reading._replace(waited_at=None)

    def begin(self, ids: Ids) -> None:
        """Forget what the server of another timeline has reported, which need not be part of this one."""
        if ids != self._ids:
            self._ids, self._wal_end = ids, 0
