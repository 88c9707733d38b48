"""CPU time to hand one change to each of 100 tasks that wait on one event loop: streams, by hand, and each step.

    python -m bench hand_over [ROUNDS]

No server takes part: one thread plays the hub and the event loop, and each change is one that the hub has just decoded.
By hand means a deque and a future for each task, as in `bench.floors`: it filters nothing, bounds no memory, keeps no
positions, and a cancelled task may lose a change. "As the contract says" adds what each stream must do, all of it in
two methods: an iterator with events that read their ids, a lock, bounds in changes and bytes, the position of the last
event, and nothing lost if a task is cancelled at any step. It has no filters and no snapshots, needs no catch-up,
reports no lag, can't be closed, and nothing fails. The best half of the changes of each round count, and the round with
the least time. `bench.floors` times the same from the commit on, with a server.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from bench.arguments import parser_of, positive
from bench.counted import IDS, changes_of
from pgdoc._async.stream import AsyncChangeStream
from pgdoc.changes.change import Burst
from pgdoc.changes.events import from_change
from pgdoc.changes.fanout import Fanout, Subscription
from pgdoc.changes.router import Selection
from pgdoc.model.positions import BEFORE_ALL
from pgdoc.runtime.wakeup import TaskWaiter, wake, wake_together
from pgdoc.streams.options import StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.change import Change
    from pgdoc.changes.events import ChangeEvent

ROUNDS = 7
TASKS = 100
MOMENTS = 200
STEPS = 2_000
OPTIONS = StreamOptions(
    where=None,
    snapshot=False,
    resume_after=None,
    consumer=None,
    auto_ack=False,
    wait=False,
    on_lost="raise",
    buffer_size=1_000,
    buffer_bytes=1 << 26,
    decode=None,
)


class Cost(NamedTuple):
    """Microseconds for each task: what comes before the event loop is called, and what the event loop does."""

    before: float
    loop: float


class Feed:
    """What a stream is fed by, as far as delivering a change asks for it."""

    begun_at = live_position = BEFORE_ALL
    ids = IDS
    mode = "live"
    recreated = wal_end = 0

    def leave(self) -> None: ...

    def abandon(self) -> None: ...


class Backend:
    """Counts no stream."""

    def count_stream(self, *_args: object) -> None: ...


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("rounds", type=positive, nargs="?", default=ROUNDS, help=f"by default {ROUNDS}")
    rounds: int = parser.parse_args().rounds
    changes = changes_of("wal2json", MOMENTS)
    ways = {"streams": streams, "by hand": by_hand, "by hand, as the contract says": as_the_contract_says}
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            costs[name].append(asyncio.run(way(changes)))
    print(f"us of CPU to hand a change to one of {TASKS} tasks")
    print(f"{'':32}{'before the loop':>16}{'in the loop':>13}{'sum':>7}")
    for name, each in costs.items():
        best = min(each, key=sum)
        print(f"{name:32}{best.before:16.2f}{best.loop:13.2f}{sum(best):7.2f}")
    print("\nus of CPU for a step of a stream, when all code is in the CPU's cache")
    for name, us in asyncio.run(steps(changes[0], rounds)).items():
        print(f"{name:52}{us:6.2f}")
    return 0


def stream_of(fanout: Fanout, selection: Selection) -> AsyncChangeStream:
    """Return an open stream that the fan-out feeds."""
    stream = AsyncChangeStream(Backend(), selection, OPTIONS)  # type: ignore[arg-type]
    stream._follow(Feed())  # type: ignore[arg-type]  # noqa: SLF001
    fanout.add(Subscription(selection, BEFORE_ALL, stream._mailbox))  # noqa: SLF001
    return stream


async def streams(changes: list[Change]) -> Cost:
    fanout, selection = Fanout(0, lambda change: from_change(change, IDS)), Selection(frozenset({"orders"}))
    opened = [stream_of(fanout, selection) for _ in range(TASKS)]
    counts = [0] * TASKS

    async def note(number: int, stream: AsyncChangeStream) -> None:
        async for event in stream:
            _ = event.document_id
            counts[number] += 1
            if counts[number] == len(changes):
                return

    def hand(change: Change) -> None:
        with wake_together():
            fanout.dispatch(Burst([change], change.position[0], None))

    tasks = [asyncio.ensure_future(note(*each)) for each in enumerate(opened)]
    return await measure(changes, counts, tasks, hand)


async def by_hand(changes: list[Change]) -> Cost:
    loop = asyncio.get_running_loop()
    boxes: list[deque[Any]] = [deque() for _ in range(TASKS)]
    counts = [0] * TASKS
    waiting: list[asyncio.Future[None]] = []

    async def note(number: int, box: deque[Any]) -> None:
        while counts[number] < len(changes):
            while not box:
                future = loop.create_future()
                waiting.append(future)
                await future
            _ = box.popleft().position
            counts[number] += 1

    def wake() -> None:
        for future in waiting:
            future.set_result(None)
        waiting.clear()

    def hand(change: Change) -> None:
        for box in boxes:
            box.append(change)
        loop.call_soon_threadsafe(wake)

    return await measure(changes, counts, [asyncio.ensure_future(note(*each)) for each in enumerate(boxes)], hand)


class StreamByHand:
    """A bounded queue, and an iterator over its events."""

    def __init__(self) -> None:
        self._lock, self._queue, self._bytes = threading.Lock(), deque[Any](), 0
        self.delivered, self.last = 0, BEFORE_ALL
        self.waiter, self._is_awaited = TaskWaiter(asyncio.get_running_loop()), False

    def put(self, change: Change, size_bytes: int) -> bool:
        """Take a change, and return whether the task must be woken."""
        with self._lock:
            if len(self._queue) >= OPTIONS.buffer_size or self._bytes + size_bytes > OPTIONS.buffer_bytes:
                raise RuntimeError("catching up is left out")
            self._queue.append((change, size_bytes))
            self._bytes += size_bytes
            is_awaited, self._is_awaited = self._is_awaited, False
            return is_awaited

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeEvent:
        while True:
            with self._lock:
                if self._queue:
                    change, size_bytes = self._queue[0]
                    event = from_change(change, IDS)
                    self.last = change.position
                    self.delivered += 1
                    self._bytes -= size_bytes
                    self._queue.popleft()
                    return event
                self._is_awaited = True
            await self.waiter


async def as_the_contract_says(changes: list[Change]) -> Cost:
    opened = [StreamByHand() for _ in range(TASKS)]
    counts = [0] * TASKS

    async def note(number: int, stream: StreamByHand) -> None:
        async for event in stream:
            _ = event.document_id
            counts[number] += 1
            if counts[number] == len(changes):
                return

    tasks = [asyncio.ensure_future(note(*each)) for each in enumerate(opened)]
    return await measure(changes, counts, tasks, partial(hand_by_contract, opened))


def hand_by_contract(opened: list[StreamByHand], change: Change) -> None:
    """Put a change into each stream by hand, and wake their tasks."""
    with wake_together():
        for stream in opened:
            if stream.put(change, len(change.row.message)):
                wake(stream.waiter)


async def measure(
    changes: list[Change], counts: list[int], tasks: list[asyncio.Task[None]], hand: Callable[[Change], None]
) -> Cost:
    await asyncio.sleep(0.01)  # until all wait
    before, loop = [], []
    for number, change in enumerate(changes, 1):
        began = time.thread_time_ns()
        hand(change)
        handed = time.thread_time_ns()
        while counts[-1] < number:  # noqa: ASYNC110 (an event would be one more task to wake)
            await asyncio.sleep(0)
        before.append(handed - began)
        loop.append(time.thread_time_ns() - handed)
    await asyncio.gather(*tasks)
    return Cost(*(statistics.median(sorted(each)[: len(each) // 2 + 1]) / 1000 / TASKS for each in (before, loop)))


async def steps(change: Change, rounds: int) -> dict[str, float]:
    """Return the time of each step of a stream for one change."""
    fanout, selection = Fanout(0, lambda change: from_change(change, IDS)), Selection(frozenset({"orders"}))
    stream = stream_of(fanout, selection)
    mailbox, delivery = stream._mailbox, stream._delivery  # noqa: SLF001

    def put() -> None:
        mailbox.refill()
        mailbox.put([change], change.position, 500)
        mailbox.batch.next = 1

    def least(step: Callable[[], object]) -> float:
        times = []
        for _ in range(rounds):
            began = time.thread_time_ns()
            for _ in range(STEPS):
                step()
            times.append((time.thread_time_ns() - began) / 1000 / STEPS)
        return min(times)

    with wake_together():
        waits, both = least(mailbox.refill), least(put)
    return {
        "take the lock, and give the batch to the stream": both - waits,
        "see that nothing is left": least(delivery.next_row_event) + least(lambda: delivery.awaits_changes),
        "take the lock, and wait again": waits,
        "make the event": least(lambda: from_change(change, IDS)),
        "make the event, and read its id": least(lambda: from_change(change, IDS).document_id),
    }


if __name__ == "__main__":
    sys.exit(main())
