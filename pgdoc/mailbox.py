"""Where the hub's threads put changes and a stream takes them: `Mailbox` for threads, `AsyncMailbox` for a loop.

The two stand side by side because waiting is all in which they differ. A mailbox is bounded, in changes and in bytes,
and what has been taken for the user's loop counts until the next batch is asked for. It never makes a feeder wait:
`put` takes what there is room for.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

from pgdoc.errors import StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.assemble import Change, Place

BATCH = 256
"""Changes that `take` gives at the most."""


class _Box:
    """What both share: the queue and its bounds."""

    def __init__(self, size: int, size_bytes: int) -> None:
        self._lock = threading.Lock()
        self._size = size
        self._size_bytes = size_bytes
        self._queue: deque[Change] = deque()
        self._count = self._bytes = 0  # with what was taken last
        self._taken_count = self._taken_bytes = 0
        self._refused_bytes = 0  # of the first change for which there was no room
        self._reached: Place = (0, 0, 0, 0)
        self._error: BaseException | None = None
        self._closed = False
        self._when_room: Callable[[], None] | None = None

    @property
    def buffered(self) -> int:
        """How many changes wait to be taken."""
        return len(self._queue)

    @property
    def reached(self) -> Place:
        """How far the stream has come without events, if all that was put has been taken."""
        with self._lock:
            return (0, 0, 0, 0) if self._count else self._reached

    @property
    def closed(self) -> bool:
        """Whether nobody takes from it any more."""
        return self._closed

    def put(self, changes: list[Change], reached: Place) -> int:
        """Take as many changes as there is room for, and give how many; one change always fits."""
        with self._lock:
            if self._closed:
                return len(changes)
            taken = self._fill(changes)
            if taken == len(changes):
                self._reached = max(self._reached, reached)
            if taken:
                self._wake()
            return taken

    def _fill(self, changes: list[Change]) -> int:
        count, size_bytes = len(changes), sum([len(change.row.message) for change in changes])
        if self._count + count > self._size or self._bytes + size_bytes > self._size_bytes:
            count, size_bytes = self._what_fits(changes)
            self._refused_bytes = len(changes[count].row.message) if count < len(changes) else 0
            changes = changes[:count]
        self._queue.extend(changes)
        self._count += count
        self._bytes += size_bytes
        return count

    def _what_fits(self, changes: list[Change]) -> tuple[int, int]:
        count = size_bytes = 0
        for change in changes[: max(0, self._size - self._count)]:
            if self._count + count and self._bytes + size_bytes + len(change.row.message) > self._size_bytes:
                break
            count, size_bytes = count + 1, size_bytes + len(change.row.message)
        return count, size_bytes

    def begin_at(self, place: Place) -> None:
        """Throw away what lies before `place`; called before anyone takes."""
        with self._lock:
            wanted = [change for change in self._queue if change.position > place]
            self._queue = deque(wanted)
            self._count, self._bytes = len(wanted), sum(len(change.row.message) for change in wanted)
            self._reached = max(self._reached, place)

    def call_when_room(self, callback: Callable[[], None]) -> None:
        """Call back, once, when it is at most half full and has room for what it refused; at once if that is so now."""
        with self._lock:
            self._when_room = callback
            ready = self._room_callback()
        if ready:
            ready()

    def fail(self, error: BaseException) -> None:
        """Let `take` raise `error` when all that was put has been taken."""
        with self._lock:
            self._error = self._error or error
            self._wake()

    def close(self) -> None:
        """Drop everything; `take` raises `StreamClosed` from now on."""
        with self._lock:
            self._closed = True
            if self._count:
                self._reached = (0, 0, 0, 0)  # what is dropped was not given
            self._queue.clear()
            self._count = self._bytes = self._taken_count = self._taken_bytes = 0
            no_longer_full, self._when_room = self._when_room, None
            self._wake()
        if no_longer_full:
            no_longer_full()

    def _wake(self) -> None:
        raise NotImplementedError

    def _room_callback(self) -> Callable[[], None] | None:
        room_bytes = min(self._size_bytes // 2, self._size_bytes - self._refused_bytes)
        if self._when_room is None or (self._count and (self._count * 2 > self._size or self._bytes > room_bytes)):
            return None
        callback, self._when_room = self._when_room, None
        return callback

    def _take_now(self) -> list[Change]:
        """Give the next batch, may be empty; with the lock held."""
        self._count -= self._taken_count
        self._bytes -= self._taken_bytes
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
        self._taken_count, self._taken_bytes = len(batch), sum([len(change.row.message) for change in batch])
        if batch:
            return batch
        if self._closed:
            raise StreamClosed("the stream is closed: open another with watch(resume_after=...)")
        if self._error is not None:
            error, self._error = self._error, StreamClosed("the stream ended with an error; see its cause")
            self._error.__cause__ = error
            raise error
        return batch


class Mailbox(_Box):
    """For a stream read by a thread."""

    def __init__(self, size: int, size_bytes: int) -> None:
        super().__init__(size, size_bytes)
        self._filled = threading.Condition(self._lock)

    def _wake(self) -> None:
        self._filled.notify_all()

    def take(self, timeout_s: float | None) -> list[Change]:
        """Give the next changes, waiting for the first; empty when the time is over.

        Raises:
            StreamClosed: it was closed.
            PgdocError: what ended the stream.
        """
        with self._lock:
            batch = self._take_now()
            ready = self._room_callback()
        if ready:
            ready()
        if batch or timeout_s == 0:
            return batch
        with self._lock:
            self._filled.wait_for(lambda: self._queue or self._closed or self._error, timeout_s)
            return self._take_now()


class AsyncMailbox(_Box):
    """For a stream read by a task."""

    def __init__(self, size: int, size_bytes: int) -> None:
        super().__init__(size, size_bytes)
        self._waiter: asyncio.Future[None] | None = None
        self._without_waiting = 0  # changes taken since the loop had its turn

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            try:
                waiter.get_loop().call_soon_threadsafe(_finish, waiter)
            except RuntimeError:
                return  # the loop is closed: nobody will ever take

    async def take(self, timeout_s: float | None) -> list[Change]:
        """Give the next changes, waiting for the first; empty when the time is over.

        A cancelled call has taken nothing.

        Raises:
            StreamClosed: it was closed.
            PgdocError: what ended the stream.
        """
        if self._without_waiting >= BATCH or timeout_s == 0:
            self._without_waiting = 0
            await asyncio.sleep(0)  # a stream that always has more, or is polled, must let other tasks run
        with self._lock:
            batch = self._take_now()
            ready = self._room_callback()
        if ready:
            ready()
        self._without_waiting += len(batch)
        if batch or timeout_s == 0:
            return batch
        if timeout_s is None:
            await self._filled()
        else:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._filled()
            except TimeoutError:
                return []
        with self._lock:
            return self._take_now()

    async def _filled(self) -> None:
        while True:
            with self._lock:
                if self._queue or self._closed or self._error:
                    return
                waiter = self._waiter = asyncio.get_running_loop().create_future()
            self._without_waiting = 0
            await waiter


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
