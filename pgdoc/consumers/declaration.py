"""Creates a durable consumer without opening it.

An open owner is never disturbed. A closed consumer is claimed, for a moment, only if it has to be created, if its slot
is lost, or once an hour: a claim lets it count as used, so that `prune` keeps it.

A process that opens a consumer stores its claim in `pgdoc.consumers` before it reads. A process that drops a consumer
stores it in `pgdoc.owners` only. So a claim that stands in both tables says that the consumer exists and stays.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from pgdoc.changes.snapshot import check_progress
from pgdoc.consumers.claims import check_schema
from pgdoc.consumers.ownership import Ownership
from pgdoc.consumers.slots import find_cluster
from pgdoc.consumers.takeover import Takeover
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.errors import ConsumerBusy, InvalidResumeToken, PgdocError
from pgdoc.model.tokens import SnapshotProgress, SnapshotStage

if TYPE_CHECKING:
    from pgdoc.changes.router import Selection
    from pgdoc.consumers.claims import ConsumerRow
    from pgdoc.replication.source import Source

__all__ = ["Declaration", "declare_consumer", "still_in_work", "unfinished_snapshot"]

_RECENT = timedelta(hours=1)
"""To within which the catalog knows when a consumer was in use."""


class Declaration(Enum):
    """What one attempt to create a consumer has found or done."""

    MADE = "made"
    EXISTS = "exists"
    IN_WORK = "in work"  # another process creates, opens or drops it at this moment


def declare_consumer(source: Source, name: str, selection: Selection, *, snapshot: bool) -> Declaration:
    """Make sure that a consumer has its row, its position and its slot.

    A call that is interrupted leaves a row without a position. The next process that creates or opens the consumer
    begins again.

    Raises:
        ConsumerLost: it reads another schema.
        HistoryLost: it exists, but its slot is lost, and no history reaches back to its position.
        InvalidResumeToken: it is inside a snapshot, and `snapshot` is false or the selection is another one.
    """
    with contextlib.closing(Ownership(source, name)) as ownership:
        if _stands(ownership, source, selection, snapshot=snapshot):
            return Declaration.EXISTS
        if not ownership.own():
            return Declaration.IN_WORK
        try:
            with ownership.taking_over():
                return _declare(ownership, source, selection, snapshot=snapshot)
        finally:
            with contextlib.suppress(PgdocError):  # the claim ends with its session
                ownership.give_up()


def _stands(ownership: Ownership, source: Source, selection: Selection, *, snapshot: bool) -> bool:
    """Return whether there is nothing to do."""
    owner, row = ownership.find_owner(), ownership.find()
    if row is None or row.position is None:
        return False
    _check_same(ownership.name, row, source, selection, snapshot=snapshot)
    if owner is not None and not owner.is_free:
        return owner.holder == row.holder
    return _has_slot(ownership) and not ownership.was_unused_for(_RECENT, since=owner)


def _has_slot(ownership: Ownership) -> bool:
    slot = ownership.look_at_slot()
    return slot is not None and slot.wal_status != "lost" and slot.plugin in PLUGINS


def _declare(ownership: Ownership, source: Source, selection: Selection, *, snapshot: bool) -> Declaration:
    """Create the consumer, or its slot, under the claim of this process."""
    row = ownership.find()
    exists = row is not None and row.position is not None
    if row is not None and exists:
        _check_same(ownership.name, row, source, selection, snapshot=snapshot)
        if _has_slot(ownership):
            return Declaration.EXISTS
    cluster = find_cluster(source, purpose=ownership.purpose)
    ownership.check_cluster(cluster)
    stage = SnapshotStage.START if snapshot else SnapshotStage.NONE
    takeover = Takeover(source, ownership, cluster, selection, recreate=False, snapshot=stage)
    if row is not None and exists:
        takeover.mend(row)
        return Declaration.EXISTS
    takeover.enter(None)
    return Declaration.MADE


def _check_same(name: str, row: ConsumerRow, source: Source, selection: Selection, *, snapshot: bool) -> None:
    """Refuse what `watch` would refuse with the same arguments."""
    check_schema(name, row, source.schema)
    if row.snapshot is not SnapshotStage.NONE and not snapshot:
        raise unfinished_snapshot(name)
    if isinstance(row.snapshot, SnapshotProgress):
        check_progress(row.snapshot, selection)


def unfinished_snapshot(name: str) -> InvalidResumeToken:
    """Make the error for a consumer whose snapshot is not finished, and is not asked for."""
    return InvalidResumeToken(f'consumer "{name}" has not finished its snapshot: open it with snapshot=True')


def still_in_work(name: str, waited_s: float) -> ConsumerBusy:
    """Make the error for a consumer that another process has been creating, opening or dropping for long."""
    return ConsumerBusy(
        f'consumer "{name}" is being created, opened or dropped by another process, which has not finished after '
        f"{waited_s:.0f} s: see who has it (`pgdoc consumers`), and try again"
    )
