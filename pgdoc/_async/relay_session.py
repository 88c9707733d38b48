"""One life of a relay: it owns the consumer, has the log open, and sends events until either ends."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pgdoc._async.checkpoint import checkpoint
from pgdoc.database.conninfo import database_of
from pgdoc.errors import HistoryLost, InvalidResumeToken, LogError, LogFull, LogGap, StreamClosed
from pgdoc.model.positions import Lsn
from pgdoc.model.tokens import Mark, SnapshotProgress, SnapshotStage, token_at
from pgdoc.relay.beginning import StoredEnd, find_beginning
from pgdoc.relay.config import LogConfig
from pgdoc.relay.debezium import Place
from pgdoc.relay.flights import Flight, Flights
from pgdoc.relay.formats import format_named
from pgdoc.relay.outbound import Outbound
from pgdoc.runtime.primitives import async_sleep, async_wait
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from pgdoc._async.store import AsyncStore
    from pgdoc._async.stream import AsyncChangeStream
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.relay.beginning import Beginning
    from pgdoc.relay.figures import RelayFigures
    from pgdoc.relay.log import LogEnd, LogWriter
    from pgdoc.relay.loop_thread import LoopThread
    from pgdoc.relay.options import RelayOptions
    from pgdoc.relay.targets import Target

__all__ = ["AsyncRelaySession"]

logger = logging.getLogger("pgdoc.relay")

WINDOW = 500
IN_FLIGHT = 4
READ_S = 0.2
CONFIRM_S = 1.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0


class Reopen(Exception):  # noqa: N818 (it is no error)
    """The log does not end where this relay believed: find out anew what it lacks."""


class AsyncRelaySession:
    """Relays until the relay stops, or the consumer is lost.

    Args:
        stops: whether the relay is to stop.
    """

    def __init__(  # noqa: PLR0913 (what its relay knows)
        self,
        store: AsyncStore,
        options: RelayOptions,
        target: Target,
        *,
        writer: LogWriter,
        thread: LoopThread,
        figures: RelayFigures,
        stops: Callable[[], bool],
    ) -> None:
        self._store, self._options, self._target = store, options, target
        self._writer, self._thread = writer, thread
        self._figures, self._stops = figures, stops
        place = Place(options.consumer, database_of(store._conninfo), store._schema)  # noqa: SLF001 (one package)
        self._encode = format_named(options.format, place).encode
        self._config = LogConfig(system_id=0, database_oid=0, selection="", format="", partitions=0)
        self._identity = ""
        self._flights: Flights[Future[int]] = Flights(0)
        # Acknowledged by the engine, and not yet confirmed to the consumer: when, after which event, which sequence.
        self._unconfirmed: deque[tuple[float, ChangeEvent, int]] = deque()
        self._next_confirm = 0.0

    async def run(self) -> None:
        """Relay.

        Raises:
            PgdocError: the consumer or the log ended it.
            Reopen: another session is needed at once.
        """
        options = self._options
        self._figures.state = "standby"
        async with self._store.watch(
            *options.names,
            consumer=options.consumer,
            auto_ack=False,
            snapshot=options.snapshot,
            **options.to_watch(),
        ) as stream:
            consumer = await self._owned(stream)
            if consumer is None:
                return
            self._figures.state = "opening"
            outbound = await self._open(consumer)
            self._figures.state, self._figures.error = "relaying", None
            try:
                await self._relay(stream, outbound)
            finally:
                self._figures.state = "opening"

    async def _owned(self, stream: AsyncChangeStream) -> Consumer | None:
        """Stand by until this process owns the consumer; `None` if the relay stops before."""
        consumer = stream._consumer  # noqa: SLF001 (one package)
        while consumer is not None and consumer.claim is None:
            if self._stops():
                return None
            if consumer.has_ended:
                await stream.next(timeout=0)  # raises what ended it
            await async_sleep(READ_S)
        return consumer

    async def _open(self, consumer: Consumer) -> Outbound:
        """Open the log, and find out what it lacks."""
        options, begun_at = self._options, token_at(consumer.begun_at, consumer.ids)
        self._config = LogConfig(
            system_id=begun_at.system_id,
            database_oid=begun_at.database_oid or 0,
            selection=options.selection,
            format=options.format,
            partitions=options.partitions,
            begun_at=str(begun_at),
        )
        end = await async_wait(self._thread.submit(self._writer.open(self._config)))
        self._identity = end.identity
        rows = await self._store._connections.fetch(statement("relays", "stored").encode(), [options.consumer])  # noqa: SLF001
        beginning = find_beginning(end, StoredEnd(*rows[0]) if rows else None, begun_at, self._target.shown)
        self._flights = Flights(end.sequence)
        self._figures.sequence = end.sequence
        await self._follow_snapshot(consumer, beginning)
        if beginning.is_gap and beginning.skip_to is not None:
            await self._fill_gap(beginning, begun_at)
            beginning = beginning._replace(skip_to=None, part=None)
        return self._outbound(beginning)

    def _outbound(self, beginning: Beginning) -> Outbound:
        return Outbound(
            beginning,
            partitions=self._options.partitions,
            limit=self._writer.limit,
            encode=self._encode,
        )

    async def _follow_snapshot(self, consumer: Consumer, beginning: Beginning) -> None:
        """Let a consumer with a snapshot go on exactly where the log ends: read again, it would be another snapshot.

        Raises:
            Reopen: the consumer's position was moved; it must be opened again.
            LogGap: the log was put back into the snapshot.
        """
        token, snapshot = beginning.skip_to, consumer.snapshot
        if token is None or (snapshot is SnapshotStage.NONE and not token.is_inside):
            return
        stored = Mark.at(consumer.begun_at, snapshot if isinstance(snapshot, SnapshotProgress) else None)
        mark = Mark.at(token.position, token.progress)
        if mark.position == stored.position:
            return
        if mark.position < stored.position:
            raise gap_after(token, str(Lsn(consumer.begun_at[0])), self._target.shown)
        async with self._store.transaction() as tx:
            await checkpoint(tx, consumer, mark)
            await self._save(tx, self._flights.acknowledged)
        raise Reopen

    async def _fill_gap(self, beginning: Beginning, begun_at: ResumeToken) -> None:
        """Send what the log lacks before the consumer's position, as far as PostgreSQL keeps history.

        Raises:
            LogGap: it does not, and `on_lost` is not `continue`.
        """
        token, options = beginning.skip_to, self._options
        assert token is not None  # noqa: S101 (the caller's condition)
        logger.warning("%s ends at %s, before its consumer: filling the gap from history", self._target.shown, token)
        try:
            # From the beginning of its transaction: the log may have only a part of the event.
            async with self._store.watch(*options.names, resume_after=token.lsn, **options.to_watch()) as history:
                await self._send_history(history, self._outbound(beginning), begun_at)
        except (HistoryLost, InvalidResumeToken) as exc:
            gap = gap_after(token, str(begun_at), self._target.shown)
            if options.on_lost != "continue":
                raise gap from exc
            logger.error("%s: leaving out what is lost: %s", self._target.shown, gap)  # noqa: TRY400 (no traceback)
        async with self._store.transaction() as tx:
            await self._save(tx, self._flights.acknowledged)

    async def _send_history(self, history: AsyncChangeStream, outbound: Outbound, until: ResumeToken) -> None:
        is_over = False
        while not is_over:
            if self._stops():
                raise Reopen
            events = await history.next_batch(WINDOW, timeout=READ_S)
            wanted = [event for event in events if event.resume_token <= until]
            is_over = len(wanted) < len(events) or history.resume_token >= until
            if wanted:
                self._send(outbound, wanted)
            await self._land(IN_FLIGHT - 1)
        await self._land(0)
        self._unconfirmed.clear()  # these are not the consumer's events

    async def _relay(self, stream: AsyncChangeStream, outbound: Outbound) -> None:
        while not self._stops():
            try:
                events = await stream.next_batch(WINDOW, timeout=READ_S)
            except StreamClosed:  # every collection was dropped, and its last event was delivered
                break
            if events:
                self._send(outbound, events)
            await self._land(IN_FLIGHT - 1)
            await self._confirm(stream)
        await self._land(0)
        await self._confirm(stream, is_last=True)

    def _send(self, outbound: Outbound, events: list[ChangeEvent]) -> None:
        window, last = outbound.messages_of(events), events[-1]
        if window:
            self._figures.sent += len(window)
            self._flights.add(Flight(window, last, self._thread.submit(self._writer.send(window))))
        elif not outbound.is_skipping:  # the log ends with this event, and has it already
            self._unconfirmed.append((time.monotonic(), last, self._flights.acknowledged))

    async def _land(self, most: int) -> None:
        """Take what is acknowledged, and wait until at most so many windows are on their way."""
        flights, figures = self._flights, self._figures
        while flights and (len(flights) > most or flights.first.sent.done()):
            try:
                sequence = await async_wait(flights.first.sent)
            except LogError as exc:
                if not exc.resumable:
                    raise
                await self._recover(exc)
                continue
            flight = flights.land()
            figures.sequence, figures.token = sequence, flight.window[-1].token
            figures.stored += len(flight.window)
            self._unconfirmed.append((time.monotonic(), flight.last, sequence))

    async def _recover(self, error: LogError) -> None:
        """Open the log again, and send what it lacks of the windows on their way.

        Raises:
            Reopen: it does not end at one of these.
        """
        figures, delay_s = self._figures, FIRST_DELAY_S
        logger.warning("%s is interrupted: %s", self._target.shown, error)
        while True:
            figures.interruptions += 1
            figures.error = str(error)
            figures.state = "log_full" if isinstance(error, LogFull) else "waiting_for_log"
            await self._pause(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            try:
                end: LogEnd = await async_wait(self._thread.submit(self._writer.open(self._config)))
            except LogError as exc:
                if not exc.resumable:
                    raise
                error = exc
                continue
            break
        left = self._flights.after(end) if end.identity == self._identity else None
        if left is None:
            raise Reopen
        figures.stored, figures.sequence = figures.sent - sum(len(window) for window, _ in left), end.sequence
        figures.state, figures.error = "relaying", None
        for window, last in left:
            self._flights.add(Flight(window, last, self._thread.submit(self._writer.send(window))))

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stops():
                raise Reopen
            await async_sleep(min(READ_S, seconds))

    async def _confirm(self, stream: AsyncChangeStream, *, is_last: bool = False) -> None:
        """Store how far the log is safe, at most once a second."""
        now = time.monotonic()
        if now < self._next_confirm and not is_last:
            return
        self._next_confirm = now + CONFIRM_S
        safe = None
        while self._unconfirmed and self._is_safe(*self._unconfirmed[0][:2], now):
            safe = self._unconfirmed.popleft()
        if safe is None:
            return
        _, event, sequence = safe
        async with self._store.transaction() as tx:
            await stream.checkpoint(event, tx)
            await self._save(tx, sequence)

    async def _save(self, tx: AsyncTransaction, sequence: int) -> None:
        """Store which entry of the log belongs to the consumer's position."""
        params: list[Any] = [self._options.consumer, self._target.shown, self._identity, sequence]
        async with tx._session.lend("relay") as connection:  # noqa: SLF001 (one package)
            await connection.execute(statement("relays", "save").encode(), params)

    def _is_safe(self, stored_at: float, event: ChangeEvent, now: float) -> bool:
        # Inside a snapshot the consumer must be able to go on exactly where the log ends.
        return now - stored_at >= self._writer.confirm_after_s or event.resume_token.is_inside


def gap_after(token: ResumeToken, begun_at: str, log: str) -> LogGap:
    """Return the error for a log that lacks events which PostgreSQL no longer keeps."""
    return LogGap(
        f"{log} ends at {token}, and PostgreSQL keeps only what follows {begun_at}: delete the log and begin again "
        "with a snapshot, or leave out what is lost with on_lost='continue'",
        after=str(token),
        until=begun_at,
    )
