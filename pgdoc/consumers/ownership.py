"""Ownership of a durable consumer: a claim in a row of the catalog, which counts while its session is open.

Only the catalog's owner, and roles that it granted, can write these rows. Nothing here rests on an advisory lock, which
any role can take.

1. A claim replaces the former one in `pgdoc.owners`, and only exactly the one that was seen to have ended. It has the
   next epoch and a new `holder`. After a failover an epoch can be given out twice, so every check has both.
2. The new owner then stores its claim in `pgdoc.consumers`, where checkpoints check it. That waits for a transaction
   that holds a former owner's checkpoint (see `fence`). Only then does it read the position, and end the former
   reader of the slot. So a paused process that wakes up after a takeover can't commit anything.
3. An owner that loses its session comes back under the same claim, unless another process has claimed the consumer.
4. The owner uses its session every `HEARTBEAT_S`, and writes once an hour at rest, so that the catalog knows since
   when a closed consumer is unused. The server ends a session that is idle for `LEASE_S`, so a process that hangs, or
   whose network does, loses the consumer to a standby.
5. A role that may not see when another role's session began can't tell whether it is still the owner's. Such a standby
   asks for a lease: the claim then ends `LEASE_S` after it was last renewed, and the owner renews it at rest, too.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.consumers.claims import Checkpoint, Claim, ConsumerRow, Owner, RowLockedError
from pgdoc.consumers.fence import ending_blockers
from pgdoc.consumers.hearing import Hearing
from pgdoc.consumers.lease import Lease
from pgdoc.consumers.questions import Questions
from pgdoc.consumers.server_errors import map_consumer_error, mapped
from pgdoc.consumers.slots import (
    ConsumerSlot,
    advance_slot,
    drop_slot,
    end_reader,
    find_slot,
    slot_of,
    wait_for_former_reader,
)
from pgdoc.errors import (
    ConsumerBusy,
    ConsumerLost,
    PgdocError,
    ServerUnreachable,
    StreamError,
    UnreadableChange,
)
from pgdoc.model.positions import Position
from pgdoc.model.tokens import Mark, parse_snapshot
from pgdoc.replication.checks import FLUSH_LIMIT_S, check_flush
from pgdoc.replication.connection import connect, preflight
from pgdoc.replication.registry import follow_tables
from pgdoc.replication.standby import StandbyCheck
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc.model.tokens import SnapshotState
    from pgdoc.replication.source import Cluster, Source

logger = logging.getLogger("pgdoc.consumer")

HEARTBEAT_S = 5.0
LEASE_S = 30
"""The server ends an owner's session that is idle for longer."""

_LOCK_TIMEOUT_MS = 2000
_FENCE_TIMEOUT_MS = 10_000
_FLUSH_POLL_S = 0.01
_ADVANCE_LIMIT_S = 70.0


