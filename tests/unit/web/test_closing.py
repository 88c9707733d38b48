"""Under a server that handles signals itself, as granian does, the handler is chained while responses are open."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest
import uvicorn

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


@pytest.mark.parametrize("ending", range(3))
def test_the_end_of_any_uvicorn_on_the_loop_is_noticed(ending: int) -> None:
    """An application can serve a second port."""
    config = uvicorn.Config(_nothing)
    config.load()
    servers = [uvicorn.Server(config) for _ in range(3)]

    async def run() -> None:
        tasks = [asyncio.create_task(server.main_loop()) for server in servers]
        await asyncio.sleep(0)
        with watch_closing() as closing:
            servers[ending].should_exit = True
            await asyncio.wait_for(closing.wait(), 5)
        for server in servers:
            server.should_exit = True
        await asyncio.wait(tasks)

    asyncio.run(run())


async def _nothing(scope: Any, receive: Any, send: Any) -> None: ...


def test_a_signal_after_the_loop_has_closed_reaches_the_handler_before() -> None:
    """A handler that was installed while a response was open keeps ours, and calls it."""
    got: list[int] = []

    def servers(number: int, _frame: object) -> None:
        got.append(number)

    async def run() -> None:
        with watch_closing():
            ours = signal.getsignal(signal.SIGTERM)
            assert callable(ours)

            def later(number: int, frame: Any) -> None:
                ours(number, frame)

            signal.signal(signal.SIGTERM, later)

    signal.signal(signal.SIGTERM, servers)
    asyncio.run(run())
    signal.raise_signal(signal.SIGTERM)
    assert got == [signal.SIGTERM]
