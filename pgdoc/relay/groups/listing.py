"""Lists the groups of a log, by the records beside it. Runs in the engine's loop thread, and changes nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import unquote

from pgdoc.errors import LogRefused
from pgdoc.relay.engines import open_log_reader, open_records
from pgdoc.relay.groups.lease import (
    BEGUN,
    LEASE_HEAD,
    MEMBER_HEAD,
    MemberRecord,
    PartitionLease,
    is_lease,
    lease_key,
    position_of,
)
from pgdoc.relay.groups.status import GroupMember, GroupPartition, GroupStatus
from pgdoc.relay.remote_options import LEASE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.relay.finding import LogPosition
    from pgdoc.relay.log import GroupRecord, LogInfo, LogReader
    from pgdoc.relay.targets import LogTarget

    T = TypeVar("T")

__all__ = ["FoundLog", "GroupRow", "ListedGroups", "list_groups", "look_at", "recorded_members"]


class FoundLog(NamedTuple):
    """What there is under the name of a log. Its groups may outlive it.

    Attributes:
        info: of the log; `None` if there is none.
        missing: the error that says so.
    """

    info: LogInfo | None
    missing: LogRefused | None


class ListedGroups(NamedTuple):
    """The groups that have records, in the order of their names."""

    log: FoundLog
    groups: list[GroupStatus]


class GroupRow(NamedTuple):
    """A row of a group in a database.

    Attributes:
        partition: whose checkpoints it has; `None` for the row of a handler.
        identity, sequence, token: as in `LogPosition`, of the last checkpoint; the token is empty without one.
    """

    partition: int | None
    identity: str
    sequence: int
    token: str


async def look_at(reader: LogReader) -> FoundLog:
    """Look at a log, which need not exist.

    Raises:
        LogUnreachable: the engine does not answer.
        LogRefused: no relay writes the log of this name, or the user may not read it.
    """
    try:
        return FoundLog(await reader.open(), None)
    except LogRefused as exc:
        if exc.reason != "missing":
            raise
        return FoundLog(None, exc)


async def list_groups(target: LogTarget) -> ListedGroups:
    """Return the groups that have records.

    Raises:
        LogUnreachable: the engine does not answer.
        LogRefused: no relay writes the log of this name, or the user may not read it.
    """
    reader, records = open_log_reader(target), open_records(target)
    try:
        log = await look_at(reader)
        newest = [] if log.info is None else await reader.newest()
        found = await records.read("") if await records.open(creates=False) else {}
    finally:
        await reader.close()
        await records.close()
    groups: dict[str, dict[str, GroupRecord]] = defaultdict(dict)
    for key, record in found.items():
        group, _, rest = key.partition(".")
        groups[group][rest] = record
    statuses = [_status(group, each, log.info, newest) for group, each in groups.items()]
    return ListedGroups(log, sorted(statuses, key=lambda each: each.name))


def recorded_members(records: dict[str, GroupRecord]) -> tuple[GroupMember, ...]:
    """Return the members that have a record, by keys without the group's prefix."""
    members = []
    for key in sorted(records):
        if key.startswith(MEMBER_HEAD):
            found = MemberRecord.parse(records[key])
            lease = timedelta(seconds=found.lease_s or LEASE_S)
            revision = records[key].revision
            members.append(GroupMember(key.removeprefix(MEMBER_HEAD), found.host, found.pid, lease, revision))
    return tuple(members)


def _status(group: str, records: dict[str, GroupRecord], info: LogInfo | None, newest: list[int]) -> GroupStatus:
    damaged: list[str] = []
    begun = _parsed(position_of, BEGUN, records, damaged)
    recorded = {int(key.removeprefix(LEASE_HEAD)) for key in records if is_lease(key)}
    partitions = []
    for number in sorted(recorded.union(range(len(newest)))):
        lease = _parsed(PartitionLease.parse, lease_key(number), records, damaged)
        unmoved = None if lease_key(number) in damaged else begun
        position = unmoved if lease is None else lease.position
        last = newest[number] if number < len(newest) else None
        owner = lease.owner if lease is not None and lease.owner else None
        partitions.append(_partition(number, owner, position, info, last))
    shown = GroupStatus(unquote(group), recorded_members(records), tuple(partitions), None, None, tuple(damaged))
    return replace(shown, behind=_furthest(shown))


def _parsed(
    parse: Callable[[GroupRecord, str], T], key: str, records: dict[str, GroupRecord], damaged: list[str]
) -> T | None:
    """Return what a record says; `None` if there is none, or it is damaged, which is noted."""
    try:
        return parse(records[key], key) if key in records else None
    except LogRefused:
        damaged.append(key)
        return None


def _furthest(group: GroupStatus) -> int | None:
    if group.damaged:  # the partition without a position may be further behind
        return None
    return max((each.behind for each in group.partitions if each.behind is not None), default=None)


def with_rows(group: GroupStatus, rows: list[GroupRow], info: LogInfo | None) -> GroupStatus:
    """Return a group with what a database knows of it: the records follow its checkpoints, some later than others."""
    identity = None if info is None else info.identity
    stored = {row.partition: row for row in rows if row.partition is not None and row.identity == identity}
    partitions = tuple(_advanced(each, stored.get(each.number)) for each in group.partitions)
    known = replace(group, partitions=partitions, rows=len(rows))
    return replace(known, behind=_furthest(known))


def _advanced(partition: GroupPartition, row: GroupRow | None) -> GroupPartition:
    if row is None or partition.sequence is None or partition.behind is None or row.sequence <= partition.sequence:
        return partition
    behind = max(0, partition.behind - (row.sequence - partition.sequence))
    return replace(partition, sequence=row.sequence, token=row.token, behind=behind)


def _partition(
    number: int, owner: str | None, position: LogPosition | None, info: LogInfo | None, last: int | None
) -> GroupPartition:
    if position is None:
        return GroupPartition(number, owner, None, None, None)
    is_same = info is not None and info.identity == position.identity
    behind = max(0, last - position.sequence) if is_same and last is not None else None
    return GroupPartition(number, owner, position.sequence, position.token, behind)
