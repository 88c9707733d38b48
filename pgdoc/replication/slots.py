"""Reading from a position: bookmarks, temporary copies of them, and the first slot of all.

Slot names carry the database's oid, since slots belong to the whole cluster:

    pgdocb_<oid>_<seconds since 1970, hex>_<random>   bookmark: permanent, nobody ever streams from it
    pgdocr_<oid>_<random>                             reader: temporary
    pgdoch_<oid>_<random>                             a hub's reader: temporary

To read from P: copy the newest bookmark that is not past P into a temporary slot of the walsender's own session, check
the *copy*, advance it to P, START there. PostgreSQL would move a start before the slot's `confirmed_flush_lsn` forward
without a word; here it is `HistoryLost`.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.changes.assembler import Assembler
from pgdoc.decoding.plugins import PLUGINS, Decoder
from pgdoc.errors import PluginMissing, PluginNotAllowed, SlotBlocked
from pgdoc.model.positions import Lsn
from pgdoc.replication.checks import check_published, history_lost
from pgdoc.replication.connection import (
    connect,
    is_decoding,
    map_replication_error,
    preflight,
    quote_identifier,
    quote_literal,
)
from pgdoc.replication.reader import Reader
from pgdoc.replication.source import Cluster, SlotStart, Source
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable

BOOKMARK_PLUGIN = "pgoutput"
"""A bookmark's own plugin never runs, and this one is in every PostgreSQL and always allowed."""

_ADVANCE_STEP = 64 << 20  # one call moves restart_lsn by one step only
_CREATE_LIMIT_S = 120.0  # it waits for one transaction after the other, 10 s at the most for each
_ADVANCE_LIMIT_S = 600.0  # each begins at restart_lsn, which an open transaction holds back
_BLOCKED_AFTER_S = 10


class Bookmark(NamedTuple):
    """A slot that keeps history from `confirmed` on."""

    name: str
    confirmed: int
    wal_status: str
    restart: int | None

    @property
    def made_at(self) -> int:
        """Seconds since 1970."""
        return int(self.name.split("_")[2], 16)


class ReplicationSession(NamedTuple):
    """A reader that streams, with the pure machinery that belongs to it."""

    reader: Reader
    decoder: Decoder
    assembler: Assembler
    origin: Cluster
    stand: SlotStart


def bookmarks(connection: psycopg.Connection[Any], *, lost: bool = False) -> list[Bookmark]:
    """List the database's bookmarks, oldest first; `lost`: also those that no longer have their WAL."""
    rows = connection.execute(statement("replication", "bookmarks")).fetchall()
    found = [Bookmark(row.name, row.confirmed, row.wal_status, row.restart) for row in rows]
    return [bookmark for bookmark in found if lost or bookmark.wal_status != "lost"]


def open_reader(
    source: Source,
    at: int | None,
    *,
    prefix: str = "pgdocr",
    check: Callable[[Cluster], None] | None = None,
    begin_history: bool = True,
) -> ReplicationSession:
    """Stream every transaction whose commit record is at or after `at`; the one primitive of all reading.

    Args:
        source: what to read.
        at: an LSN, clamped to the WAL's end, beyond which PostgreSQL would lose changes; `None` for that end.
        prefix: of the slot's name.
        check: called with the cluster's identity before anything is opened.
        begin_history: leave a bookmark where there is none.

    Raises:
        HistoryLost: no bookmark reaches back to `at`.
        SlotBlocked, ReplicationUnavailable, ServerUnreachable: as they say.
    """
    with connect(source.conninfo, replication=False) as plain:
        preflight(plain)
    connection = connect(source.conninfo, replication=True)
    try:
        origin = identify(connection)
        if check is not None:
            check(origin)
        slot = slot_name(connection, prefix)
        stand = take_position(connection, source, slot, at, begin_history=begin_history)
        if at is not None:
            check_publication(connection, source, stand, tables=False)
        return begin_reading(connection, source, slot, stand, origin)
    except psycopg.Error as exc:
        error = map_replication_error(exc, connection)
        connection.close()
        raise error from exc
    except BaseException:
        connection.close()
        raise


def begin_reading(
    connection: psycopg.Connection[Any], source: Source, slot: str, stand: SlotStart, origin: Cluster
) -> ReplicationSession:
    """Begin to stream a slot on this connection."""
    plugin = PLUGINS[stand.plugin]
    found = tables(connection, source.schema)
    reader = Reader(connection, slot, stand.at, plugin.options(source.schema), partial(is_decoding, source.conninfo))
    return ReplicationSession(
        reader, plugin.decoder(source.schema), Assembler(stand.at, found, source.schema), origin, stand
    )


