"""One reader of a whole log, in a thread of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pgdoc.relay.engines import open_log_reader
from pgdoc.relay.feed import LogFeed
from pgdoc.relay.loop_thread import LoopThread

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pgdoc.relay.finding import LogPosition
    from pgdoc.relay.inbox import AsyncInbox, Inbox
    from pgdoc.relay.remote_options import RemoteOptions
    from pgdoc.relay.targets import LogTarget

__all__ = ["SingleReading"]

_CLOSE_S: Final = 5.0


class SingleReading:
    """Reads a log into an inbox.

    Attributes:
        begun_at: where it began; `None` before it is open.
    """

    def __init__(self, target: LogTarget, options: RemoteOptions, inbox: Inbox | AsyncInbox) -> None:
        self._options, self._inbox = options, inbox
        self._feed = LogFeed(open_log_reader(target), inbox, target.shown, collections=options.names)
        self._thread: LoopThread | None = None
        self._task: asyncio.Task[None] | None = None  # of the loop
        self._name = f"pgdoc-read-{target.name}"
        self.begun_at: LogPosition | None = None

    @property
    def mode(self) -> str:
        """See `StreamStats`."""
        return self._feed.mode

    def start(self) -> Future[LogPosition]:
        """Begin to open the log."""
        self._thread = LoopThread(self._name)
        return self._thread.submit(self._feed.open(self._options.start))

    def run(self) -> None:
        """Read on, after `start`."""
        self.begun_at = self._feed.begun_at
        if self._thread is not None:
            self._thread.submit(self._run())

    async def _run(self) -> None:
        self._task = asyncio.create_task(self._feed.run())

    def close(self) -> None:
        """End reading and the thread, and wait for that."""
        self._inbox.close()
        thread, self._thread = self._thread, None
        if thread is None or not thread.is_alive:
            return
        closing = thread.submit(self._leave())
        try:
            closing.result(_CLOSE_S)
        except Exception:  # noqa: BLE001 (the engine is away)
            closing.cancel()
        finally:  # also after a KeyboardInterrupt
            thread.close()

    async def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._feed.close()

    def abandon(self) -> None:
        """End reading without waiting, for a stream that is dropped without `close`."""
        self._inbox.close()
        if self._thread is not None:
            self._thread.abandon(self._leave())
