"""Under a server that handles signals itself, as granian does, the handler is chained while responses are open."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from pgdoc.web.closing import watch_closing


@pytest.fixture(autouse=True)
def handler_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_sets_the_event_and_reaches_the_servers_handler() -> None:
    got: list[int] = []

    def servers(number: int, _frame: object) -> None:
        got.append(number)

    async def run() -> None:
        with watch_closing() as one, watch_closing() as two:
            assert signal.getsignal(signal.SIGTERM) is not servers
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(one.wait(), 10)
            assert two.is_set()
        assert signal.getsignal(signal.SIGTERM) is servers
        with watch_closing() as later:
            assert not later.is_set()

    signal.signal(signal.SIGTERM, servers)
    asyncio.run(run())
    assert got == [signal.SIGTERM]


def test_a_handler_that_a_loop_has_installed_is_called_too() -> None:
    async def run() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        with watch_closing() as closing:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(closing.wait(), 10)
            await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(run())


def test_a_handler_that_came_later_stays() -> None:
    def later(_number: int, _frame: object) -> None: ...

    async def run() -> None:
        with watch_closing():
            signal.signal(signal.SIGTERM, later)
        assert signal.getsignal(signal.SIGTERM) is later

    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    asyncio.run(run())


def test_a_signal_without_a_handler_is_left_alone() -> None:
    async def run() -> None:
        with watch_closing():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(run())


def test_a_loop_in_a_thread_chains_nothing() -> None:
    async def run() -> None:
        with watch_closing():
            assert signal.getsignal(signal.SIGTERM) is servers

    def servers(_number: int, _frame: object) -> None: ...

    signal.signal(signal.SIGTERM, servers)
    errors: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as exc:  # noqa: BLE001 (the test shows it)
            errors.append(exc)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    assert errors == []
