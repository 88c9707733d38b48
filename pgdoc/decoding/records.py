"""What every output plugin's messages come down to.

Named tuples, not dataclasses: one is made for each change that passes, and a frozen dataclass costs three times more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

COLLECTION_COLUMNS = frozenset({"id", "data", "version", "replaced_version", "created_at", "updated_at"})


class Begin(NamedTuple):
    """A transaction whose changes follow."""

    commit_lsn: int
    xid: int
    timestamp: str


class Images(NamedTuple):
    """A row before and after its change: values by column name, numbers as numbers, all else as text, jsonb too.

    Attributes:
        after: the row as it is now (I, U), whole.
        before: the row as it was (U, D); only its key where the table is not REPLICA IDENTITY FULL.
    """

    after: dict[str, Any]
    before: dict[str, Any]


class RowChange(NamedTuple):
    """A change of one row, or the truncation of one table.

    The row itself stays in the message until someone asks for it: reading it costs more than all the rest of a
    change's way, and most of that is work of the garbage collector for rows that only wait in a buffer.

    Attributes:
        lsn: of the WAL record.
        kind: `I`, `U`, `D` or `T`.
        table: the name in the schema that is read.
        message: as it was received.
        complete: whether the message has all the images that its kind should have.
        read: how the plugin's messages are read.
    """

    lsn: int
    kind: str
    table: str
    message: bytes
    complete: bool
    read: Callable[[bytes], Images]

    @property
    def renamed_to(self) -> None:
        """No row is renamed; see `CollectionChange`."""
        return None

    def images(self) -> Images:
        """Read the row.

        Raises:
            ProtocolError: the message is broken.
        """
        return self.read(self.message)


class CollectionChange(NamedTuple):
    """What became of a whole collection; it stands where a `RowChange` does, and has all that both are asked for.

    Attributes:
        lsn: of the message that says it.
        kind: `create`, `rename`, `drop`, or `invalidate`, which no message says: a stream has lost its collections.
        table: its name, the old one where it was renamed.
        message: as it was received.
        complete: always; it has no images that could be missing.
        renamed_to: its new name.
        left: the collections that the schema had after it; `None` where that was not told.
    """

    lsn: int
    kind: str
    table: str
    message: bytes
    complete: bool = True
    renamed_to: str | None = None
    left: frozenset[str] | None = None

    def images(self) -> Images:
        """Give no row."""
        return Images({}, {})


class Message(NamedTuple):
    """What `pg_logical_emit_message` wrote inside the transaction; `content` is `None` where it is not text."""

    lsn: int
    content: str | None


class Commit(NamedTuple):
    """The end of a transaction; every transaction that commits below `end_lsn` has been sent."""

    end_lsn: int


class Idle(NamedTuple):
    """A keepalive between transactions; every transaction that commits below `wal_end` has been sent."""

    wal_end: int


Record = Begin | RowChange | Message | Commit | Idle
