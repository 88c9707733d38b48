"""Replication slots: names, the list of bookmarks, and how slots are created, copied and advanced.

Slots belong to the whole cluster, so their names contain the database's oid:

    pgdocb_<oid>_<seconds since 1970, hex>_<random>[_sync]   bookmark: permanent, never streamed from
    pgdocr_<oid>_<random>                                    reader: temporary
    pgdoch_<oid>_<random>                                    a hub's reader: temporary
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, NamedTuple

import psycopg

from pgdoc.database.errors import one_line
from pgdoc.database.slot_losses import HistoryLimits
from pgdoc.errors import SlotBlocked
from pgdoc.model.positions import Lsn
from pgdoc.replication.connection import connect, map_replication_error, preflight, quote_identifier, quote_literal
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement

logger = logging.getLogger("pgdoc.history")

BOOKMARK_PLUGIN = "pgoutput"
"""A bookmark's plugin never runs. This one comes with PostgreSQL and is always allowed."""

SYNCHRONIZABLE = "_sync"
"""Ends the name of a bookmark that standbys can synchronize; see `pgdoc.streams.consistency`."""

_ADVANCE_STEP = 64 << 20
_ADVANCE_GROWTH = 4
"""A call decodes from restart_lsn, which moves at most once in it, to a record of the running transactions. Servers
write one every 15 s, so most small steps go on where the last one ended. Without such a record, or beside an old
transaction, each step decodes anew what those before it did. So steps grow: 64 MB each would make 800 GB of 10 GB."""

_CREATE_LIMIT_S = 120.0  # the server waits for one transaction after another, each for 10 s at most
_ADVANCE_LIMIT_S = 600.0  # decoding begins at restart_lsn, which an open transaction holds back
_BLOCKED_AFTER_S = 10


def made_at(bookmark: str) -> int:
    """Return when a bookmark of this name was made, in seconds since 1970."""
    return int(bookmark.split("_")[2], 16)


class Bookmark(NamedTuple):
    """A slot that keeps history from `confirmed` on."""

    name: str
    confirmed: int
    wal_status: str
    restart: int | None

    @property
    def made_at(self) -> int:
        """Seconds since 1970."""
        return made_at(self.name)

    @property
    def is_synchronizable(self) -> bool:
        """Whether it was made so that standbys can synchronize it."""
        return self.name.endswith(SYNCHRONIZABLE)


def bookmarks(connection: psycopg.Connection[Any], *, lost: bool = False) -> list[Bookmark]:
    """List the database's bookmarks, oldest first; with `lost`, also those without their WAL."""
    rows = connection.execute(statement("replication", "bookmarks")).fetchall()
    found = [Bookmark(*row) for row in rows]
    return [bookmark for bookmark in found if lost or bookmark.wal_status != "lost"]


def fetch_limits(connection: psycopg.Connection[Any]) -> HistoryLimits:
    """Return which settings of the server have shortened the database's history."""
    row = connection.execute(statement("replication", "history_limits")).fetchone()
    return HistoryLimits() if row is None else HistoryLimits(*row)


def make_first_bookmark(conninfo: str, *, allows_standby: bool = False, is_finishing: bool = False) -> None:
    """Create the first bookmark of a database that has none, so that its history begins.

    Does nothing on a server without `max_slot_wal_keep_size`: a bookmark could fill its disk, and only a hub drops one.
    Nor does it before an upgrade of PostgreSQL, unless `is_finishing`. Does nothing on a standby, which may not have
    the catalog yet, and is refused unless `allows_standby`.
    """
    with connect(conninfo, replication=False, purpose="bookmarks") as plain:
        if preflight(plain, allows_standby=allows_standby):
            return
        try:
            if bookmarks(plain) or is_unlimited(plain) or (is_prepared(plain) and not is_finishing):
                return
        except psycopg.Error as exc:
            raise map_replication_error(exc, plain) from exc
    with connect(conninfo, replication=True, purpose="bookmarks") as connection:
        try:
            slot = slot_name(connection, "pgdocr")
            create_slot(connection, conninfo, slot, BOOKMARK_PLUGIN)
            copy_slot(connection, slot, bookmark_name(connection), temporary=False, plugin=BOOKMARK_PLUGIN)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc


