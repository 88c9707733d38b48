"""Each `set` wakes one thread that waits, or the next one that does, and timeouts hold."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.runtime.wakeup import AsyncWakeup, TaskWaiter, Wakeup, wake, wake_together

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 20.0


@pytest.fixture
def slow_handler() -> Iterator[None]:
    """A signal arrives during the wait, and its handler takes longer than the rest of the timeout."""
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.1))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def alarm(slow_handler: None) -> Iterator[Wakeup]:
    """A wakeup that is set late, so that a wait without a timeout fails the test instead of hanging it."""
    wakeup = Wakeup()
    timer = threading.Timer(2, wakeup.set)
    timer.start()
    yield wakeup
    timer.cancel()
    timer.join()


def test_a_wait_ends_with_its_time_also_where_a_signal_comes(alarm: Wakeup) -> None:
    assert not alarm.wait(0.05)


def test_a_wakeup_that_is_set_before_the_wait_ends_one_wait() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    assert wakeup.wait()
    assert not wakeup.wait(0)
    assert not wakeup.wait(-1.0)


def test_a_wakeup_wakes_the_thread_that_waits() -> None:
    wakeup = Wakeup()
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(wakeup.wait(PATIENCE_S)))
    waiting.start()
    wakeup.set()
    waiting.join()
    assert heard == [True]


def test_a_wakeup_of_one_thread_leaves_the_timeout_of_another() -> None:
    """One `set` and two threads that wait: the other thread's timeout still holds."""
    wakeup = Wakeup()
    heard: list[bool] = []
    waiting = [threading.Thread(target=lambda: heard.append(wakeup.wait(0.2))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    wakeup.set()
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert sorted(heard) == [False, True]


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread has called it."""

    calls = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        self.calls += 1
        return super().call_soon_threadsafe(*args, **kwargs)


@pytest.fixture
def loop() -> Iterator[CountingLoop]:
    with contextlib.closing(CountingLoop()) as made:
        yield made


async def wait_for(waiter: TaskWaiter) -> str:
    await waiter
    return "woken"


def waiting(loop: asyncio.AbstractEventLoop, number: int) -> tuple[list[TaskWaiter], list[asyncio.Task[str]]]:
    """Return waiters, and the tasks that wait for them."""
    waiters = [TaskWaiter(loop) for _ in range(number)]
    tasks = [loop.create_task(wait_for(each)) for each in waiters]
    loop.run_until_complete(asyncio.sleep(0))
    return waiters, tasks


def test_waiters_that_are_woken_together_call_their_loop_once(loop: CountingLoop) -> None:
    (waiters, tasks), wakeup = waiting(loop, 100), Wakeup()

    with wake_together():
        for waiter in waiters:
            wake(waiter)
        wake(wakeup)
        assert not wakeup.wait(0)

    assert wakeup.wait(0)
    assert loop.calls == 1
    assert loop.run_until_complete(asyncio.gather(*tasks)) == ["woken"] * 100


def test_an_error_in_the_block_wakes_those_before_it(loop: CountingLoop) -> None:
    (waiter,), (task,) = waiting(loop, 1)

    with contextlib.suppress(ZeroDivisionError), wake_together():
        wake(waiter)
        _ = 1 / 0
    wakeup = Wakeup()
    wake(wakeup)  # the block is over

    assert wakeup.wait(0)
    loop.run_until_complete(task)


def test_a_waiter_that_nobody_waits_for_or_whose_loop_is_closed_is_passed_over(loop: CountingLoop) -> None:
    with contextlib.closing(CountingLoop()) as other:
        orphan = TaskWaiter(other)
    (waiter,), (task,) = waiting(loop, 1)

    with wake_together():
        for each in (orphan, TaskWaiter(loop), waiter):
            wake(each)

    assert loop.run_until_complete(task) == "woken"


@pytest.mark.parametrize("is_woken", [True, False])
def test_a_cancelled_task_raises_with_the_message_woken_or_not(loop: CountingLoop, *, is_woken: bool) -> None:
    (waiter,), (task,) = waiting(loop, 1)

    if is_woken:
        wake(waiter)
    task.cancel("enough")

    with pytest.raises(asyncio.CancelledError, match="enough"):
        loop.run_until_complete(task)


def test_a_task_that_goes_on_after_a_cancellation_waits_again(loop: CountingLoop) -> None:
    async def wait_twice(waiter: TaskWaiter) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
        await waiter
        return "woken"

    waiter = TaskWaiter(loop)
    task = loop.create_task(wait_twice(waiter))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.sleep(0.001))
    assert not task.done()

    wake(waiter)

    assert loop.run_until_complete(task) == "woken"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_task_that_ends_the_loop_does_not_keep_others_asleep(loop: CountingLoop, error: type[BaseException]) -> None:
    async def end(waiter: TaskWaiter) -> None:
        await waiter
        raise error

    first = TaskWaiter(loop)
    ending = loop.create_task(end(first))
    waiters, tasks = waiting(loop, 3)
    with wake_together():
        for waiter in (first, *waiters):
            wake(waiter)

    with pytest.raises(error):
        loop.run_until_complete(asyncio.sleep(1))

    assert isinstance(ending.exception(), error)
    assert loop.run_until_complete(asyncio.gather(*tasks)) == ["woken"] * 3


def test_each_task_runs_in_its_own_context(loop: CountingLoop) -> None:
    name: ContextVar[str] = ContextVar("name")

    async def say(waiter: TaskWaiter, own: str) -> tuple[str, object]:
        name.set(own)
        await waiter
        return name.get(), asyncio.current_task()

    waiters = [TaskWaiter(loop) for _ in range(2)]
    tasks = [loop.create_task(say(*each)) for each in zip(waiters, ("one", "two"), strict=True)]
    loop.run_until_complete(asyncio.sleep(0))

    with wake_together():
        for waiter in waiters:
            wake(waiter)

    assert loop.run_until_complete(asyncio.gather(*tasks)) == [("one", tasks[0]), ("two", tasks[1])]
    with pytest.raises(LookupError):
        name.get()


def test_a_timeout_and_a_shield_end_the_wait(loop: CountingLoop) -> None:
    async def main() -> str:
        waiter = TaskWaiter(loop)
        task = asyncio.ensure_future(wait_for(waiter))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.001)
        wake(waiter)
        return await task

    assert loop.run_until_complete(main()) == "woken"


def test_a_task_wakes_once_for_each_set_of_any_thread() -> None:
    async def run() -> None:
        wakeup = AsyncWakeup()
        assert not await wakeup.wait(0)
        assert not await wakeup.wait(0.01)
        wake(wakeup)
        assert await wakeup.wait()
        assert not await wakeup.wait(0)
        for timeout_s in (None, PATIENCE_S):
            thread = threading.Timer(0.01, wakeup.set)
            thread.start()
            assert await wakeup.wait(timeout_s)
            thread.join()
        waits = asyncio.ensure_future(wakeup.wait())
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.wait([waits])
        wakeup.set()
        assert await wakeup.wait(0)

    asyncio.run(run())


def test_a_wakeup_for_tasks_serves_one_loop_after_another() -> None:
    wakeup = AsyncWakeup()
    for _ in range(2):
        wakeup.set()
        assert asyncio.run(wakeup.wait(PATIENCE_S))
        assert not asyncio.run(wakeup.wait(0.01))
