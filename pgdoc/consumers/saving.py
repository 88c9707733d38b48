"""Stores a consumer's progress, under its claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.runtime.deadline import deadline_scope

if TYPE_CHECKING:
    from pgdoc.consumers.acknowledgements import ConsumerProgress
    from pgdoc.consumers.ownership import Ownership
    from pgdoc.replication.source import Cluster

__all__ = ["SAVE_LIMIT_S", "note_checkpoint", "save_progress"]

SAVE_LIMIT_S: Final = 10.0


def note_checkpoint(ownership: Ownership, cluster: Cluster, progress: ConsumerProgress) -> None:
    """Take note of the last checkpoint."""
    ownership.check_cluster(cluster)
    with deadline_scope(SAVE_LIMIT_S):
        checkpoint = ownership.check()
        safe = progress.await_standbys(checkpoint)
        if safe is not None:
            ownership.flush(safe.inserted)  # A crash must not take back what is confirmed to the slot.
            progress.checkpointed = ownership.mark_of(safe)


def save_progress(
    ownership: Ownership, cluster: Cluster, progress: ConsumerProgress, *, idle_bytes: int, advance: bool
) -> None:
    """Take note of the last checkpoint, and store the consumer's progress if it is news.

    Any session of the consumer may store: the claim decides. `idle_bytes` is how far the watermark of a quiet consumer
    moves between two saves; 0 stores in any case. `advance` also confirms to the slot, because nothing
    reads it at present.
    """
    note_checkpoint(ownership, cluster, progress)
    confirmable = progress.confirmable()
    news = progress.to_save(idle_bytes)
    if (news != progress.saved or not idle_bytes) and ownership.save(*news, cluster):
        progress.saved = news
        if advance:
            ownership.advance(confirmable)
