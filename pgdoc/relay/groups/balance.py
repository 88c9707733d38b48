"""Decides which partitions a member takes and gives up, from what it has seen of the group's records.

No clock is compared with another one: a member is alive while its record changes, and it is over when that has not
changed for the length of a lease on the observer's own clock. All times are those of one monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgdoc.relay.groups.lease import MEMBER_HEAD, PartitionLease, lease_key, member_key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pgdoc.relay.log import GroupRecord

__all__ = ["Balance", "Found", "Plan"]

_NO_RECORD = 0


class Found(NamedTuple):
    """A partition to take: its record's revision, and its lease; `None` if it has no record yet."""

    partition: int
    revision: int
    lease: PartitionLease | None


class Plan(NamedTuple):
    """What a member does next.

    Attributes:
        take: partitions to take.
        give_up: own partitions that are beyond its share.
        bury: records of members that are gone, as `(key, revision)`.
    """

    take: list[Found]
    give_up: list[int]
    bury: list[tuple[str, int]]


class Balance:
    """What one member has seen of its group.

    Args:
        member: its id.
        partitions: how many the log has.
        lease_s: after which an owner that does not move loses its partitions.
    """

    def __init__(self, member: str, partitions: int, lease_s: float) -> None:
        self._member, self._partitions, self._lease_s = member, partitions, lease_s
        self._seen: dict[str, tuple[int, float]] = {}  # of each member's record: its revision, and since when
        self._records: Mapping[str, GroupRecord] = {}

    def observe(self, records: Mapping[str, GroupRecord], now: float) -> None:
        """Note the records, by key without the group's prefix; `now` is when they had been read."""
        self._records = records
        revisions = {key: record.revision for key, record in records.items() if key.startswith(MEMBER_HEAD)}
        # An owner without a record of its own may have joined while the records were read one after the other.
        owners = [found.lease.owner for found in map(self.lease_of, range(self._partitions)) if found.lease is not None]
        revisions = {**{member_key(owner): _NO_RECORD for owner in owners if owner}, **revisions}
        before = self._seen
        self._seen = {
            key: before[key] if key in before and before[key][0] == revision else (revision, now)
            for key, revision in revisions.items()
        }

    def lease_of(self, partition: int) -> Found:
        """Return what the record of a partition said."""
        key = lease_key(partition)
        record = self._records.get(key)
        if record is None:
            return Found(partition, 0, None)
        return Found(partition, record.revision, PartitionLease.parse(record, key))

    def plan(self, owned: Collection[int], leaving: Collection[int], asked_at: float) -> Plan:
        """Return what to do.

        Args:
            owned: the partitions that the member has, those that it is `leaving` included.
            leaving: those that it gives up.
            asked_at: when the records that were observed last were asked for, so that no pause since then makes a
                member look silent.
        """
        gone = [key for key, (_, since) in self._seen.items() if asked_at - since >= self._lease_s]
        alive = sorted({key.removeprefix(MEMBER_HEAD) for key in self._seen if key not in gone} | {self._member})
        rank = alive.index(self._member)
        share = self._partitions // len(alive) + (rank < self._partitions % len(alive))
        kept = sorted(set(owned) - set(leaving))
        give_up = kept[share:]
        wanted = max(0, share - len(kept))
        free = [found for found in map(self.lease_of, range(self._partitions)) if self._is_free(found, owned, alive)]
        # Members begin at different places, so that few of them reach for the same partition.
        begin = rank * self._partitions // len(alive)
        free.sort(key=lambda found: (found.partition - begin) % self._partitions)
        mine = member_key(self._member)
        bury = [(key, self._seen[key][0]) for key in gone if key != mine and not self._owns_any(key)]
        bury = [each for each in bury if each[1] != _NO_RECORD]
        return Plan(free[:wanted], give_up, bury)

    def _is_free(self, found: Found, owned: Collection[int], alive: list[str]) -> bool:
        if found.partition in owned:
            return False
        owner = found.lease.owner if found.lease is not None else ""
        return owner == self._member or owner not in alive

    def _owns_any(self, key: str) -> bool:
        """Return whether a member that is gone has partitions yet: its record shows others since when it is gone."""
        leases = [self.lease_of(number).lease for number in range(self._partitions)]
        return any(lease is not None and lease.owner == key.removeprefix(MEMBER_HEAD) for lease in leases)
