"""The buffer between an engine's loop thread and a stream: `Inbox` for a thread, `AsyncInbox` for a task.

They differ only in how they wait. The engine's thread waits for room; no code of a user runs there.

A KeyboardInterrupt between any two steps of the thread that takes loses nothing: a batch stays in the queue until its
`next` shows that it is used up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from pgdoc.errors import StreamClosed, StreamError
from pgdoc.relay.log import LogEntry
from pgdoc.runtime.fork import remember
from pgdoc.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.relay.finding import LogPosition

__all__ = ["AsyncInbox", "EntryBatch", "EntrySource", "Inbox"]

_FORKED = "this stream was made before the process forked: open one in the child process"


class EntrySource:
    """Where the entries of a batch come from; any thread may read it.

    Attributes:
        is_dropped: whether entries that have not been delivered are to be left out.
    """

    is_dropped = False

    def follow(self, position: LogPosition) -> None:
        """Note where reading begins, each time that the log is opened."""


class EntryBatch(list[LogEntry]):
    """Entries that were put together.

    Attributes:
        next: index of the first unused entry; the stream advances it.
        size_bytes: the size of the bodies.
        source: where they come from.
    """

    __slots__ = ("next", "size_bytes", "source")

    def __init__(self, entries: Iterable[LogEntry], size_bytes: int, source: EntrySource) -> None:
        super().__init__(entries)
        self.next, self.size_bytes, self.source = 0, size_bytes, source


class _EntryBox:
    """The queue and its bounds, shared by both kinds."""

    def __init__(self, size: int, size_bytes: int) -> None:
        self._size, self._size_bytes = size, size_bytes
        # Replaced by the thread or task that takes, which also advances its `next` without the lock.
        self.batch = EntryBatch((), 0, EntrySource())
        # Guards what follows. Held for a few steps; no callback is called under it.
        self._lock = threading.Lock()
        self._queue: deque[EntryBatch] = deque()
        self._count = self._bytes = 0  # in the queue, used ones of the first batch included
        self._error: BaseException | None = None
        self._room_wanted: list[Callable[[], object]] = []
        self.closed = False
        remember(self)

    @property
    def buffered(self) -> tuple[int, int]:
        """How many entries wait, and their bytes, with those of a batch that is being used."""
        with self._lock:
            batch = self.batch
            if not self._queue or self._queue[0] is not batch:
                return self._count, self._bytes
            return self._count - batch.next, self._bytes - (batch.size_bytes if batch.next == len(batch) else 0)

    @property
    def size(self) -> int:
        """For how many entries it is made."""
        return self._size

    @property
    def room(self) -> int:
        """How many entries there is room for; any thread may ask."""
        return 0 if self._bytes >= self._size_bytes else self._size - self._count

    def put(self, batch: EntryBatch) -> None:
        """Add entries, also where there is no room for them. For the engine's thread."""
        with self._lock:
            if self.closed:
                return
            self._queue.append(batch)
            self._count += len(batch)
            self._bytes += batch.size_bytes
        self._wake()

    def fail(self, error: BaseException) -> None:
        """End with an error after what is buffered."""
        with self._lock:
            self._error = self._error or error
        self._wake()

    def want_room(self, tell: Callable[[], object]) -> bool:
        """Have `tell` called once there is room, by the thread that takes; return whether there is some already."""
        with self._lock:
            if self.closed or self.room > 0:
                return True
            self._room_wanted.append(tell)
            return False

    def close(self) -> None:
        """Take no more, and drop what is buffered."""
        with self._lock:
            self.closed = True
            self._queue.clear()
            self._count = self._bytes = 0
            wanted, self._room_wanted = self._room_wanted, []
        for tell in wanted:
            tell()
        self._wake()

    def refill(self) -> bool:
        """Make the next batch the current one if it is there; return whether the current one has unused entries.

        Raises:
            StreamClosed: the stream is closed.
            BaseException: the error given to `fail`, after everything that was put before.
        """
        wanted: list[Callable[[], object]] = []
        with self._lock:
            queue, batch = self._queue, self.batch
            if queue and queue[0] is batch and batch.next >= len(batch):
                queue.popleft()
                self._count -= len(batch)
                self._bytes -= batch.size_bytes
            if self.room > 0 and self._room_wanted:
                wanted, self._room_wanted = self._room_wanted, []
            if queue:
                self.batch = queue[0]
            has_some, error = bool(queue), self._error
        for tell in wanted:
            tell()
        if self.closed:
            raise StreamClosed("the stream is closed: open another with resume_after")
        if not has_some and error is not None:
            raise error
        return has_some

    def after_fork(self) -> None:
        """Refuse to go on in a child process: the thread that reads does not exist there."""
        self._lock = threading.Lock()
        self._queue.clear()
        self._room_wanted = []
        self._count = self._bytes = 0
        self._error = StreamError(_FORKED)

    def _wake(self) -> None:
        raise NotImplementedError


class Inbox(_EntryBox):
    """For a thread."""

    def __init__(self, size: int, size_bytes: int) -> None:
        self._wakeup = Wakeup()
        super().__init__(size, size_bytes)

    def _wake(self) -> None:
        self._wakeup.set()

    def take(self, timeout_s: float | None = None) -> bool:
        """Wait for entries; return whether the current batch has unused ones, `False` on timeout."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.refill():
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            self._wakeup.wait(left_s)
        return True


class AsyncInbox(_EntryBox):
    """For a task."""

    def __init__(self, size: int, size_bytes: int) -> None:
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        super().__init__(size, size_bytes)

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            loop, event = waiting
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # the loop is closed, so no task waits any more
                return

    async def take(self, timeout_s: float | None = None) -> bool:
        """See `Inbox.take`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        event = asyncio.Event()
        self._waiting = asyncio.get_running_loop(), event  # before the look, so that nothing is missed
        try:
            while not self.refill():
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                try:
                    await asyncio.wait_for(event.wait(), left_s)
                except TimeoutError:
                    continue
                event.clear()
            return True
        finally:
            self._waiting = None
