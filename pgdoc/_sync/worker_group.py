# Written by .ci/twins.py from pgdoc/_async/worker_group.py: change that file, and run it.
"""The handlers of a worker that read a log: the partitions that this process has, as one member of a group."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

import psycopg

from pgdoc._sync.worker_log_check import log_named
from pgdoc._sync.worker_partition import WorkerPartition
from pgdoc.database.errors import map_error
from pgdoc.errors import ConsumerLost, PgdocError, StoreClosed
from pgdoc.relay.groups.reading import GroupReading
from pgdoc.relay.inbox import Inbox
from pgdoc.relay.remote_options import RemoteOptions
from pgdoc.runtime.activities import Activity, Flag
from pgdoc.runtime.primitives import call, wait
from pgdoc.streams.options import BUFFER_BYTES
from pgdoc.workers.endings import Endings
from pgdoc.workers.figures import HandlerFigures

if TYPE_CHECKING:
    from pgdoc._sync.store import Store
    from pgdoc._sync.worker_partition import PartitionPast
    from pgdoc.relay.groups.partition import OwnedPartition
    from pgdoc.relay.targets import LogTarget
    from pgdoc.runtime.activities import Caution
    from pgdoc.workers.registration import Registration

__all__ = ["WorkerGroup"]

logger = logging.getLogger("pgdoc.worker")

POLL_S = 0.1
LEASE_S = 10.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 60.0
_BUFFER_SIZE = 1000  # of one partition


class WorkerGroup:
    """Runs the handlers of one group, for as many partitions of the log as this process has.

    Args:
        target: the log.
        name: of the group.
        start: where a new group begins: `now` or `beginning`.
        hang_after_s, shutdown_s, caution: as for `WorkerConsumer`.
    """

    def __init__(  # noqa: PLR0913 (what its worker knows)
        self,
        store: Store,
        target: LogTarget,
        name: str,
        registrations: list[Registration],
        *,
        start: str,
        hang_after_s: float,
        shutdown_s: float,
        caution: Caution,
    ) -> None:
        self._store, self._target, self.name, self.registrations = store, target, name, registrations
        self._hang_after_s, self._shutdown_s, self._caution = hang_after_s, shutdown_s, caution
        self._options = RemoteOptions.checked(
            _names_of(registrations),
            where=None,
            resume_after=None,
            start=start,
            buffer_size=_BUFFER_SIZE,
            buffer_bytes=BUFFER_BYTES,
            decimals=False,
        )
        self._idle = [HandlerFigures(name, each.name) for each in registrations]  # while it has no partition
        self._stops = Flag()
        self._deadline: float | None = None
        self._endings = Endings(name)
        self._has_run = False
        self._running: list[tuple[WorkerPartition, Activity]] = []
        self._pasts: dict[int, PartitionPast] = {}  # by partition: of the last time that this process had it
        self._arrived: deque[tuple[OwnedPartition, Inbox]] = deque()  # appended by the engine's thread

    @property
    def figures(self) -> list[HandlerFigures]:
        """Those of the handlers of each partition that this process has."""
        return [figures for each, _ in self._running for figures in each.figures] or self._idle

    def count(self) -> None:
        """Do nothing: each partition is counted while this process has it."""

    def close(self) -> None:
        """Note that no handler runs any more."""
        for figures in self._idle:
            figures.state = "closed"

    def stop(self, deadline: float) -> None:
        """Let every handler end its batch, until the deadline on the monotonic clock."""
        self._deadline = deadline
        self._stops.set()
        for each, _ in self._running:
            each.stop(deadline)

    def report_hangs(self) -> None:
        """See `WorkerConsumer`."""
        for each, _ in self._running:
            each.report_hangs()

    def run(self) -> None:
        """Run the handlers until `stop`.

        Raises:
            PgdocError: the log can't be read, the group can't be joined, or no handler can begin, and trying again
                would not help. Later, an error is logged, and the group is joined again after a while.
        """
        delay_s = FIRST_DELAY_S
        while not self._stops.is_set():
            began = time.monotonic()
            try:
                self._join_and_run()
            except (PgdocError, psycopg.Error) as exc:
                error = exc if isinstance(exc, PgdocError) else self._mapped(exc)
                if isinstance(error, StoreClosed) or not (error.resumable or self._has_run):
                    raise error from exc
                self._endings.note(error)
            if time.monotonic() - began > LONGEST_DELAY_S:
                delay_s = FIRST_DELAY_S
            self._stops.wait(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _mapped(self, exc: psycopg.Error) -> PgdocError:
        rights = self._store._connections.caller.to_have_workers()  # noqa: SLF001 (one package)
        return map_error(exc, f'group "{self.name}"', rights=rights)

    def _join_and_run(self) -> None:
        """Join the group, and run the handlers for the partitions that it gives to this process."""
        for figures in self._idle:
            figures.state = "standby"
        self._running, self._arrived = [], deque()
        inbox = Inbox(1, 1)  # only for what ends the membership
        reading = GroupReading(
            self._target, self._options, inbox, group=self.name, lease_s=LEASE_S, inbox_of=self._make_inbox
        )
        try:
            wait(reading.start())
            reading.run()
            self._endings.begin()
            while not self._stops.is_set():
                inbox.refill()  # raises it
                self._begin_arrived(reading)
                self._look_after()
                self._stops.wait(POLL_S)
        finally:
            self._end_all()
            call(reading.close)

    def _make_inbox(self, partition: OwnedPartition) -> Inbox:
        """Return where the entries of a partition go that this process has taken; the engine's thread calls it."""
        inbox = Inbox(self._options.buffer_size, self._options.buffer_bytes)
        self._arrived.append((partition, inbox))
        return inbox

    def _begin_arrived(self, reading: GroupReading) -> None:
        for _ in range(len(self._arrived)):
            partition, inbox = self._arrived.popleft()
            if any(each.number == partition.number for each, _ in self._running):
                self._arrived.append((partition, inbox))  # it was lost, and a handler of then may still run
                continue
            each = WorkerPartition(
                partition,
                inbox,
                self._store,
                f"{self.name}#{partition.number}",
                self.registrations,
                log=log_named(self._target, reading.source),
                member=reading.membership.member,
                valid_until=lambda: reading.membership.valid_until,
                hang_after_s=self._hang_after_s,
                shutdown_s=self._shutdown_s,
                caution=self._caution,
            )
            each.follow(self._pasts.get(partition.number))
            each.count()
            logger.info('group "%s" of the worker has taken partition %d', self.name, partition.number)
            self._running.append((each, Activity(f"pgdoc-{each.name}", each.run)))

    def _look_after(self) -> None:
        """Let partitions go that the group wants back, or that have ended."""
        for each, activity in list(self._running):
            if activity.is_over:
                self._running.remove((each, activity))
                self._let_go(each, activity)
            elif each.is_dropped and not each.is_stopping:
                each.stop(time.monotonic() + self._shutdown_s)

    def _let_go(self, each: WorkerPartition, activity: Activity) -> None:
        """Give up a partition that has ended: its next owner begins after the last processed event.

        Raises:
            BaseException: what ended it, if that is no reason to go on with the others.
        """
        was_wanted_back = each.is_dropped
        self._note_end(each)
        each.let_go()
        error = activity.error
        if error is None or was_wanted_back:
            logger.info('group "%s" of the worker has given up partition %d', self.name, each.number)
            return
        if not isinstance(error, ConsumerLost):
            raise error
        logger.warning('group "%s" of the worker has lost partition %d: %s', self.name, each.number, error)

    def _note_end(self, each: WorkerPartition) -> None:
        self._pasts[each.number] = each.past
        self._has_run = self._has_run or each.has_begun

    def _end_all(self) -> None:
        deadline = self._deadline or time.monotonic() + self._shutdown_s
        for each, _ in self._running:
            each.stop(deadline)
        for each, activity in self._running:
            while not activity.is_over and time.monotonic() < deadline + POLL_S:
                activity.wait(POLL_S)
            self._note_end(each)
            each.let_go()


def _names_of(registrations: list[Registration]) -> tuple[str, ...]:
    """Return the collections and tables that all handlers want together; none for all that the log has."""
    names: set[str] = set()
    for each in registrations:
        if each.selection.collections is None or each.topics:
            return ()
        names |= each.selection.collections
    return tuple(sorted(names))
