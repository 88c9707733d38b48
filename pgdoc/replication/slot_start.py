"""Where a slot starts: at a position that a bookmark reaches back to, with a plugin that the server has and allows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.errors import PluginMissing, PluginNotAllowed
from pgdoc.model.positions import Lsn
from pgdoc.replication.checks import beyond_the_end, history_lost
from pgdoc.replication.connection import map_replication_error, quote_literal
from pgdoc.replication.recovery import create_slot_on_standby, is_in_recovery
from pgdoc.replication.slots import (
    BOOKMARK_PLUGIN,
    advance,
    bookmark_name,
    bookmarks,
    copy_slot,
    create_slot,
    fetch_limits,
    fetch_lsn,
    flushed,
    is_prepared,
)
from pgdoc.replication.source import SlotStart
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

__all__ = ["fetch_confirmed", "take_position"]

logger = logging.getLogger("pgdoc.stream")


def take_position(  # noqa: PLR0913 (each has its own reason to differ between readers)
    connection: psycopg.Connection[Any],
    source: Source,
    slot: str,
    at: int | None,
    *,
    begin_history: bool,
    plugin: str | None = None,
) -> SlotStart:
    """Create a temporary slot that starts at `at`, with `plugin` or the first that the server has and allows.

    Raises:
        PluginMissing, PluginNotAllowed: no plugin can be used; the error is that of the last one tried.
        HistoryLost: no bookmark reaches back to `at`.
        InvalidResumeToken: the WAL of the primary ends before `at`, so it was restored to an older state.
        SlotBlocked: open write transactions hold up the first slot of the database.
    """
    (*others, last), refusal = _plugins(connection, source, at) if plugin is None else ((plugin,), "")
    for each in others:
        try:
            start = _take_position(connection, source, each, slot, at, begin_history=begin_history)
            return SlotStart(start, each, refusal)
        except psycopg.DatabaseError as exc:
            error = map_replication_error(exc, connection)
            if not isinstance(error, PluginMissing | PluginNotAllowed):
                raise error from exc
            refusal = str(error)
    start = _take_position(connection, source, last, slot, at, begin_history=begin_history)
    return SlotStart(start, last, refusal)


def _plugins(connection: psycopg.Connection[Any], source: Source, at: int | None) -> tuple[tuple[str, ...], str]:
    """Return the plugins to try, in order; and why pgoutput does not come first although wal2json loses values.

    Where no event trigger follows what SQL does to tables, pgoutput comes first: it sends a table's oid, while the name
    that wal2json sends may meanwhile be another table's. So it does where a watched table has a column of a type of
    which wal2json sends NaN and the infinities as NULL, unless the publication lacks tables: their rows would be lost,
    while those of the watched table raise an error.
    """
    if source.plugin != "auto":
        return source.plugins, ""
    start = quote_literal(str(Lsn(flushed(connection) if at is None else at)))
    query = statement("replication", "suits_wal2json").format(schema=quote_literal(source.schema), at=start)
    row = connection.execute(query).fetchone()
    if row is None or not row.suits_wal2json:
        return source.plugins[::-1], ""
    if row.fault is not None:
        logger.warning("reading through wal2json, which sends NaN as NULL: %s", row.fault)
    return source.plugins, row.fault or ""


def _take_position(  # noqa: PLR0913 (what the two above were given)
    connection: psycopg.Connection[Any], source: Source, plugin: str, slot: str, at: int | None, *, begin_history: bool
) -> int:
    end = flushed(connection)
    if at is not None and at > end:
        _check_not_restored(connection, at)
    wanted = end if at is None else min(at, end)
    start = _copy_bookmark(connection, plugin, slot, wanted)
    if start is not None:
        advance(connection, slot, start, wanted)
        return wanted
    if at is not None:
        kept = bookmarks(connection)
        raise history_lost(wanted, kept[0].confirmed if kept else None, fetch_limits(connection))
    if source.primary is not None and is_in_recovery(connection):
        start = create_slot_on_standby(connection, source.primary, slot, plugin)
    else:
        start = create_slot(connection, source.conninfo, slot, plugin)
    if begin_history and not is_prepared(connection):
        copy_slot(connection, slot, bookmark_name(connection), temporary=False, plugin=BOOKMARK_PLUGIN)
    return start


def _check_not_restored(connection: psycopg.Connection[Any], at: int) -> None:
    """Refuse an LSN beyond the end of a primary's WAL: what it writes up to there would pass for what was read already.

    A standby that starts again may not have replayed all that it had.
    """
    row = connection.execute(statement("replication", "inserted")).fetchone()
    if row is not None and row.lsn is not None and at > row.lsn:
        raise beyond_the_end(at, row.lsn)


def _copy_bookmark(connection: psycopg.Connection[Any], plugin: str, slot: str, at: int) -> int | None:
    """Copy the newest bookmark that does not lie beyond `at`; return where the copy starts, `None` without a bookmark.

    The copy is checked because a bookmark may move, be dropped or lose its WAL after it was listed.
    """
    for bookmark in reversed(bookmarks(connection)):
        if bookmark.confirmed > at:
            continue
        try:
            copy_slot(connection, bookmark.name, slot, temporary=True, plugin=plugin)
        except psycopg.DatabaseError:
            if connection.broken or bookmark.name in (left.name for left in bookmarks(connection)):
                raise
            continue
        confirmed = fetch_confirmed(connection, slot)
        if confirmed <= at:
            return confirmed
        connection.execute(f"SELECT pg_catalog.pg_drop_replication_slot({quote_literal(slot)})")
    return None


def fetch_confirmed(connection: psycopg.Connection[Any], slot: str) -> int:
    """Return a slot's `confirmed_flush_lsn`."""
    query = statement("replication", "confirmed").format(slot=quote_literal(slot))
    return fetch_lsn(connection, f"({query})")
