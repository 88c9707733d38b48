"""The buffer between a feeder and a stream: `Mailbox` for a thread, `AsyncMailbox` for a task.

They differ only in how they wait. A mailbox is bounded in changes and in bytes, and a taken batch counts until the next
one is taken. A feeder never waits: `put` takes what there is room for.

A KeyboardInterrupt between any two steps of the thread that takes loses nothing: a batch stays in the mailbox until
`Batch.next` shows that it is used up, each step is one assignment, and the next call repeats an unfinished one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_right
from collections import deque
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from pgdoc.changes.change import bytes_of
from pgdoc.errors import StreamClosed, StreamError
from pgdoc.model.positions import BEFORE_ALL
from pgdoc.runtime.fork import FORKED, remember
from pgdoc.runtime.wakeup import TaskWaiter, Wakeup, wake
from pgdoc.streams.batch import BATCH, Batch, batch_after, empty_batch
from pgdoc.streams.waiting import Waiting, first_beyond

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.change import Change, TransactionInfo
    from pgdoc.model.positions import RawPosition

_Run: TypeAlias = "tuple[list[Change], int]"
"""Changes that were put together, and the size of their messages. Streams of one selection share the list."""


def stream_closed() -> StreamClosed:
    """Make the error for a stream that its program has closed."""
    return StreamClosed("the stream is closed: open another with watch(resume_after=...)")


class _Box:
    """The queue and its bounds, shared by both kinds."""

    def __init__(self, size: int, size_bytes: int) -> None:
        self._size = size
        self._size_bytes = size_bytes
        self._most_at_once = min(size, BATCH)

        # Replaced under the lock, by the thread or task that takes, or by a feeder that it waits for; its `next` is
        # advanced without the lock by the thread or task that takes.
        self.batch = self._nothing = empty_batch(0, 0)

        # Guards what follows. Held for a few steps; no callback is called under it.
        self._lock = threading.Lock()
        self._queue: deque[_Run] = deque()  # none of them empty
        self._put_count = self._put_bytes = 0  # in all, since the mailbox was made
        # Of the first change for which there was no room.
        self._refused_bytes = 0
        self._refused: tuple[RawPosition, TransactionInfo] | None = None
        self._reached: RawPosition = BEFORE_ALL
        self._error: BaseException | None = None
        self.closed = False
        self._when_room: Callable[[], object] | None = None
        self._is_awaited = False  # whether the stream waits for `_waiter`, or is about to
        self._waiter: Wakeup | TaskWaiter | None = None

        # Set by any thread without the lock, reset by the thread or task that takes.
        self._is_nudged = False
        remember(self)

    @property
    def buffered(self) -> int:
        """The number of unused changes."""
        batch = self.batch
        return 0 if self.closed else self._put_count - batch.count_before - batch.next

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
            return self._reached if self.closed else max(self._reached, live)

    def waiting(self, after: RawPosition, live: RawPosition = BEFORE_ALL) -> Waiting:
        """Return what waits beyond `after`, up to which the stream has used everything; `live` as for `reached`."""
        with self._lock:
            batch = self.batch
            used = batch.next
            oldest = next((each for each in batch[used:] if each.position > after), None)
            if oldest is None and self._queue:
                oldest = first_beyond(self._queue, max(after, batch[-1].position) if batch else after)
            return Waiting(
                number=0 if self.closed else self._put_count - batch.count_before - used,
                size_bytes=0 if self.closed else self._bytes - bytes_of(batch[:used]),
                oldest=oldest,
                refused=self._refused,
                used=batch[used - 1].transaction if used else None,
                reached=BEFORE_ALL if oldest else self._reached if self.closed else max(self._reached, live),
            )

    @property
    def _count(self) -> int:
        return 0 if self.closed else self._put_count - self.batch.count_before

    @property
    def _bytes(self) -> int:
        return self._put_bytes - self.batch.bytes_before

    def put(self, changes: list[Change], reached: RawPosition, size_bytes: int | None = None) -> int:
        """Take as many changes as there is room for, and return how many; one change always fits.

        `changes` are in the order of their positions. After the last of them, the stream has passed `reached`. The
        mailbox keeps the list, which must not change any more. `size_bytes` is `bytes_of` it, if that is known.
        """
        if size_bytes is None:
            size_bytes = bytes_of(changes)
        count = len(changes)
        with self._lock:
            if self.closed:
                return count
            if self._is_awaited and 0 < count <= self._most_at_once and size_bytes <= self._size_bytes:
                self._hand_over(changes, reached, size_bytes)
                return count
            batch, taken = self.batch, count
            if (
                self._put_count - batch.count_before + count > self._size
                or self._put_bytes - batch.bytes_before + size_bytes > self._size_bytes
            ):
                taken, size_bytes = self._what_fits(changes)
                self._refused_bytes = len(changes[taken].row.message) if taken < count else 0
                self._refused = changes[taken][:2] if taken < count else None
                changes = changes[:taken]
            if taken == count and self._reached < reached:
                self._reached = reached
            if taken:
                self._queue.append((changes, size_bytes))
                self._put_count += taken
                self._put_bytes += size_bytes
                self._wake()
            return taken

    def _hand_over(self, changes: list[Change], reached: RawPosition, size_bytes: int) -> None:
        """Make the next batch of a stream that has used up everything, and waits: it takes no lock to find it."""
        batch = Batch(changes)
        batch.next = 0
        batch.count_before, batch.bytes_before = self._put_count, self._put_bytes
        batch.size_bytes = size_bytes
        self._put_count += len(changes)
        self._put_bytes += size_bytes
        if self._reached < reached:  # noqa: PLR1730 (max() takes three times as long, for each burst)
            self._reached = reached
        self.batch = batch
        self._is_awaited = False
        wake(self._waiter)  # type: ignore[arg-type]  # it is awaited

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
            left = [change for changes, _ in self._queue for change in changes if change.position > position]
            self._put_count, self._put_bytes = len(left), bytes_of(left)
            self._queue = deque([(left, self._put_bytes)] if left else [])
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
            if not self.closed and count and (count * 2 > self._size or self._bytes > room_bytes):
                return
        callback()
        with self._lock:
            if self._when_room is callback:
                self._when_room = None

    def nudge(self) -> None:
        """Let the present `take`, or the next, return at once, perhaps with an empty batch; for any thread."""
        self._is_nudged = True
        waiter = self._waiter
        if waiter is not None:
            wake(waiter)

    def fail(self, error: BaseException) -> None:
        """Let `take` raise `error` after the buffered changes."""
        with self._lock:
            self._error = self._error or error
            self._wake()

    def cut(self, error: BaseException) -> None:
        """Drop everything, and let `take` raise `error`: the changes must not be used any more."""
        with self._lock:
            self._drop()
            self.batch = empty_batch(self._put_count, self._put_bytes)
            self._error = self._error or error
            self._wake()

    def close(self) -> None:
        """Drop everything; `take` raises `StreamClosed` from now on."""
        with self._lock:
            self._drop()
            self.closed = True
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
        self.batch = empty_batch(self._put_count, self._put_bytes)
        self._error = StreamError(FORKED)
        self._when_room = None
        self._is_awaited = False

    def _wake(self) -> None:
        waiter = self._waiter
        if self._is_awaited and waiter is not None:
            self._is_awaited = False
            wake(waiter)

    def _take_now(self, most: int) -> Batch:
        """Return the unfinished batch, or the next one of at most `most`, which may be empty; the lock is held."""
        if self.closed:
            raise stream_closed()
        batch, queue = self.batch, self._queue
        if batch.next < len(batch):
            return batch
        if queue:
            last = batch[-1].position if batch else BEFORE_ALL
            while queue:
                changes, size_bytes = queue[0]
                if changes[-1].position > last:
                    break
                queue.popleft()
        if queue:
            if len(queue) > 1 or len(changes) > most or changes[0].position <= last:
                changes, size_bytes = self._next_changes(last, most)
            batch = self.batch = batch_after(batch, changes, size_bytes)
        elif batch:
            batch = self.batch = self._nothing_after(batch)
        if not batch and self._error is not None:
            error, self._error = self._error, StreamClosed("the stream ended with an error; see its cause")
            self._error.__cause__ = error
            raise error
        return batch

    def _next_changes(self, last: RawPosition, most: int) -> _Run:
        """Return the next changes, those beyond `last`, from one run or several."""
        queue = self._queue
        used = bisect_right(queue[0][0], last, key=itemgetter(0))
        most = min(most, self._count)
        left = chain.from_iterable([changes for changes, _ in islice(queue, most + 1)])  # those it can take at most
        taken = list(islice(left, used, used + most))
        return taken, bytes_of(taken)

    def _nothing_after(self, batch: Batch) -> Batch:
        nothing = self._nothing  # not the present batch, which has changes
        nothing.count_before, nothing.bytes_before = (
            batch.count_before + len(batch),
            batch.bytes_before + batch.size_bytes,
        )
        return nothing

    def refill(self, most: int = BATCH, *, then_wait: bool = True) -> bool:
        """Return whether `batch` has unused changes now, after taking at most `most`.

        If not, and `then_wait`, the next call is `arrival`, which waits until it is worth another try.
        """
        raise NotImplementedError  # each kind has all of it: calls in between cost every event


class Mailbox(_Box):
    """The mailbox of a stream that a thread reads."""

    def __init__(self, size: int, size_bytes: int) -> None:
        super().__init__(size, size_bytes)
        self._waiter: Wakeup = Wakeup()

    def refill(self, most: int = BATCH, *, then_wait: bool = True) -> bool:
        """See `_Box`."""
        with self._lock:
            batch = self._take_now(most)
            if then_wait and not batch:
                self._is_awaited = True
        if self._when_room is not None:
            self._report_room()
        return bool(batch)

    def arrival(self) -> None:
        """Wait for what the last `refill` did not have; it may still not be there."""
        self._waiter.wait()

    def take(self, timeout_s: float | None, most: int = BATCH) -> Batch:
        """Return the next changes, waiting for the first; an empty batch on timeout. `None` waits without limit."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.refill(most, then_wait=timeout_s != 0) and timeout_s != 0:
            if self._is_nudged or not self._waiter.wait(None if deadline is None else deadline - time.monotonic()):
                timeout_s = 0  # a change may have come in just now
        self._is_nudged = False
        return self.batch


