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
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.changes.assemble import Assembler
from pgdoc.decoding import wal2json
from pgdoc.errors import HistoryLost, InvalidResumeToken, SlotBlocked
from pgdoc.replication.connection import connect, literal, preflight, quoted, translate
from pgdoc.replication.reader import Reader
from pgdoc.tokens import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable

BOOKMARK_PLUGIN = "pgoutput"
"""A bookmark's own plugin never runs, and this one is in every PostgreSQL and always allowed."""

_ADVANCE_STEP = 64 << 20  # one call moves restart_lsn by one step only
_BLOCKED_AFTER_S = 10

_BOOKMARKS = """
SELECT slot_name AS name, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed, wal_status,
  (restart_lsn - '0/0'::pg_lsn)::bigint AS restart
FROM pg_replication_slots
WHERE slot_name LIKE format('pgdocb\\_%s\\_%%', (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY confirmed_flush_lsn
"""

_BLOCKERS = """
SELECT pid, round(extract(epoch FROM clock_timestamp() - xact_start))::int AS age_s, datname AS database
FROM pg_stat_activity WHERE backend_xid IS NOT NULL
UNION ALL
SELECT NULL, round(extract(epoch FROM clock_timestamp() - prepared))::int, database FROM pg_prepared_xacts
ORDER BY age_s DESC
"""

_TABLES = """
SELECT c.relname AS name, count(*) FILTER (
  WHERE a.attname IN ('id', 'data', 'version', 'replaced_version', 'created_at', 'updated_at')) = 6 AS is_collection
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
GROUP BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Source:
    """What is read: which server and database, which schema, through which plugin."""

    conninfo: str
    schema: str
    plugin: str = "wal2json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Which cluster this is.

    Attributes:
        switches: `(timeline, LSN at which it was left)` for each earlier timeline.
    """

    system_id: int
    timeline: int
    switches: tuple[tuple[int, int], ...] = ()

    def check(self, lsn: int, system_id: int, timeline: int) -> None:
        """Refuse a position that is none of this cluster's.

        Raises:
            InvalidResumeToken: from another cluster, or past the point where its timeline was left.
        """
        if system_id != self.system_id:
            raise InvalidResumeToken(
                f"the token is of cluster {system_id}, this server is cluster {self.system_id}: "
                "open the stream where the token was issued, or start without it"
            )
        left_at = dict(self.switches).get(timeline, 0) if timeline != self.timeline else lsn
        if lsn > left_at:
            raise InvalidResumeToken(
                f"the token's position {Lsn(lsn)} on timeline {timeline} is not part of this server's history (timeline "
                f"{self.timeline}): the server was restored, or another was promoted, from before it; start without it"
            )


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


class Opened(NamedTuple):
    """A reader that streams, with the pure machinery that belongs to it."""

    reader: Reader
    decoder: wal2json.Wal2Json
    assembler: Assembler
    origin: Origin


def bookmarks(connection: psycopg.Connection[Any], *, lost: bool = False) -> list[Bookmark]:
    """List the database's bookmarks, oldest first; `lost`: also those that no longer have their WAL."""
    rows = connection.execute(_BOOKMARKS).fetchall()
    found = [Bookmark(row.name, row.confirmed, row.wal_status, row.restart) for row in rows]
    return [bookmark for bookmark in found if lost or bookmark.wal_status != "lost"]


def open_reader(
    source: Source,
    at: int | None,
    *,
    prefix: str = "pgdocr",
    check: Callable[[Origin], None] = lambda origin: None,
) -> Opened:
    """Stream every transaction whose commit record is at or after `at`; the one primitive of all reading.

    Args:
        source: what to read.
        at: an LSN; `None` for the present end of the WAL. One beyond that end is clamped to it, since PostgreSQL
            would take it, and lose what is written until then.
        prefix: of the slot's name.
        check: called with the cluster's identity before anything is opened.

    Raises:
        HistoryLost: no bookmark reaches back to `at`.
        SlotBlocked: there is no bookmark yet, and open transactions hold up the first slot.
        ReplicationUnavailable, ServerUnreachable: as they say.
    """
    with connect(source.conninfo, replication=False) as plain:
        preflight(plain)
    connection = connect(source.conninfo, replication=True)
    try:
        origin = identify(connection)
        check(origin)
        slot = slot_name(connection, prefix)
        end = _lsn(connection, "pg_current_wal_flush_lsn()")
        from_now, at = at is None, end if at is None else min(at, end)
        start = _copy_bookmark(connection, source.plugin, slot, at)
        if start is None and not from_now:
            raise history_lost(at, bookmarks(connection))
        if start is None:
            start = at = _begin_history(connection, source, slot)
        _advance(connection, slot, start, at)
        tables = _tables(connection, source.schema)
        reader = Reader(connection, slot, at, wal2json.options(source.schema))
    except psycopg.Error as exc:
        connection.close()
        raise translate(exc) from exc
    except BaseException:
        connection.close()
        raise
    return Opened(reader, wal2json.Wal2Json(), Assembler(at, tables), origin)


def make_first_bookmark(conninfo: str) -> None:
    """Begin the history of a database that has no bookmark.

    On a server that limits no slot's WAL nothing is made until a hub runs, for nobody would ever drop it.

    Raises:
        ReplicationUnavailable, SlotBlocked, ServerUnreachable: as they say.
    """
    with connect(conninfo, replication=False) as plain:
        preflight(plain)
        if bookmarks(plain) or is_unlimited(plain):
            return
    with connect(conninfo, replication=True) as connection:
        try:
            slot = slot_name(connection, "pgdocr")
            create_slot(connection, conninfo, slot, BOOKMARK_PLUGIN)
            copy_slot(connection, slot, bookmark_name(connection), temporary=False, plugin=BOOKMARK_PLUGIN)
        except psycopg.Error as exc:
            raise translate(exc) from exc


