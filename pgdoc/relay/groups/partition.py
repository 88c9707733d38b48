"""A partition that a member of a group owns: shared by the engine's loop thread and the user's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.relay.inbox import EntrySource

if TYPE_CHECKING:
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.relay.finding import LogPosition

__all__ = ["OwnedPartition"]


class OwnedPartition(EntrySource):
    """One partition, from when it is taken until it is given up or lost.

    Attributes:
        number, epoch: of the partition, and of this ownership of it.
        begun_at: where it was taken over.
        identity: of the log that its events are read from. The ownership ends with that log, as sequences of two logs
            can't be compared.
        outdone_by: a later epoch that PostgreSQL knows of: the next owner's must be higher.
    """

    def __init__(self, number: int, epoch: int, begun_at: LogPosition, revision: int) -> None:
        self.number, self.epoch, self.begun_at = number, epoch, begun_at

        # Written by the engine's thread, read by any.
        self.identity = begun_at.identity
        self.is_lost = False  # another member owns it, or may do so
        self.is_leaving = False  # it is given up once what was delivered is settled
        self.is_dropped = False  # either
        self.outdone_by = 0
        self.revision = revision  # of its record
        self.stored = begun_at  # what its record has

        # Written by the thread or task that reads the stream.
        self.delivered = begun_at.sequence  # of the last entry that was delivered or left out
        self.acknowledged = begun_at
        self.checkpointed = begun_at.sequence  # its transaction is over, whatever became of it
        self.last_event = 0  # the sequence of the last event that was delivered
        self.passed = begun_at  # the place after what was delivered or left out
        self.skip_to: ResumeToken | None = None  # events up to it have their effect in PostgreSQL already
        self.is_claimed = False  # in PostgreSQL

        self._is_followed = False  # of the engine's thread

    def follow(self, position: LogPosition) -> None:
        """See `EntrySource`. Called before the first entry is there, and whenever the log is opened again."""
        if self.identity == position.identity:
            self._is_followed = True
        elif self._is_followed:
            self.leave()  # the log was made anew: the next owner begins in the new one
        else:
            self._is_followed, self.identity = True, position.identity
            self.acknowledged = self.passed = position
            self.delivered = self.checkpointed = position.sequence

    def confirm(self, stored: LogPosition) -> None:
        """Note what PostgreSQL has stored: that counts as acknowledged."""
        passed = self.passed
        if self.last_event <= stored.sequence and stored.identity == passed.identity:
            stored = passed  # nothing that was delivered is missing
        if stored.sequence > self.acknowledged.sequence and stored.identity == passed.identity:
            self.acknowledged = stored

    @property
    def progress(self) -> tuple[int, int, LogPosition, ResumeToken | None]:
        """How far the thread that reads the stream has come: a call that is interrupted goes back to that."""
        return self.delivered, self.last_event, self.passed, self.skip_to

    @progress.setter
    def progress(self, before: tuple[int, int, LogPosition, ResumeToken | None]) -> None:
        self.delivered, self.last_event, self.passed, self.skip_to = before

    @property
    def is_settled(self) -> bool:
        """Whether everything that was delivered is acknowledged, or was checkpointed."""
        return self.delivered <= max(self.acknowledged.sequence, self.checkpointed)

    def lose(self) -> None:
        """Deliver no more of it, and take no acknowledgement."""
        self.is_lost = self.is_dropped = True

    def outdo(self, epoch: int) -> None:
        """Note an epoch in PostgreSQL.

        It may be one of a machine whose clock is ahead, and the records that knew it were dropped: without this, no
        member could claim the partition before the time of that clock.
        """
        self.outdone_by = max(self.outdone_by, epoch)

    def leave(self) -> None:
        """Deliver no more of it, and wait until what was delivered is settled."""
        self.is_leaving = self.is_dropped = True
