"""What a durable consumer may confirm to its slot.

1. A transaction is outstanding from its first change that is given to the stream until the last one given is
   acknowledged. An acknowledgement covers everything up to its position. If the last change may have taken the stream's
   last collection, the invalidate event that follows must be acknowledged, too.
2. At most the commit LSN of the oldest outstanding transaction is confirmed: the server resends, whole, every
   transaction whose commit record lies at or beyond the confirmed LSN.
3. With none outstanding, the reader's watermark is confirmed: a consumer whose collections do not change pins no WAL.
4. If many are outstanding, neighbours are merged: memory stays bounded, and the server keeps a little more WAL.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pgdoc.model.positions import before_commits_at, commit_lsn_of, just_after
from pgdoc.model.tokens import Mark, SnapshotStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.change import Change
    from pgdoc.changes.fanout import ChangeSink
    from pgdoc.consumers.claims import Checkpoint
    from pgdoc.model.positions import RawPosition

__all__ = ["Acknowledgements", "ConsumerProgress", "NotedMailbox", "SavedProgress"]

MOST = 10_000
"""The number of outstanding transactions beyond which neighbours are merged."""

_ENDING = ("drop", "rename")  # these can take the last collection, and an invalidate event follows


@dataclass(slots=True)
class _Outstanding:
    """A transaction, or several neighbours, from `commit_lsn` until the change at `last` is acknowledged."""

    commit_lsn: int
    committed_at: str
    last: RawPosition


class Acknowledgements:
    """The outstanding transactions; used by the consumer's thread."""

    def __init__(self) -> None:
        self._outstanding: deque[_Outstanding] = deque()

    def give(self, changes: list[Change]) -> None:
        """Note changes that were put into the mailbox, in order."""
        outstanding = self._outstanding
        for position, transaction, row in changes:
            last = just_after(position) if row.kind in _ENDING else position
            if outstanding and outstanding[-1].commit_lsn == position[0]:
                outstanding[-1].last = last
            else:
                outstanding.append(_Outstanding(position[0], transaction.timestamp, last))
        if len(outstanding) > MOST:
            self._merge_neighbours()

    def _merge_neighbours(self) -> None:
        every = list(self._outstanding)
        for first, second in zip(every[::2], every[1::2], strict=False):
            first.last = second.last
        self._outstanding = deque(every[::2])

    def acknowledge(self, position: tuple[int, ...]) -> None:
        """Note that everything up to `position` is acknowledged."""
        while self._outstanding and self._outstanding[0].last <= position:
            self._outstanding.popleft()

    def confirmable(self, watermark: int) -> int:
        """Return the LSN below which the server may forget everything."""
        return self._outstanding[0].commit_lsn if self._outstanding else watermark

    @property
    def waiting_since(self) -> str | None:
        """When the oldest outstanding transaction committed, as the server prints it; `None` if none is."""
        return self._outstanding[0].committed_at if self._outstanding else None


class SavedProgress(NamedTuple):
    """A consumer's progress, as the catalog stores it.

    Attributes:
        mark: every event up to it is acknowledged.
        waiting_since: see `Acknowledgements`.
    """

    mark: Mark
    waiting_since: str | None


