"""Each `set` wakes one thread that waits, or the next one that does, and timeouts hold."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.runtime.wakeup import Wakeup, wake, wake_together

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


def test_waiters_that_are_woken_together_call_their_loop_once(loop: CountingLoop) -> None:
    futures, wakeup = [loop.create_future() for _ in range(100)], Wakeup()

    with wake_together():
        for waiter in futures:
            wake(waiter)
        wake(wakeup)
        assert not wakeup.wait(0)

    assert wakeup.wait(0)
    assert loop.run_until_complete(asyncio.gather(*futures)) == [None] * 100
    assert loop.calls == 1


def test_an_error_in_the_block_wakes_those_before_it(loop: CountingLoop) -> None:
    future = loop.create_future()

    with contextlib.suppress(ZeroDivisionError), wake_together():
        wake(future)
        _ = 1 / 0
    wakeup = Wakeup()
    wake(wakeup)  # the block is over

    assert wakeup.wait(0)
    loop.run_until_complete(future)


def test_a_waiter_that_is_done_or_whose_loop_is_closed_is_passed_over(loop: CountingLoop) -> None:
    with contextlib.closing(CountingLoop()) as other:
        orphan = other.create_future()
    cancelled, future = loop.create_future(), loop.create_future()
    cancelled.cancel()

    with wake_together():
        for waiter in (orphan, cancelled, future):
            wake(waiter)

    loop.run_until_complete(future)
    assert cancelled.cancelled()
