"""The figures that streams, consumers, stores and history report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken


@dataclass(frozen=True, slots=True)
class StreamStats:
    """The state of a stream.

    Attributes:
        mode: where the stream's events come from: `live` (from the end of the WAL), `catching_up` (reading on from the
            WAL), `reconnecting`, `snapshot`, `standby` or `closed`. It does not say how far your loop has come: a
            stream whose loop is slow can be `live` with a high lag. Alert on `lag`, never on this.
        buffered: the number of events in the buffer.
        delivered: the number of events that the stream has returned.
        lag_bytes: the WAL between the next event and the last LSN that the server has reported; 0 if the stream has
            returned everything that the server has reported. While it reconnects, the last report counts.
        recreated: how often the consumer's position was lost and the consumer was recreated from then on.
        lag: how long ago the next event committed, by the server's clock; 0 if the stream has returned everything that
            the server has reported, however long ago that was. While a stream catches up and its buffer is empty, the
            next event is not known: it committed at most this long ago.
        buffered_bytes: the size of the messages of the buffered events.
    """

    mode: str
    buffered: int
    delivered: int
    lag_bytes: int
    recreated: int = 0
    lag: timedelta = timedelta(0)
    buffered_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """The state of a durable consumer.

    Attributes:
        name: the consumer's name, unique in the database.
        schema: the schema of the collections that it reads.
        owner_pid: the pid of the server process whose session has it open; `None` if none has.
        place: the position up to which events were acknowledged or checkpointed, as of some seconds ago.
        lag_bytes: the WAL written since the confirmed position; `None` if the slot is gone.
        lag: how long the oldest delivered event has been waiting to be acknowledged. If nobody has the consumer open:
            the time since then, or since its owner last reported.
        retained_bytes: the WAL that its slot holds back; `None` if the slot is gone.
        wal_status: its slot's status: `reserved`, `extended`, `unreserved` or `lost`; `None` if the slot is gone.
        created_at: when it was created.
        owner_silent: how long its owner has not used its session, or not renewed its lease; `None` if nobody has the
            consumer open, or if this role may not see it (`pg_read_all_stats`). More than a few seconds mean that the
            owner hangs or is cut off.
        unreadable: the commit LSN of a transaction that it can't read and was not told to pass; see `Store.skip`.
        invalidation_reason: why its slot is `lost`, as PostgreSQL 17 and newer name it: `wal_removed`, `idle_timeout`,
            `rows_removed` or `wal_level_insufficient`; else `None`.
        last_open_at: when a process last had it open, or called `create_consumer`, to within an hour.
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
    owner_silent: timedelta | None = None
    unreadable: Lsn | None = None
    invalidation_reason: str | None = None
    last_open_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The server, database and catalog that a store works with.

    Attributes:
        server_version: the version, as the server prints it.
        database: the database's name.
        catalog: the revision of the pgdoc catalog.
        schema: the schema whose tables are the collections.
        collections: the number of collections.
        tables: the number of watched tables, in all schemas.
        plugin: the output plugin that streams read through; `auto` if none could be tried.
        plugin_reason: why that plugin, in words.
        follows_ddl: whether streams get events for collections that SQL drops and renames.
        problem: why streams don't work, and what to do; `None` if they work.
        is_frozen: whether the database takes no writes, because `pgdoc upgrade prepare` prepares it for an upgrade of
            PostgreSQL.
    """

    server_version: str
    database: str
    catalog: str
    schema: str
    collections: int
    tables: int
    plugin: str
    plugin_reason: str
    follows_ddl: bool
    problem: str | None
    is_frozen: bool


def plugin_reason(
    wanted: str, plugin: str, refusal: str | None, *, follows_ddl: bool, loses_values: bool = False
) -> str:
    """Return, in words, why streams read through `plugin`.

    `wanted` is the store's option. `refusal` says why the server refuses a preferred plugin; it is empty if the server
    refused none, and `None` if none could be tried. `follows_ddl` says whether event triggers follow DDL, and
    `loses_values` whether wal2json would lose values of a watched table.
    """
    if wanted != "auto":
        return "the store asks for it"
    if refusal is None:
        return "none could be tried"
    if not refusal and plugin == "pgoutput" and not follows_ddl:
        return "no event trigger follows DDL, and pgoutput tells tables apart even so"
    if not refusal and plugin == "pgoutput" and loses_values:
        return "a watched table has numbers that can be NaN or infinite, which wal2json sends as null"
    return refusal or f"the server has and allows {plugin}"


@dataclass(frozen=True, slots=True)
class History:
    """How far back streams can resume.

    Attributes:
        time: how long history is kept at least, as far as `size` allows.
        size: the bytes of WAL that bookmarks may hold back; if `time` needs more, at least the last half of it is kept.
        oldest: the oldest LSN that a stream can resume at; `None` if no history is kept.
        retained_bytes: the WAL that is held back now.
        bookmarks: the number of slots that keep it.
        pinned_by: the open write transactions of all databases, oldest first, as `(pid, age in seconds)`. While one is
            open, no slot can release WAL. The pid of a prepared transaction is `None`. So is the age of another role's
            transaction, unless the store's role is a member of `pg_read_all_stats`.
    """

    time: timedelta
    size: int
    oldest: Lsn | None
    retained_bytes: int
    bookmarks: int
    pinned_by: tuple[tuple[int | None, float | None], ...]
