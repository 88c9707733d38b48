"""The replication slots of durable consumers: permanent slots, each read only by the process that owns the consumer.

    pgdoc_<oid of the database>_<name of the consumer>

A slot is created as a copy of a temporary slot that already stands at the consumer's start, so no slot is ever half
made. Only the owner of the consumer calls these functions (see `ownership`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.database.errors import one_line
from pgdoc.errors import DatabaseError, ServerUnreachable
from pgdoc.model.positions import Lsn
from pgdoc.replication.connection import connect, map_replication_error, quote_literal
from pgdoc.replication.session import (
    ReplicationSession,
    begin_reading,
    check_detour,
    identify,
)
from pgdoc.replication.slot_start import fetch_confirmed, take_position
from pgdoc.replication.slots import advance, copy_slot, set_failover, slot_name
from pgdoc.replication.source import SlotStart, Source
from pgdoc.runtime.deadline import left_s
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pgdoc.replication.routes import Route
    from pgdoc.replication.source import Cluster
    from pgdoc.replication.standby import StandbyCheck

logger = logging.getLogger("pgdoc.consumer")

_SLOT_CHANGED = {"42704", "55000", "55006"}
"""The slot was dropped, lost its WAL or got another reader since it was checked. The next check finds out which."""

_NOT_ADVANCED = _SLOT_CHANGED | {"57014"}  # also: it took too long

_PAUSED_S = 10
_LEAVE_S = 1.0
_LEAVE_POLL_S = 0.002
_ADVANCE_SHARE = 0.8
"""The part of this side's limit for which the server may advance: it gives up first, and the session goes on."""


def find_cluster(source: Source, *, purpose: str = "") -> Cluster:
    """Return which cluster the server is, on a new connection."""
    with connect(source.conninfo, replication=True, purpose=purpose) as connection:
        try:
            return identify(connection)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc


class ConsumerSlot(NamedTuple):
    """The state of a consumer's slot.

    Attributes:
        plugin: the output plugin that it was created with.
        wal_status: as in `pg_replication_slots`; a slot that is `lost` can't be read any more.
        confirmed: its `confirmed_flush_lsn`.
        active_pid: the process that reads it, if any.
        ends_idle: whether the server invalidates a slot that nobody reads for some time (PostgreSQL 18).
        is_failover: whether standbys synchronize it.
        is_held_back: whether the server holds back the readers of failover slots until its standbys have the WAL.
        has_standby: whether a standby may synchronize slots.
        reason: why it is lost (PostgreSQL 17); see `pgdoc.database.slot_losses`.
    """

    plugin: str
    wal_status: str
    confirmed: int
    active_pid: int | None
    ends_idle: bool
    is_failover: bool = False
    is_held_back: bool = False
    has_standby: bool = False
    reason: str | None = None

    @property
    def may_rest(self) -> bool:
        """Whether another slot may be read instead.

        The server may invalidate a slot that nobody reads, and it holds back the readers of failover slots only: others
        would deliver what a promoted standby may not have.
        """
        return not self.ends_idle and not (self.is_failover and self.is_held_back)


def slot_of(connection: psycopg.Connection[Any], consumer: str) -> str:
    """Return the name of a consumer's slot."""
    row = connection.execute(statement("consumers", "slot_name"), [consumer]).fetchone()
    assert row is not None  # noqa: S101
    return str(row.name)


def find_slot(connection: psycopg.Connection[Any], slot: str) -> ConsumerSlot | None:
    """Look up a slot; return `None` if it does not exist."""
    row = connection.execute(statement("consumers", "slot"), [slot]).fetchone()
    return None if row is None else ConsumerSlot(*row)


