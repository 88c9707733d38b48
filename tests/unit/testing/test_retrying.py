from __future__ import annotations

import asyncio

import pytest

from pgdoc.testing import async_eventually, eventually


class Failing:
    """A check that fails in turn with each of the given results, and returns the last."""

    def __init__(self, *results: object) -> None:
        self._results = list(results)

    def __call__(self) -> object:
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def in_task(self) -> object:
        await asyncio.sleep(0)
        return self()


FAILURES = (AssertionError("not yet"), KeyError("sum"), False, TypeError("None"))


def test_a_check_is_retried_until_it_raises_nothing_and_does_not_return_false():
    assert eventually(Failing(*FAILURES, "there")) == "there"
    assert eventually(Failing(None)) is None
    assert eventually(Failing(0)) == 0


async def test_an_async_check_is_retried_as_well():
    assert await async_eventually(Failing(*FAILURES, "there").in_task) == "there"
    assert await async_eventually(Failing(*FAILURES, "there")) == "there"


def test_the_last_error_is_raised_with_the_time_and_the_number_of_calls():
    last = AssertionError("assert 1 == 2")
    with pytest.raises(AssertionError) as caught:
        eventually(Failing(KeyError("first"), last), timeout=0.02)
    assert caught.value is last
    (note,) = caught.value.__notes__
    assert "for 0.02 s" in note
    assert note.endswith("times")


async def test_an_async_check_raises_the_last_error_as_well():
    last = AssertionError("assert 1 == 2")
    with pytest.raises(AssertionError) as caught:
        await async_eventually(Failing(KeyError("first"), last).in_task, timeout=0.02)
    assert caught.value is last


def test_a_condition_that_stays_false_is_named():
    with pytest.raises(AssertionError, match=r"^<lambda> \(line \d+\) returned False for 0.02 s, \d+ times$"):
        eventually(lambda: False, timeout=0.02)


def test_a_check_that_takes_longer_than_the_timeout_gets_a_second_chance():
    assert eventually(Failing(False, True), timeout=0) is True


def test_an_interrupt_and_a_skip_end_it_at_once():
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        eventually(interrupted)
    with pytest.raises(pytest.skip.Exception):
        eventually(lambda: pytest.skip("no"))


async def test_eventually_refuses_to_block_an_event_loop():
    with pytest.raises(RuntimeError, match=r"await async_eventually"):
        eventually(Failing(True))


def test_eventually_refuses_a_coroutine_function():
    with pytest.raises(TypeError, match=r"await async_eventually"):
        _ = eventually(Failing(True).in_task)
