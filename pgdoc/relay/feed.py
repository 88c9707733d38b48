"""Reads a log, or one partition of it, into an inbox: runs in the engine's loop thread until it is cancelled."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from pgdoc.errors import LogRefused, PgdocError
from pgdoc.model.tokens import ResumeToken
from pgdoc.relay.assembly import Assembly, InsideEvent
from pgdoc.relay.finding import LogPosition, find_first_of, locate, order_of
from pgdoc.relay.formats import FORMATS
from pgdoc.relay.inbox import EntryBatch, EntrySource
from pgdoc.relay.log import LogEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pgdoc.model.positions import Lsn
    from pgdoc.relay.inbox import AsyncInbox, Inbox
    from pgdoc.relay.log import LogInfo, LogReader

__all__ = ["LogFeed"]

logger = logging.getLogger("pgdoc.remote")

_READABLE: Final = ("pgdoc", "cloudevents")
"""The formats that events can be read from."""

_AT_ONCE: Final = 1000
_WAIT_S: Final = 1.0
_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 5.0


class LogFeed:
    """One reader of a log and what it has read.

    Args:
        sharers: returns how many feeds put into the inbox. Each may add one fetch to a full one, so that all together
            at most double what the inbox is made for.

    Attributes:
        begun_at: where it began.
        partitions, source: how many the log has, and which database its events are of, once it was opened.
        mode: `live`, `catching_up` or `reconnecting`; any thread may read it.
    """

    def __init__(  # noqa: PLR0913 (what one feed consists of)
        self,
        reader: LogReader,
        inbox: Inbox | AsyncInbox,
        log: str,
        *,
        collections: Collection[str] = (),
        partitions: Collection[int] = (),
        source: EntrySource | None = None,
        sharers: Callable[[], int] = lambda: 1,
    ) -> None:
        self._sharers = sharers
        self._reader, self._inbox, self._log = reader, inbox, log
        self._collections, self._partitions = collections, partitions
        self._source = source or EntrySource()
        self._decode: Callable[[bytes], bytes | None] | None = None  # of the log's format, if that is not pgdoc's
        self._assembly = Assembly(log)
        self._skip_to: ResumeToken | None = None  # events up to it are left out
        self._last = self.begun_at = LogPosition(0, "", "")  # the last whole event that was put, or passed over
        self.mode = "catching_up"
        self.partitions, self.source = 0, ""

    async def open(self, after: LogPosition | ResumeToken | Lsn | str) -> LogPosition:
        """Open the log and begin after a token or a place in it, at its `beginning` or `now`, which is its end.

        Raises:
            PgdocError: as `locate` and the reader's methods.
        """
        info = await self._look()
        if isinstance(after, str):
            self._last = await (self._end(info) if after == "now" else self._at(info, info.first - 1))
            await self._begin()
        else:
            self._last = await locate(self._reader, info, after, self._log)
            await self._begin(ResumeToken.parse(self._last.token))
        self.begun_at = self._last
        return self._last

    async def _end(self, info: LogInfo) -> LogPosition:
        """Return the place after the last whole event."""
        part = info.last_part
        if part is None or part.number == part.total:
            return await self._at(info, info.last)
        token = await self._reader.token_at(info.last) or info.begun_at
        return await self._at(info, await find_first_of(self._reader, info, token) - 1)

    async def _at(self, info: LogInfo, sequence: int) -> LogPosition:
        token = await self._reader.token_at(sequence) if info.first <= sequence <= info.last else None
        return LogPosition(min(sequence, info.last), token or info.begun_at, info.identity)

    async def _look(self) -> LogInfo:
        info = await self._reader.open()
        if info.config.format not in _READABLE:
            raise LogRefused(
                f"{self._log} has the format {info.config.format}, which lacks parts of an event: read it with another "
                "program, or relay with format='pgdoc' or 'cloudevents'",
                reason="format",
            )
        self._decode = None if info.config.format == "pgdoc" else FORMATS[info.config.format].decode
        if self._partitions and self.partitions not in (0, info.config.partitions):
            raise LogRefused(
                f"{self._log} was made anew with {info.config.partitions} partitions, and had {self.partitions}, with "
                "other documents in each: drop the group, and let it begin anew after a token of what it has processed",
                reason="config",
            )
        self.partitions, self.source = info.config.partitions, info.config.source
        return info

    async def _begin(self, skip_to: ResumeToken | None = None) -> None:
        self._assembly, self._skip_to = Assembly(self._log), skip_to
        await self._reader.begin(self._last.sequence, collections=self._collections, partitions=self._partitions)

    async def run(self, after: LogPosition | None = None) -> None:
        """Read until the inbox is closed; an engine that is away is waited for.

        Args:
            after: where to begin, if the feed was not opened.
        """
        delay_s = _FIRST_DELAY_S
        is_open = after is None
        self._last = after or self._last
        # Cancelling alone may have no effect: up to Python 3.11, wait_for() can swallow it.
        while not self._inbox.closed and not self._source.is_dropped:
            try:
                if not is_open:
                    await self._reopen()
                    is_open, delay_s = True, _FIRST_DELAY_S
                    continue  # unless the source is dropped, as the log is another one
                await self._read_on()
            except PgdocError as exc:
                if not exc.resumable:
                    self._inbox.fail(exc)
                    return
                if is_open:
                    logger.warning("reading %s is interrupted, and goes on: %s", self._log, exc)
                is_open, self.mode = False, "reconnecting"
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                logger.exception("reading %s failed", self._log)
                self._inbox.fail(exc)
                return

    async def _reopen(self) -> None:
        info = await self._look()
        if self._last.token:
            self._last = await locate(self._reader, info, self._last, self._log)
        else:
            self._last = self._last._replace(identity=info.identity)
        self._source.follow(self._last)
        await self._begin(ResumeToken.parse(self._last.token) if self._last.token else None)
        self.mode = "catching_up"

    async def _read_on(self) -> None:
        """Read one batch."""
        await self._wait_for_room()
        share = self._inbox.size // max(1, self._sharers())
        most = max(1, min(_AT_ONCE, share, self._inbox.room))
        found = await self._reader.fetch(most, _WAIT_S)
        self.mode = "catching_up" if len(found) >= most else "live"
        if not found:
            await self._pass_over()
            return
        try:
            whole = self._assembly.add(found)
        except InsideEvent as inside:
            await self._begin_before(inside.token)
            return
        if self._skip_to is not None:
            whole = self._lacking(whole)
        if whole:
            last = whole[-1]
            self._last = LogPosition(last.sequence, last.token, self._last.identity)
            self._put(whole)

    async def _begin_before(self, token: str) -> None:
        """Begin again before the first part of an event, or leave it out if the log has forgotten that."""
        info = await self._look()
        first = await find_first_of(self._reader, info, token)
        await self._reader.begin(first - 1, collections=self._collections, partitions=self._partitions)
        self._assembly, self._skip_to = Assembly(self._log), None
        if first == info.first and info.first > 1:
            self._assembly.leave_out(token)

    def _lacking(self, whole: list[LogEntry]) -> list[LogEntry]:
        """Leave out what is not beyond the place where reading began."""
        skip_to = self._skip_to
        for number, entry in enumerate(whole):
            if skip_to is None or order_of(ResumeToken.parse(entry.token)) > order_of(skip_to):
                self._skip_to = None
                return whole[number:]
        return []

    async def _pass_over(self) -> None:
        """Let the stream's token advance over entries that nobody wants."""
        position = self._reader.position
        if position <= self._last.sequence or self._assembly.is_inside:
            return
        token = await self._reader.token_at(position)
        is_beyond = self._skip_to is None or (
            token is not None and order_of(ResumeToken.parse(token)) > order_of(self._skip_to)
        )
        if token is not None and is_beyond:
            self._last = LogPosition(position, token, self._last.identity)
            self._put([LogEntry(position, token, b"", None)])

    def _put(self, entries: list[LogEntry]) -> None:
        if self._decode is not None:
            entries = [self._in_pgdoc_s_format(entry) for entry in entries]
        self._inbox.put(EntryBatch(entries, sum([len(entry.body) for entry in entries]), self._source))

    def _in_pgdoc_s_format(self, entry: LogEntry) -> LogEntry:
        """Return an entry with the event as `to_json` has it.

        Raises:
            LogRefused: it is no event of the log's format.
        """
        body = self._decode(entry.body) if self._decode is not None and entry.body else entry.body
        if body is None:
            raise LogRefused(
                f"{self._log} has an entry that no relay wrote, at sequence {entry.sequence}: nobody else may write "
                "there",
                reason="foreign",
            )
        return entry._replace(body=body)

    async def _wait_for_room(self) -> None:
        loop = asyncio.get_running_loop()
        while self._inbox.room <= 0 and not self._inbox.closed:
            room = asyncio.Event()
            if not self._inbox.want_room(lambda room=room: loop.call_soon_threadsafe(room.set)):  # type: ignore[misc]
                await room.wait()

    async def close(self) -> None:
        """Close the reader."""
        await self._reader.close()