class ConsumerProgress:
    """A consumer's acknowledgements and checkpoints, and what may be confirmed to its slot.

    It outlives the consumer's connections. Snapshot documents belong to no transaction: until all of them are
    acknowledged, nothing beyond the position of the last acknowledged one may be confirmed.

    Attributes:
        watermark: every wanted change of transactions that commit below this LSN is in the mailbox.
        begun: where the stream began.
        checkpointed: the last checkpoint known to be committed and flushed.
        saved: what was stored last.
    """

    def __init__(self) -> None:
        # Written by the consumer's thread.
        self.watermark = 0
        self.begun = self.checkpointed = Mark()
        self.saved = SavedProgress(Mark(), None)
        self._awaited: Checkpoint | None = None
        self._held: tuple[int, int] | None = None

        # Guards what follows: the hub's thread gives, too. Held for a few steps.
        self._lock = threading.Lock()
        self._outstanding = Acknowledgements()

        # Written by the stream's thread, each in one assignment; the consumer's thread reads them.
        self._acknowledged = Mark()
        self._passed = (Mark(), Mark())

    def begin_anew(self) -> None:
        """Forget the outstanding transactions, which are lost; events that the stream holds can be acknowledged."""
        with self._lock:
            self._outstanding = Acknowledgements()

    def give(self, changes: list[Change]) -> None:
        """Note changes that were put into the mailbox, before any watermark that counts them is made known."""
        with self._lock:
            self._outstanding.give(changes)

    def acknowledge(self, mark: Mark) -> None:
        """Note what the user acknowledged."""
        if mark.position >= self._acknowledged.position:
            self._acknowledged = mark

    def pass_over(self, given: Mark, mark: Mark) -> None:
        """Note that nothing between `given` and `mark` needs an acknowledgement."""
        self._passed = (given, mark)

    def await_standbys(self, found: Checkpoint) -> Checkpoint | None:
        """Return a checkpoint that is news and that the standbys have; `found` is the last one that is committed.

        Until they have it, this waits for one and the same: under load there is always a later one.
        """
        awaited, have = self._awaited, found.standbys_have
        if self._held is not None and (have is None or have >= self._held[1]):
            self._held = None
        if awaited is not None and awaited.is_safe(found.standbys_have):
            self._awaited = None if found.position <= awaited.position else found
            return awaited
        if found.position <= self.stored_position:
            return None
        if found.is_safe(found.standbys_have):
            self._awaited = None
            return found
        self._awaited = awaited or found
        return None

    def hold(self, at: int | None, inserted: int) -> None:
        """Confirm nothing beyond `at`, if any, until the standbys have the WAL up to `inserted`.

        The stored position is in that WAL.
        """
        self._held = None if at is None else (at, inserted)

    def forget_awaited(self) -> None:
        """Wait for no checkpoint any more: a promoted server may not have it."""
        self._awaited = None

    @property
    def latest(self) -> Mark:
        """The mark up to which everything is acknowledged.

        It includes what was passed over after that mark: the stream moves on before the consumer learns of a
        checkpoint.
        """
        latest = max(self.begun, self._acknowledged, self.checkpointed, key=lambda mark: mark.position)
        given, passed = self._passed
        return passed if given.position <= latest.position < passed.position else latest

    @property
    def stored_position(self) -> tuple[int, ...]:
        """The position up to which the catalog is known to have stored progress; only a later checkpoint is news."""
        return max(self.begun.position, self.checkpointed.position)

    def confirmable(self) -> int:
        """See `Acknowledgements`."""
        lsn = self._oldest_needed(self.watermark)
        return lsn if self._held is None else min(lsn, self._held[0])

    def needed_from(self, after: RawPosition) -> int:
        """Return the commit LSN from which the slot has to keep the WAL, for a stream at `after`.

        `after` can lie beyond the watermark: the mailbox may have taken only part of a burst.
        """
        return self._oldest_needed(commit_lsn_of(after))

    def _oldest_needed(self, goes_on_at: int) -> int:
        latest = self.latest
        with self._lock:
            self._outstanding.acknowledge(latest.position)
            lsn = self._outstanding.confirmable(goes_on_at)
        return lsn if latest.snapshot is SnapshotStage.NONE else min(lsn, latest.position[0])

    def to_save(self, idle_bytes: int | None) -> SavedProgress:
        """Return what the catalog should store now.

        With nothing outstanding, that is the watermark once it is `idle_bytes` ahead of the last mark, so that a quiet
        consumer moves on, too. `None` is for another session that waits (see `calls`): the mark then is the end of what
        needs no acknowledgement, which can be the oldest outstanding transaction.
        """
        mark = max(self.latest, self.saved.mark, key=lambda mark: mark.position)
        with self._lock:
            waiting_since, lsn = self._outstanding.waiting_since, self._outstanding.confirmable(self.watermark)
        counts = mark.snapshot is SnapshotStage.NONE and (idle_bytes is None or waiting_since is None)
        if counts and lsn > mark.position[0] + (idle_bytes or 0):
            mark = Mark(before_commits_at(lsn))
        return SavedProgress(mark, waiting_since)


class NotedMailbox:
    """A consumer's mailbox that notes everything that any reader puts: see `Acknowledgements`.

    Attributes:
        closes_at: takes nothing from this time of `time.monotonic` on: the hub must not feed a consumer that has not
            shown for long that this process still owns it. Written by the consumer's thread.
    """

    def __init__(self, mailbox: ChangeSink, progress: ConsumerProgress) -> None:
        self._mailbox = mailbox
        self._progress = progress
        self.closes_at = float("inf")

    def put(self, changes: list[Change], position: RawPosition, size_bytes: int | None) -> int:
        """See `ChangeSink`."""
        if changes and time.monotonic() >= self.closes_at:
            return 0
        taken = self._mailbox.put(changes, position, size_bytes)
        if taken:
            self._progress.give(changes if taken == len(changes) else changes[:taken])
        return taken

    def begin_at(self, position: RawPosition) -> None:
        """See `ChangeSink`."""
        self._mailbox.begin_at(position)

    def call_when_room(self, callback: Callable[[], object]) -> None:
        """See `ChangeSink`."""
        self._mailbox.call_when_room(callback)

    def fail(self, error: BaseException) -> None:
        """See `ChangeSink`."""
        self._mailbox.fail(error)

    def close(self) -> None:
        """See `ChangeSink`."""
        self._mailbox.close()
