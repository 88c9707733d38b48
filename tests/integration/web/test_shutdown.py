"""A real server process with open browsers ends on SIGTERM, and the next one goes on where it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import pgdoc
from tests.web_browsers import PATIENCE_S, Browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.client import ClientConnection

ROOT = Path(__file__).parents[3]
UVICORN = ["-m", "uvicorn", "tests.web_app:app", "--port", "PORT"]
SERVERS = {
    "uvicorn": (UVICORN, -signal.SIGTERM),
    "workers": ([*UVICORN, "--workers", "2"], 0),
    "reload": ([*UVICORN, "--reload", "--reload-dir", "docs/images"], 0),
    "task": (["-m", "tests.web_app", "PORT", "main"], -signal.SIGTERM),
    "thread": (["-m", "tests.web_app", "PORT", "thread"], 0),
}


class Process:
    """A server process. It can be started again on the same port."""

    def __init__(self, dsn: str, arguments: list[str], log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._arguments = [each.replace("PORT", str(self.port)) for each in arguments]
        self._dsn, self.log = dsn, log
        self.url = f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        environment = {**os.environ, "PGDOC_DSN": self._dsn, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *self._arguments, stdout=log, stderr=log, env=environment, cwd=ROOT
            )
        async with asyncio.timeout(PATIENCE_S):
            while not await self._answers():
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@contextlib.asynccontextmanager
async def open_browsers(browsers: list[Browser]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for browser in browsers:
            await stack.enter_async_context(browser)
            await browser.next("heartbeat")
        yield


async def close_code(socket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_with_open_browsers_ends_and_the_next_goes_on(dsn: str, tmp_path: Path, name: str) -> None:
    arguments, exit_code = SERVERS[name]
    process = Process(dsn, arguments, tmp_path / "log")
    async with pgdoc.AsyncStore(dsn) as store:
        await store.set_history()
        orders = store["orders"]
        await orders.insert("o-0", {})
        browsers = [Browser(process.url + path) for path in ("/events", "/events", "/shared", "/shared")]
        async with process, open_browsers(browsers), connect(f"ws://127.0.0.1:{process.port}/socket") as ws:
            await orders.insert("o-1", {})
            assert [await browser.ids(1) for browser in browsers] == [["o-1"]] * 4
            assert await process.end() == exit_code
            for browser in browsers:
                await browser.end()
            assert await close_code(ws) == 1012
        if name in {"uvicorn", "workers"}:
            await orders.insert("o-2", {})
            async with process, open_browsers(browsers):
                await orders.insert("o-3", {})
                assert [await browser.ids(2) for browser in browsers] == [["o-2", "o-3"]] * 4
                await process.end(signal.SIGINT)
    log = process.log.read_text()
    assert log.count("the store is closed") == {"uvicorn": 2, "workers": 4}.get(name, 1)
    assert "Traceback" not in log
    assert "ERROR" not in log


async def test_a_server_that_ends_without_a_signal_ends_its_browsers(dsn: str, tmp_path: Path) -> None:
    process = Process(dsn, [*UVICORN, "--limit-max-requests", "1"], tmp_path / "log")
    browsers = [Browser(process.url + "/events") for _ in range(3)]
    async with pgdoc.AsyncStore(dsn) as store:
        await store["orders"].insert("o-1", {})
        async with process, open_browsers(browsers):
            async with Browser(f"{process.url}/") as other:
                assert other.status == 200
            assert await asyncio.wait_for(process.process.wait(), PATIENCE_S) == 0
            for browser in browsers:
                await browser.end()
    assert "the store is closed" in process.log.read_text()


async def test_a_browser_that_does_not_read_is_cut_after_the_graceful_timeout(dsn: str, tmp_path: Path) -> None:
    process = Process(dsn, [*UVICORN, "--timeout-graceful-shutdown", "1"], tmp_path / "log")
    async with pgdoc.AsyncStore(dsn) as store, process:
        await store["orders"].insert("o-1", {})
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port, limit=1)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        browser = Browser(process.url + "/events")
        async with open_browsers([browser]):
            count, text = 200, "x" * 100_000  # more than the buffers of both sockets
            await store["orders"].insert_many((f"o-{number:04}", {"text": text}) for number in range(2, 2 + count))
            await browser.ids(count)
            ended = asyncio.create_task(process.end())
            await browser.end()
            assert await ended == -signal.SIGTERM
        assert reader is not None
        writer.close()
    assert "Waiting for connections to close" in process.log.read_text()


async def test_a_server_with_a_worker_on_its_event_loop_ends_on_sigterm(dsn: str, tmp_path: Path) -> None:
    arguments = ["-m", "uvicorn", "tests.web_app:with_worker", "--port", "PORT"]
    async with pgdoc.AsyncStore(dsn) as store, Process(dsn, arguments, tmp_path / "log") as server:
        await store["orders"].insert("o-1", {})
        await store.wait_for("copies", timeout=PATIENCE_S)
        assert await store["copies"].count() == 1
        assert await server.end() == -signal.SIGTERM
        await store.drop_consumer("copies")
    assert "Application shutdown complete" in server.log.read_text()