def check_publication(connection: psycopg.Connection[Any], source: Source, stand: SlotStart, *, tables: bool) -> None:
    """Refuse to read through pgoutput from before its publication was made, or before the last of its tables joined.

    Raises:
        HistoryLost: changes would be left out.
    """
    if stand.plugin == "pgoutput":
        names = "NULL" if tables else "'{}'"
        since = _lsn(connection, f"pgdoc.published_since({quote_literal(source.schema)}, {names})")
        check_published(stand.at, since, source.schema)


def try_reader(source: Source) -> SlotStart:
    """Open a reader and close it, leave nothing at the server, and give how it was read.

    Raises:
        PgdocError: what would keep a stream from working.
    """
    opened = open_reader(source, None, begin_history=False)
    opened.reader.close()
    return opened.stand


def make_first_bookmark(conninfo: str) -> None:
    """Begin the history of a database that has no bookmark.

    On a server that limits no slot's WAL nothing is made until a hub runs, for nobody would ever drop it.

    Raises:
        ReplicationUnavailable, SlotBlocked, ServerUnreachable: as they say.
    """
    with connect(conninfo, replication=False) as plain:
        preflight(plain)
        try:
            if bookmarks(plain) or is_unlimited(plain):
                return
        except psycopg.Error as exc:
            raise map_replication_error(exc, plain) from exc
    with connect(conninfo, replication=True) as connection:
        try:
            slot = slot_name(connection, "pgdocr")
            create_slot(connection, conninfo, slot, BOOKMARK_PLUGIN)
            copy_slot(connection, slot, bookmark_name(connection), temporary=False, plugin=BOOKMARK_PLUGIN)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc


