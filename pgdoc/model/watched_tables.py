"""What a store reports about tables that are watched as they are, or could be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from pgdoc.model.positions import Lsn

__all__ = ["LockHolder", "Refusal", "TableCheck", "WatchedTable"]


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table that streams can watch as it is.

    Attributes:
        name: its schema and name, such as `public.orders`.
        key: the columns of its primary key, in the order of the index. They identify a row in events.
        document: the column that its events have as their document; `None` for the whole row.
        columns: the SQL type of each column that its events have, in order. Generated columns are left out.
        since: the position in the WAL since which it has this name and these columns, and is watched.
    """

    name: str
    key: tuple[str, ...]
    document: str | None
    columns: dict[str, str]
    since: Lsn


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why `add_table` would raise `TableRefused`, and what to do about it: its `reason` and `cure`."""

    reason: str
    cure: str


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A session whose lock on a table `add_table` would wait for.

    Attributes:
        pid: the process of the session; `None` for a prepared transaction.
        role: its role, or what the process is, such as `autovacuum worker`.
        lock: the mode, such as `ROW EXCLUSIVE`.
        since: when its transaction began; `None` if that is unknown.
    """

    pid: int | None
    role: str
    lock: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class TableCheck:
    """What `add_table` would do to a table, and what it would cost.

    Attributes:
        name: its schema and name, such as `public.orders`.
        is_watched: whether it is watched already.
        refusals: why it can't be added; empty if it can.
        steps: what would be done, as SQL.
        lock: the mode of the lock that this takes for a moment; `None` if nothing would be done.
        holders: the sessions that hold the lock up at present, the oldest transaction first.
        wal_bytes_per_change: how many more bytes of WAL each UPDATE and DELETE writes, estimated; 0 if the table has
            REPLICA IDENTITY FULL already; `None` if ANALYZE has not run, or if the role may not read a column. INSERTs
            write no more.
        changes: how many rows were updated and deleted since `counted_since`.
        counted_since: when the server began to count; `None` for when the database was created.
        notes: what events of this table have or lack.
    """

    name: str
    is_watched: bool
    refusals: tuple[Refusal, ...]
    steps: tuple[str, ...]
    lock: str | None
    holders: tuple[LockHolder, ...]
    wal_bytes_per_change: int | None
    changes: int
    counted_since: datetime | None
    notes: tuple[str, ...]
