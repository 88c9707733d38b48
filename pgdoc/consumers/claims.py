"""What the catalog stores about a consumer and its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgdoc.errors import ConsumerBusy, ConsumerLost, ConsumerNotFound, DatabaseError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from pgdoc.model.positions import Ids, Position
    from pgdoc.model.tokens import SnapshotState


class Claim(NamedTuple):
    """What one process owns a consumer under; checkpoints commit under it."""

    epoch: int
    holder: UUID


class Owner(NamedTuple):
    """The last claim of a consumer.

    Attributes:
        pid: of its session; `None` if its process has left.
        state: `open`; `overdue`, if the server should have ended it; `gone` or `expired`, so that it can be replaced;
            or `hidden`, if this role can't tell.
    """

    pid: int | None
    holder: UUID
    renewed_at: datetime
    state: str

    @property
    def is_free(self) -> bool:
        """Whether another claim may replace this one."""
        return self.state in {"gone", "expired"}


class ConsumerRow(NamedTuple):
    """What the catalog stores about a consumer.

    Attributes:
        position: everything up to it is acknowledged; `None` until the start is settled.
        ids: of the database that stored `position`, which may have been copied or restored to here.
        snapshot: how far its snapshot has come at `position`.
        holder: of the claim under which checkpoints commit; `None` after an older version of pgdoc.
    """

    schema_name: str
    position: Position | None
    ids: Ids
    snapshot: SnapshotState
    holder: UUID | None


class Checkpoint(NamedTuple):
    """The last committed checkpoint of a consumer.

    Attributes:
        position: everything up to it has had its effect.
        snapshot: the stored progress of the snapshot there, which `Ownership.mark_of` parses.
        inserted: an LSN beyond the commit. Until the WAL is flushed up to here, a crash can undo the commit.
        standbys_have: the LSN up to which the standbys have flushed the WAL; `None` if there are none to wait for. A
            failover to one that does not have the commit undoes it, too.
    """

    position: tuple[int, ...]
    snapshot: str | None
    inserted: int
    standbys_have: int | None = None

    def is_safe(self, standbys_have: int | None) -> bool:
        """Whether a failover to a standby that has so much of the WAL does not undo the commit."""
        return standbys_have is None or standbys_have >= self.inserted


def check_schema(name: str, row: ConsumerRow, schema: str) -> None:
    """Refuse a stored consumer that reads another schema."""
    if row.schema_name != schema:
        raise ConsumerLost(f'consumer "{name}" reads the schema "{row.schema_name}", not "{schema}": use another name')


def busy(name: str, pid: int | None) -> ConsumerBusy:
    """Make the error for a consumer that another process owns."""
    return ConsumerBusy(
        f'consumer "{name}" is open elsewhere (its session has pid {pid}): close it there, or open it with wait=True '
        "to stand by",
        owner_pid=pid,
    )


def still_open(name: str, pid: int | None) -> ConsumerBusy:
    """Make the error for a consumer that can't be dropped or recreated while a process has it open."""
    return ConsumerBusy(f'consumer "{name}" is open (its session has pid {pid}): close it first', owner_pid=pid)


def unknown_consumer(name: str) -> ConsumerNotFound:
    """Make the error for a consumer that does not exist."""
    return ConsumerNotFound(f'consumer "{name}" does not exist: check the name (store.consumers() lists all)')


class RowLockedError(DatabaseError):
    """An open transaction has changed the consumer's row and holds its lock."""

    resumable = True