def is_unlimited(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a slot that nobody reads may fill the server's disk."""
    row = connection.execute("SELECT current_setting('max_slot_wal_keep_size') = '-1' AS unlimited").fetchone()
    return bool(row and row[0])


def identify(connection: psycopg.Connection[Any]) -> Origin:
    """Ask a replication connection which cluster it leads to."""
    row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None  # noqa: S101 (the protocol promises one)
    timeline = int(row.timeline)
    if timeline == 1:
        return Origin(int(row.systemid), timeline)
    history = connection.execute(f"TIMELINE_HISTORY {timeline}").fetchone()
    assert history is not None  # noqa: S101
    text = history.content if isinstance(history.content, str) else bytes(history.content).decode()
    fields = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return Origin(int(row.systemid), timeline, tuple((int(line[0]), int(Lsn.parse(line[1]))) for line in fields))


def slot_name(connection: psycopg.Connection[Any], prefix: str) -> str:
    """Make a name for a temporary slot."""
    return f"{prefix}_{_database_oid(connection)}_{secrets.token_hex(4)}"


def bookmark_name(connection: psycopg.Connection[Any]) -> str:
    """Make a name for a bookmark of now."""
    return f"pgdocb_{_database_oid(connection)}_{int(time.time()):x}_{secrets.token_hex(3)}"


def copy_slot(connection: psycopg.Connection[Any], source: str, copy: str, *, temporary: bool, plugin: str) -> None:
    """Copy a slot; the copy keeps the same WAL, and may name another plugin."""
    connection.execute(
        f"SELECT pg_copy_logical_replication_slot({literal(source)}, {literal(copy)}, {temporary}, {literal(plugin)})"
    )


def create_slot(connection: psycopg.Connection[Any], conninfo: str, slot: str, plugin: str) -> int:
    """Create a temporary slot from nothing, which waits for every open write transaction; give its first LSN.

    Raises:
        SlotBlocked: for too long.
    """
    connection.execute(f"SET lock_timeout = '{_BLOCKED_AFTER_S}s'")  # statement_timeout has no effect here
    try:
        row = connection.execute(
            f"CREATE_REPLICATION_SLOT {quoted(slot)} TEMPORARY LOGICAL {quoted(plugin)} (SNAPSHOT 'nothing')"
        ).fetchone()
    except psycopg.errors.LockNotAvailable as exc:
        with connect(conninfo, replication=False) as plain:
            raise _blocked(plain) from exc
    finally:
        connection.execute("SET lock_timeout = 0")
    assert row is not None  # noqa: S101
    return int(Lsn.parse(row.consistent_point))


def _blocked(plain: psycopg.Connection[Any]) -> SlotBlocked:
    rows = plain.execute(_BLOCKERS).fetchall()
    listed = "; ".join(f"{_who(row.pid)} in {row.database!r}, open for {row.age_s} s" for row in rows)
    return SlotBlocked(
        f"the first replication slot waits for write transactions to end ({listed or 'they have just ended'}): "
        "end them, or open the stream again later",
        blockers=tuple((row.pid, float(row.age_s)) for row in rows),
    )


def _who(pid: int | None) -> str:
    return "a prepared transaction" if pid is None else f"pid {pid}"


def _begin_history(connection: psycopg.Connection[Any], source: Source, slot: str) -> int:
    """Where there is no bookmark, create the slot from nothing, and the first bookmark from it."""
    start = create_slot(connection, source.conninfo, slot, source.plugin)
    copy_slot(connection, slot, bookmark_name(connection), temporary=False, plugin=BOOKMARK_PLUGIN)
    return start


def history_lost(at: int, kept: list[Bookmark]) -> HistoryLost:
    """Make the error for a position that no bookmark reaches back to."""
    oldest = str(Lsn(kept[0].confirmed)) if kept else None
    reach = f"history reaches back to {oldest}" if oldest else "no history is kept"
    return HistoryLost(
        f"position {Lsn(at)} is no longer kept: {reach}; rebuild from the collections and stream from now, "
        "and keep more with set_history(), or use a consumer",
        oldest_available=oldest,
    )


def _copy_bookmark(connection: psycopg.Connection[Any], plugin: str, slot: str, at: int) -> int | None:
    """Copy the newest bookmark that is not past `at` and give the copy's place, or `None`."""
    for bookmark in reversed(bookmarks(connection)):
        if bookmark.confirmed > at:
            continue
        try:
            copy_slot(connection, bookmark.name, slot, temporary=True, plugin=plugin)
        except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectNotInPrerequisiteState):
            continue  # dropped, or lost its WAL, since it was listed
        confirmed = _lsn(
            connection, f"(SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {literal(slot)})"
        )
        if confirmed <= at:
            return confirmed
        connection.execute(f"SELECT pg_drop_replication_slot({literal(slot)})")
    return None


def _advance(connection: psycopg.Connection[Any], slot: str, start: int, at: int) -> None:
    while start < at:
        start = min(start + _ADVANCE_STEP, at)
        connection.execute(f"SELECT pg_replication_slot_advance({literal(slot)}, {literal(str(Lsn(start)))})")


def _tables(connection: psycopg.Connection[Any], schema: str) -> dict[str, bool]:
    rows = connection.execute(_TABLES.format(schema=literal(schema))).fetchall()
    return {row.name: row.is_collection for row in rows}


def _lsn(connection: psycopg.Connection[Any], expression: str) -> int:
    row = connection.execute(f"SELECT ({expression} - '0/0'::pg_lsn)::bigint AS lsn").fetchone()
    assert row is not None  # noqa: S101
    return int(row.lsn)


def _database_oid(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert row is not None  # noqa: S101
    return int(row.oid)
