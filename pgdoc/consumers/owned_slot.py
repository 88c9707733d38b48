"""The slot of a consumer while this process owns the consumer.

1. Only what was acknowledged is confirmed to the slot, never what was merely received (see `acknowledgements`).
2. No LSN is confirmed that was not received: PostgreSQL would accept it, and lose the changes below it.
3. Progress is stored under the claim of the takeover. When another process has taken over, nothing is stored and
   `ConsumerLost` is raised.
4. A checkpoint is confirmed only after its commit is flushed, on the standbys, too: neither a crash of the server nor
   a failover must take it back. Otherwise a promoted standby could have a slot that is ahead of the stored position.
5. A quiet reader (see `replication.standby`) confirms nothing. It is closed every few seconds if there is news, the
   ownership's session advances the slot, and a new reader goes on at the watermark. What is sent again because a
   transaction was read in part is dropped by position.
6. A transaction that the slot's plugin can't send is read from a copy of the slot (see `replication.detours`), and then
   the slot itself goes on after it. Confirmations reach the slot when it is read again.
7. While nothing reads the slot, because the hub feeds the stream (see `sharing`) or its mailbox is full, what is
   acknowledged is stored within a second, and the ownership's session advances the slot from time to time: an advance
   reads the WAL since the slot's `restart_lsn` again, if quickly. An owner whose session ends notices it.
8. When another session waits for the consumer, the thread stores its progress at once (see `calls`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgdoc.consumers.calls import Calls
from pgdoc.consumers.ownership import HEARTBEAT_S, Ownership
from pgdoc.consumers.saving import SAVE_LIMIT_S, note_checkpoint, save_progress
from pgdoc.consumers.slot_reading import SlotReading
from pgdoc.errors import PgdocError
from pgdoc.replication.reading import Reading, reading_of
from pgdoc.replication.routes import STRAIGHT
from pgdoc.runtime.deadline import deadline_scope

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.changes.router import Selection
    from pgdoc.consumers.acknowledgements import ConsumerProgress
    from pgdoc.consumers.takeover import StartPoint
    from pgdoc.replication.source import Cluster, Source

_STATUS_S = 0.5
_REOPEN_S = 5.0
_REOPEN_PAUSE_FACTOR = 20
"""At most this fraction of the time is spent on closing and opening a quiet reader."""

_ADVANCE_S = 10.0
_ADVANCE_PAUSE_FACTOR = 50
_LONGEST_ADVANCE_PAUSE_S = 60.0
"""How often a slot without a reader is advanced to what was acknowledged, and the fraction of the time it may take.

