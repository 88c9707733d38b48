"""What an operator sees of the groups of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["GroupMember", "GroupPartition", "GroupStatus"]


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a group, as its record says.

    A process that is killed leaves its record, until another member finds it silent for the length of its lease.

    Attributes:
        id: of the member.
        host: the name of its machine; `None` if it does not say so.
        pid: of its process there; `None` if it does not say so.
        lease: after which it loses its partitions if it is silent.
        revision: of its record, which changes with each sign of life. A member whose revision is the same after its
            `lease` is over.
    """

    id: str
    host: str | None
    pid: int | None
    lease: timedelta
    revision: int


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """Where a group stands in one partition of the log.

    Attributes:
        number: of the partition.
        owner: the id of the member that has it; `None` if none has.
        sequence: of the last entry of the log that is acknowledged, as of a second ago, or with a store, of the last
            checkpoint that has committed; `None` if it is not known.
        token: of that entry's event, or the token after which the group began, as text; `None` if it is not known.
        behind: how many entries the log has from there to the newest one of the partition, those of other partitions
            included; 0 if none of the partition waits; `None` if the log is gone, or is not the one of `sequence`.
    """

    number: int
    owner: str | None
    sequence: int | None
    token: str | None
    behind: int | None


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group of readers of a log.

    Attributes:
        name: of the group.
        members: the members that have a record beside the log.
        partitions: where the group stands; empty if only a database knows it.
        behind: that of the partition that is furthest behind; `None` if it is not known.
        rows: how many rows the group has in the database of the store; `None` without a store.
        damaged: the records that can't be read, such as `p.3` of partition 3, or `begun` of where the group began. No
            member reads the log before the group is dropped. `behind` is not known then.
    """

    name: str
    members: tuple[GroupMember, ...]
    partitions: tuple[GroupPartition, ...]
    behind: int | None
    rows: int | None
    damaged: tuple[str, ...] = ()
