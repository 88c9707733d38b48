"""The slot of a consumer while this process owns the consumer.

1. Only what was acknowledged is confirmed to the slot, never what was merely received (see `acknowledgements`).
2. No LSN is confirmed that was not received: PostgreSQL would accept it, and lose the changes below it.
3. Progress is stored under the claim of the takeover. When another process has taken over, nothing is stored and
   `ConsumerLost` is raised.
4. A checkpoint is confirmed only after its commit is flushed: a crash of the server must not take it back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgdoc.consumers.ownership import HEARTBEAT_S, Ownership
from pgdoc.consumers.slots import open_slot
from pgdoc.errors import PgdocError
from pgdoc.replication.session import read_burst
from pgdoc.runtime.deadline import deadline_scope

if TYPE_CHECKING:
    from pgdoc.changes.change import Burst
    from pgdoc.consumers.acknowledgements import ConsumerProgress
    from pgdoc.consumers.takeover import StartPoint
    from pgdoc.replication.source import Cluster, Source

_STATUS_S = 0.5
_HEARTBEAT_LIMIT_S = 10.0
_IDLE_SAVE_BYTES = 16 << 20
"""How far the watermark of a quiet consumer moves between two saves."""


class OwnedSlot:
    """Reads a consumer's slot under the claim of one takeover, until its sessions are lost or given up.

    The consumer's thread calls everything here; other threads call only `wake` and `wal_end`.

    Attributes:
        is_reading: false while the stream's mailbox stays full.

    Raises:
        ServerUnreachable: the server closed a connection, or the slot changed meanwhile.
    """

    def __init__(
        self, source: Source, ownership: Ownership, cluster: Cluster, start: StartPoint, progress: ConsumerProgress
    ) -> None:
        self._source = source
        self._ownership = ownership
        self._cluster = cluster
        self._progress = progress
        self._next_heartbeat = self._next_status = 0.0
        _, self._flushed_at_start = ownership.wal_end()
        self._session = open_slot(source, ownership.slot, start.read_from, purpose=ownership.purpose)
        self.is_reading = True
        progress.watermark = start.read_from

    @property
    def wal_end(self) -> int:
        """The highest LSN that the server has reported."""
        return max(self._progress.watermark, self._flushed_at_start, self._session.reader.wal_end)

    @property
    def has_caught_up(self) -> bool:
        """Whether the watermark has reached the end that the WAL had when the slot was opened."""
        return self._progress.watermark >= self._flushed_at_start

    def read(self, timeout_s: float) -> Burst:
        """Read the next burst; ask the server how far the WAL goes while catching up and nothing arrives."""
        burst, has_frames = read_burst(self._session, timeout_s)
        if not has_frames and not self.has_caught_up:
            self._session.reader.ask()
        return burst

    def wake(self) -> None:
        """Let a `read` that waits in the consumer's thread return."""
        self._session.reader.wake()

    def stop_reading(self) -> None:
        """Close the reader and stay the owner."""
        self.is_reading = False
        self._session.reader.close()

    def heartbeat(self) -> None:
        """Keep both sessions alive, and report and store progress when it is due."""
        now = time.monotonic()
        if self.is_reading:
            self._session.reader.report()
            if now >= self._next_status:
                self._next_status = now + _STATUS_S
                self._send_status()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_S
            self.save()

    def _send_status(self) -> None:
        reader = self._session.reader
        reader.confirm(self._progress.confirmable())
        reader.report_confirmed()

    def save(self, idle_bytes: int = _IDLE_SAVE_BYTES) -> None:
        """See `save_progress`."""
        save_progress(
            self._ownership,
            self._cluster,
            self._progress,
            idle_bytes=idle_bytes,
            advance=not self.is_reading,
        )

    def flush_progress(self) -> None:
        """Confirm and store everything that was acknowledged, and give the consumer up."""
        if self.is_reading:
            try:
                self._send_status()
            except PgdocError:  # The connection is lost; what is stored still counts.
                self.stop_reading()
        if self._ownership.closed:  # The claim alone is enough to store progress.
            self._ownership = Ownership(self._source, self._ownership.name, self._ownership.claim)
        self.save(idle_bytes=0)
        if self.is_reading:
            self._send_status()  # The save may have found a newer checkpoint.
            self.stop_reading()
        self._ownership.give_up()

    def close(self) -> None:
        """Close both sessions."""
        self.stop_reading()
        self._ownership.close()


def save_progress(
    ownership: Ownership, cluster: Cluster, progress: ConsumerProgress, *, idle_bytes: int, advance: bool
) -> None:
    """Take note of the last checkpoint, and store the consumer's progress if it is news.

    Any session of the consumer may store: the claim decides. `idle_bytes` is how far the watermark of a quiet consumer
    moves between two saves; 0 stores in any case. `advance` also confirms to the slot, because nothing reads it at
    present.
    """
    with deadline_scope(_HEARTBEAT_LIMIT_S):
        checkpoint = ownership.check()
        if checkpoint.position > progress.stored_position:
            ownership.flush(checkpoint.inserted)  # A crash must not take back what is confirmed to the slot.
            progress.checkpointed = ownership.mark_of(checkpoint)
    confirmable = progress.confirmable()
    news = progress.to_save(idle_bytes)
    if (news != progress.saved or not idle_bytes) and ownership.save(*news, cluster):
        progress.saved = news
        if advance:
            ownership.advance(confirmable)
