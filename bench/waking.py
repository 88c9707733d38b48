"""The references of `bench.streams`: how long Python itself takes to wake N threads, or N tasks, that wait."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from queue import SimpleQueue

WARM_UP = 5


def last_in_ms(seen: list[list[int]], begun: list[int]) -> float:
    """Return the median over all moments of the milliseconds until the last of all readers had seen it."""
    lasts = [(max(times) - at) / 1e6 for at, *times in zip(begun, *seen, strict=True)]
    return float(statistics.median(lasts[WARM_UP:]))


def bare_threads(number: int, moments: int, pause_s: float) -> float:
    """Wake threads that wait on a queue each, which is a lock in C."""
    queues: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(number)]
    seen: list[list[int]] = [[] for _ in queues]

    def wait(queue: SimpleQueue[None], times: list[int]) -> None:
        for _ in range(moments):
            queue.get()
            times.append(time.monotonic_ns())

    threads = [threading.Thread(target=wait, args=pair) for pair in zip(queues, seen, strict=True)]
    for thread in threads:
        thread.start()
    begun = []
    for _ in range(moments):
        time.sleep(pause_s)
        begun.append(time.monotonic_ns())
        for queue in queues:
            queue.put(None)
    for thread in threads:
        thread.join()
    return last_in_ms(seen, begun)


def bare_futures(number: int, moments: int, pause_s: float) -> float:
    """Wake tasks that wait for a future each, from another thread."""
    return asyncio.run(_bare_futures(number, moments, pause_s))


async def _bare_futures(number: int, moments: int, pause_s: float) -> float:
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    all_wait = threading.Semaphore(0)
    seen: list[list[int]] = [[] for _ in range(number)]
    begun: list[int] = []

    async def wait(times: list[int]) -> None:
        for _ in range(moments):
            future = loop.create_future()
            waiting.append(future)
            if len(waiting) == number:
                all_wait.release()
            await future
            times.append(time.monotonic_ns())

    def wake() -> None:
        due = waiting.copy()
        waiting.clear()
        for future in due:
            future.set_result(None)

    def ring() -> None:
        for _ in range(moments):
            all_wait.acquire()  # a task that does not wait yet would miss this moment
            time.sleep(pause_s)
            begun.append(time.monotonic_ns())
            loop.call_soon_threadsafe(wake)

    ringing = asyncio.to_thread(ring)
    await asyncio.gather(ringing, *map(wait, seen))
    return last_in_ms(seen, begun)
