"""Reading a source for one subscriber: a change stream of its own, opened again where that helps."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pgdoc._async.stream import AsyncChangeStream
from pgdoc.errors import HistoryLost, InvalidResumeToken, PgdocError
from pgdoc.model.tokens import ResumeToken
from pgdoc.web.entries import ChangeEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc.web.entries import SourceEntry

__all__ = ["ReadBatch", "SourceReading", "StreamReading", "check_unopened_stream"]

logger = logging.getLogger("pgdoc.web")

MOST: Final = 256  # entries in a batch
RETRY_S: Final = 0.5  # between attempts to open a stream


class ReadBatch(NamedTuple):
    """What a reading returns.

    Attributes:
        entries: the next entries, in order.
        token: where to resume after them; `None` if that is not known now.
        mode: that of the stream's figures, such as `live` or `reconnecting`.
        reset: why the entries don't continue those before them; empty if they do.
        lag: how long ago the next change was committed; 0 if there is none.
    """

    entries: Sequence[SourceEntry] = ()
    token: ResumeToken | None = None
    mode: str = "live"
    reset: str = ""
    lag: timedelta = timedelta(0)


class SourceReading(Protocol):
    """One subscriber's place in a source."""

    async def next(self, timeout_s: float) -> ReadBatch:
        """Return the next entries. A batch without entries follows each opening, and after `timeout_s` seconds.

        Raises:
            StreamClosed: the source has ended.
            PgdocError: it can't go on.
        """

    async def close(self) -> None:
        """End it."""


class StreamReading:
    """A change stream of one subscriber.

    Args:
        stream: an unopened stream; those that are opened have its options.
        after: the token to resume after, as a browser sent it.
        snapshot: false leaves the stream's snapshot out.
    """

    def __init__(self, stream: AsyncChangeStream, after: str | None, *, snapshot: bool = True) -> None:
        self._stream = stream
        self._snapshot = snapshot and stream._options.snapshot  # noqa: SLF001 (the same package)
        self._after: ResumeToken | None = None
        self._reset = ""
        self._opened: AsyncChangeStream | None = None
        if after:
            self._resume(after)

    def _resume(self, after: str) -> None:
        try:
            self._after = ResumeToken.parse(after)
        except InvalidResumeToken:
            self._reset = "invalid_token"

    async def next(self, timeout_s: float) -> ReadBatch:
        """See `SourceReading`."""
        if self._opened is None:
            return await self._open()
        stream = self._opened
        try:
            events = await stream.next_batch(MOST, max(0.0, timeout_s))
        except PgdocError as exc:
            return await self._failed(exc)
        return self._batch(stream, [ChangeEntry(event) for event in events])

    def _batch(self, stream: AsyncChangeStream, entries: Sequence[ChangeEntry], reset: str = "") -> ReadBatch:
        stats = stream.stats()
        return ReadBatch(entries, stream.resume_token, stats.mode, reset, stats.lag)

    async def _open(self) -> ReadBatch:
        stream = reopened(self._stream, self._after, snapshot=self._snapshot)
        try:
            stream._options.check_snapshot()  # noqa: SLF001
            await stream
        except PgdocError as exc:
            return await self._failed(exc)
        self._opened, reset, self._reset = stream, self._reset, ""
        return self._batch(stream, (), reset)

    async def _failed(self, error: PgdocError) -> ReadBatch:
        """Prepare to open another stream, if that can help; otherwise raise the error."""
        is_lost = isinstance(error, HistoryLost | InvalidResumeToken)
        if not is_lost and not error.resumable:
            raise error
        if is_lost and self._opened is None and self._after is None:
            raise error  # it did not ask for a place
        if self._opened is not None:
            self._after = self._opened.resume_token
        self._opened = None
        if is_lost:
            level = logging.WARNING if isinstance(error, HistoryLost) else logging.INFO  # a client can send anything
            logger.log(level, "a subscriber begins anew: %s", str(error)[:500])
            self._after = None
            self._reset = "history_lost" if isinstance(error, HistoryLost) else "invalid_token"
            return await self._open()
        await asyncio.sleep(RETRY_S)
        return ReadBatch(mode="reconnecting")

    async def close(self) -> None:
        """End it."""
        if self._opened is not None:
            await self._opened.close()


def reopened(stream: AsyncChangeStream, after: ResumeToken | None, *, snapshot: bool) -> AsyncChangeStream:
    """Return an unopened stream like this one that resumes elsewhere."""
    options = replace(stream._options, resume_after=after, snapshot=snapshot)  # noqa: SLF001 (the same package)
    return AsyncChangeStream(stream._backend, stream._selection, options)  # noqa: SLF001


def check_unopened_stream(stream: AsyncChangeStream) -> None:
    """Refuse a stream that subscribers can't have one each of.

    Raises:
        ValueError: it has a consumer, is open, or has a position.
    """
    options = stream._options  # noqa: SLF001
    if options.consumer is not None:
        raise ValueError(
            f'the stream has the consumer "{options.consumer}", whose place is the server\'s: '
            "browsers keep their own, so leave out consumer="
        )
    if options.resume_after is not None:
        raise ValueError("the stream has resume_after: browsers send their own token, so leave it out, or pass after=")
    if stream._delivery.feed is not None or stream.closed:  # noqa: SLF001
        raise ValueError("the stream is open: pass what watch() returns, without awaiting or entering it")
