"""Who owns a durable consumer: a session that holds its advisory lock.

1. Only the session that has the lock may read the consumer's slot, and it ends whoever else does.
2. Its epoch moves on, in that session, when it takes the consumer over. A checkpoint commits only under the newest
   epoch, so a process that was paused, and wakes up when another owns the consumer, can commit nothing.
3. An owner that lost its session and got the lock again goes on under the same epoch. If that has moved on, another was
   there meanwhile, and the consumer is lost.
4. The session is heard of every `HEARTBEAT_S`; the server ends one that is silent, so that a standby can have the
   consumer. A process that stands still, or whose network does, loses it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.consumers.slots import ConsumerSlot, drop_slot, end_reader, find_slot, slot_of
from pgdoc.database.errors import one_line
from pgdoc.errors import ConsumerBusy, ConsumerLost, DatabaseError, PgdocError, ServerUnreachable
from pgdoc.model.positions import Lsn, Position
from pgdoc.model.tokens import Mark
from pgdoc.replication.connection import connect, map_replication_error, preflight, quote_identifier
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pgdoc.replication.source import Cluster, Source

logger = logging.getLogger("pgdoc.consumer")

HEARTBEAT_S = 5.0
_SILENT_FOR_S = 30
_UNHURRIED_S = 900
_LOCK_TIMEOUT_MS = 2000
_TRIES = 3
_FLUSH_POLL_S = 0.01


class ServerSession(NamedTuple):
    """A session of the server, of which there is no other."""

    pid: int
    began: datetime


class Row(NamedTuple):
    """What is stored of a consumer."""

    schema_name: str
    epoch: int
    place: Position | None
    system_id: int
    timeline: int
    snapshot: str | None


class Checkpoint(NamedTuple):
    """A place that was committed.

    Attributes:
        mark: the place, and the snapshot's.
        inserted: an LSN beyond that commit. Until the WAL is flushed so far, a crash takes it back.
    """

    mark: Mark
    inserted: int


class Ownership:
    """A session that owns a consumer, or waits to.

    Args:
        source: what the consumer reads.
        name: the consumer's.

    Attributes:
        slot: the name of its slot.
        purpose: what the consumer's connections serve, see `connect`.
        session: to be ended by its successor, should the server not notice that this one is gone.
    """

    def __init__(self, source: Source, name: str) -> None:
        self.name = name
        self.purpose = f"consumer {name}"
        self._schema = source.schema
        self._connection = connect(source.conninfo, replication=False, purpose=self.purpose)
        try:
            preflight(self._connection, needs_slot=False)  # the consumer may have one
            self._execute(f"SET idle_session_timeout = '{_SILENT_FOR_S}s'")
            self._execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
            self.slot = self._find_slot_name()
            self.session = ServerSession(*self._one("whoami"))
        except BaseException:
            self._connection.close()
            raise

    def own(self) -> bool:
        """Try to become the owner, without waiting."""
        return bool(self._one("own", self.name)[0])

    def owner_pid(self) -> int | None:
        """Give the server process of the owner's session."""
        row = self._row("owner", self.name)
        return None if row is None else int(row[0])

    def end(self, session: ServerSession) -> None:
        """End an earlier session of this process, which the server may take for alive."""
        self._row("end_session", *session)

    def find(self) -> Row | None:
        """Read what is stored of the consumer."""
        row = self._row("find", self.name)
        if row is None:
            return None
        place = Position(*row.place[:4]) if row.place else None
        return Row(row.schema_name, row.epoch, place, int(row.system_id), row.timeline, row.snapshot)

    def enter(self, origin: Cluster) -> int:
        """Store a new consumer that has no place yet, and give its epoch."""
        return int(self._one("enter", self._values(Mark(), origin) | {"schema": self._schema})[0])

    def settle(self, epoch: int, mark: Mark, origin: Cluster) -> None:
        """Store where a new consumer begins."""
        if self._row("settle", self._values(mark, origin) | {"epoch": epoch}) is None:
            raise self.lost()

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """Stay the owner while another session works for long, and this one is not heard of."""
        self._execute(f"SET idle_session_timeout = '{_UNHURRIED_S}s'")
        yield
        self._execute(f"SET idle_session_timeout = '{_SILENT_FOR_S}s'")

    def take_over(self) -> int:
        """Move the epoch on, and give it; a transaction in which the one before has made a checkpoint is ended.

        Raises:
            ServerUnreachable: such a transaction does not end.
        """
        for _ in range(_TRIES):
            try:
                return int(self._one("take_over", self.name)[0])
            except _RowLockedError:
                logger.warning(
                    "consumer %s: ending a transaction in which its former owner has a checkpoint", self.name
                )
                self._row("end_holders", self.name)
        raise ServerUnreachable(f'consumer "{self.name}" is still in a transaction of its former owner')

    def begin_anew(self, epoch: int, mark: Mark, origin: Cluster) -> None:
        """Store that what lies before it is lost."""
        if self._row("begin_anew", self._values(mark, origin) | {"epoch": epoch}) is None:
            raise self.lost()

    def check(self, epoch: int) -> Checkpoint:
        """Be heard of, and give the last checkpoint that was committed.

        Raises:
            ConsumerLost: another process has taken over.
        """
        row = self._row("look", self.name)
        if row is None or row.epoch != epoch:
            raise self.lost()
        return Checkpoint(Mark(tuple(row.place), row.snapshot), row.inserted)

    def advance(self, lsn: int) -> None:
        """Confirm to the slot, while nobody reads it, that nothing below `lsn` is needed again."""
        self._row("advance", {"slot": self.slot, "to": str(Lsn(lsn))})

    def save(self, epoch: int, acknowledged: Mark, waiting_since: str | None, origin: Cluster) -> bool:
        """Store how far events were acknowledged; give `False` where another process has taken over."""
        values = self._values(acknowledged, origin) | {"epoch": epoch, "waiting_since": waiting_since}
        return self._row("save", values) is not None

    def lost(self) -> ConsumerLost:
        """Make the error for a consumer that is no longer this process's."""
        return ConsumerLost(
            f'consumer "{self.name}" was taken over by another process, or dropped: open it again to be its standby'
        )

    def find_slot(self) -> ConsumerSlot | None:
        """Look at the consumer's slot, after whoever reads it was sent away."""
        try:
            end_reader(self._connection, self.slot)
            return find_slot(self._connection, self.slot)
        except psycopg.Error as exc:
            raise self._translated(exc) from exc

    def published_since(self) -> int:
        """Ask since when there is the publication that pgoutput reads."""
        return int(self._one("published_since", self._schema)[0])

    def drop_slot(self) -> bool:
        """Drop the consumer's slot; give whether there was one."""
        try:
            return drop_slot(self._connection, self.slot)
        except psycopg.Error as exc:
            raise self._translated(exc) from exc

    def remove(self) -> bool:
        """Forget the consumer and drop its slot; give whether there was one.

        Raises:
            ConsumerBusy: a transaction is open in which a checkpoint was made.
        """
        try:
            known = self._row("remove", self.name) is not None
        except _RowLockedError as exc:
            raise ConsumerBusy(
                f'consumer "{self.name}" has a checkpoint in a transaction that is still open: end that first'
            ) from exc
        return self.drop_slot() or known

    def wal_end(self) -> tuple[int, int]:
        """Give how far the WAL is written, and how far it is flushed."""
        inserted, flushed = self._one("places")
        return inserted, flushed

    def flush(self, to: int) -> None:
        """Return when the WAL is flushed up to `to`."""
        while self.wal_end()[1] < to:
            self._execute(statement("streams", "flush"))
            time.sleep(_FLUSH_POLL_S)

    @property
    def closed(self) -> bool:
        """Whether the session is over, as far as is known here."""
        return self._connection.closed

    def close(self) -> None:
        """End the session; whoever waits may own the consumer when the server has noticed."""
        self._connection.close()

    def give_up(self) -> None:
        """Let whoever waits own the consumer at once."""
        self._execute(statement("consumers", "disown"))

    def _find_slot_name(self) -> str:
        try:
            return slot_of(self._connection, self.name)
        except psycopg.Error as exc:
            raise self._translated(exc) from exc

    def _values(self, mark: Mark, origin: Cluster) -> dict[str, Any]:
        return {
            "name": self.name,
            "place": [int(number) for number in mark.place],  # some are Lsn
            "snapshot": mark.text,
            "system": str(origin.system_id),
            "timeline": origin.timeline,
        }

    def _one(self, name: str, *params: Any) -> Any:
        row = self._row(name, *params)
        if row is None:
            raise self.lost()
        return row

    def _row(self, name: str, *params: Any) -> Any:
        return self._execute(statement("consumers", name), *params).fetchone()

    def _execute(self, query: str, *params: Any) -> psycopg.Cursor[Any]:
        given = params[0] if params and isinstance(params[0], dict) else params or None
        try:
            return self._connection.execute(query.encode(), given)
        except psycopg.errors.LockNotAvailable as exc:
            raise _RowLockedError(str(exc)) from exc
        except psycopg.Error as exc:
            raise self._translated(exc) from exc

    def _translated(self, exc: psycopg.Error) -> PgdocError:
        if exc.sqlstate != "42501":
            return map_replication_error(exc, self._connection)
        text, role = one_line(exc), quote_identifier(self._connection.info.user)
        if "consumers" in text:
            tables = "pgdoc.consumers, pgdoc.consumer_progress"
            advice = f"as the catalog's owner, run GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}"
        else:  # to end a session of the owner before
            advice = f"open a consumer as the same role everywhere, or run GRANT pg_signal_backend TO {role}"
        return DatabaseError(f"{text}: {advice}", sqlstate=exc.sqlstate)


def drop_consumer(source: Source, name: str) -> bool:
    """Drop a consumer that nobody has open; give whether there was one.

    Raises:
        ConsumerBusy: someone has.
    """
    ownership = Ownership(source, name)
    try:
        if not ownership.own():
            pid = ownership.owner_pid()
            raise ConsumerBusy(f'consumer "{name}" is open (its session is pid {pid}): close it first', owner_pid=pid)
        dropped = ownership.remove()
        ownership.give_up()
        return dropped
    finally:
        ownership.close()


class _RowLockedError(PgdocError):
    """Someone's open transaction has changed the consumer's row."""

    resumable = True


def check_schema(name: str, row: Row, schema: str) -> None:
    """Refuse a consumer that reads another schema.

    Raises:
        ConsumerLost: it does.
    """
    if row.schema_name != schema:
        raise ConsumerLost(f'consumer "{name}" reads the schema "{row.schema_name}", not "{schema}": take another name')