The pause has a limit: an advance reads the WAL of the pause before it, so it would take longer each time.
"""

_IDLE_SAVE_BYTES = 16 << 20
"""How far the watermark of a quiet consumer moves between two saves."""


class OwnedSlot(SlotReading):
    """Reads a consumer's slot under the claim of one takeover, until its sessions are lost or given up.

    The consumer's thread calls everything here; other threads call only `wake` and `wal_end`.

    Attributes:
        is_reading: false while the hub feeds the stream, or its mailbox stays full.
        is_owned_until: the time of `time.monotonic` until which no other process can own the consumer; a third of the
            lease is left for clocks that run apart.
        is_in_place: false if a slot that nothing should read was lost, moved or read by another session, or could not
            be advanced. Only a takeover can tell what to do.
        received: the changes before the one that can't be read, when `read` raises `UnreadableChange`.

    Raises:
        ServerUnreachable: the server closed a connection, or the slot changed meanwhile.
    """

    def __init__(  # noqa: PLR0913 (what a takeover settles)
        self,
        source: Source,
        ownership: Ownership,
        cluster: Cluster,
        start: StartPoint,
        progress: ConsumerProgress,
        *,
        selection: Selection,
    ) -> None:
        self._source, self._selection = source, selection
        self._ownership = ownership
        self._cluster = cluster
        self._progress = progress
        self.is_owned_until = 0.0
        self.received: list[Change] = []
        self._next_heartbeat = self._next_status = 0.0
        ownership.check_cluster(cluster)
        self._calls = Calls(ownership)
        _, self._flushed_at_start = ownership.wal_end()
        self._session = self._open(start.read_from)
        self.is_reading = self.is_in_place = True
        found = ownership.look_at_slot()
        self._may_rest = found is not None and found.may_rest
        progress.watermark = start.read_from
        # Of a slot that is quiet or not read: up to where it was confirmed, and acknowledged then.
        self._next_reopen = self._next_advance = 0.0
        self._reader_pid = self._session.reader.pid
        self._confirmed, self._acknowledged = progress.confirmable(), progress.latest.position

    @property
    def wal_end(self) -> int:
        """The highest LSN that the server has reported."""
        return max(self._progress.watermark, self._flushed_at_start, self._session.reader.wal_end)

    @property
    def reading(self) -> Reading:
        """How far the slot's reader has come in time."""
        return reading_of(self._session)

    @property
    def has_caught_up(self) -> bool:
        """Whether the watermark has reached the end that the WAL had when the slot was opened."""
        return self._progress.watermark >= self._flushed_at_start

    def wake(self) -> None:
        """Let a `read` that waits in the consumer's thread return."""
        self._session.reader.wake()

    def stop_reading(self) -> None:
        """Close the reader and stay the owner."""
        if self.is_reading:
            self.is_reading = False
            self._reader_pid = self._session.reader.pid
            self._confirmed = max(self._confirmed, self._session.reader.reported)
            self._next_advance = time.monotonic() + _ADVANCE_S
        self._session.reader.close()

    @property
    def plugin(self) -> str:
        """The output plugin that is read."""
        return self._session.slot_start.plugin

    @property
    def may_rest(self) -> bool:
        """Whether the slot can do without its reader, and surely belongs to this process.

        The reader has caught up, nobody else has touched the slot, and the server keeps a slot that rests.
        """
        is_settled = self.has_caught_up and self._session.route is STRAIGHT and self._may_rest
        return is_settled and self.is_in_place and time.monotonic() < self.is_owned_until

    @property
    def session(self) -> int:
        """The socket of the session that owns the consumer."""
        return self._ownership.socket

    def ask(self) -> None:
        """Let the next `read` ask the server how far its WAL goes."""
        self._session.reader.ask()

    def heartbeat(self) -> None:
        """Keep both sessions alive, and report and store progress when it is due."""
        now = time.monotonic()
        is_status_due = now >= self._next_status
        if is_status_due:
            self._next_status = now + _STATUS_S
        if self.is_reading:
            self._session.reader.report()
            if is_status_due:
                self._send_status()
                if self._session.route is STRAIGHT and self._session.reader.is_quiet and now >= self._next_reopen:
                    self._reopen_with_news()
        elif is_status_due:
            self._store_acknowledged()
        self._listen(now, is_status_due=is_status_due)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_S
            with deadline_scope(SAVE_LIMIT_S):
                self._ownership.follow_tables()
            self.save()
            if not self.is_reading:
                self._look_after_slot()

    def _listen(self, now: float, *, is_status_due: bool) -> None:
        """Look at what the owner's session has got, and answer a call if that is due."""
        reader = self._session.reader
        looks = is_status_due or reader.is_elsewhere or self._ownership.is_called or not self.is_reading
        if looks and self._ownership.has_word and not self._calls.look() and not self.is_reading:
            self.save()
        if reader.is_elsewhere:
            reader.watch(self._ownership.socket)
        if self._calls.is_due(now):
            self._answer(now)

    def _answer(self, now: float) -> None:
        """Let the reader read on if that is necessary; store the progress if that is enough, or takes long."""
        if self.lacks_called and self.is_reading:
            self._session.reader.ask()
        if not self.lacks_called or not self._calls.is_new(now):
            note_checkpoint(self._ownership, self._cluster, self._progress)
            self._store_acknowledged(None)
        self._calls.pause()

    @property
    def is_called(self) -> bool:
        """Whether a call is not answered yet; any thread may ask."""
        return self._calls.is_open

    @property
    def lacks_called(self) -> bool:
        """Whether a call waits for the reader, the hub's or its own, to read on."""
        return self._calls.lacks_wal(self._progress.watermark)

    def patience_s(self, longest_s: float) -> float:
        """Return how long the consumer's thread may wait: less while a call is answered."""
        return self._calls.patience_s(longest_s)

    def _store_acknowledged(self, idle_bytes: int | None = _IDLE_SAVE_BYTES) -> None:
        """Store what was acknowledged since the last time; with `None`, only if that is worth it, see `Calls`."""
        self._progress.confirmable()  # lets go of what is acknowledged
        news = self._progress.to_save(idle_bytes)
        began = time.monotonic()
        waits = idle_bytes is None and self._calls.is_new(began) and not self._calls.is_answered_by(news.mark.position)
        if news.mark == self._progress.saved.mark or waits:
            return
        with deadline_scope(SAVE_LIMIT_S):
            if not self._ownership.save(*news, self._cluster):
                raise self._ownership.lost()
        self._progress.saved = news
        self._note_owned(began)
        self._calls.note_save(time.monotonic() - began, news.mark.position)

    def _note_owned(self, at: float) -> None:
        self.is_owned_until = at + self._ownership.lease_s * 2 / 3

    def _look_after_slot(self) -> None:
        """Advance the slot if that is due, and find out whether it is as it was left."""
        confirmable, acknowledged = self._progress.confirmable(), self._progress.latest.position
        found = self._ownership.look_at_slot()
        self._may_rest = found is not None and found.may_rest
        self.is_in_place = (
            found is not None
            and found.wal_status != "lost"
            and found.active_pid in {None, self._reader_pid}
            and found.confirmed <= confirmable
        )
        is_far = confirmable - self._confirmed >= _IDLE_SAVE_BYTES
        has_news = acknowledged != self._acknowledged and confirmable > self._confirmed
        if found is not None and found.is_failover and found.has_standby:  # it is ready there once it has moved
            has_news = confirmable > self._confirmed
        is_free = self.is_in_place and found is not None and found.active_pid is None  # its last reader has left
        is_due = time.monotonic() >= self._next_advance or (found is not None and found.wal_status == "unreserved")
        if not is_free or not (is_far or has_news) or not is_due:
            return
        began = time.monotonic()
        with self._ownership.unhurried():
            self.is_in_place = self._ownership.advance(confirmable)
            ended = time.monotonic()
        self._note_owned(ended)
        self._confirmed, self._acknowledged = confirmable, acknowledged
        pause_s = min(_ADVANCE_PAUSE_FACTOR * (ended - began), _LONGEST_ADVANCE_PAUSE_S)
        self._next_advance = ended + max(_ADVANCE_S, pause_s)

    def _reopen_with_news(self) -> None:
        """Confirm what was acknowledged, if anything was, or if a quiet consumer's watermark is far ahead."""
        confirmable, acknowledged = self._progress.confirmable(), self._progress.latest.position
        is_far = confirmable - self._confirmed >= _IDLE_SAVE_BYTES
        if confirmable <= self._confirmed or (acknowledged == self._acknowledged and not is_far):
            return
        began = time.monotonic()
        self.save()  # a former owner that wakes up here learns of it, before it touches the slot
        with self._ownership.unhurried():
            self._confirm_without_reader(confirmable)
            self._session = self._open(self._progress.watermark)
        self._confirmed, self._acknowledged = confirmable, acknowledged
        self._next_reopen = time.monotonic() + max(_REOPEN_S, _REOPEN_PAUSE_FACTOR * (time.monotonic() - began))

    def _confirm_without_reader(self, lsn: int) -> None:
        pid = self._session.reader.pid
        self._session.reader.close()
        self._ownership.advance_after(pid, lsn)

    def _send_status(self) -> None:
        reader = self._session.reader
        reader.confirm(self._progress.confirmable())
        reader.report_confirmed()

    def save(self, idle_bytes: int = _IDLE_SAVE_BYTES, *, advance: bool = False) -> None:
        """See `save_progress`."""
        began = time.monotonic()
        save_progress(self._ownership, self._cluster, self._progress, idle_bytes=idle_bytes, advance=advance)
        self._note_owned(began)

    def flush_progress(self) -> None:
        """Confirm and store everything that was acknowledged, and give the consumer up."""
        if self.is_reading:
            try:
                self._send_status()
            except PgdocError:  # The connection is lost; what is stored still counts.
                self.stop_reading()
        if self._ownership.closed:  # The claim alone is enough to store progress.
            self._ownership = Ownership(self._source, self._ownership.name, self._ownership.claim)
        self.save(idle_bytes=0, advance=not self.is_reading)
        if self.is_reading:
            self._send_status()  # The save may have found a newer checkpoint.
            if self._session.route is not STRAIGHT:  # the slot itself has no reader
                self._ownership.advance(self._progress.confirmable())
            elif self._session.reader.is_quiet:
                self._confirm_without_reader(self._progress.confirmable())
            self.stop_reading()
        self._ownership.give_up()

    def close(self) -> None:
        """Close both sessions."""
        self.stop_reading()
        self._ownership.close()
