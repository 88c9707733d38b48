"""One member of a group: takes and gives up partitions, and moves their positions. Runs in the engine's loop thread.

Taking a partition and moving its position are compare-and-set on one record, so a former owner can do neither. A member
that can't reach the records for most of a lease delivers nothing until it has looked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pgdoc.errors import LogRefused, LogUnreachable, PgdocError
from pgdoc.relay.asking import ask_each
from pgdoc.relay.groups.balance import Balance, Found
from pgdoc.relay.groups.lease import (
    BEGUN,
    MemberRecord,
    PartitionLease,
    begun_value,
    lease_key,
    member_key,
    partitions_of,
    position_of,
)
from pgdoc.relay.groups.partition import OwnedPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.relay.finding import LogPosition
    from pgdoc.relay.log import GroupRecord, LogRecords

__all__ = ["GroupMembership"]

logger = logging.getLogger("pgdoc.remote")

STORE_S: Final = 0.5
"""How often acknowledged positions are written at most."""

_BEATS: Final = 4  # in a lease
_VALID: Final = 0.75  # of a lease
_TRIES: Final = 50  # to find where the group began
_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 2.0


class GroupMembership:
    """A member of a group.

    Args:
        records: where the group's members agree.
        group: the name of the group, encoded for a key.
        lease_s: after which an owner that does not move loses its partitions.
        taken: called with each partition that the member takes.
        dropped: called with each partition that it loses, or begins to give up.
        clock: a monotonic clock.

    Attributes:
        member: its id.
        owned: the partitions that it has, by number.
        valid_until: until when, by the monotonic clock, nobody else takes its partitions. Any thread may read it.
    """

    def __init__(  # noqa: PLR0913 (what a member knows)
        self,
        records: LogRecords,
        group: str,
        *,
        lease_s: float,
        taken: Callable[[OwnedPartition], object],
        dropped: Callable[[OwnedPartition], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._records, self._prefix, self._lease_s = records, f"{group}.", lease_s
        self._taken, self._dropped = taken, dropped
        self.member = secrets.token_hex(8)
        self.owned: dict[int, OwnedPartition] = {}
        self.valid_until = 0.0
        self._beat_count = self._own_revision = 0
        self._next_beat = 0.0
        self._balance, self._partitions = Balance(self.member, 0, lease_s), 0
        self._begun_at: LogPosition | None = None
        self._is_leaving = False

    async def open(self, partitions: int, begin: LogPosition) -> LogPosition:
        """Join the group, and return where it began: `begin` if this is its first member.

        Raises:
            LogUnreachable: the engine does not answer.
            LogRefused: the records can't be read or written.
        """
        await self._records.open()
        self._balance, self._partitions = Balance(self.member, partitions, self._lease_s), partitions
        key = f"{self._prefix}{BEGUN}"
        for _ in range(_TRIES):
            found = (await self._records.read(self._prefix)).get(key)
            if found is not None:
                self._check_partitions(partitions_of(found, key))
                self._begun_at = position_of(found, key)
                return self._begun_at
            if await self._records.write(key, begun_value(begin, partitions), 0) is None:
                await asyncio.sleep(_FIRST_DELAY_S)  # another member was faster, and an answer may be an older one
        raise LogUnreachable(f"the record {key} can neither be read nor written: check the engine")

    def _check_partitions(self, before: int | None) -> None:
        """Refuse positions of other partitions: they are those of other documents."""
        if before is not None and before != self._partitions:
            raise LogRefused(
                f'group "{unquote(self._prefix[:-1])}" has read this log when that had {before} partitions, and now it '
                f"has {self._partitions}, with other documents in each: drop the group, and let it begin anew after a "
                "token of what it has processed",
                reason="config",
            )

    async def run(self, fail: Callable[[BaseException], object]) -> None:
        """Beat and store positions until it is cancelled; an engine that is away is waited for."""
        delay_s, is_open = _FIRST_DELAY_S, True
        # Cancelling alone may have no effect: up to Python 3.11, wait_for() can swallow it.
        while not self._is_leaving:
            try:
                if not is_open:
                    await self._records.open()
                    is_open, delay_s = True, _FIRST_DELAY_S
                    self._next_beat = 0.0
                if self._clock() >= self._next_beat:
                    await self.beat()
                await self.store()
                await asyncio.sleep(min(STORE_S, self._lease_s / _BEATS / 2))
            except PgdocError as exc:
                if not exc.resumable:
                    fail(exc)
                    return
                if is_open:
                    logger.warning("the records of a group are out of reach, trying again: %s", exc)
                is_open = False
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                logger.exception("a member of a group failed")
                fail(exc)
                return

    async def beat(self) -> None:
        """Show that this member is alive, look at the others, and take or give up partitions."""
        began = self._clock()
        has_lapsed = began >= self.valid_until
        self._next_beat = began + self._lease_s / _BEATS
        self._beat_count += 1
        mine = member_key(self.member)
        shown = MemberRecord(self._beat_count, self._lease_s, socket.gethostname(), os.getpid())
        written = await self._write(mine, shown.value, self._own_revision)
        asked_at = self._clock()
        records = await self._read_all()
        if written is None:  # an earlier write came through whose answer did not, or another member buried the record
            self._find_own(records)
            self._next_beat = 0.0
            return
        self._own_revision = written
        if BEGUN not in records and self._begun_at is not None:  # deleted: else the next member begins somewhere else
            await self._write(BEGUN, begun_value(self._begun_at, self._partitions), 0)
        self._balance.observe(records, self._clock())
        await self._check_owned()
        if has_lapsed:
            await self._confirm_owned()
        self.valid_until = began + self._lease_s * _VALID
        await self._follow(asked_at)

    async def _read_all(self) -> dict[str, GroupRecord]:
        """Return the records of the group, by key without its prefix."""
        found = await self._records.read(self._prefix)
        return {key[len(self._prefix) :]: record for key, record in found.items()}

    def _find_own(self, records: Mapping[str, GroupRecord]) -> None:
        """Note the revision of the member's own record."""
        mine = member_key(self.member)
        self._own_revision = records[mine].revision if mine in records else 0

    async def _confirm_owned(self) -> None:
        """Write the records of all partitions: somebody may be about to take one, and then fails."""
        await ask_each(self._confirm, self.owned.values())

    async def _confirm(self, partition: OwnedPartition) -> None:
        if not await self._store(partition, self.member):
            self._lose(partition)

    async def _follow(self, asked_at: float) -> None:
        """Take and give up partitions, according to records that were read after `asked_at`."""
        leaving = [number for number, partition in self.owned.items() if partition.is_leaving]
        plan = self._balance.plan(self.owned, leaving, asked_at)
        for number in plan.give_up:
            self.owned[number].leave()
            self._dropped(self.owned[number])
        await ask_each(self._take, plan.take)
        for key, revision in plan.bury:
            await self._records.delete(f"{self._prefix}{key}", revision)

    async def _write(self, key: str, value: bytes, revision: int) -> int | None:
        return await self._records.write(f"{self._prefix}{key}", value, revision)

    async def _check_owned(self) -> None:
        """Drop the partitions that others have taken."""
        doubtful = []
        for number, partition in list(self.owned.items()):
            _, revision, lease = self._balance.lease_of(number)
            if lease is not None and (lease.owner, lease.epoch) == (self.member, partition.epoch):
                # Perhaps of a write whose answer was lost, or one before what the engine has lost.
                partition.revision, partition.stored = revision, lease.position
            elif lease is not None and revision < partition.revision:
                doubtful.append(partition)  # an older answer, or the engine has lost who took the partition
            else:
                self._lose(partition)
        await ask_each(self._confirm, doubtful)

    def _lose(self, partition: OwnedPartition) -> None:
        if self.owned.pop(partition.number, None) is not None:
            logger.warning("partition %d was taken over by another member", partition.number)
            partition.lose()
            self._dropped(partition)

    async def _take(self, found: Found) -> None:
        if self._begun_at is None:
            return
        before = found.lease
        position = self._begun_at if before is None else before.position
        # By the clock, so that it is higher than any of records that were deleted.
        epoch = max(0 if before is None else before.epoch + 1, time.time_ns() // 1000)
        lease = PartitionLease(self.member, epoch, position)
        revision = await self._write(lease_key(found.partition), lease.value, found.revision)
        if revision is not None:
            partition = self.owned[found.partition] = OwnedPartition(found.partition, epoch, position, revision)
            self._taken(partition)

    async def store(self) -> None:
        """Write the positions that moved, and give up partitions that are settled.

        Raises:
            LogUnreachable: the engine does not answer.
        """
        await ask_each(self._store_due, self.owned.values())

    async def _store_due(self, partition: OwnedPartition) -> None:
        if partition.is_lost:  # PostgreSQL knows of another owner: the next one gets a higher epoch
            await self._store(partition, "")
            self._dropped(partition)
            return
        is_over = partition.is_leaving and partition.is_settled  # before the position, which is then the last one
        if is_over or partition.acknowledged != partition.stored:
            await self._store(partition, "" if is_over else self.member)

    async def _store(self, partition: OwnedPartition, owner: str) -> bool:
        """Write the record of a partition; return whether it was this member's."""
        position = partition.acknowledged
        epoch = partition.epoch if owner else max(partition.epoch, partition.outdone_by)
        lease = PartitionLease(owner, epoch, position)
        revision = await self._write(lease_key(partition.number), lease.value, partition.revision)
        if revision is None:
            self._next_beat = 0.0  # which finds out whether it is lost
            return False
        partition.revision, partition.stored = revision, position
        if not owner:
            self.owned.pop(partition.number, None)
            partition.lose()
        return True

    def stop(self) -> None:
        """Let `run` end, before `close`."""
        self._is_leaving = True

    async def close(self) -> None:
        """Store all positions, give up all partitions, and leave the group."""
        for partition in self.owned.values():
            partition.leave()
        with contextlib.suppress(PgdocError):
            if not await self._give_all_up():  # the answer to a last write may not have come
                records = await self._read_all()
                self._find_own(records)
                self._balance.observe(records, self._clock())
                await self._check_owned()
                await self._give_all_up()
        await self._records.close()

    async def _give_all_up(self) -> bool:
        """Give up all partitions, and delete the member's record; return whether nothing is left of it."""
        await ask_each(lambda partition: self._store(partition, ""), self.owned.values())
        key = f"{self._prefix}{member_key(self.member)}"
        if self._own_revision and await self._records.delete(key, self._own_revision):
            self._own_revision = 0
        return not self.owned and not self._own_revision