def is_unlimited(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a slot that nobody reads may fill the server's disk."""
    row = connection.execute("SELECT current_setting('max_slot_wal_keep_size') = '-1' AS unlimited").fetchone()
    return bool(row and row[0])


def identify(connection: psycopg.Connection[Any]) -> Cluster:
    """Ask a replication connection which cluster it leads to."""
    row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None  # noqa: S101 (the protocol promises one)
    timeline = int(row.timeline)
    if timeline == 1:
        return Cluster(int(row.systemid), timeline)
    history = connection.execute(f"TIMELINE_HISTORY {timeline}").fetchone()
    assert history is not None  # noqa: S101
    text = history.content if isinstance(history.content, str) else bytes(history.content).decode()
    fields = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return Cluster(int(row.systemid), timeline, tuple((int(line[0]), int(Lsn.parse(line[1]))) for line in fields))


def slot_name(connection: psycopg.Connection[Any], prefix: str) -> str:
    """Make a name for a temporary slot."""
    return f"{prefix}_{_database_oid(connection)}_{secrets.token_hex(4)}"


def bookmark_name(connection: psycopg.Connection[Any]) -> str:
    """Make a name for a bookmark of now."""
    row = connection.execute(statement("replication", "bookmark_name")).fetchone()
    assert row is not None  # noqa: S101
    return f"{row.name}{secrets.token_hex(3)}"


def copy_slot(connection: psycopg.Connection[Any], source: str, copy: str, *, temporary: bool, plugin: str) -> None:
    """Copy a slot; the copy keeps the same WAL, and may name another plugin."""
    arguments = f"{quote_literal(source)}, {quote_literal(copy)}, {temporary}, {quote_literal(plugin)}"
    connection.execute(f"SELECT pg_copy_logical_replication_slot({arguments})")


def create_slot(connection: psycopg.Connection[Any], conninfo: str, slot: str, plugin: str) -> int:
    """Create a temporary slot from nothing, which waits for every open write transaction; give its first LSN.

    Raises:
        SlotBlocked: for too long.
    """
    connection.execute(f"SET lock_timeout = '{_BLOCKED_AFTER_S}s'")  # statement_timeout has no effect here
    try:
        with deadline_scope(_CREATE_LIMIT_S):
            row = connection.execute(
                f"CREATE_REPLICATION_SLOT {quote_identifier(slot)} TEMPORARY"
                f" LOGICAL {quote_identifier(plugin)} (SNAPSHOT 'nothing')"
            ).fetchone()
    except psycopg.errors.LockNotAvailable as exc:
        with connect(conninfo, replication=False) as plain:
            raise _blocked(plain) from exc
    finally:
        connection.execute("SET lock_timeout = 0")
    assert row is not None  # noqa: S101
    return int(Lsn.parse(row.consistent_point))


def create_bookmark(connection: psycopg.Connection[Any], name: str) -> None:
    """Create a bookmark from nothing, on a connection for plain SQL; it waits as `create_slot` does.

    Raises:
        SlotBlocked: for too long.
    """
    connection.execute(f"SET lock_timeout = '{_BLOCKED_AFTER_S}s'")
    try:
        with deadline_scope(_CREATE_LIMIT_S):
            connection.execute(
                f"SELECT pg_create_logical_replication_slot({quote_literal(name)}, {quote_literal(BOOKMARK_PLUGIN)})"
            )
    except psycopg.errors.LockNotAvailable as exc:
        raise _blocked(connection) from exc
    finally:
        connection.execute("SET lock_timeout = 0")


def _blocked(plain: psycopg.Connection[Any]) -> SlotBlocked:
    rows = plain.execute(statement("replication", "blockers")).fetchall()
    listed = "; ".join(f'{_who(row)} in database "{row.database}", open for {_age(row)}' for row in rows)
    return SlotBlocked(
        f"the first replication slot has to wait for write transactions ({listed or 'they have just ended'}): "
        "end them, or open the stream again later",
        blockers=tuple((row.pid, row.age_s) for row in rows),
    )


def _who(row: Any) -> str:
    return f"pid {row.pid}" if row.gid is None else f'prepared transaction "{row.gid}"'


def _age(row: Any) -> str:
    return "a time that only pg_read_all_stats may see" if row.age_s is None else f"{row.age_s:.0f} s"


def take_position(
    connection: psycopg.Connection[Any], source: Source, slot: str, at: int | None, *, begin_history: bool
) -> SlotStart:
    """Make a temporary slot that stands at `at`, and give how and where it does.

    Raises:
        PluginMissing, PluginNotAllowed: of the last plugin that may be tried.
        HistoryLost, SlotBlocked: as they say.
    """
    *others, last = source.plugins
    refusal = ""
    for plugin in others:
        try:
            found = _take_position(connection, source, plugin, slot, at, begin_history=begin_history)
            return SlotStart(found, plugin)
        except psycopg.DatabaseError as exc:
            error = map_replication_error(exc, connection)
            if not isinstance(error, PluginMissing | PluginNotAllowed):
                raise error from exc
            refusal = str(error)
    found = _take_position(connection, source, last, slot, at, begin_history=begin_history)
    return SlotStart(found, last, refusal)


def _take_position(  # noqa: PLR0913 (what the two above were given)
    connection: psycopg.Connection[Any], source: Source, plugin: str, slot: str, at: int | None, *, begin_history: bool
) -> int:
    end = flushed(connection)
    wanted = end if at is None else min(at, end)
    start = _copy_bookmark(connection, plugin, slot, wanted)
    if start is not None:
        advance(connection, slot, start, wanted)
        return wanted
    if at is not None:
        kept = bookmarks(connection)
        lost = len(bookmarks(connection, lost=True)) > len(kept)
        raise history_lost(wanted, kept[0].confirmed if kept else None, _limit(connection) if lost else "")
    start = create_slot(connection, source.conninfo, slot, plugin)
    if begin_history:
        copy_slot(connection, slot, bookmark_name(connection), temporary=False, plugin=BOOKMARK_PLUGIN)
    return start


def _limit(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT current_setting('max_slot_wal_keep_size') AS size").fetchone()
    return str(row.size) if row else ""


def _copy_bookmark(connection: psycopg.Connection[Any], plugin: str, slot: str, at: int) -> int | None:
    """Copy the newest bookmark that is not past `at` and give the copy's place, or `None`."""
    for bookmark in reversed(bookmarks(connection)):
        if bookmark.confirmed > at:
            continue
        try:
            copy_slot(connection, bookmark.name, slot, temporary=True, plugin=plugin)
        except psycopg.DatabaseError:
            if connection.broken or bookmark.name in (left.name for left in bookmarks(connection)):
                raise
            continue  # dropped, or lost its WAL, since it was listed
        confirmed = _lsn(
            connection,
            f"(SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {quote_literal(slot)})",
        )
        if confirmed <= at:
            return confirmed
        connection.execute(f"SELECT pg_drop_replication_slot({quote_literal(slot)})")
    return None


def flushed(connection: psycopg.Connection[Any]) -> int:
    """Ask up to where the WAL is flushed."""
    return _lsn(connection, "pg_current_wal_flush_lsn()")


def advance(connection: psycopg.Connection[Any], slot: str, start: int, at: int) -> None:
    """Move a slot that stands at `start` on to `at`."""
    with deadline_scope(_ADVANCE_LIMIT_S):
        while start < at:
            start = min(start + _ADVANCE_STEP, at)
            connection.execute(
                f"SELECT pg_replication_slot_advance({quote_literal(slot)}, {quote_literal(str(Lsn(start)))})"
            )


def tables(connection: psycopg.Connection[Any], schema: str) -> dict[str, bool]:
    """List the tables of a schema, and whether each is a collection."""
    rows = connection.execute(statement("replication", "tables").format(schema=quote_literal(schema))).fetchall()
    return {row.name: row.is_collection for row in rows}


def _lsn(connection: psycopg.Connection[Any], expression: str) -> int:
    row = connection.execute(f"SELECT ({expression} - '0/0'::pg_lsn)::bigint AS lsn").fetchone()
    assert row is not None  # noqa: S101
    return int(row.lsn)


def _database_oid(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert row is not None  # noqa: S101
    return int(row.oid)
