"""What streams, consumers and the server report about themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken


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


@dataclass(frozen=True, slots=True)
class History:
    """How far back streams can resume.

    Attributes:
        time: how long history is kept at least, while `size` allows.
        size: bytes of WAL that bookmarks may hold back; where `time` is more, the last half of it at least is kept.
        oldest: the oldest LSN that a stream can resume at; `None` where no history is kept.
        retained_bytes: WAL that is held back now.
        bookmarks: how many slots keep it.
        pinned_by: open write transactions of any database, oldest first, as `(pid, age in seconds)`; while one is
            open no slot's WAL can be released. The pid of a prepared transaction is `None`, and so is the age of
            another role's, which only members of `pg_read_all_stats` may see.
    """

    time: timedelta
    size: int
    oldest: Lsn | None
    retained_bytes: int
    bookmarks: int
    pinned_by: tuple[tuple[int | None, float | None], ...]
