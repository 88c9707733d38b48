"""One change at its position, with its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pgdoc.decoding.records import CollectionChange, RowChange
    from pgdoc.model.positions import Position, RawPosition


class TransactionInfo(NamedTuple):
    """What all changes of a transaction (or of the part under one metadata) share."""

    xid: int
    timestamp: str
    metadata: str | None


class Change(NamedTuple):
    """One change in its place."""

    position: RawPosition | Position
    transaction: TransactionInfo
    row: RowChange | CollectionChange


class Burst(NamedTuple):
    """What one call to `feed` came to.

    Attributes:
        changes: in order.
        watermark: every transaction with a commit LSN below it is out.
        inside: the commit LSN of the transaction that is only partly out, or `None`.
    """

    changes: list[Change]
    watermark: int
    inside: int | None
