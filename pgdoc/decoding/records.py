"""The records that every output plugin's messages are decoded to.

Named tuples: one is made for each change, and a frozen dataclass takes three times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

COLLECTION_COLUMNS = frozenset({"id", "data", "version", "replaced_version", "created_at", "updated_at"})

ROW_KINDS = frozenset("IUDT")
"""The kinds of a `RowChange`. Every other kind is that of a `CollectionChange`."""


class Begin(NamedTuple):
    """The start of a transaction. Its changes follow."""

    commit_lsn: int
    xid: int
    timestamp: str


class Images(NamedTuple):
    """A row before and after its change: values by column name, numbers as numbers, all else (jsonb too) as text.

    TOAST values that an UPDATE left unchanged are taken from the old row.

    Attributes:
        after: the row as the change left it (insert, update).
        before: the row before it (update, delete); only its key if the table is not REPLICA IDENTITY FULL.
    """

    after: dict[str, Any]
    before: dict[str, Any]


class RowChange(NamedTuple):
    """A change of one row, or the truncation of one table.

    The row stays in the undecoded message until it is asked for. Decoding costs more than all else that is done to a
    change, mostly for garbage collection of rows that only wait in a buffer.

    Attributes:
        kind: `I`, `U`, `D` or `T`.
        table: its name in the schema that is read.
        complete: whether the message has all the images that its kind should have.
        read: decodes the message of the plugin that sent it.
    """

    lsn: int
    kind: str
    table: str
    message: bytes
    complete: bool
    read: Callable[[bytes], Images]

    @property
    def renamed_to(self) -> None:
        """Always `None`; a `CollectionChange` can have it."""
        return None

    def images(self) -> Images:
        """Decode the row.

        Raises:
            ProtocolError: the message is malformed.
        """
        return self.read(self.message)


class CollectionChange(NamedTuple):
    """A change of a whole collection, with every attribute of a `RowChange` that code for both kinds reads.

    Attributes:
        kind: `create`, `rename` or `drop`. Also `invalidate`, which no message reports: a stream lost its last
            collection.
        table: the collection's name, before a rename.
        complete: always `True`: it has no images.
        remaining: the schema's collections after the change; `None` if the message did not list them.
    """

    lsn: int
    kind: str
    table: str
    message: bytes
    complete: bool = True
    renamed_to: str | None = None
    remaining: frozenset[str] | None = None

    def images(self) -> Images:
        """Return empty images."""
        return Images({}, {})


class Message(NamedTuple):
    """A transactional message of `pg_logical_emit_message`; `content` is `None` if it is not text."""

    lsn: int
    content: str | None


class Commit(NamedTuple):
    """The end of a transaction. Every transaction that commits below `end_lsn` has been sent."""

    end_lsn: int


class Idle(NamedTuple):
    """A keepalive between transactions. Every transaction that commits below `wal_end` has been sent."""

    wal_end: int


Record = Begin | RowChange | Message | Commit | Idle