def make_slot(  # noqa: PLR0913 (what a slot consists of)
    source: Source,
    slot: str,
    at: int | None,
    *,
    lock_claim: Callable[[psycopg.Connection[Any]], object],
    purpose: str = "",
    check: Callable[[SlotStart], object] = bool,
) -> int:
    """Create a consumer's slot from a bookmark, and return the LSN at which it starts.

    An existing slot of this name is replaced, if `lock_claim` raises no error: finding the position can take minutes,
    in which another process can become the owner. It locks the claim on the connection that it gets, so that no other
    process becomes the owner before the slot exists. If `at` is `None`, the slot starts now, and is new if the database
    has no bookmark; else `check` may refuse the plugin there.

    Raises:
        HistoryLost, SlotBlocked: see `take_position`.
    """
    with connect(source.conninfo, replication=True, purpose=purpose) as connection:
        try:
            temporary = slot_name(connection, "pgdocr")
            start = take_position(connection, source, temporary, at, begin_history=source.keeps_history)
            if at is not None:
                check(start)
            with _claimed(source, lock_claim, purpose) as plain:
                drop_slot(plain, slot)
                copy_slot(connection, temporary, slot, temporary=False, plugin=start.plugin)
                _flag(connection, source, slot)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    return start.at


def change_plugin(
    source: Source,
    slot: str,
    plugin: str,
    *,
    lock_claim: Callable[[psycopg.Connection[Any]], object],
    purpose: str = "",
) -> None:
    """Let another plugin read a consumer's slot, from the same position on; `lock_claim` as for `make_slot`.

    If this is interrupted between its last two steps, the slot is gone: the next takeover creates it from a bookmark.
    """
    with connect(source.conninfo, replication=True, purpose=purpose) as connection:
        try:
            copy = slot_name(connection, "pgdocr")
            with _claimed(source, lock_claim, purpose) as plain:
                end_reader(plain, slot)
                copy_slot(connection, slot, copy, temporary=True, plugin=plugin)
                drop_slot(plain, slot)
                copy_slot(connection, copy, slot, temporary=False, plugin=plugin)
                _flag(connection, source, slot)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc


@contextlib.contextmanager
def _claimed(
    source: Source, lock_claim: Callable[[psycopg.Connection[Any]], object], purpose: str
) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection for plain SQL that holds the lock of the claim until the end of the block.

    The server ends its transaction if this process is paused, so that another one can take over.
    """
    with connect(source.conninfo, replication=False, purpose=purpose) as plain, plain.transaction():
        plain.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_PAUSED_S}s'")
        lock_claim(plain)
        yield plain


def _flag(connection: psycopg.Connection[Any], source: Source, slot: str) -> None:
    """Make a slot that was just copied a failover slot if the source wants that: no copy has the flag."""
    if source.wants_failover(connection.info.server_version):
        set_failover(connection, slot, on=True)


def change_failover(source: Source, slot: str, *, on: bool, purpose: str = "") -> None:
    """Let standbys synchronize a consumer's slot that nothing reads, or no longer."""
    with connect(source.conninfo, replication=True, purpose=purpose) as connection:
        try:
            set_failover(connection, slot, on=on)
        except psycopg.Error as exc:
            error = map_replication_error(exc, connection)
            if exc.sqlstate in _SLOT_CHANGED:
                error = ServerUnreachable(f'slot "{slot}" changed meanwhile: {error}')
            raise error from exc


def drop_slot(connection: psycopg.Connection[Any], slot: str) -> bool:
    """Drop a slot and end its reader; return whether the slot existed."""
    end_reader(connection, slot)
    try:
        with connection.transaction():  # inside of another one, that goes on
            connection.execute(f"SELECT pg_catalog.pg_drop_replication_slot({quote_literal(slot)})")
    except psycopg.errors.UndefinedObject:
        return False
    except psycopg.errors.ObjectInUse as exc:
        raise ServerUnreachable(f'slot "{slot}" still has a reader that did not end ({exc}): try again') from exc
    return True


def end_reader(connection: psycopg.Connection[Any], slot: str) -> None:
    """End the walsender that reads a slot: a former owner's, or one whose client is gone."""
    connection.execute(statement("consumers", "end_reader"), [slot])


def wait_for_former_reader(connection: psycopg.Connection[Any], slot: str, pid: int) -> None:
    """Wait until the walsender with this pid, whose client has closed its connection, has left the slot.

    Then, in the worst case, end it: it may be decoding rows that its filter drops.
    """
    deadline = time.monotonic() + _LEAVE_S
    while connection.execute(statement("consumers", "is_read_by"), [slot, pid]).fetchone():
        if time.monotonic() > deadline:
            connection.execute(statement("consumers", "end_reader_with"), [slot, pid])
            return
        time.sleep(_LEAVE_POLL_S)


