"""The buffer between a feeder and a stream: `Mailbox` for a thread, `AsyncMailbox` for a task.

They differ only in how they wait. A mailbox is bounded in changes and in bytes, and a taken batch counts until the next
one is taken. A feeder never waits: `put` takes what there is room for.

A KeyboardInterrupt between any two steps of the thread that takes loses nothing: a batch stays in the mailbox until
`Batch.next` shows that it is used up, each step is one assignment, and the next call repeats an unfinished one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from pgdoc.changes.change import Change
from pgdoc.errors import StreamClosed, StreamError
from pgdoc.model.positions import BEFORE_ALL
from pgdoc.runtime.fork import FORKED, remember
from pgdoc.runtime.wakeup import Wakeup, wake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.model.positions import RawPosition

BATCH = 256
"""How many changes `take` returns at most, unless more are asked for."""


class Batch(list[Change]):
    """Changes that `take` returned.

    Attributes:
        next: index of the first unused change; the stream advances it.
        count_before, bytes_before: what was taken before this batch.
        size_bytes: the size of its messages.
    """

    __slots__ = ("bytes_before", "count_before", "next", "size_bytes")

    def __init__(self, changes: Iterable[Change], count_before: int, bytes_before: int) -> None:
        super().__init__(changes)
        self.next = 0
        self.count_before, self.bytes_before = count_before, bytes_before
        self.size_bytes = sum([len(change.row.message) for change in self])


class _Box:
    """The queue and its bounds, shared by both kinds."""

    def __init__(self, size: int, size_bytes: int) -> None:
        self._size = size
        self._size_bytes = size_bytes

        # Replaced under the lock by the thread or task that takes; its `next` is advanced there without the lock.
        self.batch = Batch((), 0, 0)

        # Guards what follows. Held for a few steps; no callback is called under it.
        self._lock = threading.Lock()
        self._queue: deque[Change] = deque()
        self._put_count = self._put_bytes = 0  # in all, since the mailbox was made
        self._refused_bytes = 0  # of the first change for which there was no room
        self._reached: RawPosition = BEFORE_ALL
        self._error: BaseException | None = None
        self._closed = False
        self._when_room: Callable[[], object] | None = None
        remember(self)

    @property
    def buffered(self) -> int:
        """The number of unused changes."""
        batch = self.batch
        return 0 if self._closed else self._put_count - batch.count_before - batch.next

    @property
    def has_room(self) -> bool:
        """Whether it is at most half full."""
        return self.buffered * 2 <= self._size and self._bytes * 2 <= self._size_bytes

    def reached(self, live: RawPosition = BEFORE_ALL) -> RawPosition:
        """Return the position that the stream has passed, or zeros while changes wait to be used.

        `live` is the position up to which a LIVE subscription was given everything, read before this call.
        """
        with self._lock:
            if self._count:
                return BEFORE_ALL
            return self._reached if self._closed else max(self._reached, live)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def _count(self) -> int:
        return 0 if self._closed else self._put_count - self.batch.count_before

    @property
    def _bytes(self) -> int:
        return self._put_bytes - self.batch.bytes_before

    def put(self, changes: list[Change], reached: RawPosition) -> int:
        """Take as many changes as there is room for, and return how many; one change always fits.

        `changes` are in the order of their positions. After the last of them, the stream has passed `reached`.
        """
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
        self._put_count += count
        self._put_bytes += size_bytes
        return count

    def _what_fits(self, changes: list[Change]) -> tuple[int, int]:
        count = size_bytes = 0
        for change in changes[: max(0, self._size - self._count)]:
            if self._count + count and self._bytes + size_bytes + len(change.row.message) > self._size_bytes:
                break
            count, size_bytes = count + 1, size_bytes + len(change.row.message)
        return count, size_bytes

    def begin_at(self, position: RawPosition) -> None:
        """Drop the changes at or before `position`; called before the stream takes anything."""
        with self._lock:
            self._queue = deque(change for change in self._queue if change.position > position)
            self._put_count, self._put_bytes = len(self._queue), sum(len(change.row.message) for change in self._queue)
            self._reached = max(self._reached, position)

    def call_when_room(self, callback: Callable[[], object]) -> None:
        """Call back when it is at most half full and has room for the change it refused; at once if that is so now.

        The thread that takes calls it, perhaps again after an interrupt.
        """
        with self._lock:
            self._when_room = callback
        self._report_room()

    def _report_room(self) -> None:
        callback = self._when_room
        if callback is None:
            return
        with self._lock:
            count, room_bytes = self._count, min(self._size_bytes // 2, self._size_bytes - self._refused_bytes)
            if not self._closed and count and (count * 2 > self._size or self._bytes > room_bytes):
                return
        callback()
        with self._lock:
            if self._when_room is callback:
                self._when_room = None

    def fail(self, error: BaseException) -> None:
        """Let `take` raise `error` after the buffered changes."""
        with self._lock:
            self._error = self._error or error
            self._wake()

    def cut(self, error: BaseException) -> None:
        """Drop everything, and let `take` raise `error`: the changes must not be used any more."""
        with self._lock:
            self._drop()
            self.batch = Batch((), self._put_count, self._put_bytes)
            self._error = self._error or error
            self._wake()

    def close(self) -> None:
        """Drop everything; `take` raises `StreamClosed` from now on."""
        with self._lock:
            self._drop()
            self._closed = True
            self._wake()
        self._report_room()

    def _drop(self) -> None:
        if self._count:
            self._reached = BEFORE_ALL  # the dropped changes were never used
        self._queue.clear()

    def after_fork(self) -> None:
        """Hold only an error in a child process: its feeder, and the holder of its lock, do not exist there."""
        self._lock = threading.Lock()
        self._queue = deque()
        self.batch = Batch((), self._put_count, self._put_bytes)
        self._error = StreamError(FORKED)
        self._when_room = None

    def _wake(self) -> None:
        raise NotImplementedError

    def _take_now(self, most: int) -> Batch:
        """Return the unfinished batch, or the next one of at most `most`, which may be empty; the lock is held."""
        if self._closed:
            raise StreamClosed("the stream is closed: open another with watch(resume_after=...)")
        batch, queue = self.batch, self._queue
        if batch.next < len(batch):
            return batch
        while batch and queue and queue[0].position <= batch[-1].position:
            queue.popleft()
        if queue or batch:
            changes = islice(queue, min(most, len(queue)))  # `islice` refuses huge numbers
            batch = Batch(changes, batch.count_before + len(batch), batch.bytes_before + batch.size_bytes)
            self.batch = batch
        if not batch and self._error is not None:
            error, self._error = self._error, StreamClosed("the stream ended with an error; see its cause")
            self._error.__cause__ = error
            raise error
        return batch


class Mailbox(_Box):
    """The mailbox of a stream that a thread reads."""

    def __init__(self, size: int, size_bytes: int) -> None:
        super().__init__(size, size_bytes)
        self._wakeup = Wakeup()
        self._is_awaited = False  # guarded by the lock

    def _wake(self) -> None:
        if self._is_awaited:
            self._is_awaited = False
            wake(self._wakeup)

    def take(self, timeout_s: float | None, most: int = BATCH) -> Batch:
        """Return the next changes, waiting for the first; an empty batch on timeout. `None` waits without limit."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                batch = self._take_now(most)
                self._is_awaited = not batch
            self._report_room()
            if batch or timeout_s == 0:
                return batch
            if not self._wakeup.wait(None if deadline is None else deadline - time.monotonic()):
                timeout_s = 0  # a change may have come in just now


