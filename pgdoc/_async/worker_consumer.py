"""One consumer of a worker: reads its stream, and puts the events into the lanes of its handlers."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._async.checkpoint import checkpoint
from pgdoc._async.lane import AsyncLane
from pgdoc._async.lane_rows import AsyncLaneRows, mark_after
from pgdoc.changes.typed_event import with_model
from pgdoc.database.errors import map_error
from pgdoc.errors import ConsumerLost, PgdocError, StoreClosed, StreamClosed
from pgdoc.model.tokens import Mark
from pgdoc.replication.traffic import source_labels
from pgdoc.runtime.activities import AsyncActivity, AsyncFlag, Caution
from pgdoc.sql import statement
from pgdoc.workers.endings import Endings
from pgdoc.workers.failures import is_loss, is_outage, named, text_of
from pgdoc.workers.figures import HandlerFigures
from pgdoc.workers.measures import count_handlers
from pgdoc.workers.memory import LaneMemory
from pgdoc.workers.registration import wanted_by

if TYPE_CHECKING:
    from pgdoc._async.store import AsyncStore
    from pgdoc._async.stream import AsyncChangeStream
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.workers.registration import Registration

__all__ = ["AsyncWorkerConsumer", "Reread"]

logger = logging.getLogger("pgdoc.worker")

READ_S = 0.2
CHECKPOINT_S = 0.5
CALLED_S = 0.02  # instead of both, while another session waits for the consumer
LETTERS_S = 2.0
PARKED_S = 30.0
REPORT_S = 60.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 60.0
_ROOM_POLL_S = 0.05
_CALLED_OFF_S = 1.0


class Reread(Exception):  # noqa: N818 (it is no error)
    """A handler that hung has ended; its events that were left out must be read again."""


class _Interrupted(Exception):  # noqa: N818 (it is no error)
    """The worker stops, or a lane has ended, before all events were put."""


class AsyncWorkerConsumer:
    """Runs the handlers of one consumer; it is one thread or task, besides those of its lanes.

    Args:
        hang_after_s: how long a call may take until its handler does not hold up the others any more.
        shutdown_s: how long a lane may take to end.
        caution: of all handlers of the worker.

    Attributes:
        figures: of its handlers.
    """

    _rows_type: type[AsyncLaneRows] = AsyncLaneRows

    def __init__(  # noqa: PLR0913 (what its worker knows)
        self,
        store: AsyncStore,
        name: str,
        registrations: list[Registration],
        *,
        hang_after_s: float,
        shutdown_s: float,
        caution: Caution | None = None,
    ) -> None:
        self._store, self.name, self.registrations = store, name, registrations
        self._hang_after_s, self._shutdown_s = hang_after_s, shutdown_s
        self.figures = [HandlerFigures(name, each.name) for each in registrations]
        self._caution = caution or Caution()
        self._memories = [LaneMemory() for _ in registrations]
        self._called_off: dict[str, AsyncActivity] = {}  # by handler: the last lane that did not end in time
        self._stops = AsyncFlag()
        self._deadline: float | None = None  # when every lane must have ended
        self._endings = Endings(name)
        # Of the stream that is open.
        self._lanes: list[tuple[AsyncLane, AsyncActivity]] = []
        self._detached: list[AsyncLane] = []  # hanging, with a backlog that is full: they get nothing more
        self._waits_since: float | None = None  # when one of those had caught up with what it has
        self._read = Mark()  # everything up to it was put into the lanes that want it
        self._checkpointed = Mark()
        self._next_checkpoint = self._next_letters = self._next_parked = 0.0

    @property
    def is_sole(self) -> bool:
        """Whether one handler has the consumer for itself."""
        return len(self.registrations) == 1

    def options(self) -> dict[str, Any]:
        """Return what `watch` takes for what all handlers want together."""
        return wanted_by(self.registrations)

    def count(self) -> None:
        """Have metrics count what the handlers do, until this object is freed."""
        source = self._store._streams.hub.source  # noqa: SLF001 (one package)
        count_handlers(self, source_labels(source.conninfo, source.schema), self.figures)

    def close(self) -> None:
        """Note that no handler runs any more."""
        self._note_state("closed")

    def _note_state(self, state: str) -> None:
        for figures in self.figures:
            figures.state = state

    def stop(self, deadline: float) -> None:
        """Let every handler end its batch, until the deadline on the monotonic clock."""
        self._deadline = deadline
        self._stops.set()
        for lane, _ in self._lanes:
            _end(lane)

    def report_hangs(self) -> None:
        """Log each call that takes longer than `hang_after_s`, once a minute."""
        now = time.monotonic()
        for figures in self.figures:
            current = figures.current
            if current is None or now - current[0] < self._hang_after_s:
                continue
            began, events = current
            if figures.reported_at < began or now - figures.reported_at > REPORT_S:
                figures.reported_at = now
                logger.warning(
                    'handler "%s" of consumer "%s" has been running for %d s on %s',
                    figures.handler,
                    self.name,
                    now - began,
                    named(events),
                )

    async def run(self) -> None:
        """Run the handlers until `stop`.

        Raises:
            PgdocError: the consumer can't be opened the first time; trying again would not help. Later, an error is
                logged, and the consumer is opened again after a while.
        """
        delay_s, has_run = FIRST_DELAY_S, False
        while not self._stops.is_set():
            began = time.monotonic()
            try:
                await self._own_and_read()
                has_run = True
            except Reread:
                has_run = True
                continue
            except (PgdocError, psycopg.Error) as exc:
                rights = self._store._connections.caller.to_have_workers()  # noqa: SLF001 (one package)
                subject = f'consumer "{self.name}"'
                error = exc if isinstance(exc, PgdocError) else map_error(exc, subject, rights=rights)
                has_run = has_run or any(lane.has_begun for lane, _ in self._lanes)
                if isinstance(error, StoreClosed):
                    raise error from exc
                if not has_run and not error.resumable and not isinstance(error, ConsumerLost):
                    raise error from exc
                self._endings.note(error)
            if time.monotonic() - began > LONGEST_DELAY_S:
                delay_s = FIRST_DELAY_S
            await self._stops.wait(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _stream(self) -> AsyncChangeStream:
        """Return the stream of its events, which is not open yet."""
        options = self.options()
        names = options.pop("names")
        return self._store.watch(*names, consumer=self.name, auto_ack=False, **options)

    async def _own_and_read(self) -> None:
        """Open the consumer, and handle its events until it ends, or the worker stops."""
        self._lanes, self._detached, self._waits_since = [], [], None
        self._note_state("standby")
        async with self._stream() as stream:
            self._endings.begin()
            try:
                consumer = await self._owned(stream)
                if consumer is not None:
                    await self._begin_lanes(consumer)
                    await self._read_on(stream, consumer)
            finally:
                await self._end_lanes()
                self._note_state("standby")
            if consumer is not None and not self.is_sole:
                await self._checkpoint(consumer)

    async def _owned(self, stream: AsyncChangeStream) -> Consumer | None:
        """Stand by until this process owns the consumer; `None` if the worker stops before."""
        consumer = stream._consumer  # noqa: SLF001 (one package)
        is_told = False
        while consumer is not None and consumer.claim is None:
            if self._stops.is_set():
                return None
            if not is_told:
                is_told = True
                logger.info('consumer "%s" of the worker stands by: another process has it open', self.name)
            if consumer.has_ended:
                await stream.next(timeout=0)  # raises what ended it
            await self._stops.wait(READ_S)
        return consumer

    async def _begin_lanes(self, consumer: Consumer) -> None:
        described = "; ".join(each.described for each in self.registrations)
        logger.info('consumer "%s" of the worker is open, and runs %s', self.name, described)
        self._read = self._checkpointed = Mark(tuple(consumer.begun_at))
        for registration, figures, memory in zip(self.registrations, self.figures, self._memories, strict=True):
            lane = AsyncLane(
                self._store,
                registration,
                consumer,
                figures,
                is_sole=self.is_sole,
                memory=memory,
                caution=self._caution,
                predecessor=self._called_off.get(registration.name),
                rows_type=self._rows_type,
            )
            figures.state = "idle"
            self._lanes.append((lane, AsyncActivity(f"pgdoc-{self.name}-{registration.name}", lane.run)))

    async def _read_on(self, stream: AsyncChangeStream, consumer: Consumer) -> None:
        while not self._stops.is_set():
            self._check_lanes()
            try:
                events = await stream.next_batch(timeout=CALLED_S if consumer.is_called else READ_S)
            except StreamClosed:  # every collection was dropped, and its last event was delivered
                await self._wait_for_lanes()
                return
            try:
                await self._put(events)
            except _Interrupted:
                continue
            await self._look_around(consumer)

    async def _put(self, events: list[ChangeEvent]) -> None:
        if not events:
            return
        for event in events:
            for lane, activity in self._lanes:
                if lane not in self._detached and (self.is_sole or lane.registration.wants(event)):
                    if not lane.backlog.has_room and not await self._wait_for_room(lane, activity):
                        continue
                    lane.backlog.put(with_model(event, lane.registration.reader))
        self._read = mark_after(events[-1])
        for lane, _ in self._lanes:
            if lane.backlog.waiting:
                lane.arrived.set()

    async def _wait_for_room(self, lane: AsyncLane, activity: AsyncActivity) -> bool:
        """Wait until a lane has room; return `False` if it hangs, or fails again and again.

        It then gets nothing more, and does not hold up others.
        """
        lane.arrived.set()
        lane.figures.waiting = lane.backlog.waiting
        full_since = time.monotonic()
        while not lane.backlog.has_room:
            if activity.is_over or self._stops.is_set():
                raise _Interrupted  # `_read` stays: not every lane has got what it wants
            current = lane.figures.current
            since = full_since if current is None else min(full_since, current[0])
            if len(self._lanes) > 1 and time.monotonic() - since > self._hang_after_s:
                logger.warning(
                    "%s makes no progress with %d events behind: the others go on, and it catches up afterwards",
                    lane.registration.title,
                    lane.backlog.waiting,
                )
                self._detached.append(lane)
                return False
            await self._stops.wait(_ROOM_POLL_S)
        return True

    def _check_lanes(self) -> None:
        """Raise what ended a lane, or `Reread` if one that hung has caught up with what it has."""
        for lane, activity in self._lanes:
            if activity.is_over and not self._stops.is_set():
                raise activity.error or ConsumerLost(f"{lane.registration.title} ended")
            lane.figures.waiting = lane.backlog.waiting
        if not any(lane.backlog.is_done for lane in self._detached):
            self._waits_since = None
            return
        # To open the consumer again ends the calls that hang: they get as long as others may fall behind.
        now = time.monotonic()
        self._waits_since = now if self._waits_since is None else self._waits_since
        if now - self._waits_since > self._hang_after_s or not any(self._hangs(lane) for lane, _ in self._lanes):
            raise Reread

    def _hangs(self, lane: AsyncLane) -> bool:
        current = lane.figures.current  # that of a lane that was called off, until this one has begun
        return lane.has_begun and current is not None and time.monotonic() - current[0] > self._hang_after_s

    async def _look_around(self, consumer: Consumer) -> None:
        """Do what is due from time to time; what the server does not take now is due again later."""
        try:
            await self._do_what_is_due(consumer)
        except (PgdocError, psycopg.Error) as exc:
            if not is_loss(exc) and not is_outage(exc):
                raise
            logger.debug('consumer "%s" of the worker: %s', self.name, exc)

    async def _do_what_is_due(self, consumer: Consumer) -> None:
        now = time.monotonic()
        is_called = consumer.is_called and now >= self._next_checkpoint - CHECKPOINT_S + CALLED_S
        if not self.is_sole and (is_called or now >= self._next_checkpoint):
            self._next_checkpoint = now + CHECKPOINT_S
            await self._checkpoint(consumer)
        if now >= self._next_letters:
            self._next_letters = now + LETTERS_S
            looks_at_parked = now >= self._next_parked
            if looks_at_parked:
                self._next_parked = now + PARKED_S
            due = {name for (name,) in await self._fetch("have_due", self.name, looks_at_parked)}
            for lane, _ in self._lanes:
                if lane.registration.name in due:
                    lane.has_due = True
                    lane.arrived.set()

    async def _fetch(self, block: str, *params: Any) -> list[tuple[Any, ...]]:
        return await self._store._connections.fetch(statement("workers", block).encode(), params)  # noqa: SLF001

    async def _checkpoint(self, consumer: Consumer) -> None:
        """Store for the consumer what all handlers have processed.

        It commits after their transactions, so it is flushed, and reaches standbys, only after those.
        """
        mark = min((self._passed(lane) for lane, _ in self._lanes), key=lambda mark: mark.position, default=self._read)
        if mark.position > self._checkpointed.position:
            async with self._store.transaction() as tx:
                await checkpoint(tx, consumer, mark)
            self._checkpointed = mark

    def _passed(self, lane: AsyncLane) -> Mark:
        """Return up to where a lane has processed everything."""
        if lane.backlog.is_done and lane not in self._detached:
            return self._read
        return lane.done if lane.done.position else self._checkpointed

    async def _wait_for_lanes(self) -> None:
        """Wait until the lanes have processed what they have."""
        while not self._stops.is_set() and not all(lane.backlog.is_done for lane, _ in self._lanes):
            self._check_lanes()
            await self._stops.wait(_ROOM_POLL_S)

    async def _end_lanes(self) -> None:
        """Let the lanes end their batches; call off those that hang, or do not end in time."""
        lanes, now = self._lanes, time.monotonic()
        for lane, _ in lanes:
            _end(lane)
        for lane, activity in lanes:
            latest = now if self._hangs(lane) else now + self._shutdown_s
            while not activity.is_over and time.monotonic() < (self._deadline or latest):  # `stop` may set it meanwhile
                await activity.wait(_ROOM_POLL_S)
        late = [(lane, activity) for lane, activity in lanes if not activity.is_over]
        for lane, activity in late:
            left = "its batch is rolled back" if lane.registration.takes_tx else "its events come again"
            logger.error("%s did not end in time: %s", lane.registration.title, left)
            lane.is_called_off = True
            activity.call_off(lane.connection)
            if lane.has_begun:  # else it calls nobody, and the one that it waited for goes on
                self._called_off[lane.registration.name] = activity
        latest = time.monotonic() + _CALLED_OFF_S
        for _, activity in late:
            await activity.wait(max(0.0, latest - time.monotonic()))
        for lane, activity in lanes:
            if activity.error is not None and not isinstance(activity.error, ConsumerLost):
                logger.warning("%s ended: %s", lane.registration.title, text_of(activity.error))


def _end(lane: AsyncLane) -> None:
    lane.ends.set()
    lane.arrived.set()
