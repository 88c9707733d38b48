"""What every output plugin's messages come down to.

Named tuples, not dataclasses: one is made for each change that passes, and a frozen dataclass costs three times more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Column = dict[str, Any]
"""`{"name": ..., "value": ...}`, as wal2json writes it: numbers as numbers, all else as text, jsonb too."""

COLLECTION_COLUMNS = frozenset({"id", "data", "version", "replaced_version", "created_at", "updated_at"})


class Begin(NamedTuple):
    """A transaction whose changes follow."""

    commit_lsn: int
    xid: int
    timestamp: str


class RowChange(NamedTuple):
    """A change of one row, or the truncation of one table.

    Attributes:
        lsn: of the WAL record.
        kind: `I`, `U`, `D` or `T`.
        table: the name in the schema that is read.
        columns: the row as it is now (I, U); an UPDATE leaves out what it did not touch in TOAST.
        identity: the row as it was (U, D); whole under REPLICA IDENTITY FULL.
        size: bytes of the message.
    """

    lsn: int
    kind: str
    table: str
    columns: list[Column]
    identity: list[Column]
    size: int


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