def is_unlimited(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a slot that nobody reads may fill the server's disk."""
    row = connection.execute(
        "SELECT pg_catalog.current_setting('max_slot_wal_keep_size') OPERATOR(pg_catalog.=) '-1' AS unlimited"
    ).fetchone()
    return bool(row and row[0])


def is_prepared(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the database is prepared for an upgrade of PostgreSQL, which a new bookmark would prevent."""
    row = connection.execute(statement("replication", "is_prepared")).fetchone()
    return bool(row and row.is_prepared)


def slot_name(connection: psycopg.Connection[Any], prefix: str) -> str:
    """Return a new name for a temporary slot."""
    return f"{prefix}_{_database_oid(connection)}_{secrets.token_hex(4)}"


def bookmark_name(connection: psycopg.Connection[Any]) -> str:
    """Return a new name for a bookmark that is created now."""
    row = connection.execute(statement("replication", "bookmark_name")).fetchone()
    assert row is not None  # noqa: S101
    return f"{row.name}{secrets.token_hex(3)}"


def copy_slot(connection: psycopg.Connection[Any], source: str, copy: str, *, temporary: bool, plugin: str) -> None:
    """Copy a slot; the copy keeps the same WAL, and may have another plugin."""
    arguments = f"{quote_literal(source)}, {quote_literal(copy)}, {temporary}, {quote_literal(plugin)}"
    connection.execute(f"SELECT pg_catalog.pg_copy_logical_replication_slot({arguments})")


def set_failover(connection: psycopg.Connection[Any], slot: str, *, on: bool) -> None:
    """Let standbys synchronize a permanent slot, or no longer, on a replication connection.

    A copy of a slot never has the flag. The server waits while something reads the slot.
    """
    connection.execute(f"ALTER_REPLICATION_SLOT {quote_identifier(slot)} (FAILOVER {'true' if on else 'false'})")


def create_slot(connection: psycopg.Connection[Any], conninfo: str, slot: str, plugin: str) -> int:
    """Create a temporary slot without copying one, and return its first LSN; waits for all open write transactions."""
    connection.execute(f"SET lock_timeout = '{_BLOCKED_AFTER_S}s'")  # statement_timeout has no effect here
    try:
        with deadline_scope(_CREATE_LIMIT_S):
            return create_temporary_slot(connection, slot, plugin)
    except psycopg.errors.LockNotAvailable as exc:
        with connect(conninfo, replication=False) as plain:
            raise slot_blocked(blockers_at(plain)) from exc
    finally:
        connection.execute("SET lock_timeout = 0")


def create_temporary_slot(connection: psycopg.Connection[Any], slot: str, plugin: str) -> int:
    """Create a temporary slot on a replication connection, and return its first LSN."""
    row = connection.execute(
        f"CREATE_REPLICATION_SLOT {quote_identifier(slot)} TEMPORARY"
        f" LOGICAL {quote_identifier(plugin)} (SNAPSHOT 'nothing')"
    ).fetchone()
    assert row is not None  # noqa: S101
    return int(Lsn.parse(row.consistent_point))


def create_bookmark(connection: psycopg.Connection[Any], name: str) -> None:
    """Create a bookmark without copying one, on a connection for plain SQL; waits as `create_slot` does."""
    connection.execute(f"SET lock_timeout = '{_BLOCKED_AFTER_S}s'")
    try:
        with deadline_scope(_CREATE_LIMIT_S):
            arguments = f"{quote_literal(name)}, {quote_literal(BOOKMARK_PLUGIN)}"
            connection.execute(f"SELECT pg_catalog.pg_create_logical_replication_slot({arguments})")
    except psycopg.errors.LockNotAvailable as exc:
        raise slot_blocked(blockers_at(connection)) from exc
    finally:
        connection.execute("SET lock_timeout = 0")


def log_running_transactions(connection: psycopg.Connection[Any]) -> bool:
    """Make a primary log its running transactions: without that record, no slot's restart_lsn moves.

    Creating a slot writes one first, even if it then times out waiting for other transactions. Returns false if no slot
    is free, so that it was not even tried.
    """
    name = slot_name(connection, "pgdocr")
    connection.execute("SET lock_timeout = '20ms'")
    try:
        connection.execute(
            f"SELECT pg_catalog.pg_create_logical_replication_slot({quote_literal(name)},"
            f" {quote_literal(BOOKMARK_PLUGIN)}, true)"
        )
        drop_slot_if_free(connection, name)
    except psycopg.errors.LockNotAvailable:
        return True
    except psycopg.errors.ConfigurationLimitExceeded:
        return False
    finally:
        if not connection.closed:
            connection.execute("SET lock_timeout = 0")
    return True


def drop_slot_if_free(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a slot, unless it is gone or in use."""
    try:
        connection.execute(f"SELECT pg_catalog.pg_drop_replication_slot({quote_literal(name)})")
    except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectInUse) as exc:
        logger.info("slot not dropped: %s", one_line(exc))


def blockers_at(plain: psycopg.Connection[Any]) -> list[Any]:
    """Return the open write transactions of a primary."""
    return plain.execute(statement("replication", "blockers")).fetchall()


def slot_blocked(rows: list[Any]) -> SlotBlocked:
    """Make the error for a slot that waits for these write transactions."""
    listed = "; ".join(f'{_who(row)} in database "{row.database}", open for {_age(row)}' for row in rows)
    return SlotBlocked(
        f"the first replication slot has to wait for write transactions ({listed or 'which have just ended'}): "
        "end them, or open the stream again later",
        blockers=tuple((row.pid, row.age_s) for row in rows),
    )


def _who(row: Any) -> str:
    return f"pid {row.pid}" if row.gid is None else f'prepared transaction "{row.gid}"'


def _age(row: Any) -> str:
    return "a time that only pg_read_all_stats may see" if row.age_s is None else f"{row.age_s:.0f} s"


def flushed(connection: psycopg.Connection[Any]) -> int:
    """Return the LSN up to which the WAL can be read: flushed, or on a standby replayed."""
    row = connection.execute(statement("replication", "wal_end")).fetchone()
    assert row is not None  # noqa: S101
    return int(row.lsn)


def advance(connection: psycopg.Connection[Any], slot: str, start: int, at: int) -> None:
    """Advance a slot from the LSN `start` to `at`."""
    where = statement("replication", "restart").format(slot=quote_literal(slot))
    step, restart = _ADVANCE_STEP, None
    with deadline_scope(_ADVANCE_LIMIT_S):
        while start < at:
            former, restart = restart, connection.execute(where).fetchone()
            step = step * _ADVANCE_GROWTH if restart == former else _ADVANCE_STEP
            start = min(start + step, at)
            arguments = f"{quote_literal(slot)}, {quote_literal(str(Lsn(start)))}"
            connection.execute(f"SELECT pg_catalog.pg_replication_slot_advance({arguments})")


def fetch_lsn(connection: psycopg.Connection[Any], expression: str) -> int:
    """Evaluate an SQL expression of the type `pg_lsn`."""
    distance = f"({expression} OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn)::bigint"
    row = connection.execute(f"SELECT {distance} AS lsn").fetchone()
    assert row is not None  # noqa: S101
    return int(row.lsn)


def _database_oid(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(statement("replication", "database_oid")).fetchone()
    assert row is not None  # noqa: S101
    return int(row.oid)
