"""Drops a group: deletes its records beside the log, once no member is alive. Runs in the engine's loop thread.

A member is alive while its record changes. So a member of which a record is left, as after a kill, is watched for the
length of its lease, as other members would do. A record that vanishes is no sign of life: another drop of the group, or
a member that leaves, has deleted it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pgdoc.errors import ConsumerBusy, LogRefused
from pgdoc.relay.engines import open_log_reader, open_records
from pgdoc.relay.groups.lease import BEGUN, PartitionLease, is_lease
from pgdoc.relay.groups.listing import look_at, recorded_members
from pgdoc.relay.partitions import encoded
from pgdoc.relay.remote_options import LEASE_S

if TYPE_CHECKING:
    from pgdoc.relay.groups.listing import FoundLog
    from pgdoc.relay.log import GroupRecord
    from pgdoc.relay.targets import LogTarget

__all__ = ["GroupDropping"]

logger = logging.getLogger("pgdoc.remote")

_POLL_S: Final = 0.25
_NAMED: Final = 3  # of the members, in a message


class GroupDropping:
    """The end of one group.

    Raises:
        InvalidInput: the URL is not one of a log that groups read.
        MissingExtra: the client of its engine is not installed.
    """

    def __init__(self, target: LogTarget, group: str) -> None:
        self._shown, self._prefix = f'group "{group}" of {target.shown}', f"{encoded(group)}."
        self._reader, self._records = open_log_reader(target), open_records(target)
        self._found: dict[str, GroupRecord] = {}

    async def open(self) -> FoundLog:
        """Look at the log, and wait until it is certain that no member is alive.

        Raises:
            ConsumerBusy: a member is.
            LogUnreachable: the engine does not answer.
            LogRefused: no relay writes the log of this name, or the user may not read it.
        """
        log = await look_at(self._reader)
        if await self._records.open(creates=False):
            await self._watch()
        return log

    async def _watch(self) -> None:
        self._found = await self._read()
        clock = asyncio.get_running_loop().time
        began, silent_s = clock(), self._silence_s()
        if silent_s:
            self._report_wait(silent_s)
        while clock() - began < silent_s:
            await asyncio.sleep(_POLL_S)
            found = await self._read()
            lives, self._found = self._lives_in(found), found
            silent_s = self._silence_s()  # none if the last member has just left
            if lives and silent_s:
                raise self._busy()

    def _report_wait(self, silent_s: float) -> None:
        until = datetime.now().astimezone() + timedelta(seconds=silent_s)
        logger.info(
            "%s is dropped at %s if nothing is heard until then of its members (%s)",
            self._shown,
            until.isoformat(" ", "seconds"),
            self._members() or "one without a record",
        )

    def _lives_in(self, found: dict[str, GroupRecord]) -> bool:
        """Return whether a member has written any of these records since the last look."""
        return any(self._found.get(key) != record for key, record in found.items())

    async def _read(self) -> dict[str, GroupRecord]:
        found = await self._records.read(self._prefix)
        return {key.removeprefix(self._prefix): record for key, record in found.items()}

    def _silence_s(self) -> float:
        """Return how long nothing must change: 0 if no member has left a record, or a partition."""
        members = recorded_members(self._found)
        if members:
            return max(member.lease.total_seconds() for member in members)
        return LEASE_S if any(map(self._is_owned, self._found)) else 0.0

    def _is_owned(self, key: str) -> bool:
        try:
            return is_lease(key) and bool(PartitionLease.parse(self._found[key], key).owner)
        except LogRefused:  # damaged: to drop the group mends that
            return False

    def _members(self) -> str:
        members = recorded_members(self._found)
        named = [each.id if each.host is None else f"pid {each.pid} on {each.host}" for each in members[:_NAMED]]
        return ", ".join(named) + (f" and {len(members) - _NAMED} others" if len(members) > _NAMED else "")

    def _busy(self) -> ConsumerBusy:
        return ConsumerBusy(f"{self._shown} has members ({self._members() or 'one joins'}): end their processes first")

    async def delete(self) -> bool:
        """Delete the records; return whether there were any that no other drop has deleted meanwhile.

        Where it began goes last, so that a member that joins in between repeats events, and misses none.

        Raises:
            ConsumerBusy: a member has joined meanwhile.
            LogUnreachable: the engine does not answer; a second drop deletes what is left.
        """
        has_deleted = False
        for key, record in sorted(self._found.items(), key=lambda each: each[0] == BEGUN):
            if await self._records.delete(f"{self._prefix}{key}", record.revision):
                has_deleted = True
                continue
            found = await self._read()
            lives, self._found = self._lives_in(found), found
            if lives:
                raise self._busy()
        return has_deleted

    async def close(self) -> None:
        """Close the connections."""
        await self._reader.close()
        await self._records.close()
