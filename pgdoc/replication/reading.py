"""What a session knows about the transactions that are still to come, for figures such as lag."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from pgdoc.model.stored_times import moment_of

if TYPE_CHECKING:
    from pgdoc.changes.change import TransactionInfo
    from pgdoc.decoding.records import Begin
    from pgdoc.replication.session import ReplicationSession


class Reading(NamedTuple):
    """How far a reader has come in time; a copy of what its thread knows.

    Times are in seconds since 1970, by the server's clock.

    Attributes:
        clock_ahead_s: how far the server's clock is ahead of this process's.
        transaction_at: when the transaction committed that the reader is inside of; `None` outside of transactions.
        waited_at: when the reader last had nothing to read. Everything that was sent before has been put. `None` if
            no reader feeds the stream now, or if that is not known.
    """

    clock_ahead_s: float = 0.0
    transaction_at: float | None = None
    waited_at: float | None = None

    @property
    def now(self) -> float:
        """The time by the server's clock."""
        return time.time() + self.clock_ahead_s


UNKNOWN = Reading()


def reading_of(session: ReplicationSession) -> Reading:
    """Return what the session's thread knows; any thread may ask."""
    reader = session.reader
    ahead_s = reader.clock_ahead_s
    begun = session.assembler.open_transaction or session.decoder.begun
    waited_at = time.time() + ahead_s - (time.monotonic() - reader.waited_at)
    return Reading(ahead_s, None if begun is None else committed_at(begun), waited_at)


def committed_at(transaction: TransactionInfo | Begin) -> float | None:
    """Return when a transaction committed, at its origin if it was replicated; `None` if Python has no such time."""
    try:
        return moment_of(transaction.timestamp).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
