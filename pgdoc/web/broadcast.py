"""One stream or live query behind many browsers: `Broadcast`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pgdoc._async.stream import AsyncChangeStream
from pgdoc.errors import PgdocError, StreamClosed
from pgdoc.web.live import LIVE, Live, LiveReading, check_query, parsed
from pgdoc.web.reading import MOST, ReadBatch, SourceReading, StreamReading, check_unopened_stream
from pgdoc.web.ring import LiveRing, Ring, StreamRing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc.model.tokens import ResumeToken
    from pgdoc.web.entries import SourceEntry

__all__ = ["Broadcast", "BroadcastReading"]

_POLL_S: Final = 5.0  # between moves of the token while nothing matches
LATE: Final = timedelta(seconds=10)  # how far a new browser may begin behind the present
_GATHER_S: Final = 0.1  # how long the first stream waits for browsers that come back with older tokens


class Broadcast:
    """One stream or live query for many browsers, each message of which is rendered once.

    Pass it to `sse` or `websocket` instead of the stream. It opens with the first browser, and ends with its store, or
    with `close`. It keeps the last messages, from which a browser that reconnects goes on. A browser with an older
    token, or a slow one, reads a stream of its own until it has caught up.

    Create it in the event loop of the application, such as in its lifespan.

    Args:
        source: an unopened stream or live query of an `AsyncStore`.
        keep: the most messages to keep.
        keep_bytes: the most bytes of their JSON.

    Raises:
        TypeError: `source` is of another kind, such as a stream of the sync `Store`.
        ValueError: the stream is open, or has a consumer or a position of its own.
    """

    def __init__(self, source: AsyncChangeStream[Any] | Live, *, keep: int = 1000, keep_bytes: int = 16 << 20) -> None:
        if isinstance(source, AsyncChangeStream):
            check_unopened_stream(source)
        elif isinstance(source, LIVE):
            check_query(source)
        else:
            raise TypeError(f"a Broadcast is of a stream or live query of an AsyncStore, got {type(source).__name__}")
        for name, value in (("keep", keep), ("keep_bytes", keep_bytes)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self._shared = SharedSource(source, keep, keep_bytes)

    async def close(self) -> None:
        """End the stream, and with it the responses of all browsers."""
        await self._shared.close()


class SharedSource:
    """What a broadcast reads, and its last messages. Used by the event loop's thread only."""

    def __init__(self, source: AsyncChangeStream[Any] | Live, keep: int, keep_bytes: int) -> None:
        self._source = source
        self._keep, self._keep_bytes = keep, keep_bytes
        # These belong to the event loop, and are made anew when the source is opened again.
        self._pump: asyncio.Task[None] | None = None
        self._ring: Ring | None = None
        self._live: LiveReading | None = None
        self._whole: tuple[int, SourceEntry | None] = 0, None  # and the number of the entry after it
        self._mode, self._is_behind = "connecting", False
        self._arrived = asyncio.Event()
        self._oldest: ResumeToken | None = None  # of the browsers that wait for the source to open

    async def close(self) -> None:
        """End the stream."""
        if self._pump is not None:
            self._pump.cancel()
            with suppress(asyncio.CancelledError, PgdocError):
                await self._pump

    @property
    def ring(self) -> Ring | None:
        """The last messages; `None` until the source is open."""
        return self._ring

    @property
    def mode(self) -> str:
        """That of the stream."""
        return self._mode

    @property
    def is_behind(self) -> bool:
        """Whether the ring ends long before the present, as after a browser has come back with an old token."""
        return self._is_behind

    def start(self, token: ResumeToken | None) -> None:
        """Open the source if it is not open."""
        token = None if token is None or token.is_inside else token
        if self._pump is not None and not self._pump.done():
            if token is not None and (self._oldest is None or token.position < self._oldest.position):
                self._oldest = token
            return
        self._ring, self._whole, self._mode = None, (0, None), "connecting"
        self._oldest = token
        # Not in the context of the request that happens to be the first: it would keep it, and log as it.
        self._pump = asyncio.create_task(self._read(), name="pgdoc-broadcast", context=Context())
        self._pump.add_done_callback(self._ended)

    async def arrival(self, timeout_s: float) -> None:
        """Wait for something new; raise the error that ended the source."""
        if self._pump is None or self._pump.done():
            error = None if self._pump is None or self._pump.cancelled() else self._pump.exception()
            raise error or StreamClosed("the broadcast is closed")
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # `wait_for` would make a task, for each browser and event
                await self._arrived.wait()

    def own_stream(self, after: str | None) -> StreamReading | None:
        """Return a stream of a subscriber's own, for what the ring does not have; `None` for a live query."""
        return StreamReading(self._source, after) if isinstance(self._source, AsyncChangeStream) else None

    @property
    def begins_with_snapshot(self) -> bool:
        """Whether a subscriber without a token gets the documents that exist."""
        source = self._source
        return isinstance(source, AsyncChangeStream) and source._options.snapshot  # noqa: SLF001 (the same package)

    def whole(self) -> SourceEntry | None:
        """Return all documents of the live query, or its value, at the end of the ring; `None` for a stream."""
        if self._live is None or self._ring is None:
            return None
        number, whole = self._whole
        if whole is None or number != self._ring.next_number:
            whole = self._live.whole()
            whole.share()
            self._whole = self._ring.next_number, whole
        return whole

    async def _read(self) -> None:
        """Read the source into the ring until it ends."""
        reading = await self._reading()
        try:
            while True:
                batch = await reading.next(_POLL_S)
                self._mode, self._is_behind = batch.mode, batch.lag > LATE
                if batch.token is not None:
                    self._add(batch.entries, batch.token, is_new=bool(batch.reset))
                self._wake()
                await asyncio.sleep(0)  # a busy source lets the browsers have their turn
        finally:
            await reading.close()

    def _ended(self, pump: asyncio.Task[None]) -> None:
        if not pump.cancelled():
            pump.exception()  # readers raise it; asyncio would log it
        self._wake()

    async def _reading(self) -> SourceReading:
        if not isinstance(self._source, AsyncChangeStream):
            self._live = LiveReading(self._source, None)
            return self._live
        if self._oldest is not None:  # the server was restarted: many browsers come back
            await asyncio.sleep(_GATHER_S)
        return StreamReading(self._source, None if self._oldest is None else str(self._oldest), snapshot=False)

    def _add(self, entries: Sequence[SourceEntry], token: ResumeToken, *, is_new: bool) -> None:
        if self._ring is None or is_new:
            kind = StreamRing if self._live is None else LiveRing
            self._ring, self._whole = kind(token, self._keep, self._keep_bytes), (0, None)
            entries = () if self._live is not None else entries  # it begins with all documents, which `whole` returns
        self._ring.extend(entries, token)

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()


