"""`Batch`: the changes that a stream has taken from its mailbox."""

from __future__ import annotations

from pgdoc.changes.change import Change

BATCH = 256
"""How many changes `take` returns at most, unless more are asked for."""


class Batch(list[Change]):
    """Changes that a stream has taken.

    Attributes:
        next: index of the first unused change; the stream advances it.
        count_before, bytes_before: what was taken before this batch.
        size_bytes: the size of its messages.
    """

    __slots__ = ("bytes_before", "count_before", "next", "size_bytes")

    next: int
    count_before: int
    bytes_before: int
    size_bytes: int


def batch_after(last: Batch, changes: list[Change], size_bytes: int) -> Batch:
    """Make the batch that follows `last`."""
    batch = Batch(changes)  # without an __init__, which would double its time
    batch.next = 0
    batch.count_before = last.count_before + len(last)
    batch.bytes_before = last.bytes_before + last.size_bytes
    batch.size_bytes = size_bytes
    return batch


def empty_batch(count_before: int, bytes_before: int) -> Batch:
    """Make a batch without changes."""
    batch = Batch()
    batch.next = batch.size_bytes = 0
    batch.count_before, batch.bytes_before = count_before, bytes_before
    return batch
