"""A change at its position, with its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pgdoc.decoding.records import CollectionChange, RowChange
    from pgdoc.model.positions import Position, RawPosition


class TransactionInfo(NamedTuple):
    """What the changes of a transaction share while its metadata stays the same.

    Attributes:
        is_sent_time: see `Begin`.
    """

    xid: int
    timestamp: str
    metadata: str | None
    is_sent_time: bool = False


class Change(NamedTuple):
    """A change at its position."""

    position: RawPosition | Position
    transaction: TransactionInfo
    row: RowChange | CollectionChange


class Burst(NamedTuple):
    """The changes that one call of `Assembler.feed` completed.

    Attributes:
        changes: in the order of their positions.
        watermark: every transaction that commits below it has been returned, now or earlier.
        partial_commit_lsn: the commit LSN of a transaction that was received only in part; else `None`.
    """

    changes: list[Change]
    watermark: int
    partial_commit_lsn: int | None


def bytes_of(changes: list[Change]) -> int:
    """Return the size of the messages of these changes in bytes."""
    return sum([len(change.row.message) for change in changes])
