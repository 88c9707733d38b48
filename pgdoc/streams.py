"""What both kinds of change stream share: the figures they tell, and the checks on what they are given."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pgdoc.errors import InvalidResumeToken
from pgdoc.names import check_consumer
from pgdoc.replication.source import history_lost
from pgdoc.tokens import Lsn, Position, Progress, ResumeToken
from pgdoc.where import parse_where

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from pgdoc.changes.selection import Condition
    from pgdoc.replication.source import Origin

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
    def first_snapshot(self) -> str | None:
        """How far the snapshot of a consumer has come that begins here: as `Mark` has it."""
        if not self.snapshot:
            return None
        if not isinstance(self.resume_after, ResumeToken):
            return ""
        return str(self.resume_after.progress) if self.resume_after.is_inside else None

    def check_snapshot(self) -> None:
        """Refuse what can't go on inside a snapshot, or can't tell how far one has come.

        Raises:
            InvalidResumeToken, ValueError: it can't.
        """
        if self.snapshot and isinstance(self.resume_after, Lsn):
            raise ValueError("an LSN does not tell how far a snapshot has come: resume after a token, or without it")
        if not self.snapshot and isinstance(self.resume_after, ResumeToken) and self.resume_after.is_inside:
            raise InvalidResumeToken("the token is from inside a snapshot: go on with snapshot=True")


@dataclass(frozen=True, slots=True)
class StreamStats:
    """How a stream is doing.

    Attributes:
        mode: `live`, `catching_up` (reading on from the WAL), `reconnecting`, `snapshot`, `standby` or `closed`.
        buffered: events that wait for the user's loop.
        delivered: events given to it so far.
        lag_bytes: WAL between the commit that the stream is at and the end of what the server is known to have; how
            much of that transaction is still to come does not count.
        recreated: how often the consumer's place was lost, and it was begun anew from then on.
    """

    mode: str
    buffered: int
    delivered: int
    lag_bytes: int
    recreated: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """How a durable consumer is doing.

    Attributes:
        name: unique in the database.
        schema: whose collections it reads.
        owner_pid: the server process of whoever has it open; `None` where nobody has.
        place: up to where events were acknowledged or checkpointed, some seconds ago.
        lag_bytes: WAL that the server has written since what was confirmed; `None` where its slot is gone.
        lag: for how long the oldest event that was given has been waiting to be acknowledged. Where nobody has the
            consumer open: the time since then, or since its owner was last heard of.
        retained_bytes: WAL that its slot holds back; `None` where it is gone.
        wal_status: of its slot: `reserved`, `extended`, `unreserved` or `lost`; `None` where it is gone.
        created_at: when it was opened for the first time.
    """

    name: str
    schema: str
    owner_pid: int | None
    place: ResumeToken
    lag_bytes: int | None
    lag: timedelta
    retained_bytes: int | None
    wal_status: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """What a store found at the other end.

    Attributes:
        server_version: as the server prints it.
        database: its name.
        catalog: the revision of the pgdoc catalog.
        schema: whose tables are the collections.
        collections: how many there are.
        plugin: the output plugin that streams read; `auto` where none could be tried.
        plugin_reason: why that one, in words.
        follows_ddl: whether streams are told of collections that SQL drops and renames.
        problem: why streams don't work, and what to do; `None` where they do.
    """

    server_version: str
    database: str
    catalog: str
    schema: str
    collections: int
    plugin: str
    plugin_reason: str
    follows_ddl: bool
    problem: str | None


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


def check_place(place: ResumeToken | Lsn, origin: Origin, wal_end: int) -> Position:
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


def first_progress(names: Iterable[str], collections: frozenset[str] | None) -> Progress:
    """Give the beginning of the snapshot of collections, for a stream of these, or of all."""
    return Progress(tuple(sorted(names)), "", _digest(collections), 0)


def check_progress(progress: Progress, collections: frozenset[str] | None) -> Progress:
    """Refuse the progress of a stream of other collections.

    Raises:
        InvalidResumeToken: it is one.
    """
    if progress.of != _digest(collections):
        raise InvalidResumeToken(
            "the token is from inside the snapshot of other collections: go on with those that it was begun with"
        )
    return progress


def _digest(collections: frozenset[str] | None) -> str:
    return "*" if collections is None else f"{zlib.crc32(' '.join(sorted(collections)).encode()):08x}"


def plugin_reason(wanted: str, plugin: str, refusal: str | None) -> str:
    """Say why streams read through a plugin.

    Args:
        wanted: what the store was given.
        plugin: what it reads through.
        refusal: why the server does not let a better one be used; `None` where none could be tried.
    """
    if wanted != "auto":
        return "the store asks for it"
    if refusal is None:
        return "none could be tried"
    return refusal or f"the server has and allows {plugin}"


def check_buffer(buffer_size: int, buffer_bytes: int) -> None:
    """Refuse a buffer that could hold nothing.

    Raises:
        ValueError: a size below 1.
    """
    for name, value in (("buffer_size", buffer_size), ("buffer_bytes", buffer_bytes)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number of at least 1")
