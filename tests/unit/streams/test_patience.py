"""The hub waits only while no stream could use more, and not for long."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from pgdoc.streams import patience
from pgdoc.streams.patience import Patience


class Clock:
    """A time that passes only while the hub waits, or as the test says; `room_at` is when a stream has room."""

    def __init__(self, room_at: float = float("inf")) -> None:
        self.now, self.room_at = 0.0, room_at
        self.looks = self.reports = 0
        self.is_closing = False

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout_s: float) -> bool:
        self.now += timeout_s
        return self.is_closing

    @property
    def has_room(self) -> bool:
        self.looks += 1
        return self.now >= self.room_at

    def report(self) -> None:
        self.reports += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def patience_of(clock: Any) -> Patience:
    return Patience(clock, mock.Mock(wait=clock.wait))


def test_it_looks_at_the_mailboxes_once_in_a_hundred_changes(clock):
    clock.room_at = 0.0
    waiting = patience_of(clock)
    for _ in range(250):
        waiting.wait(1, clock.report)
    assert (clock.looks, clock.now, clock.reports) == (2, 0.0, 0)


def test_it_ends_when_a_stream_has_room_and_answers_the_server_meanwhile(clock):
    clock.room_at = 0.1
    patience_of(clock).wait(100, clock.report)
    assert 0.1 <= clock.now < 0.13
    assert clock.reports > 2


def test_it_waits_half_a_second_for_a_burst_and_five_seconds_in_all(clock):
    waiting = patience_of(clock)
    waiting.wait(100, clock.report)
    assert 0.5 <= clock.now < 0.53
    for _ in range(100):
        waiting.wait(100, clock.report)
    assert 5.0 <= clock.now < 5.5
    clock.now += 3.0  # in which it reads
    before = clock.now
    for _ in range(100):
        waiting.wait(100, clock.report)
    assert 2.9 < clock.now - before < 3.5


def test_it_ends_when_the_store_is_closed(clock):
    clock.is_closing = True
    patience_of(clock).wait(100, clock.report)
    assert clock.now < 0.01