class BroadcastReading:
    """One subscriber's place in a broadcast: in the ring, or in a stream of its own."""

    def __init__(self, broadcast: Broadcast, after: str | None, *, hides: bool) -> None:
        self._shared = broadcast._shared  # noqa: SLF001 (the same module)
        self._after: str | None = after
        self._hides = hides
        self._is_started = False
        self._ring: Ring | None = None  # the one that `_number` counts in
        self._number = 0
        self._passed: ResumeToken | None = None  # entries of the ring up to here were delivered already
        self._own: StreamReading | None = None

    async def next(self, timeout_s: float) -> ReadBatch:
        """See `SourceReading`."""
        if self._own is not None:
            return await self._next_own(self._own, timeout_s)
        if self._ring is None:
            return await self._begin(timeout_s)
        return await self._next_shared(self._ring, timeout_s)

    async def _begin(self, timeout_s: float) -> ReadBatch:
        """Find the place to begin at, once the source is open."""
        shared, token = self._shared, parsed(self._after)
        if not self._is_started:
            self._is_started = True
            shared.start(token)
        if shared.ring is None:
            await shared.arrival(timeout_s)
        ring = shared.ring
        if ring is None:
            await shared.arrival(0.0)  # raises the error if the source could not be opened
            return ReadBatch(mode=shared.mode)
        return await self._begin_in(ring, token, timeout_s)

    async def _begin_in(self, ring: Ring, token: ResumeToken | None, timeout_s: float) -> ReadBatch:
        shared = self._shared
        whole = shared.whole()
        number = ring.number_after(token) if token is not None and not (whole and self._hides) else None
        if number is not None:
            return self._join(ring, number, ReadBatch((), token, shared.mode))
        if whole is not None:
            return self._join(ring, ring.next_number, ReadBatch([whole], whole.place, shared.mode))
        if not self._after and not shared.begins_with_snapshot and not shared.is_behind:
            return self._join(ring, ring.next_number, ReadBatch((), ring.end, shared.mode))
        self._own = own = shared.own_stream(self._after)
        if own is None:
            return ReadBatch(mode=shared.mode)
        return await self._next_own(own, timeout_s)  # opens it: what is written once a response has begun is not missed

    def _join(self, ring: Ring, number: int, batch: ReadBatch) -> ReadBatch:
        self._ring, self._number = ring, number
        self._after = str(batch.token)
        return batch

    async def _next_own(self, own: StreamReading, timeout_s: float) -> ReadBatch:
        batch = await own.next(timeout_s)
        ring, token = self._shared.ring, batch.token
        if ring is None or token is None or token.is_inside:
            return batch
        number = ring.next_number if ring.is_behind(token) else ring.number_after(token)
        if number is None:
            return batch
        await own.close()
        self._own, self._passed = None, token  # after it was closed: if that is cancelled, `close` does it
        return self._join(ring, number, batch)

    async def _next_shared(self, ring: Ring, timeout_s: float) -> ReadBatch:
        shared = self._shared
        if ring is not shared.ring:  # the source has lost its place
            return self._fall_out()
        entries = ring.read(self._number, MOST)
        if entries is not None and not entries:
            await shared.arrival(timeout_s)
            entries = ring.read(self._number, MOST)
        if entries is None:
            return self._fall_out()
        self._number += len(entries)
        token = entries[-1].place if entries else ring.end
        if self._passed is not None:
            passed = self._passed
            entries = [entry for entry in entries if passed.comes_before(entry.place)]
            if token.comes_before(passed):
                token = passed
            else:
                self._passed = None
        self._after = str(token)
        return ReadBatch(entries, token, shared.mode)

    def _fall_out(self) -> ReadBatch:
        """Go on without the ring, which no longer has what comes next."""
        self._ring, self._passed = None, None
        self._own = self._shared.own_stream(self._after)
        if self._own is None:
            self._after = None  # of a live query, all documents again
        return ReadBatch(mode="catching_up")

    async def close(self) -> None:
        """Leave the broadcast."""
        if self._own is not None:
            await self._own.close()
