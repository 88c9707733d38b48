"""A call made ahead is made once, whatever interrupts the caller, and leaves no thread or task."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pgdoc.runtime.ahead import Ahead, AsyncAhead
from pgdoc.runtime.deadline import is_closing
from tests.unit.interrupts import Interrupt

PATIENCE_S = 30.0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pgdoc-ahead"]


def test_an_interrupt_at_any_step_of_the_caller_repeats_and_loses_no_call() -> None:
    step = 0
    while True:
        calls: list[int] = []

        def call(calls: list[int] = calls) -> int:
            calls.append(1)
            return 7

        ahead = Ahead(call)
        interrupt = Interrupt(step)
        with interrupt:
            ahead.begin()
        has_ended = False
        while not has_ended:
            with interrupt:
                has_ended = ahead.wait(PATIENCE_S)
        assert (ahead.result, calls, ahead.wait(0)) == (7, [1], True), f"interrupted at step {step}"
        if interrupt.step >= 0:
            break
        step += 1
    assert step > 2
    for thread in threads():
        thread.join(PATIENCE_S)
    assert not threads()


def test_an_interrupt_after_the_thread_has_started_makes_no_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    ahead = Ahead(lambda: calls.append(1))
    start = threading.Thread.start

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            ahead.begin()
    assert ahead.wait(PATIENCE_S)
    for thread in threads():
        thread.join(PATIENCE_S)
    assert calls == [1]


def test_a_call_that_failed_has_ended_without_a_result() -> None:
    ahead = Ahead(lambda: 1 // 0)
    assert ahead.wait(PATIENCE_S)
    assert ahead.result is None


def test_stop_ends_a_call_that_waits_for_the_server() -> None:
    has_begun, at_end = threading.Event(), threading.Event()

    def call() -> None:
        has_begun.set()
        while not is_closing() and not at_end.wait(0.001):
            pass

    ahead = Ahead(call)
    ahead.begin()
    assert has_begun.wait(PATIENCE_S)
    assert not ahead.wait(0)
    ahead.stop()
    assert ahead.wait(PATIENCE_S)
    at_end.set()
    Ahead(call).stop()  # one that has not begun


async def _of_tasks() -> None:
    go_on = asyncio.Event()

    async def call() -> int:
        await go_on.wait()
        return 7

    ahead = AsyncAhead(call)
    ahead.begin()
    assert not await ahead.wait(0.0)
    waiting = asyncio.ensure_future(ahead.wait(PATIENCE_S))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    go_on.set()
    assert await ahead.wait(PATIENCE_S)
    assert ahead.result == 7

    async def fail() -> int:
        return 1 // 0

    failed = AsyncAhead(fail)
    assert await failed.wait(PATIENCE_S)
    assert failed.result is None

    stopped = AsyncAhead(asyncio.Event().wait)
    await stopped.stop()
    stopped.begin()
    await stopped.stop()
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "pgdoc-ahead"] == []


def test_a_task_makes_the_call_of_an_async_stream() -> None:
    asyncio.run(_of_tasks())
