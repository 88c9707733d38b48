"""A bell is heard once, by whoever waits or is about to, and its time-outs hold."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pgdoc.runtime.wakeup import Bell

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 20.0


@pytest.fixture
def slow_handler() -> Iterator[None]:
    """A signal comes while a bell is waited for, and what handles it takes longer than was left to wait."""
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.1))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def alarm(slow_handler: None) -> Iterator[Bell]:
    """A bell that rings late, so that a wait without an end shows and does not hang."""
    bell = Bell()
    timer = threading.Timer(2, bell.ring)
    timer.start()
    yield bell
    timer.cancel()
    timer.join()


def test_a_wait_ends_with_its_time_also_where_a_signal_comes(alarm: Bell) -> None:
    assert not alarm.wait(0.05)


def test_it_is_heard_by_who_comes_later_and_only_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait()
    assert not bell.wait(0)
    assert not bell.wait(-1.0)


def test_it_wakes_who_waits() -> None:
    bell = Bell()
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(bell.wait(PATIENCE_S)))
    waiting.start()
    bell.ring()
    waiting.join()
    assert heard == [True]


def test_time_is_over_for_all_who_share_it() -> None:
    """One ring, two who wait: the other one's time ends, too."""
    bell = Bell()
    heard: list[bool] = []
    waiting = [threading.Thread(target=lambda: heard.append(bell.wait(0.2))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    bell.ring()
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert sorted(heard) == [False, True]