class Ownership(Questions, Hearing, Lease):
    """A session that owns a consumer, or asks for it; used by one thread.

    The methods that need the claim raise `ConsumerLost` if another process has taken over.

    Args:
        claim: of this process, if it has owned the consumer before; see `come_back`.

    Attributes:
        purpose: what the consumer's connections serve, see `connect`.
        claim: what this process owns the consumer under.
        lease_s: how long the session may be idle.
        wants_failover: whether the consumer's slot is to be a failover slot.
    """

    def __init__(self, source: Source, name: str, claim: Claim | None = None) -> None:
        self.name = name
        self.claim = claim
        self._replaced: Owner | None = None  # the last claim of another process
        self.purpose = f"consumer {name}"
        self.lease_s = LEASE_S
        self._source = source
        self._connection = connect(source.conninfo, replication=False, purpose=self.purpose)
        try:
            preflight(self._connection, needs_slot=False)  # The consumer may have its slot already.
            self.wants_failover = source.wants_failover(self._connection.info.server_version)
            self._execute(f"SET idle_session_timeout = '{LEASE_S}s'")
            self._execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
            with mapped(self._connection, self.name):
                self.slot = slot_of(self._connection, self.name)
            self._session = self._one("whoami")
        except BaseException:
            self._connection.close()
            raise

    def check_cluster(self, cluster: Cluster) -> None:
        """Refuse a server that was promoted after `cluster` was found, or before: what is known may not be true there.

        Raises:
            ServerUnreachable: it was.
        """
        found = int(self._session.system_id), self._session.timeline
        if found != (cluster.system_id, cluster.timeline):
            raise ServerUnreachable(
                f'consumer "{self.name}": its session is on timeline {found[1]} of cluster {found[0]}, what it read is '
                f"on timeline {cluster.timeline} of cluster {cluster.system_id}: a failover is going on, or two "
                "servers take writes"
            )

    def lock_claim(self, connection: psycopg.Connection[Any]) -> None:
        """Lock the claim in a transaction of another connection, until that ends."""
        with mapped(connection, self.name):
            if connection.execute(statement("consumers", "lock_claim"), self._claimed()).fetchone() is None:
                raise self.lost()

    def come_back(self) -> bool:
        """Make this the session of the claim that this process has; return `False` if another claim replaced it."""
        return self._row("come_back", self._claimed() | self._of_session()) is not None

    def own(self) -> bool:
        """Claim the consumer, if the last claim has ended."""
        seen = self.find_owner()
        if seen is not None and seen.state == "overdue":
            self._execute(statement("consumers", "end_overdue"), {"name": self.name, "seen_holder": seen.holder})
            seen = self.find_owner()
        pid, holder, renewed_at = (None, None, None) if seen is None else seen[:3]
        last = {"name": self.name, "seen_pid": pid, "seen_holder": holder, "seen_at": renewed_at}
        try:
            if seen is not None and seen.state == "hidden":
                self._execute(statement("consumers", "ask_for_lease"), last)
            if seen is not None and not seen.is_free:
                return False
            row = self._row("claim", last | self._of_session())
        except RowLockedError:  # another process is claiming it, or its owner advances the slot
            return False
        self.claim = None if row is None else Claim(*row)
        self._replaced = seen
        return row is not None

    def find_owner(self) -> Owner | None:
        """Return the last claim of the consumer, if any."""
        row = self._row("owner", self.name)
        return None if row is None else Owner(*row)

    def owner_pid(self) -> int | None:
        """Return the pid of the session that owns the consumer, if any."""
        owner = self.find_owner()
        return None if owner is None or owner.is_free else owner.pid

    def was_unused_for(self, span: timedelta, since: Owner | None = None) -> bool:
        """Return whether no process had the consumer open for so long before this one claimed it, or before `since`."""
        replaced = since or self._replaced
        last = None if replaced is None else replaced.renewed_at
        return self._row("was_unused", {"name": self.name, "last": last, "span": span}) is not None

    def find(self) -> ConsumerRow | None:
        """Read the consumer's row; `None` if it does not exist."""
        row = self._row("find", self.name)
        if row is None:
            return None
        position = Position(*row.place[:4]) if row.place else None
        snapshot = self._parse_snapshot(row.snapshot)
        ids = (int(row.system_id), row.timeline, row.database_oid)
        return ConsumerRow(row.schema_name, position, ids, snapshot, row.holder)

    def enter(self, cluster: Cluster) -> None:
        """Store a new consumer that has no position yet."""
        self._one("enter", self._values(Mark(), cluster) | {"schema": self._source.schema})

    def settle(self, mark: Mark, cluster: Cluster) -> None:
        """Store where a new consumer begins."""
        self._one("settle", self._values(mark, cluster))

    def take_over(self) -> None:
        """Store the claim where checkpoints check it; end any open transaction that holds a former owner's."""
        claimed = self._claimed()
        self._execute(f"SET lock_timeout = {_FENCE_TIMEOUT_MS}")
        with ending_blockers(self._source, claimed | {"waiter": self._session.pid}, self.purpose) as refused:
            try:
                self._one("take_over", claimed)
            except RowLockedError as exc:
                raise self._still_blocked(refused) from exc
        self._execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")

    def _still_blocked(self, refused: list[PgdocError | psycopg.Error]) -> PgdocError:
        if refused and isinstance(refused[-1], psycopg.Error):
            return map_consumer_error(refused[-1], self._connection)
        return ServerUnreachable(
            f'consumer "{self.name}" can\'t be taken over: a transaction with a checkpoint of its former owner did not '
            "end; end it with pg_terminate_backend(), or ROLLBACK PREPARED if it is a prepared one"
        )

    def begin_anew(self, mark: Mark, cluster: Cluster) -> None:
        """Store that the consumer begins again at `mark`, and has lost everything before it."""
        self._one("begin_anew", self._values(mark, cluster))

    def check(self) -> Checkpoint:
        """Keep the session alive, and return the last committed checkpoint."""
        row = self._row("look", self.slot, self.name)
        if row is None or (row.epoch, row.holder) != self.claim:
            raise self.lost()
        if row.needs_renewal:
            self._renew()
        standbys_have = row.standbys_have if self.wants_failover else None
        return Checkpoint(tuple(row.place), row.snapshot, row.inserted, standbys_have)

    def mark_of(self, checkpoint: Checkpoint) -> Mark:
        """Return the mark of a checkpoint.

        Raises:
            StreamError: the stored progress of the snapshot can't be read.
        """
        return Mark(checkpoint.position, self._parse_snapshot(checkpoint.snapshot))

    def advance(self, lsn: int) -> bool:
        """Confirm that nothing below `lsn` is needed again, to a slot that has no reader; see `advance_slot`."""
        with mapped(self._connection, self.name):
            return advance_slot(self._connection, self.slot, lsn, self._claimed())

    def advance_after(self, pid: int, lsn: int | None) -> None:
        """Confirm an LSN, if any, once the walsender with this pid, whose connection was closed, has left the slot."""
        with mapped(self._connection, self.name), deadline_scope(_ADVANCE_LIMIT_S):
            wait_for_former_reader(self._connection, self.slot, pid)
            if lsn is not None:
                advance_slot(self._connection, self.slot, lsn, self._claimed())

    def make_standby_check(self) -> StandbyCheck:
        """Return a check that uses this session."""
        return StandbyCheck(self._connection, closes=False)

    def save(self, acknowledged: Mark, waiting_since: str | None, cluster: Cluster) -> bool:
        """Store how far events are acknowledged; return `False` if another process has taken over."""
        values = self._values(acknowledged, cluster) | {"waiting_since": waiting_since}
        return self._row("save", values) is not None

    def note_unreadable(self, error: UnreadableChange) -> bool:
        """Store that the consumer has met what it can't read; return whether it was told to pass it."""
        found = {
            "commit_lsn": error.commit_lsn,
            "lsn": error.position,
            "xid": error.xid,
            "collections": list(error.collections),
            "problem": str(error),
        }
        return bool(self._one("note_unreadable", self._claimed() | found).is_skipped)

    def lost(self) -> ConsumerLost:
        """Make the error for a consumer that this process no longer owns."""
        return ConsumerLost(
            f'consumer "{self.name}" was taken over by another process, or dropped: open it again to stand by'
        )

    def find_slot(self) -> ConsumerSlot | None:
        """End any reader of the consumer's slot, and look it up."""
        with mapped(self._connection, self.name):
            end_reader(self._connection, self.slot)
            return find_slot(self._connection, self.slot)

    def follow_tables(self) -> None:
        """See `pgdoc.replication.registry.follow_tables`."""
        with mapped(self._connection, self.name):
            follow_tables(self._connection)

    def look_at_slot(self) -> ConsumerSlot | None:
        """Look the consumer's slot up."""
        with mapped(self._connection, self.name):
            return find_slot(self._connection, self.slot)

    def drop_slot(self) -> bool:
        """Drop the consumer's slot; return whether it existed."""
        with mapped(self._connection, self.name):
            return drop_slot(self._connection, self.slot)

    def remove(self) -> bool:
        """Delete the consumer and its slot; return whether either existed.

        The claim stays until `give_up`, so that no other process creates the consumer again meanwhile.
        """
        self._renew()
        try:
            known = self._row("remove", self.name) is not None
        except RowLockedError as exc:
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
        deadline = time.monotonic() + FLUSH_LIMIT_S
        while self.wal_end()[1] < to:
            check_flush(deadline)
            self._execute(statement("streams", "flush"))
            if self.wal_end()[1] < to:
                time.sleep(_FLUSH_POLL_S)

    @property
    def closed(self) -> bool:
        """Whether the session is known to be over."""
        return self._connection.closed

    def close(self) -> None:
        """End the session; a standby can own the consumer when the server notices."""
        self._connection.close()

    def give_up(self) -> None:
        """End the claim, so that a standby can own the consumer at once."""
        if self.claim is not None:
            self._execute(statement("consumers", "release"), self._claimed())

    def _claimed(self) -> dict[str, Any]:
        if self.claim is None:
            raise self.lost()
        return {"name": self.name, "epoch": self.claim.epoch, "holder": self.claim.holder}

    def _of_session(self) -> dict[str, Any]:
        pid, began = self._session[:2]
        return {"pid": pid, "began": began, "ttl": timedelta(seconds=LEASE_S)}

    def _parse_snapshot(self, text: str | None) -> SnapshotState:
        try:
            return parse_snapshot(text)
        except ValueError as exc:
            raise StreamError(
                f'consumer "{self.name}" has unreadable snapshot progress in the catalog ({exc}): drop the consumer, '
                "and open it again with snapshot=True"
            ) from exc

    def _values(self, mark: Mark, cluster: Cluster) -> dict[str, Any]:
        return self._claimed() | {
            "place": [int(number) for number in mark.position],  # Some are Lsn.
            "snapshot": mark.text,
            "system": str(cluster.system_id),
            "timeline": cluster.timeline,
            "database": cluster.database_oid,
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
        with mapped(self._connection, self.name):
            return self._connection.execute(query.encode(), given)
