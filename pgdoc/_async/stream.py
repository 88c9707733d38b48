"""Change streams."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Self

from pgdoc import _waiting
from pgdoc.errors import HistoryLost, PgdocError, StreamClosed
from pgdoc.events import ChangeEvent, check_images
from pgdoc.mailbox import AsyncMailbox
from pgdoc.sql import statement
from pgdoc.streams import StreamStats, check_buffer, check_place, read_token
from pgdoc.tokens import Lsn, Position, ResumeToken

if TYPE_CHECKING:
    from collections.abc import Generator

    from pgdoc._async.store import AsyncStore
    from pgdoc.changes.assemble import Change
    from pgdoc.changes.fanout import Subscription
    from pgdoc.hub import Hub
    from pgdoc.replication.slots import Origin

__all__ = ["AsyncChangeStream"]

_FLUSH_POLL_S = 0.01


class AsyncChangeStream:
    """The changes of one, several or all collections, in the order in which their transactions committed.

    Made by `watch()`. Iterate over it, or call `next`; one stream belongs to one task.

    A connection that is lost is mended behind it. Events are dropped never: a stream that is slow goes on from the
    server's WAL, as far as the history reaches.
    """

    def __init__(
        self,
        store: AsyncStore,
        collections: frozenset[str] | None,
        *,
        resume_after: ResumeToken | Lsn | str | None,
        buffer_size: int,
        buffer_bytes: int,
    ) -> None:
        check_buffer(buffer_size, buffer_bytes)
        self._store = store
        self._collections = collections
        self._resume_after = None if resume_after is None else read_token(resume_after)
        self._mailbox = AsyncMailbox(buffer_size, buffer_bytes)
        self._batch: deque[Change] = deque()
        self._last: tuple[int, int, int, int] = (0, 0, 0, 0)
        self._delivered = 0
        self._hub: Hub | None = None
        self._subscription: Subscription | None = None
        self._origin: Origin | None = None
        self._ids = (0, 0)

    async def _open(self) -> Self:
        """Start, once; what `watch()` promises holds when this returns."""
        if self._hub is not None:
            return self
        await self._store._create_missing(self._collections)  # noqa: SLF001 (one room)
        hub = self._store._hub()  # noqa: SLF001
        origin = await _waiting.async_wait(hub.start())
        self._ids = (origin.system_id, origin.timeline)
        self._hub = hub
        try:
            if self._resume_after is None:
                await self._begin_now(hub)
            else:
                await self._begin_after(hub, origin, self._resume_after)
        except BaseException:
            await self.close()
            raise
        return self

    async def _begin_now(self, hub: Hub) -> None:
        self._subscription = hub.subscribe(self._collections, self._mailbox)
        inserted, flushed = await self._wal_end()
        if flushed < inserted:
            await self._store._execute(statement("streams", "flush"), ())  # noqa: SLF001
        hub.begin_at(self._subscription, inserted)
        self._last = Position(inserted)
        while flushed < inserted:  # a token past the flushed end would be refused, and lost in a crash
            _, flushed = await self._wal_end()
            if flushed < inserted:
                await _waiting.async_sleep(_FLUSH_POLL_S)

    async def _begin_after(self, hub: Hub, origin: Origin, place: ResumeToken | Lsn) -> None:
        _, flushed = await self._wal_end()
        position = check_place(place, origin, flushed)
        reaches_back = await self._store._execute(  # noqa: SLF001
            statement("streams", "oldest_bookmark"), ()
        )
        oldest = reaches_back[0]["oldest"]
        if oldest is None or oldest > position.commit_lsn:
            raise HistoryLost(
                f"position {Lsn(position.commit_lsn)} is no longer kept: history reaches back to "
                f"{'nothing' if oldest is None else Lsn(oldest)}; rebuild from the collections and stream from now, "
                "and keep more with set_history()",
                oldest_available=None if oldest is None else str(Lsn(oldest)),
            )
        self._last = position
        self._subscription = hub.resume(self._collections, position, self._mailbox)

    async def _wal_end(self) -> tuple[int, int]:
        row = (await self._store._execute(statement("streams", "wal_end"), ()))[0]  # noqa: SLF001
        return row["inserted"], row["flushed"]

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeEvent:
        try:
            event = await self.next()
        except StreamClosed:
            event = None
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self, timeout: float | None = None) -> ChangeEvent | None:  # noqa: ASYNC109 (the contract's)
        """Give the next event.

        Args:
            timeout: seconds to wait for it; `None` waits for as long as the stream is open.

        Returns:
            The event, or `None` when the time is over.

        Raises:
            StreamClosed: the stream was closed.
            PgdocError: what ended it, after every event before it was given.
        """
        try:
            if not self._batch:
                await self._open()
                self._batch.extend(await self._mailbox.take(timeout))
            return self._deliver() if self._batch else None
        except StreamClosed:
            raise
        except PgdocError:
            await self.close()
            raise

    async def try_next(self) -> ChangeEvent | None:
        """Give the next event if it is already here, else `None`."""
        return await self.next(timeout=0)

    def _deliver(self) -> ChangeEvent:
        change = self._batch[0]
        check_images(change)
        event = ChangeEvent._of(change, self._ids)  # noqa: SLF001 (not for users to make)
        self._batch.popleft()
        self._last = change.position
        self._delivered += 1
        return event

    @property
    def resume_token(self) -> ResumeToken:
        """The place up to which everything wanted has been given; it moves on without events, too."""
        idle = not self._batch and self._mailbox.buffered == 0
        place = max(self._last, self._mailbox.reached) if idle else self._last
        return ResumeToken(Position(*place), *self._ids)

    def stats(self) -> StreamStats:
        """Tell how the stream is doing."""
        if self._hub is None or self._subscription is None or self.closed:
            return StreamStats("closed", 0, self._delivered, 0)
        return StreamStats(
            mode=self._hub.mode(self._subscription),
            buffered=self._mailbox.buffered,
            delivered=self._delivered,
            lag_bytes=max(0, self._hub.wal_end - self.resume_token.lsn),
        )

    @property
    def closed(self) -> bool:
        """Whether it gives no more events."""
        return self._mailbox.closed

    async def close(self) -> None:
        """End it and drop what is buffered; `resume_token` stays. Calling it again does nothing."""
        self._batch.clear()
        if self._hub is not None and self._subscription is not None:
            self._hub.unsubscribe(self._subscription)
        self._mailbox.close()
