"""What both kinds of change stream share: the figures they tell, and the checks on what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pgdoc.changes.event_filter import parse_where
from pgdoc.errors import InvalidResumeToken
from pgdoc.model.names import check_consumer
from pgdoc.model.positions import Lsn
from pgdoc.model.tokens import ResumeToken, SnapshotStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgdoc.changes.router import Condition
    from pgdoc.model.tokens import SnapshotState


BUFFER_SIZE = 10_000
BUFFER_BYTES = 64 << 20
_ON_LOST = ("raise", "recreate")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What `watch()` was asked for.

    Attributes:
        where: the filter; `None` for every event.
        snapshot: whether what exists comes first.
        resume_after: where to begin; `None` for now.
        consumer: the name of a durable consumer.
        auto_ack: whether an event is acknowledged when the next one is asked for.
        wait: whether to be a standby while another process has the consumer.
        on_lost: `raise` or `recreate`, when the consumer's place is lost.
        buffer_size: events that wait in memory at most.
        buffer_bytes: bytes that they may have.

    Raises:
        InvalidFilter, InvalidResumeToken, InvalidName, ValueError: one of them can't be.
    """

    where: Condition | None
    snapshot: bool
    resume_after: ResumeToken | Lsn | None
    consumer: str | None
    auto_ack: bool
    wait: bool
    on_lost: str
    buffer_size: int
    buffer_bytes: int

    @classmethod
    def checked(
        cls,
        *,
        where: Mapping[str, Any] | None,
        resume_after: ResumeToken | Lsn | str | None,
        consumer: str | None,
        **others: Any,
    ) -> Self:
        """Take what the user gave."""
        options = cls(
            where=None if where is None else parse_where(where),
            resume_after=None if resume_after is None else read_token(resume_after),
            consumer=None if consumer is None else check_consumer(consumer),
            **others,
        )
        if options.on_lost not in _ON_LOST:
            raise ValueError(f"on_lost is {options.on_lost!r}: one of {', '.join(_ON_LOST)}")
        options.check_snapshot()
        check_buffer(options.buffer_size, options.buffer_bytes)
        return options

    @property
    def first_snapshot(self) -> SnapshotState:
        """How far the snapshot of a new consumer has come with these options."""
        if not self.snapshot:
            return SnapshotStage.NONE
        if not isinstance(self.resume_after, ResumeToken):
            return SnapshotStage.START
        progress = self.resume_after.progress
        return progress if progress is not None and progress.remaining else SnapshotStage.NONE

    def check_snapshot(self) -> None:
        """Refuse what can't go on inside a snapshot, or can't tell how far one has come.

        Raises:
            InvalidResumeToken, ValueError: it can't.
        """
        if self.snapshot and isinstance(self.resume_after, Lsn):
            raise ValueError("an LSN does not tell how far a snapshot has come: resume after a token, or without it")
        if not self.snapshot and isinstance(self.resume_after, ResumeToken) and self.resume_after.is_inside:
            raise InvalidResumeToken("the token is from inside a snapshot: go on with snapshot=True")


def read_token(resume_after: ResumeToken | Lsn | str) -> ResumeToken | Lsn:
    """Take what a user gave to resume after: a token, its text, or a bare LSN.

    Raises:
        InvalidResumeToken: it is none of these.
    """
    if isinstance(resume_after, ResumeToken | Lsn):
        return resume_after
    if isinstance(resume_after, str) and "/" in resume_after and "." not in resume_after:
        return Lsn.parse(resume_after)
    return ResumeToken.parse(resume_after)


def check_buffer(buffer_size: int, buffer_bytes: int) -> None:
    """Refuse a buffer that could hold nothing.

    Raises:
        ValueError: a size below 1.
    """
    for name, value in (("buffer_size", buffer_size), ("buffer_bytes", buffer_bytes)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number of at least 1")
