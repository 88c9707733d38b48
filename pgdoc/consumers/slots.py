"""The slots of durable consumers: permanent, and read by whoever owns the consumer.

    pgdoc_<oid of the database>_<name of the consumer>

One is made as a copy of a temporary slot that stands where the consumer begins, so there is none that is half made.
What is done here is done by the consumer's owner (see `ownership`), so whoever else reads its slot has no right to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.errors import DatabaseError, ServerUnreachable
from pgdoc.replication.connection import connect, map_replication_error, quote_literal
from pgdoc.replication.session import (
    ReplicationSession,
    begin_reading,
    check_publication,
    identify,
    take_position,
)
from pgdoc.replication.slots import copy_slot, slot_name
from pgdoc.replication.source import SlotStart, Source
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc.replication.source import Cluster

_SLOT_CHANGED = {"42704", "55000", "55006"}
"""It was dropped, lost its WAL, or is read by another, since it was looked at: the next look tells."""


def find_cluster(source: Source, *, purpose: str = "") -> Cluster:
    """Ask which cluster this is, on a connection of its own."""
    with connect(source.conninfo, replication=True, purpose=purpose) as connection:
        try:
            return identify(connection)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc


class ConsumerSlot(NamedTuple):
    """What the server says of a consumer's slot."""

    plugin: str
    wal_status: str
    confirmed: int
    active_pid: int | None


def slot_of(connection: psycopg.Connection[Any], consumer: str) -> str:
    """Give the name of a consumer's slot."""
    row = connection.execute(statement("consumers", "slot_name"), [consumer]).fetchone()
    assert row is not None  # noqa: S101
    return str(row.name)


def find_slot(connection: psycopg.Connection[Any], slot: str) -> ConsumerSlot | None:
    """Look a slot up; `None` where there is none."""
    row = connection.execute(statement("consumers", "slot"), [slot]).fetchone()
    return None if row is None else ConsumerSlot(*row)


def make_slot(source: Source, slot: str, at: int | None, *, purpose: str = "") -> int:
    """Make a consumer's slot from history, or where nothing is kept and `at` is `None`, from nothing.

    Args:
        source: what is read.
        slot: the name; one that is there is replaced.
        at: where it begins; `None` for now.
        purpose: what the connections serve, see `connect`.

    Returns:
        Where it begins.

    Raises:
        HistoryLost: no bookmark reaches back to `at`.
        SlotBlocked: open write transactions hold up the first slot of the database.
    """
    with connect(source.conninfo, replication=True, purpose=purpose) as connection:
        try:
            step = slot_name(connection, "pgdocr")
            stand = take_position(connection, source, step, at, begin_history=True)
            if at is not None:
                check_publication(connection, source, stand, tables=True)
            with connect(source.conninfo, replication=False, purpose=purpose) as plain:
                drop_slot(plain, slot)
            copy_slot(connection, step, slot, temporary=False, plugin=stand.plugin)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    return stand.at


def drop_slot(connection: psycopg.Connection[Any], slot: str) -> bool:
    """Drop a slot, and end whoever reads it; give whether there was one.

    Raises:
        ServerUnreachable: the reader did not end.
    """
    end_reader(connection, slot)
    try:
        connection.execute(f"SELECT pg_drop_replication_slot({quote_literal(slot)})")
    except psycopg.errors.UndefinedObject:
        return False
    except psycopg.errors.ObjectInUse as exc:
        raise ServerUnreachable(f'slot "{slot}" is still being read: {exc}') from exc
    return True


def end_reader(connection: psycopg.Connection[Any], slot: str) -> None:
    """End the walsender that reads a slot: one that its client has left, or of who owned the consumer before."""
    connection.execute(statement("consumers", "end_reader"), [slot])


def open_slot(source: Source, slot: str, at: int, *, purpose: str = "") -> ReplicationSession:
    """Stream every transaction whose commit record is at or after `at`, which the slot has to reach back to.

    It is read through its own plugin, whatever that of the store is.

    Raises:
        ServerUnreachable: no connection, or something has just happened to the slot.
        DatabaseError: as it says.
    """
    connection = connect(source.conninfo, replication=True, purpose=purpose)
    try:
        origin: Cluster = identify(connection)
        return begin_reading(connection, source, slot, SlotStart(at, _plugin_of(connection, slot)), origin)
    except psycopg.Error as exc:
        error = map_replication_error(exc, connection)
        connection.close()
        raise error from exc
    except DatabaseError as exc:
        connection.close()
        if exc.sqlstate in _SLOT_CHANGED:
            raise ServerUnreachable(f'slot "{slot}" changed while it was being opened: {exc}') from exc
        raise
    except BaseException:
        connection.close()
        raise


def _plugin_of(connection: psycopg.Connection[Any], slot: str) -> str:
    """Ask for a slot's plugin, on a replication connection."""
    row = connection.execute(
        f"SELECT plugin FROM pg_replication_slots WHERE slot_name = {quote_literal(slot)}"
    ).fetchone()
    if row is None:
        raise ServerUnreachable(f'slot "{slot}" was dropped while it was being opened')
    return str(row.plugin)