def advance_slot(connection: psycopg.Connection[Any], slot: str, lsn: int, claim: dict[str, Any]) -> bool:
    """Confirm that nothing below `lsn` is needed again, if nothing reads the slot; return `False` if that fails.

    It fails if the slot changes meanwhile, or takes longer than most of what the enclosing `deadline_scope` allows.
    Only while the claim stands, whose row is locked meanwhile: the next owner may already need more than this one did.
    The server decodes everything since the start of the oldest open transaction. With `synchronized_standby_slots`, it
    waits for standbys, too.
    """
    connection.execute(f"SET statement_timeout = {max(1, int(left_s() * _ADVANCE_SHARE * 1000))}")
    try:
        connection.execute(statement("consumers", "advance"), claim | {"slot": slot, "to": str(Lsn(lsn))})
    except psycopg.Error as exc:
        if exc.sqlstate not in _NOT_ADVANCED:
            raise
        logger.warning('slot "%s" could not be advanced: %s', slot, one_line(exc))
        return False
    else:
        return True
    finally:
        if not connection.closed:
            connection.execute("SET statement_timeout = 0")


def open_slot(  # noqa: PLR0913 (what a session consists of)
    source: Source, slot: str, at: int, standby: StandbyCheck, *, cluster: Cluster | None = None, purpose: str = ""
) -> ReplicationSession:
    """Stream every transaction whose commit record is at or after `at`, from `cluster` if that is given.

    `at` must not lie below the slot's `confirmed_flush_lsn`: PostgreSQL would silently start there instead.

    Raises:
        ServerUnreachable: the connection failed, or the slot changed while it was being opened.
    """
    connection = connect(source.conninfo, replication=True, purpose=purpose)
    try:
        found = identify(connection)
        if cluster is not None:
            found.check_same(cluster)
        start = SlotStart(at, _plugin_of(connection, slot))
        return begin_reading(connection, source, slot, start, found, standby=standby)
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


def open_copy(  # noqa: PLR0913 (what a session consists of)
    source: Source,
    slot: str,
    at: int,
    standby: StandbyCheck,
    *,
    route: Route,
    names: Sequence[str] | None,
    cluster: Cluster,
    purpose: str = "",
) -> ReplicationSession:
    """Stream the same from a temporary copy of the slot, along a route that the slot's own plugin can't take.

    What is confirmed to the copy is not confirmed to the slot.
    """
    assert route.plugin is not None  # noqa: S101 (else it would be the slot's own)
    connection = connect(source.conninfo, replication=True, purpose=purpose)
    try:
        identify(connection).check_same(cluster)
        copy = slot_name(connection, "pgdocr")
        copy_slot(connection, slot, copy, temporary=True, plugin=route.plugin)
        _move_to(connection, copy, at)
        start = SlotStart(at, route.plugin)
        check_detour(connection, source, start, names)
        return begin_reading(connection, source, copy, start, cluster, standby=standby, route=route)
    except psycopg.Error as exc:
        error = map_replication_error(exc, connection)
        connection.close()
        raise error from exc
    except BaseException:
        connection.close()
        raise


def _move_to(connection: psycopg.Connection[Any], copy: str, at: int) -> None:
    confirmed = fetch_confirmed(connection, copy)
    if confirmed > at:
        raise ServerUnreachable(f'slot "{copy}" starts at {Lsn(confirmed)}: another process moved its source on')
    advance(connection, copy, confirmed, at)


def _plugin_of(connection: psycopg.Connection[Any], slot: str) -> str:
    """Return a slot's plugin. A replication connection takes no parameters."""
    row = connection.execute(statement("replication", "plugin").format(slot=quote_literal(slot))).fetchone()
    if row is None:
        raise ServerUnreachable(f'slot "{slot}" was dropped while it was being opened')
    return str(row.plugin)
