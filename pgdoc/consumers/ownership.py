"""Ownership of a durable consumer: the session that holds the consumer's advisory lock owns it.

1. Only that session may read the consumer's slot. It ends any other reader.
2. A takeover increments the consumer's epoch, in that session. A checkpoint commits only under the newest epoch, so a
   paused process that wakes up after a takeover can't commit one.
3. An owner that loses its session and gets the lock again keeps its epoch. A changed epoch means that another process
   owned the consumer in between, and the consumer is lost to this one.
4. The owner uses its session every `HEARTBEAT_S`. The server ends a session that stays idle for too long, so a process
   that hangs, or whose network does, loses the consumer to a standby.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.consumers.slots import ConsumerSlot, drop_slot, end_reader, find_slot, slot_of
from pgdoc.database.errors import one_line
from pgdoc.errors import ConsumerBusy, ConsumerLost, DatabaseError, PgdocError, ServerUnreachable, StreamError
from pgdoc.model.positions import Lsn, Position
from pgdoc.model.tokens import Mark, parse_snapshot
from pgdoc.replication.connection import connect, map_replication_error, preflight, quote_identifier
from pgdoc.replication.registry import read_existence
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pgdoc.changes.life import Existence
    from pgdoc.model.positions import RawPosition
    from pgdoc.model.tokens import SnapshotState
    from pgdoc.replication.source import Cluster, Source

logger = logging.getLogger("pgdoc.consumer")

HEARTBEAT_S = 5.0
_SILENT_FOR_S = 30  # the server ends an owner that is idle for longer
_UNHURRIED_S = 900  # the same while a slot is made, which can take minutes
_LOCK_TIMEOUT_MS = 2000
_TRIES = 3
_FLUSH_POLL_S = 0.01


class ServerSession(NamedTuple):
    """Identifies a session of the server; a pid alone may be used again."""

    pid: int
    began: datetime


class Row(NamedTuple):
    """What the catalog stores about a consumer.

    Attributes:
        position: everything up to it is acknowledged; `None` until the start is settled.
        snapshot: how far its snapshot has come at `position`.
    """

    schema_name: str
    epoch: int
    position: Position | None
    system_id: int
    timeline: int
    snapshot: SnapshotState


class Checkpoint(NamedTuple):
    """The last committed checkpoint of a consumer.

    Attributes:
        position: everything up to it has had its effect.
        snapshot: the stored progress of the snapshot there, which `Ownership.mark_of` parses.
        inserted: an LSN beyond the commit. Until the WAL is flushed up to here, a crash can undo the commit.
    """

    position: tuple[int, ...]
    snapshot: str | None
    inserted: int


class Ownership:
    """A session that owns a consumer, or asks for it; used by one thread.

    `settle`, `begin_anew` and `check` raise `ConsumerLost` if another process has taken over.

    Attributes:
        purpose: what the consumer's connections serve, see `connect`.
        session: identifies this session, so that a later one of this process can end it.
    """

    def __init__(self, source: Source, name: str) -> None:
        self.name = name
        self.purpose = f"consumer {name}"
        self._schema = source.schema
        self._connection = connect(source.conninfo, replication=False, purpose=self.purpose)
        try:
            preflight(self._connection, needs_slot=False)  # The consumer may have its slot already.
            self._execute(f"SET idle_session_timeout = '{_SILENT_FOR_S}s'")
            self._execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
            self.slot = self._find_slot_name()
            self.session = ServerSession(*self._one("whoami"))
        except BaseException:
            self._connection.close()
            raise

    def own(self) -> bool:
        """Try to get the lock, without waiting."""
        return bool(self._one("own", self.name)[0])

    def owner_pid(self) -> int | None:
        """Return the pid of the session that owns the consumer, if any."""
        row = self._row("owner", self.name)
        return None if row is None else int(row[0])

    def end(self, session: ServerSession) -> None:
        """End an earlier session of this process; the server may not have noticed that its client is gone."""
        self._row("end_session", *session)

    def find(self) -> Row | None:
        """Read the consumer's row; `None` if it does not exist."""
        row = self._row("find", self.name)
        if row is None:
            return None
        position = Position(*row.place[:4]) if row.place else None
        snapshot = self._parse_snapshot(row.snapshot)
        return Row(row.schema_name, row.epoch, position, int(row.system_id), row.timeline, snapshot)

    def enter(self, cluster: Cluster) -> int:
        """Store a new consumer that has no position yet; return its epoch."""
        return int(self._one("enter", self._values(Mark(), cluster) | {"schema": self._schema})[0])

    def settle(self, epoch: int, mark: Mark, cluster: Cluster) -> None:
        """Store where a new consumer begins."""
        if self._row("settle", self._values(mark, cluster) | {"epoch": epoch}) is None:
            raise self.lost()

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """Let this session stay idle for longer, while another connection does slow work."""
        self._execute(f"SET idle_session_timeout = '{_UNHURRIED_S}s'")
        yield
        self._execute(f"SET idle_session_timeout = '{_SILENT_FOR_S}s'")

    def take_over(self) -> int:
        """Increment and return the epoch; end any open transaction that holds a former owner's checkpoint."""
        for _ in range(_TRIES):
            try:
                return int(self._one("take_over", self.name)[0])
            except _RowLockedError:
                logger.warning(
                    'consumer "%s": ending an open transaction in which a former owner made a checkpoint', self.name
                )
                self._row("end_holders", self.name)
        raise ServerUnreachable(
            f'consumer "{self.name}" can\'t be taken over: a transaction with a checkpoint of its former owner did not '
            "end; end it with pg_terminate_backend()"
        )

    def begin_anew(self, epoch: int, mark: Mark, cluster: Cluster) -> None:
        """Store that the consumer begins again at `mark`, and has lost everything before it."""
        if self._row("begin_anew", self._values(mark, cluster) | {"epoch": epoch}) is None:
            raise self.lost()

    def check(self, epoch: int) -> Checkpoint:
        """Keep the session alive, and return the last committed checkpoint."""
        row = self._row("look", self.name)
        if row is None or row.epoch != epoch:
            raise self.lost()
        return Checkpoint(tuple(row.place), row.snapshot, row.inserted)

    def mark_of(self, checkpoint: Checkpoint) -> Mark:
        """Return the mark of a checkpoint.

        Raises:
            StreamError: the stored progress of the snapshot can't be read.
        """
        return Mark(checkpoint.position, self._parse_snapshot(checkpoint.snapshot))

    def advance(self, lsn: int) -> None:
        """Confirm that nothing below `lsn` is needed again, to a slot that has no reader."""
        self._row("advance", {"slot": self.slot, "to": str(Lsn(lsn))})

    def save(self, epoch: int, acknowledged: Mark, waiting_since: str | None, cluster: Cluster) -> bool:
        """Store how far events are acknowledged; return `False` if another process has taken over."""
        values = self._values(acknowledged, cluster) | {"epoch": epoch, "waiting_since": waiting_since}
        return self._row("save", values) is not None

    def lost(self) -> ConsumerLost:
        """Make the error for a consumer that this process no longer owns."""
        return ConsumerLost(
            f'consumer "{self.name}" was taken over by another process, or dropped: open it again to stand by'
        )

    def find_slot(self) -> ConsumerSlot | None:
        """End any reader of the consumer's slot, and look it up."""
        try:
            end_reader(self._connection, self.slot)
            return find_slot(self._connection, self.slot)
        except psycopg.Error as exc:
            raise self._map_error(exc) from exc

    def published_since(self) -> int:
        """Return the LSN since which the publication that pgoutput reads is complete."""
        return int(self._one("published_since", self._schema)[0])

    def exact_since(self) -> int:
        """Return the LSN since which wal2json surely names the right tables."""
        return int(self._one("exact_since", self._schema)[0])

    def existence(self, position: RawPosition, names: frozenset[str] | None) -> Existence | None:
        """Return which of these collections exist at `position`; `None` for all of a schema."""
        if names is None:
            return None
        at = (str(Lsn(position[0])), str(Lsn(position[1])))
        rows = self._execute(statement("consumers", "existed"), self._schema, sorted(names), *at).fetchall()
        return read_existence(position[0], rows)

    def drop_slot(self) -> bool:
        """Drop the consumer's slot; return whether it existed."""
        try:
            return drop_slot(self._connection, self.slot)
        except psycopg.Error as exc:
            raise self._map_error(exc) from exc

    def remove(self) -> bool:
        """Delete the consumer and its slot; return whether either existed."""
        try:
            known = self._row("remove", self.name) is not None
        except _RowLockedError as exc:
            raise ConsumerBusy(
                f'consumer "{self.name}" has a checkpoint in a transaction that is still open: end that transaction'
            ) from exc
        return self.drop_slot() or known

    def wal_end(self) -> tuple[int, int]:
        """Return the LSNs up to which the WAL is inserted and flushed."""
        inserted, flushed = self._one("places")
        return inserted, flushed

    def flush(self, to: int) -> None:
        """Wait until the WAL is flushed up to `to`."""
        while self.wal_end()[1] < to:
            self._execute(statement("streams", "flush"))
            time.sleep(_FLUSH_POLL_S)

    @property
    def closed(self) -> bool:
        """Whether the session is known to be over."""
        return self._connection.closed

    def close(self) -> None:
        """End the session; a standby can own the consumer when the server notices."""
        self._connection.close()

    def give_up(self) -> None:
        """Release the lock, so that a standby can own the consumer at once."""
        self._execute(statement("consumers", "disown"))

    def _find_slot_name(self) -> str:
        try:
            return slot_of(self._connection, self.name)
        except psycopg.Error as exc:
            raise self._map_error(exc) from exc

    def _parse_snapshot(self, text: str | None) -> SnapshotState:
        try:
            return parse_snapshot(text)
        except ValueError as exc:
            raise StreamError(
                f'consumer "{self.name}" has unreadable snapshot progress in the catalog ({exc}): drop the consumer, '
                "and open it again with snapshot=True"
            ) from exc

    def _values(self, mark: Mark, cluster: Cluster) -> dict[str, Any]:
        return {
            "name": self.name,
            "place": [int(number) for number in mark.position],  # Some are Lsn.
            "snapshot": mark.text,
            "system": str(cluster.system_id),
            "timeline": cluster.timeline,
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
            raise self._map_error(exc) from exc

    def _map_error(self, exc: psycopg.Error) -> PgdocError:
        if exc.sqlstate != "42501":
            return map_replication_error(exc, self._connection)
        text, role = one_line(exc), quote_identifier(self._connection.info.user)
        if "consumers" in text:
            tables = "pgdoc.consumers, pgdoc.consumer_progress"
            advice = f"as the catalog's owner, run GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}"
        else:  # A takeover ends sessions of the former owner, which may belong to another role.
            advice = f"open the consumer as the same role everywhere, or run GRANT pg_signal_backend TO {role}"
        return DatabaseError(f"{text}: {advice}", sqlstate=exc.sqlstate)


def drop_consumer(source: Source, name: str) -> bool:
    """Drop a consumer; return whether it existed.

    Raises:
        ConsumerBusy: a process has it open, or a transaction with a checkpoint of it is open.
    """
    ownership = Ownership(source, name)
    try:
        if not ownership.own():
            pid = ownership.owner_pid()
            raise ConsumerBusy(f'consumer "{name}" is open (its session has pid {pid}): close it first', owner_pid=pid)
        dropped = ownership.remove()
        ownership.give_up()
        return dropped
    finally:
        ownership.close()


class _RowLockedError(PgdocError):
    """An open transaction has changed the consumer's row and holds its lock."""

    resumable = True


def check_schema(name: str, row: Row, schema: str) -> None:
    """Refuse a stored consumer that reads another schema."""
    if row.schema_name != schema:
        raise ConsumerLost(f'consumer "{name}" reads the schema "{row.schema_name}", not "{schema}": use another name')
