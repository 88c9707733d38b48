"""Runs one handler: its queue, its retries, its position and its dead letters."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_never, wait_random_exponential

from pgdoc._async.lane_rows import AsyncLaneRows, mark_after
from pgdoc._async.lane_server import AsyncLaneServer, LaneEnded
from pgdoc.errors import ConsumerLost, StoreClosed
from pgdoc.model.tokens import Mark
from pgdoc.runtime.activities import AsyncFlag, async_cancelled_inside
from pgdoc.workers.backlog import LaneBacklog
from pgdoc.workers.failures import EventFailed, ProcessEnded, RolledBack, halves, named, of_handler, text_of
from pgdoc.workers.parking import Parked, parking_key
from pgdoc.workers.registration import check_result
from pgdoc.workers.spans import handler_span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tenacity import RetryCallState

    from pgdoc._async.lane_rows import DueLetter
    from pgdoc._async.store import AsyncStore
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.runtime.activities import AsyncActivity, Caution
    from pgdoc.workers.figures import HandlerFigures
    from pgdoc.workers.memory import LaneMemory
    from pgdoc.workers.registration import Registration

    T = TypeVar("T")

__all__ = ["AsyncLane"]

logger = logging.getLogger("pgdoc.worker")

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 60.0
CAUTIOUS_AFTER = 3
"""After this many beginnings at one position, the lane tries its first events one by one: one may end the process."""
LEAST_TRIES = 3
"""An event may end this many processes in any case: another handler of the process may have ended it."""
MOST_LETTER_TRIES = 3
_IDLE_S = 0.5
_PREDECESSOR_S = 0.2
_TURN_S = 60.0
_TURN_POLL_S = 0.05


class AsyncLane:
    """Runs one handler, in one thread or task; another thread or task puts events into its backlog.

    Args:
        memory: of this process about the handler.
        caution: of all handlers of the worker.
        predecessor: a lane of the handler that was called off, and may still run it.
        rows_type: of its rows; another one for a partition of a log.

    Attributes:
        registration: the handler and its options.
        backlog: the events that wait.
        ends: set when the lane is to end after its batch.
        has_due: set when a dead letter may have to be tried again.
        figures: what it does, for any thread.
        connection: that of the open transaction.
    """

    def __init__(  # noqa: PLR0913 (what its consumer knows)
        self,
        store: AsyncStore,
        registration: Registration,
        consumer: Consumer,
        figures: HandlerFigures,
        *,
        is_sole: bool,
        memory: LaneMemory,
        caution: Caution,
        predecessor: AsyncActivity | None = None,
        rows_type: type[AsyncLaneRows] = AsyncLaneRows,
    ) -> None:
        self._store = store
        self.registration = registration
        self.figures = figures
        self._rows = rows_type(store, registration, consumer, memory, is_sole=is_sole)
        self._predecessor, self._caution, self._waits_for_turns = predecessor, caution, True
        # Shared: each is set by one side, and cleared by the other.
        self.ends = AsyncFlag()
        self.arrived = AsyncFlag()
        self.backlog = LaneBacklog()
        self.has_due = True
        self.is_called_off = False
        self.connection: Any = None
        self._server = AsyncLaneServer(store, registration.title, figures, self.ends)
        # Written by the lane.
        self.has_begun = False
        self.done = Mark()  # everything up to it is processed
        self._parked = Parked()
        self._failed_event: ChangeEvent | None = None

    async def run(self) -> None:
        """Handle what comes, until `ends` is set.

        Raises:
            ConsumerLost: another process has taken the consumer over.
        """
        try:
            while self._predecessor is not None and not self._predecessor.is_over:
                await self._server.pause(_PREDECESSOR_S)
            begun_times = await self._server.until_served(self._rows.begin)
            await self._server.until_served(self._look_for_parked)
            self.has_begun = True
            self._caution.is_on = self._caution.is_on or begun_times > CAUTIOUS_AFTER
            # A process that ended had taken at most one batch more than it stored.
            cautious_at = self.registration.batch
            while not self.ends.is_set():
                if self.has_due:
                    self.has_due = False
                    await self._retry_letters()
                batch = self.backlog.take(self.registration.batch)
                if batch:
                    cautious_at -= await self._handle(batch, is_cautious=self._caution.is_on and cautious_at > 0)
                elif not self.has_due:
                    self.arrived.clear()
                    if not self.backlog.waiting:
                        await self.arrived.wait(_IDLE_S)
        except LaneEnded:
            pass
        if not self.is_called_off:
            await self._rows.end()

    async def _handle(self, batch: list[ChangeEvent], *, is_cautious: bool) -> int:
        """Handle a batch; return how many of its events were not processed before."""
        skips_to = self._rows.skips_to
        events = [event for event in batch if mark_after(event).position > skips_to] if skips_to else batch
        if events:
            self._rows.skips_to = ()  # all that follow lie beyond
        if events:
            if is_cautious:
                await self._handle_cautiously(events)
            else:
                await self._handle_all(events)
        self.done = mark_after(batch[-1])
        self.backlog.done_count += len(batch)  # last: `done` is then known
        return len(events)

    async def _handle_cautiously(self, events: list[ChangeEvent]) -> None:
        """Handle events one by one, each noted before: the process may end at any of them."""
        for event in events:
            has_turn = self._waits_for_turns and await self._take_turn()
            self._waits_for_turns = has_turn  # one that hangs in its turn holds this one up only once
            try:
                await self._handle_alone(event)
            finally:
                if has_turn:
                    self._caution.end_turn()

    async def _take_turn(self) -> bool:
        """Wait until no other handler tries an event; return `False` if one does for long: it may hang."""
        deadline = time.monotonic() + _TURN_S
        while not self._caution.take_turn():
            if time.monotonic() > deadline:
                return False
            await self._server.pause(_TURN_POLL_S)
        return True

    async def _handle_alone(self, event: ChangeEvent) -> None:
        attempts, most = self.registration.attempts, max(self.registration.attempts or 0, LEAST_TRIES)
        tried = await self._server.until_served(partial(self._rows.note_try, event))
        if attempts is None or tried <= most:
            await self._handle_all([event])
            return
        logger.error("%s: each of %d processes ended at %s", self.registration.title, most, named([event]))
        await self._bury(event, ProcessEnded(f"{most} processes ended while they tried this event"), most)

    async def _handle_all(self, events: list[ChangeEvent]) -> None:
        """Handle events in order; take a batch that fails apart until a poisonous event stands alone."""
        is_single = self.registration.takes_one and not self.registration.takes_tx
        parts = deque([event] for event in events) if is_single else deque([events])
        attempts = 2  # of the whole batch
        while parts:
            part = parts.popleft()
            retrying = self._retrying(self.registration.attempts if len(part) == 1 else attempts)
            try:
                await retrying(self._attempt, part)
            except RolledBack:
                parts.extendleft(reversed(halves(part, self._failed_event)))
            except Exception as exc:
                if not self._is_failure(exc):
                    raise
                if len(part) == 1:
                    await self._bury(part[0], exc, retrying.statistics["attempt_number"])
                else:
                    parts.extendleft(reversed(halves(part, self._failed_event)))
            attempts = 1

    def _retrying(self, attempts: int | None) -> AsyncRetrying:
        return AsyncRetrying(
            stop=stop_never if attempts is None else stop_after_attempt(attempts),
            wait=wait_random_exponential(multiplier=FIRST_DELAY_S, max=LONGEST_DELAY_S),
            sleep=self._back_off,
            retry=retry_if_exception(self._may_succeed),
            before_sleep=self._note_failure,
            reraise=True,
        )

    def _is_failure(self, exc: BaseException) -> bool:
        """Whether an exception counts against the events: the handler or what it wrote failed."""
        if exc is self._server.raised:
            return True
        return isinstance(exc, Exception) and not isinstance(exc, LaneEnded | RolledBack | ConsumerLost | StoreClosed)

    def _may_succeed(self, exc: BaseException) -> bool:
        return self._is_failure(exc) and not (isinstance(exc, EventFailed) and exc.is_final)

    def _note_failure(self, state: RetryCallState) -> None:
        exc = None if state.outcome is None else state.outcome.exception()
        if exc is None:
            return
        (part,) = state.args
        traced = None if isinstance(exc, EventFailed) else (type(exc), exc, of_handler(exc))
        logger.warning(
            "%s failed on %s, and tries again (attempt %d): %s",
            self.registration.title,
            named(part),
            state.attempt_number + 1,
            text_of(exc),
            exc_info=traced if state.attempt_number == 1 else None,
        )

    async def _back_off(self, seconds: float) -> None:
        self.figures.state = "backing_off"
        await self._server.pause(seconds)

    async def _attempt(self, part: list[ChangeEvent]) -> None:
        """Call the handler with events, and store their effect and position."""
        if self.ends.is_set():
            raise LaneEnded
        mark = mark_after(part[-1])
        free, waiting = self._parked.split(part)
        self._failed_event = None

        async def act() -> None:
            if free and not self.registration.takes_tx:
                await self._call(free)
            is_saved = False
            async with self._transaction(free) as tx:
                if free and self.registration.takes_tx:
                    await self._call(free, tx)
                await self._save(tx, mark, waiting)
                is_saved = True
            if not is_saved:  # the handler raised psycopg.Rollback: it wants no effect
                if self.registration.takes_one and len(free) > 1:
                    raise RolledBack
                async with self._store.transaction() as tx:
                    await self._save(tx, mark, waiting)
            self._rows.note_saved()

        try:
            await self._server.until_served(act, partial(self._rows.is_stored, mark))
        except Exception as exc:
            if self._is_failure(exc):
                self.figures.failures += 1
            raise
        for event in waiting:
            self._parked.add(parking_key(event))
        self.figures.handled += len(free)
        self.figures.parked += len(waiting)

    async def _save(self, tx: AsyncTransaction, mark: Mark, waiting: list[ChangeEvent]) -> None:
        for event in waiting:
            await self._rows.put_letter(tx, event)
        await self._rows.save(tx, mark)
        self._check_called_off()

    def _check_called_off(self) -> None:
        """Roll the transaction back if the lane is called off: its end is not reported any more."""
        if self.is_called_off:
            raise LaneEnded

    @asynccontextmanager
    async def _transaction(self, events: list[ChangeEvent]) -> AsyncIterator[AsyncTransaction]:
        """Begin a transaction for a call with events, inside the span of that: what it writes carries the context."""
        with handler_span(self.registration, events if self.registration.takes_tx else []):
            async with self._store.transaction() as tx:
                yield tx

    async def _call(self, events: list[ChangeEvent], tx: AsyncTransaction | None = None) -> None:
        """Call the handler, and note what it does for those who look whether it hangs."""
        given = () if tx is None else (tx,)
        self.connection = None if tx is None else tx.connection
        began = time.monotonic()
        try:
            with handler_span(self.registration, [] if tx is not None else events):
                if self.registration.takes_one:
                    for event in events:
                        self._failed_event = event
                        self.figures.begin([event])
                        check_result(await self.registration.function(*given, event))
                    self._failed_event = None
                else:
                    self.figures.begin(events)
                    # A list of its own: the handler may change it.
                    check_result(await self.registration.function(*given, list(events)))
        except Exception as exc:
            self._server.raised = exc
            if isinstance(exc, EventFailed):
                self._failed_event = exc.event
            raise
        except BaseException as exc:
            failure = async_cancelled_inside(exc)
            if failure is None:
                raise
            self._server.raised = failure
            raise failure from exc
        finally:
            self.connection = None
            self.figures.end(time.monotonic() - began)

    async def _bury(self, event: ChangeEvent, error: BaseException, attempts: int) -> None:
        """Store an event as a dead letter, with the position after it."""
        mark = mark_after(event)

        async def act() -> None:
            async with self._store.transaction() as tx:
                await self._rows.put_letter(tx, event, error, attempts)
                await self._rows.save(tx, mark)
                self._check_called_off()
            self._rows.note_saved()

        await self._server.until_served(act, partial(self._rows.is_stored, mark))
        self.figures.dead += 1
        if self.registration.on_dead == "park":
            self._parked.add(parking_key(event))
        logger.error(
            "%s gave up on %s after %s: %s; it is a dead letter",
            self.registration.title,
            named([event]),
            "1 attempt" if attempts == 1 else f"{attempts} attempts",
            text_of(error),
        )

    async def _retry_letters(self) -> None:
        """Try the letters again that are due, in their order."""
        after = 0
        await self._server.until_served(self._rows.release)
        while not self.ends.is_set():
            letter = await self._server.until_served(partial(self._rows.next_due, after))
            if letter is None:
                break
            await self._retry_letter(letter)
            after = letter.id
        await self._server.until_served(self._look_for_parked)

    async def _retry_letter(self, letter: DueLetter) -> None:
        if await self._server.until_served(partial(self._rows.note_letter, letter)) > MOST_LETTER_TRIES:
            error = ProcessEnded(f"{MOST_LETTER_TRIES} processes ended while they tried this letter")
            logger.error("%s: dead letter %d: %s", self.registration.title, letter.id, error)
            await self._server.until_served(partial(self._rows.fail_letter, letter, error))
            return

        async def act() -> None:
            event = letter.read(self.registration.reader or self._store._connections.codec.decode)  # noqa: SLF001 (one package)
            if not self.registration.takes_tx:
                await self._call([event])
            is_removed = False
            async with self._transaction([event]) as tx:
                # First: a letter that somebody has dropped has no effect any more.
                is_there = await self._rows.remove_letter(tx, letter)
                if is_there and self.registration.takes_tx:
                    await self._call([event], tx)
                self._check_called_off()
                is_removed = True
            if not is_removed:  # the handler raised psycopg.Rollback: it wants no effect
                async with self._store.transaction() as tx:
                    await self._rows.remove_letter(tx, letter)

        try:
            await self._server.until_served(act)
        except Exception as exc:
            if not self._is_failure(exc):
                raise
            self._check_called_off()
            logger.warning("%s failed on dead letter %d again: %s", self.registration.title, letter.id, text_of(exc))
            await self._server.until_served(partial(self._rows.fail_letter, letter, exc))
        else:
            self.figures.handled += 1

    async def _look_for_parked(self) -> None:
        if self.registration.on_dead == "park":
            self._parked = await self._rows.parked()
