"""Lets a durable consumer begin anew, from now."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

from pgdoc.consumers.claims import still_open, unknown_consumer
from pgdoc.consumers.ownership import Ownership
from pgdoc.consumers.slots import find_cluster, make_slot
from pgdoc.model.positions import Lsn, before_commits_at
from pgdoc.model.tokens import Mark, SnapshotStage

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

__all__ = ["recreate_consumer"]

logger = logging.getLogger("pgdoc.consumer")


def recreate_consumer(source: Source, name: str, *, snapshot: bool) -> Lsn:
    """Give a consumer a new slot and a new position; return the LSN at which it begins.

    The slot comes first. If this is interrupted after it, the stored position is older than the slot, and the consumer
    goes on where the slot stands.

    Raises:
        ConsumerBusy: a process has it open.
        ConsumerNotFound: there is no such consumer.
    """
    with closing(Ownership(source, name)) as ownership:
        if ownership.find() is None:
            raise unknown_consumer(name)
        if not ownership.own():
            raise still_open(name, ownership.owner_pid())
        with ownership.taking_over():
            lsn = _begin_anew(source, ownership, SnapshotStage.START if snapshot else SnapshotStage.NONE)
        ownership.give_up()
    logger.warning('consumer "%s" was told to begin anew at %s, and gets no event from before that', name, lsn)
    return lsn


def _begin_anew(source: Source, ownership: Ownership, snapshot: SnapshotStage) -> Lsn:
    row = ownership.find()
    if row is None:  # dropped before this process claimed it
        ownership.give_up()
        raise unknown_consumer(ownership.name)
    ownership.take_over()
    cluster = find_cluster(source, purpose=ownership.purpose)
    with ownership.unhurried():
        make_slot(source, ownership.slot, None, lock_claim=ownership.lock_claim, purpose=ownership.purpose)
    inserted, _ = ownership.wal_end()
    ownership.flush(inserted)  # a position that is not flushed could be lost in a crash
    mark = Mark(before_commits_at(inserted), snapshot)
    if row.position is None:  # its creation was interrupted
        ownership.settle(mark, cluster)
    else:
        ownership.begin_anew(mark, cluster)
    return Lsn(inserted)
