"""Errors of streams and consumers."""

from __future__ import annotations

from pgdoc.errors.base import PgdocError


class StreamError(PgdocError):
    """A stream can't be opened, or can't continue; each subclass names a reason."""


class StreamClosed(StreamError):  # noqa: N818
    """The stream is closed, or its collections no longer exist: open another with `watch(resume_after=...)`."""


class SlotBlocked(StreamError):  # noqa: N818
    """Open write transactions block the creation of the first replication slot: end them, or wait, and try again.

    Attributes:
        blockers: a `(pid, age in seconds)` for each transaction, oldest first. The pid of a prepared transaction is
            `None`. So is the age of another role's transaction, unless the role is a member of `pg_read_all_stats`.
    """

    resumable = True
    retryable = True

    def __init__(self, message: str, *, blockers: tuple[tuple[int | None, float | None], ...] = ()) -> None:
        super().__init__(message)
        self.blockers = blockers


class ConsumerNotFound(StreamError):  # noqa: N818
    """The consumer does not exist, or was dropped: check the name; `store.consumers()` lists all."""


class ConsumerBusy(StreamError):  # noqa: N818
    """The consumer is open elsewhere: close it there, or open it with `wait=True` as a standby.

    Also a group of a log that has members, when it is to be dropped: end their processes first.

    Attributes:
        owner_pid: the pid of its session on the server; `None` if the session has just ended.
    """

    def __init__(self, message: str, *, owner_pid: int | None = None) -> None:
        super().__init__(message)
        self.owner_pid = owner_pid


class ConsumerLost(StreamError):  # noqa: N818
    """This stream no longer owns the consumer, or a later checkpoint is already stored: open the consumer again.

    Let the error leave the transaction's block, so that the transaction is rolled back.
    """


class WaitTimeout(StreamError, TimeoutError):  # noqa: N818 (the field's names: psycopg_pool.PoolTimeout)
    """A consumer or stream has not passed an LSN in time: see how far it is, or wait longer.

    Attributes:
        reached: the LSN that it has passed, as text.
        owner_pid: the pid of the server process whose session has the consumer open; `None` if nobody has, and for a
            stream.
    """

    def __init__(self, message: str, *, reached: str = "", owner_pid: int | None = None) -> None:
        super().__init__(message)
        self.reached = reached
        self.owner_pid = owner_pid


class NotAConsumer(StreamError):  # noqa: N818
    """`ack` and `checkpoint` need a stream with a consumer: open it with `watch(consumer=...)`."""


class HistoryLost(StreamError):  # noqa: N818
    """The server no longer keeps the WAL of the position: rebuild from the collections, with `snapshot=True`.

    Attributes:
        oldest_available: the oldest LSN that a stream can start at, as text; `None` if there is none.
    """

    def __init__(self, message: str, *, oldest_available: str | None = None) -> None:
        super().__init__(message)
        self.oldest_available = oldest_available


class InvalidResumeToken(StreamError, ValueError):  # noqa: N818
    """The text is not a token, or not a position of this cluster that can be resumed.

    Use a token on the server that issued it; after a restore or failover, start without one.
    """


class UnreadableChange(StreamError):  # noqa: N818
    """The server can't send a change that the stream wants, because its text is too large: pass its transaction.

    `pgdoc consumers skip NAME` or `store.skip()` does that for a consumer. Another stream goes on when it is opened
    with the `resume_after` that the message names.

    Attributes:
        commit_lsn: the LSN of the transaction's commit, as text; `store.skip()` takes it.
        xid: the transaction's number; `None` for a message outside of transactions.
        collections: the names of the collections with such a change; empty if they could not be found out.
        collection: the first of them, or `None`.
        position: the LSN of the change, as text.
    """

    def __init__(
        self,
        message: str,
        *,
        commit_lsn: str = "",
        xid: int | None = None,
        collections: tuple[str, ...] = (),
        position: str = "",
    ) -> None:
        super().__init__(message)
        self.commit_lsn = commit_lsn
        self.xid = xid
        self.collections = collections
        self.collection = collections[0] if collections else None
        self.position = position


class ReplicaIdentityChanged(StreamError):  # noqa: N818
    """A collection's table is no longer REPLICA IDENTITY FULL, so before images are missing: set it again."""


class ProtocolError(StreamError):
    """The server sent a message that the decoder does not understand: update pgdoc, or report the message.

    Attributes:
        offset: the byte of the message where decoding stopped.
    """

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset
