"""One life of a relay: it owns the consumer, has the log open, and sends events until either ends."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from pgdoc._async.checkpoint import checkpoint
from pgdoc._async.relay_windows import IN_FLIGHT, AsyncWindows, Reopen
from pgdoc.database.conninfo import database_of
from pgdoc.errors import HistoryLost, InvalidResumeToken, LogGap, StreamClosed, UnreadableDocument
from pgdoc.model.positions import Lsn, before_commits_at
from pgdoc.model.tokens import Mark, ResumeToken, SnapshotProgress, SnapshotStage, token_at
from pgdoc.relay.beginning import Beginning, StoredEnd, find_beginning, gap_of
from pgdoc.relay.config import LogConfig
from pgdoc.relay.debezium import SourceNames
from pgdoc.relay.formats import format_named
from pgdoc.relay.outbound import Outbound
from pgdoc.runtime.primitives import async_sleep
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc._async.store import AsyncStore
    from pgdoc._async.stream import AsyncChangeStream
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.relay.figures import RelayFigures
    from pgdoc.relay.log import LogEnd, LogWriter
    from pgdoc.relay.loop_thread import LoopThread
    from pgdoc.relay.options import RelayOptions
    from pgdoc.relay.targets import LogTarget

__all__ = ["AsyncRelaySession"]

logger = logging.getLogger("pgdoc.relay")

WINDOW = 500
FEW = 250
GATHER_S = 0.004
READ_S = 0.2
CONFIRM_S = 1.0


class AsyncRelaySession:
    """Relays until the relay stops, or the consumer is lost.

    Args:
        stops: whether the relay is to stop.

    Attributes:
        has_begun: whether it has come to send events.
    """

    def __init__(  # noqa: PLR0913 (what its relay knows)
        self,
        store: AsyncStore,
        options: RelayOptions,
        target: LogTarget,
        *,
        writer: LogWriter,
        thread: LoopThread,
        figures: RelayFigures,
        stops: Callable[[], bool],
    ) -> None:
        self._store, self._options, self._log = store, options, target.shown
        self._writer, self._figures, self._stops = writer, figures, stops
        self._windows = AsyncWindows(writer, thread, figures, log=self._log, stops=stops)
        self._next_confirm = 0.0
        self.has_begun = False

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
            await self._open(consumer)
            self._figures.state, self._figures.error, self.has_begun = "relaying", None, True
            logger.info(
                'the relay of consumer "%s" goes on after entry %d of %s',
                options.consumer,
                self._windows.acknowledged,
                self._log,
            )
            try:
                await self._relay(stream, consumer)
            finally:
                self._figures.state = "opening"

    async def _owned(self, stream: AsyncChangeStream) -> Consumer | None:
        """Stand by until this process owns the consumer; `None` if the relay stops before."""
        consumer = stream._consumer  # noqa: SLF001 (one package)
        if consumer is not None and consumer.claim is None:
            logger.info('the relay of consumer "%s" stands by: another process has it open', consumer.name)
        while consumer is not None and consumer.claim is None:
            if self._stops():
                return None
            if consumer.has_ended:
                await stream.next(timeout=0)  # raises what ended it
            await async_sleep(READ_S)
        return consumer

    async def _open(self, consumer: Consumer) -> None:
        """Open the log, and send what it lacks before the consumer's position."""
        options, windows, begun_at = self._options, self._windows, token_at(consumer.begun_at, consumer.ids)
        end = await windows.open(
            LogConfig(
                system_id=begun_at.system_id,
                database_oid=begun_at.database_oid or 0,
                selection=options.selection,
                format=options.format,
                partitions=options.partitions,
                begun_at=str(begun_at),
                consumer=options.consumer,
                has_snapshot=options.snapshot,
            )
        )
        rows = await self._store._connections.fetch(statement("relays", "stored").encode(), [options.consumer])  # noqa: SLF001
        beginning = self._beginning(end, StoredEnd(*rows[0]) if rows else None, consumer)
        await self._follow_snapshot(consumer, beginning)
        if beginning.is_gap and beginning.skip_to is not None:
            await self._fill_gap(beginning.skip_to, beginning, begun_at)
            beginning = Beginning()
        windows.outbound = self._outbound(beginning)

    def _outbound(self, beginning: Beginning) -> Outbound:
        options, encode = self._options, None
        if options.format != "pgdoc":
            names = SourceNames(options.consumer, database_of(self._store._conninfo), self._store._schema)  # noqa: SLF001
            encode = format_named(options.format, names).encode
        leave_out = self._leave_out if options.on_lost == "continue" else None
        return Outbound(
            beginning, partitions=options.partitions, limit=self._writer.limit, encode=encode, leave_out=leave_out
        )

    def _beginning(self, end: LogEnd, stored: StoredEnd | None, consumer: Consumer) -> Beginning:
        """Return where to go on.

        Raises:
            LogGap: the log lacks events, or has some that a failover has undone, and `on_lost` is not `continue`.
        """
        begun_at = token_at(consumer.begun_at, consumer.ids)
        try:
            beginning = find_beginning(end, stored, begun_at, self._log)
        except LogGap as gap:
            self._leave_out(gap)
            return Beginning()
        token = beginning.skip_to
        if token is not None and token.timeline != begun_at.timeline:
            left_at = before_commits_at(consumer.left_at(token.timeline))
            if token.position > left_at:
                self._leave_out(undone_after(token, Lsn(left_at[0]), self._log))
                return beginning._replace(skip_to=token_at(left_at, consumer.ids), part=None)
        return beginning

    def _leave_out(self, error: LogGap | UnreadableDocument) -> None:
        """Go on without what is lost, or raise the error."""
        if self._options.on_lost != "continue":
            raise error
        logger.error("%s: leaving out what is lost: %s", self._log, error)

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
        if mark.position == stored.position or (mark.position < stored.position and beginning.is_certain):
            return
        if mark.position < stored.position:
            until = token_at(consumer.begun_at, consumer.ids)
            self._leave_out(gap_of(self._log, f"ends at {token}", token, until))
            return
        async with self._store.transaction() as tx:
            await checkpoint(tx, consumer, mark)
            await self._save(tx, self._windows.acknowledged)
        raise Reopen

    async def _fill_gap(self, after: ResumeToken, beginning: Beginning, begun_at: ResumeToken) -> None:
        """Send what the log lacks before the consumer's position, as far as PostgreSQL keeps history.

        Raises:
            LogGap: it does not, and `on_lost` is not `continue`.
        """
        options, windows = self._options, self._windows
        logger.warning("%s ends at %s, before its consumer: filling the gap from history", self._log, after)
        windows.outbound = self._outbound(beginning)
        try:
            # From the beginning of its transaction: the log may have only a part of the event.
            async with self._store.watch(*options.names, resume_after=after.lsn, **options.to_watch()) as history:
                await self._send_history(history, begun_at)
        except (HistoryLost, InvalidResumeToken) as exc:
            gap = gap_of(self._log, f"ends at {after}", after, begun_at)
            gap.__cause__ = exc
            self._leave_out(gap)
        windows.landed.clear()  # these are not the consumer's events
        async with self._store.transaction() as tx:
            await self._save(tx, windows.acknowledged)

    async def _send_history(self, history: AsyncChangeStream, until: ResumeToken) -> None:
        is_over = False
        while not is_over:
            if self._stops():
                raise Reopen
            events = await history.next_batch(WINDOW, timeout=READ_S)
            wanted = [event for event in events if not until.comes_before(event.resume_token)]
            is_over = len(wanted) < len(events) or not history.resume_token.comes_before(until)
            await self._windows.send(wanted, lambda _: None)
            await self._windows.land(IN_FLIGHT - 1)
        await self._windows.land(0)

    async def _relay(self, stream: AsyncChangeStream, consumer: Consumer) -> None:
        mark_of = stream._delivery.mark_of  # noqa: SLF001 (one package)
        while not self._stops():
            try:
                events = await self._next(stream)
            except StreamClosed:  # every collection was dropped, and its last event was delivered
                break
            try:
                await self._windows.send(events, mark_of)
            except UnreadableDocument as exc:
                await self._end_at(exc, consumer)
            await self._windows.land(IN_FLIGHT - 1)
            await self._confirm(consumer)
        await self._windows.land(0)
        await self._confirm(consumer, is_last=True)

    async def _next(self, stream: AsyncChangeStream) -> list[ChangeEvent]:
        """Return the next events; few of them wait a little for more while others are on their way.

        A relay that is faster than its consumer would otherwise send windows of a few events, which cost as much as
        large ones.
        """
        events = await stream.next_batch(WINDOW, timeout=READ_S)
        if 0 < len(events) < FEW and self._windows.in_flight:
            await async_sleep(GATHER_S)
            with contextlib.suppress(StreamClosed):  # raised again by the next call
                events += await stream.next_batch(WINDOW - len(events), timeout=0)
        return events

    async def _end_at(self, error: UnreadableDocument, consumer: Consumer) -> None:
        """Raise the error for an event that can't be sent, after what comes before it is stored."""
        await self._windows.land(0)
        await self._confirm(consumer, is_last=True)
        raise UnreadableDocument(
            f"{error}. The relay has sent everything before it, and can't go on; to leave it out, relay with "
            "on_lost='continue'",
            collection=error.collection,
            document_id=error.document_id,
        ) from error

    async def _confirm(self, consumer: Consumer, *, is_last: bool = False) -> None:
        """Store how far the log is safe, at most once a second."""
        now = time.monotonic()
        if now < self._next_confirm and not is_last:
            return
        self._next_confirm = now + CONFIRM_S
        landed, after_s = self._windows.landed, self._writer.confirm_after_s
        safe = None
        while landed and now - landed[0].at >= after_s:
            safe = landed.popleft()
        if safe is None:
            return
        await self._windows.check(safe.sequence)
        async with self._store.transaction() as tx:
            await checkpoint(tx, consumer, safe.mark)
            await self._save(tx, safe.sequence)

    async def _save(self, tx: AsyncTransaction, sequence: int) -> None:
        """Store which entry of the log belongs to the consumer's position."""
        params: list[Any] = [self._options.consumer, self._log, self._windows.identity, sequence]
        async with tx._session.lend("relay") as connection:  # noqa: SLF001 (one package)
            await connection.execute(statement("relays", "save").encode(), params)


def undone_after(token: ResumeToken, left_at: Lsn, log: str) -> LogGap:
    """Return the error for a log with events that the promoted server does not have."""
    return LogGap(
        f"{log} ends at {token}, but this server left timeline {token.timeline} at {left_at}: a failover has "
        "undone the log's events after that. Repair what was done with them, and go on with on_lost='continue'",
        after=str(token),
        until=str(left_at),
    )