class AsyncMailbox(_Box):
    """The mailbox of a stream that a task reads."""

    def __init__(self, size: int, size_bytes: int) -> None:
        super().__init__(size, size_bytes)
        self._waiter: asyncio.Future[None] | None = None  # guarded by the lock; bound to the task's loop
        self._without_waiting = 0  # changes taken since the loop had its turn

    def after_fork(self) -> None:
        """Forget the waiter, too: its loop is the parent's."""
        super().after_fork()
        self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(waiter)

    async def take(self, timeout_s: float | None, most: int = BATCH) -> Batch:
        """See `Mailbox.take`; a cancelled call has taken nothing."""
        if self._without_waiting >= BATCH or timeout_s == 0:
            self._without_waiting = 0
            await asyncio.sleep(0)  # a stream that never has to wait, or is polled, must let other tasks run
        batch = self._take(most)
        if batch or timeout_s == 0:
            return batch
        waiter = self._waiter_for_more()
        if waiter is not None:
            if timeout_s is None:
                await waiter
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await waiter
        return self._take(most)

    def _take(self, most: int) -> Batch:
        with self._lock:
            batch = self._take_now(most)
        self._report_room()
        self._without_waiting += len(batch)
        return batch

    def _waiter_for_more(self) -> asyncio.Future[None] | None:
        """Return the future that a feeder finishes; `None` if there is something to take already."""
        with self._lock:
            if self._queue or self._closed or self._error:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            self._without_waiting = 0
            return self._waiter
