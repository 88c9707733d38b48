"""Signals while workers run, and afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pgdoc.runtime.activities import async_catch_signals, catch_signals

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def seen() -> Iterator[list[int]]:
    """The signals that reached a handler of the program."""
    found: list[int] = []
    former = {each: signal.signal(each, lambda number, _: found.append(number)) for each in (2, 15)}
    yield found
    for each, handler in former.items():
        signal.signal(each, handler)


def test_a_signal_stops_the_block_and_later_ones_reach_the_program(seen: list[int]) -> None:
    stops: list[int] = []
    with catch_signals(lambda: stops.append(1)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert (len(stops), seen) == (2, [signal.SIGTERM])


def test_a_signal_stops_all_workers_of_a_loop_and_later_ones_have_their_effect_again() -> None:
    stops: list[str] = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio.Runner puts its own in place of it

    async def run() -> None:
        with ExitStack() as second:
            with async_catch_signals(lambda: stops.append("a")):
                second.enter_context(async_catch_signals(lambda: stops.append("b")))
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)

    with asyncio.Runner() as runner, pytest.raises(KeyboardInterrupt):
        runner.run(run())
    assert stops == ["a", "b", "b"]


def test_a_signal_that_a_server_on_the_loop_handles_reaches_it_while_a_worker_runs(seen: list[int]) -> None:
    stops: list[str] = []
    ended: list[str] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, ended.append, "server")
        with async_catch_signals(lambda: stops.append("worker")):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)

    with asyncio.Runner() as runner:
        runner.run(run())
    assert (seen, ended, stops) == ([signal.SIGTERM], ["server", "server"], [])