class AsyncMailbox(_Box):
    """The mailbox of a stream that a task reads."""

    def __init__(self, size: int, size_bytes: int) -> None:
        super().__init__(size, size_bytes)
        self._waiter: TaskWaiter | None = None  # bound to the task's loop
        self._without_waiting = 0  # changes taken since the loop had its turn

    def after_fork(self) -> None:
        """Forget the waiter, too: its loop is the parent's."""
        super().after_fork()
        self._waiter = None

    def refill(self, most: int = BATCH, *, then_wait: bool = True) -> bool:
        """See `_Box`. From time to time it returns `False` for a batch, so that `arrival` lets other tasks run."""
        if self._without_waiting >= BATCH:
            return False
        with self._lock:
            batch = self._take_now(most)
            if batch:
                self._without_waiting += len(batch)
            elif then_wait:
                loop, waiter = asyncio.get_running_loop(), self._waiter
                if waiter is None or waiter.loop is not loop:
                    self._waiter = TaskWaiter(loop)
                self._is_awaited = True
        if self._when_room is not None:
            self._report_room()
        return bool(batch)

    def arrival(self) -> TaskWaiter:
        """See `Mailbox.arrival`; canceling it takes nothing.

        Not a coroutine, since each one that a wait goes through costs every event.
        """
        waiter, has_been_busy = self._waiter, self._without_waiting >= BATCH
        self._without_waiting = 0
        if waiter is None or has_been_busy:  # `refill` took nothing, so that other tasks get their turn now
            waiter = TaskWaiter(asyncio.get_running_loop())
            waiter.loop.call_soon(waiter.wake)
        return waiter

    async def take(self, timeout_s: float | None, most: int = BATCH) -> Batch:
        """See `Mailbox.take`; a cancelled call has taken nothing."""
        if self._is_nudged:
            self._is_nudged, timeout_s = False, 0
        if self._without_waiting >= BATCH or timeout_s == 0:
            self._without_waiting = 0
            await asyncio.sleep(0)  # a stream that never has to wait, or is polled, must let other tasks run
        if self.refill(most, then_wait=timeout_s != 0) or timeout_s == 0:
            return self.batch
        if timeout_s is None:
            await self.arrival()
        else:
            arrival = self.arrival()
            timer = asyncio.get_running_loop().call_later(timeout_s, arrival.wake)
            try:
                await arrival
            finally:
                timer.cancel()
        self._is_nudged = False
        self.refill(most, then_wait=False)
        return self.batch
