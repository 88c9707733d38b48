"""One partition of a log, while this process has it: reads its events, and puts them into the lanes of the handlers."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import NAMESPACE_OID, UUID, uuid5

from pgdoc._async.group_lane_rows import AsyncGroupLaneRows, PartitionConsumer
from pgdoc._async.worker_consumer import AsyncWorkerConsumer, Reread
from pgdoc.consumers.claims import Claim
from pgdoc.errors import StreamClosed
from pgdoc.model.tokens import Mark, ResumeToken
from pgdoc.relay.delivery import RemoteDelivery
from pgdoc.relay.finding import LogPosition
from pgdoc.runtime.primitives import async_sleep
from pgdoc.streams.batch import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc._async.stream import AsyncChangeStream
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.relay.groups.partition import OwnedPartition
    from pgdoc.relay.inbox import AsyncInbox
    from pgdoc.runtime.activities import AsyncActivity
    from pgdoc.workers.memory import LaneMemory

__all__ = ["AsyncWorkerPartition", "PartitionPast"]

_SUSPENDED_S = 0.1


class PartitionPast(NamedTuple):
    """What outlives one ownership of a partition. It holds none of the partition's entries."""

    called_off: dict[str, AsyncActivity]
    memories: list[LaneMemory]


class AsyncWorkerPartition(AsyncWorkerConsumer):
    """Runs the handlers for one partition, until it is stopped or another process has taken the partition.

    What a handler has processed stands in its row, in the database of its effects. The group's own record of the
    partition follows, and says where the next owner begins to read.

    Args:
        inbox: the entries of the partition.
        log: the name of the log, and of which database its events are.
        valid_until: until when, by the monotonic clock, nobody else takes the partition.
    """

    _rows_type = AsyncGroupLaneRows

    def __init__(
        self,
        partition: OwnedPartition,
        inbox: AsyncInbox,
        *args: Any,
        log: str,
        member: str,
        valid_until: Callable[[], float],
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._partition, self._inbox, self._valid_until = partition, inbox, valid_until
        self._delivery = RemoteDelivery(inbox, None, self._store._connections.codec.decode)  # noqa: SLF001 (one package)
        token = ResumeToken.parse(partition.begun_at.token)
        consumer = PartitionConsumer(
            self.name,
            Claim(partition.epoch, _holder(member)),
            Mark.at(token.position, token.progress).position,
            (token.system_id, token.timeline, token.database_oid),
            log,
            partition.outdo,
        )
        self._consumer = cast("Consumer", consumer)  # it has what is used of one here
        self._taken: tuple[tuple[int, ...], LogPosition] | None = None  # what the last batch ends with
        self._passing: deque[tuple[tuple[int, ...], LogPosition]] = deque()  # what was put, and is not processed yet

    @property
    def number(self) -> int:
        """The number of the partition."""
        return self._partition.number

    @property
    def is_sole(self) -> bool:
        """See `AsyncWorkerConsumer`: the position of each handler is its own."""
        return False

    async def run(self) -> None:
        """Run the handlers until `stop`, or until the partition is dropped.

        Raises:
            PgdocError: as what ended a lane.
        """
        self._note_state("idle")
        try:
            await self._begin_lanes(self._consumer)
            await self._read_on(cast("AsyncChangeStream", self), self._consumer)  # all that is used is `next_batch`
        except Reread:  # the group takes the partition again, and reads from its record
            pass
        finally:
            await self._end_lanes()
            self._note_state("closed")
        await self._checkpoint(self._consumer)

    async def next_batch(self, timeout: float) -> list[ChangeEvent]:  # noqa: ASYNC109 (as a stream has it)
        """Return the next events of the partition, as `AsyncChangeStream.next_batch`.

        Raises:
            StreamClosed: the partition is dropped.
        """
        self._taken = None
        if self._partition.is_dropped or self._inbox.closed:
            raise StreamClosed("the partition was given up")
        if not await self._inbox.take(timeout):
            return []
        if time.monotonic() >= self._valid_until():  # another process may have taken it meanwhile
            await async_sleep(_SUSPENDED_S)
            return []
        batch = self._inbox.batch
        entries = batch[batch.next : batch.next + BATCH]
        if not self._begin(entries[-1].sequence):
            raise StreamClosed("the partition was given up")
        events = self._delivery.next_events(BATCH)
        if self._delivery.passed == entries[-1].token:  # else it was dropped in between, and nothing was delivered
            token = ResumeToken.parse(entries[-1].token)
            position = LogPosition(entries[-1].sequence, entries[-1].token, self._partition.identity)
            self._taken = Mark.at(token.position, token.progress).position, position
        return events

    def _begin(self, sequence: int) -> bool:
        """Return whether entries up to this one may be delivered.

        The engine's thread sets `is_dropped` and then looks at `delivered`; here it is the other way round.
        """
        before, self._partition.delivered = self._partition.delivered, sequence
        if self._partition.is_dropped:
            self._partition.delivered = before
            return False
        return True

    async def _put(self, events: list[ChangeEvent]) -> None:
        await super()._put(events)
        if self._taken is not None:
            self._read = Mark(self._taken[0])
            self._passing.append(self._taken)

    async def _checkpoint(self, consumer: Any) -> None:
        """Let the group's record follow what all handlers have processed."""
        del consumer
        passed = min((self._passed(lane).position for lane, _ in self._lanes), default=self._read.position)
        while self._passing and self._passing[0][0] <= passed:
            self._partition.acknowledged = self._passing.popleft()[1]

    @property
    def past(self) -> PartitionPast:
        """What this process must know when it has the partition again: a handler of now may run yet."""
        return PartitionPast(self._called_off, self._memories)

    def follow(self, past: PartitionPast | None) -> None:
        """Go on with the `past` of the last time that this process had the partition."""
        if past is not None:
            self._called_off, self._memories = past

    @property
    def has_begun(self) -> bool:
        """Whether a handler has come to run."""
        return any(lane.has_begun for lane, _ in self._lanes)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stops.is_set()

    @property
    def is_dropped(self) -> bool:
        """Whether the group wants the partition back, or another process has taken it."""
        return self._partition.is_dropped

    def let_go(self) -> None:
        """Give the partition up: the process that takes it next begins after what is processed."""
        self._partition.leave()
        self._partition.delivered = self._partition.acknowledged.sequence


def _holder(member: str) -> UUID:
    """Return what stands for a member of a group in the rows of handlers."""
    return uuid5(NAMESPACE_OID, member)
