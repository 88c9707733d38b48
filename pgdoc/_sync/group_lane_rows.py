# Written by .ci/twins.py from pgdoc/_async/group_lane_rows.py: change that file, and run it.
"""The rows of one handler for one partition of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from pgdoc._sync.lane_rows import LaneRows
from pgdoc.consumers.handlers import begin_handler
from pgdoc.errors import ConsumerLost
from pgdoc.runtime.primitives import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc._sync.transaction import Transaction
    from pgdoc.consumers.claims import Claim
    from pgdoc.model.positions import Ids
    from pgdoc.model.tokens import Mark

__all__ = ["GroupLaneRows", "PartitionConsumer"]


class PartitionConsumer(NamedTuple):
    """What lanes need of the consumer that they run for.

    Attributes:
        claim: of this process: its epoch fences a former owner of the partition.
        begun_at: the position of the event after which the partition's events begin.
        log: whose positions they are.
        outdo: called with a later epoch that the database has of the partition.
    """

    name: str
    claim: Claim
    begun_at: tuple[int, ...]
    ids: Ids
    log: str
    outdo: Callable[[int], None]
    is_called: bool = False


class GroupLaneRows(LaneRows):
    """The rows of one handler, while this process has the partition.

    They stand in the database of the handler's effects, which may be another than that of the events. The claim stands
    beside the log; its epoch fences a former owner here.
    """

    def begin(self) -> int:
        """See `LaneRows`."""
        consumer, claim = self._consumer, self._consumer.claim
        if claim is None:
            raise self.lost()
        source = self._store._streams.source_of_consumers()  # noqa: SLF001 (one package)
        partition = cast("PartitionConsumer", consumer)
        try:
            row = call(
                begin_handler,
                source,
                consumer.name,
                claim,
                self._registration.name,
                tuple(consumer.begun_at),
                again=self._memory.has_begun,
                log=partition.log,
            )
        except ConsumerLost:
            for (epoch,) in self._fetch("epoch_of_group"):
                partition.outdo(epoch)
            raise
        self._memory.has_begun = True
        self.skips_to, self._last = row.place, list(row.place)
        return row.begun_times

    def save(self, tx: Transaction, mark: Mark) -> None:
        """See `LaneRows`."""
        place = [int(number) for number in mark.position]
        if not self._fetch_in(tx, "save_of_group", place=place, last=self._last):
            raise self.lost()
        self._saving = place

    def is_stored(self, mark: Mark) -> bool:
        """See `LaneRows`."""
        rows = self._fetch("stored_of_group")
        if not rows:
            raise self.lost()
        self._last = list(rows[0][0])
        return tuple(self._last) >= mark.position
