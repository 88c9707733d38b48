from __future__ import annotations

import threading

from pgdoc.runtime.retry import Backoff


class Closing(threading.Event):
    """Records the length of each wait, and returns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.delays.append(timeout)
        return self.is_set()


def test_each_delay_is_twice_as_long_as_the_one_before_up_to_the_limit():
    closing, backoff = Closing(), Backoff(first_s=1.0, longest_s=5.0)
    assert all(backoff.wait(closing) for _ in range(5))
    assert closing.delays == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_reset_begins_again_with_the_first_delay():
    closing, backoff = Closing(), Backoff()
    for _ in range(3):
        backoff.wait(closing)
    backoff.reset()
    backoff.wait(closing)
    assert closing.delays == [0.1, 0.2, 0.4, 0.1]


def test_there_is_no_further_attempt_once_closing_is_set():
    closing, backoff = threading.Event(), Backoff(first_s=60.0)
    threading.Timer(0.05, closing.set).start()
    assert not backoff.wait(closing)


def test_equal_delays():
    closing, backoff = Closing(), Backoff(first_s=1.0, longest_s=1.0)
    for _ in range(3):
        backoff.wait(closing)
    assert closing.delays == [1.0, 1.0, 1.0]
