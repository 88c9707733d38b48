"""What a relay and a `RemoteStream` need of an engine: a log that many can read, and one relay writes.

A log is a list of entries that only grows at its end, and may forget its beginning. Entries are numbered from 1 by
their *sequence*, without gaps; forgetting changes no number. Each engine implements the protocols below. All their
methods run in the engine's own event loop (`pgdoc.relay.loop_thread`).

Exactly once: the events of a consumer are a sequence that depends only on the WAL and the relay's configuration. A
writer appends a window of entries only where the log ends with the sequence before it, and the engine checks that in
the same step. So whatever is lost or repeated between the two, and however many relays run, the log is a prefix of that
sequence of events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from pgdoc.relay.config import LogConfig
    from pgdoc.relay.messages import MessagePart, Window

__all__ = ["GroupRecord", "LogEnd", "LogEntry", "LogInfo", "LogReader", "LogRecords", "LogWriter"]


class LogEnd(NamedTuple):
    """Where a log ends.

    Attributes:
        sequence: of its last entry, also if that was forgotten; 0 if it never had one.
        token: of the last entry's event, as text; `None` if that was forgotten.
        part: which part of its event the last entry has; `None` for a whole one.
        identity: of this log: another one if it was deleted and made again.
        before: the token of the entry before the last entry's event, if the log ends inside an event of a snapshot;
            `None` if there is none, or it was forgotten.
    """

    sequence: int
    token: str | None
    part: MessagePart | None
    identity: str
    before: str | None = None


class LogWriter(Protocol):
    """Appends to a log; used by one relay.

    Attributes:
        limit: the most bytes that one message's body may have.
        confirm_after_s: how long the engine may take to bring an acknowledged entry to its disk: until then a power
            failure can take it back, and the relay does not let PostgreSQL forget the event.
    """

    limit: int
    confirm_after_s: float

    async def open(self, config: LogConfig) -> LogEnd:
        """Connect, and create the log or check that it is this relay's; also after an error of `send`.

        Raises:
            LogUnreachable: the engine does not answer.
            LogRefused: the log is not this relay's; the message says why.
        """
        ...

    async def send(self, window: Window) -> int:
        """Append the messages, and return the sequence of the last one once the engine has acknowledged it.

        Calls may overlap; each continues where the one before it ends. After an error the log may have any part of
        what was sent, from its beginning: open the writer again.

        Raises:
            LogUnreachable: the engine did not acknowledge it, or another writer was faster.
            LogFull: the log takes no more.
            LogRefused: the log is not this relay's any more.
        """
        ...

    async def check(self, sequence: int) -> None:
        """Make sure that the log still has what it has acknowledged, before PostgreSQL may forget it.

        Raises:
            LogUnreachable: it ends before this entry, or does not answer.
        """
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class LogEntry(NamedTuple):
    """An entry as it is read.

    Attributes:
        sequence: its number in the log.
        token: of its event, as text.
        body: of the message, in the log's format; a part of an event if `part` is not `None`.
    """

    sequence: int
    token: str
    body: bytes
    part: MessagePart | None


@dataclass(frozen=True, slots=True)
class LogInfo:
    """What a reader finds.

    Attributes:
        identity: as in `LogEnd`.
        first: the sequence of the oldest entry that is kept; beyond `last` if there is none.
        last: the sequence of the newest entry.
        config: what the relay wrote about the log.
        begun_at: the token after which the log begins, as text.
        last_part: which part of its event the newest entry has; `None` for a whole one, or if it is not kept.
    """

    identity: str
    first: int
    last: int
    config: LogConfig
    begun_at: str
    last_part: MessagePart | None = None


class LogReader(Protocol):
    """Reads a log; used by one stream.

    Attributes:
        position: the sequence up to which every wanted entry has been returned by `fetch`. It also advances over
            entries that are not wanted.
    """

    position: int

    async def open(self) -> LogInfo:
        """Connect, and look at the log; also after an error.

        Raises:
            LogUnreachable: the engine does not answer.
            LogRefused: there is no such log, or it is not a relay's.
        """
        ...

    async def token_at(self, sequence: int) -> str | None:
        """Return the token of an entry; `None` if it is not kept."""
        ...

    async def begin(self, after: int, *, collections: Collection[str] = (), partitions: Collection[int] = ()) -> None:
        """Continue after the entry of this sequence; later calls move the reader.

        Args:
            after: the sequence.
            collections: only entries of these; all if empty.
            partitions: only entries of these, and of `EVERY`; all if empty.
        """
        ...

    async def newest(self) -> list[int]:
        """Return the sequence of the newest entry of each partition, those of `EVERY` included; 0 without one."""
        ...

    async def fetch(self, most: int, wait_s: float) -> list[LogEntry]:
        """Return the next entries, waiting for the first; none after `wait_s`.

        Raises:
            LogUnreachable: the connection was lost; open the reader again.
            HistoryLost: the log has forgotten entries that follow the last one returned.
        """
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class GroupRecord(NamedTuple):
    """A small value that the workers of a group share; `revision` changes with each write."""

    value: bytes
    revision: int


class LogRecords(Protocol):
    """Small values beside a log, each written by compare-and-set: what groups of readers agree on.

    A value that is read may be an older one; then writing it fails.
    """

    async def open(self, *, creates: bool = True) -> bool:
        """Connect, and create what keeps the records; also after an error.

        Args:
            creates: whether to create it where it does not exist.

        Returns:
            Whether there is something that keeps records.

        Raises:
            LogUnreachable: the engine does not answer, here and in the methods below.
            LogRefused: the engine does not allow it.
        """
        ...

    async def read(self, prefix: str) -> dict[str, GroupRecord]:
        """Return the records whose keys begin so. Keys have only letters, digits, `_`, `-`, `=` and `.`."""
        ...

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        """Replace a record of this revision (0: one that does not exist); return the new revision, or `None`.

        `None` means that another writer was faster.
        """
        ...

    async def delete(self, key: str, revision: int) -> bool:
        """Delete a record of this revision; return whether it had that."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
