"""The references for many streams wake every reader at every moment, so that none waits forever."""

from __future__ import annotations

import pytest

from bench import hand_over, waking


@pytest.mark.parametrize("wake", [waking.bare_futures, waking.bare_threads])
def test_every_reader_sees_every_moment_without_a_pause(wake):
    assert wake(20, 50, 0.0) > 0


def test_the_last_reader_counts_and_the_first_moments_do_not():
    begun = [at * 1_000_000 for at in range(waking.WARM_UP + 1)]
    fast = begun
    slow = [*(at + 90_000_000 for at in begun[:-1]), begun[-1] + 7_000_000]
    assert waking.last_in_ms([slow, fast], begun) == 7


def test_a_change_that_is_handed_over_reaches_every_task(monkeypatch, capsys):
    monkeypatch.setattr("bench.hand_over.TASKS", 3)
    monkeypatch.setattr("bench.hand_over.STEPS", 2)
    monkeypatch.setattr("sys.argv", ["hand_over", "1"])
    assert hand_over.main() == 0
    printed = capsys.readouterr().out
    assert "streams " in printed
    assert "make the event, and read its id" in printed
