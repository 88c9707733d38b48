"""Delivering a source to one subscriber, whatever the transport."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc._async.stream import AsyncChangeStream
from pgdoc.errors import PgdocError, StoreClosed, StreamClosed
from pgdoc.web.broadcast import Broadcast, BroadcastReading
from pgdoc.web.live import LIVE, Live, LiveReading, check_query
from pgdoc.web.messages import heartbeat, reset
from pgdoc.web.reading import StreamReading, check_unopened_stream
from pgdoc.web.views import Viewer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from pgdoc.model.tokens import ResumeToken
    from pgdoc.web.messages import MessageForm
    from pgdoc.web.reading import ReadBatch, SourceReading
    from pgdoc.web.views import SubscriberView

__all__ = ["Subscriber", "WebSource", "check_options", "check_source"]

WebSource: TypeAlias = AsyncChangeStream[Any] | Live | Broadcast
"""What a subscriber can read."""

SendTexts: TypeAlias = "Callable[[Sequence[bytes]], Awaitable[None]]"
"""Sends messages; returns when the transport can take more."""

logger = logging.getLogger("pgdoc.web")

_MOST_BYTES: Final = 256 << 10  # of one write


def check_source(source: WebSource) -> None:
    """Refuse what subscribers can't read.

    Raises:
        TypeError: it is no source.
        ValueError: the stream is open, or has a consumer or a position of its own.
    """
    if isinstance(source, AsyncChangeStream):
        check_unopened_stream(source)
    elif isinstance(source, LIVE):
        check_query(source)
    elif not isinstance(source, Broadcast):
        raise TypeError(
            f"expected a stream or live query of an AsyncStore, or a Broadcast, got {type(source).__name__}: "
            "pass what watch() or live() of an AsyncStore returns"
        )


def check_options(view: SubscriberView | None, **seconds: float) -> None:
    """Refuse a view that can't be called, and times that are not positive."""
    if view is not None and not callable(view):
        raise TypeError(f"view must be a function of an event or document, got {view!r}")
    for name, value in seconds.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a positive number of seconds, got {value!r}")


class Subscriber:
    """One subscriber of a source.

    Args:
        source: a stream, live query or broadcast.
        after: the subscriber's token, as it sent it.
        view: decides what it may see.
        form: writes a message in the form of the transport.
        heartbeat_s: the longest time between two heartbeats.
    """

    def __init__(
        self,
        source: WebSource,
        after: str | None,
        *,
        view: SubscriberView | None,
        form: MessageForm,
        heartbeat_s: float,
    ) -> None:
        self._viewer = Viewer(view)
        self._form = form
        self._heartbeat_s = heartbeat_s
        self._reading = _reading_of(source, after or None, hides=view is not None)
        self._first = asyncio.create_task(self._reading.next(heartbeat_s))
        self._beat_at = time.monotonic()
        self._told_mode = ""  # of the last heartbeat

    async def begin(self, timeout_s: float) -> None:
        """Wait until the source is open, but not longer than this.

        Raises:
            PgdocError: the source can't be opened.
        """
        await asyncio.wait([self._first], timeout=timeout_s)
        if self._first.done():
            self._first.result()

    async def deliver(
        self, write: SendTexts, disconnected: Coroutine[Any, Any, None], closing: asyncio.Event
    ) -> tuple[asyncio.Task[bool], bool]:
        """Write messages until the source ends, the subscriber disconnects, or the server shuts down.

        Returns:
            The task of `_run`, done or cancelled, and whether the subscriber has disconnected.
        """
        sending = asyncio.create_task(self._run(write))
        gone = asyncio.create_task(disconnected)
        tasks = [sending, gone, asyncio.create_task(closing.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return sending, not gone.cancelled()

    async def _run(self, write: SendTexts) -> bool:
        """Write messages until the source ends, and return whether that is no error, which is logged."""
        try:
            batch = await self._opened(write)
            while True:
                await self._write(batch, write)
                await asyncio.sleep(0)  # a busy source lets others have their turn
                since_s = time.monotonic() - self._beat_at
                batch = await self._reading.next(max(0.0, self._heartbeat_s - since_s))
        except (StreamClosed, StoreClosed):
            return True
        except PgdocError as exc:
            logger.warning("a subscriber's stream ends: %s", exc)
            return False

    async def _opened(self, write: SendTexts) -> ReadBatch:
        """Return the first batch. Until it is there, heartbeats tell the browser to wait."""
        while not (await asyncio.wait([self._first], timeout=self._heartbeat_s))[0]:
            await write([self._heartbeat(None, "connecting")])
        return self._first.result()

    async def _write(self, batch: ReadBatch, write: SendTexts) -> None:
        texts = []
        if batch.reset:
            texts.append(self._form(reset(_text(self._told(batch.token)), batch.reset)))
        size = 0
        for entry in batch.entries:
            try:
                text = await self._viewer.text(entry, self._form)
            except Exception:
                await write(texts)  # a browser that reconnects begins after these
                raise
            if text is None:
                continue
            texts.append(text)
            size += len(text)
            if size > _MOST_BYTES:
                await write(texts)
                texts, size = [], 0
        if batch.mode != self._told_mode or time.monotonic() - self._beat_at >= self._heartbeat_s:
            texts.append(self._heartbeat(_text(self._told(batch.token)), batch.mode))
        if texts:
            await write(texts)

    def _heartbeat(self, token: str | None, mode: str) -> bytes:
        self._beat_at, self._told_mode = time.monotonic(), mode
        return self._form(heartbeat(token, mode, datetime.now(UTC)))

    def _told(self, token: ResumeToken | None) -> ResumeToken | None:
        """Return a token that may be told: inside a snapshot it names the last document, which may be hidden."""
        return None if token is None or (self._viewer.hides and token.is_inside) else token

    async def close(self) -> None:
        """End it."""
        self._first.cancel()
        await asyncio.wait([self._first])
        if not self._first.cancelled():
            self._first.exception()
        await self._reading.close()


def _reading_of(source: WebSource, after: str | None, *, hides: bool) -> SourceReading:
    if isinstance(source, Broadcast):
        return BroadcastReading(source, after, hides=hides)
    if isinstance(source, AsyncChangeStream):
        return StreamReading(source, after)
    return LiveReading(source, None if hides else after)  # a view has to see all documents first


def _text(token: ResumeToken | None) -> str | None:
    return None if token is None else str(token)
