"""Finds what a durable consumer has yet to read.

The catalog does not know which collections a consumer reads, nor its filter. So every change of its schema, and of
every watched table, counts. A consumer that is closed stores how far it came, past what it does not want.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.changes.registry import TableAdded
from pgdoc.model.positions import Lsn, commit_lsn_of
from pgdoc.replication.connection import connect, map_replication_error
from pgdoc.replication.routes import UnsentChange
from pgdoc.replication.session import begin_reading, identify, read_burst
from pgdoc.replication.slots import copy_slot, slot_name
from pgdoc.replication.source import SlotStart, Source
from pgdoc.replication.standby import StandbyCheck

if TYPE_CHECKING:
    from pgdoc.model.positions import Position
    from pgdoc.replication.session import ReplicationSession

__all__ = ["ReadFrom", "find_unread"]

_READ_S = 0.5


class ReadFrom(NamedTuple):
    """Where a consumer goes on reading, and from which slot.

    Attributes:
        position: everything up to it is acknowledged.
        at: the slot starts here, or before.
    """

    slot: str
    plugin: str
    position: Position
    at: int


def find_unread(conninfo: str, schema: str, start: ReadFrom, until: int, purpose: str) -> str | None:
    """Return what is unread among the transactions that commit below the LSN `until`; `None` if nothing is.

    Reads a temporary copy of the slot, so the consumer may be open.
    """
    source = Source(conninfo, schema, start.plugin)
    while True:
        try:
            session = _open(source, start, purpose)
            try:
                return _read(session, start, until)
            finally:
                session.reader.close()
        except TableAdded:  # wal2json has to be asked for it
            continue


def _open(source: Source, start: ReadFrom, purpose: str) -> ReplicationSession:
    plain = connect(source.conninfo, replication=False, purpose=purpose)
    connection: psycopg.Connection[Any] | None = None
    try:
        connection = connect(source.conninfo, replication=True, purpose=purpose)
        cluster = identify(connection)
        copy = slot_name(connection, "pgdocr")
        copy_slot(connection, start.slot, copy, temporary=True, plugin=start.plugin)
        standby = StandbyCheck(plain, closes=True)
        return begin_reading(connection, source, copy, SlotStart(start.at, start.plugin), cluster, standby=standby)
    except BaseException as exc:
        error = map_replication_error(exc, connection or plain) if isinstance(exc, psycopg.Error) else None
        plain.close()
        if connection is not None:
            connection.close()
        if error is not None:
            raise error from exc
        raise


def _read(session: ReplicationSession, start: ReadFrom, until: int) -> str | None:
    watermark = start.at
    while watermark < until:
        try:
            burst, has_frames = read_burst(session, _READ_S)
        except UnsentChange as exc:
            return f"a transaction that can't be read, and that `pgdoc consumers skip` passes ({exc})"
        for change in burst.changes:
            commit_lsn = commit_lsn_of(change.position)
            if start.position < change.position and commit_lsn < until:
                return f"a change of {change.row.table} that commits at {Lsn(commit_lsn)}"
        watermark = burst.watermark
        if not has_frames:
            session.reader.ask()
    return None
