"""Serve an application with uvicorn in a test's event loop, and read its server-sent events as a browser does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx
import uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 20.0


class Sent(NamedTuple):
    """A server-sent event that a page would get."""

    event: str
    id: str
    data: Any


class Browser:
    """An `EventSource`: it keeps the last id, and sends it when it connects again."""

    def __init__(self, url: str) -> None:
        self.url, self.last_id, self.retry_ms = url, "", 0
        self.headers: httpx.Headers = httpx.Headers()
        self.status = 0
        self.body = ""

    async def __aenter__(self) -> Self:
        self._stack = contextlib.AsyncExitStack()
        client = await self._stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False))
        headers = {"last-event-id": self.last_id} if self.last_id else {}
        response = await self._stack.enter_async_context(client.stream("GET", self.url, headers=headers))
        self.headers, self.status = response.headers, response.status_code
        if self.status == 200:
            self._lines = response.aiter_lines()
        else:
            self.body = (await response.aread()).decode()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def next(self, *kinds: str) -> Sent:
        """Return the next event of one of these kinds; without any, the next one that is no heartbeat."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                sent = await self._block()
                if sent.event in kinds or (not kinds and sent.event != "heartbeat"):
                    return sent

    async def _block(self) -> Sent:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                if "retry" in fields:
                    self.retry_ms = int(fields.pop("retry"))
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return Sent(fields.get("event", "message"), self.last_id, json.loads(fields["data"]))
                fields = {}
                continue
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
        raise EOFError("the server ended the response")

    async def ids(self, count: int) -> list[str]:
        """Return the document ids of the next changes."""
        return [(await self.next("change")).data["document_id"] for _ in range(count)]

    async def end(self) -> None:
        """Wait until the server ends the response."""
        with contextlib.suppress(EOFError, httpx.RemoteProtocolError):
            while True:
                await self.next()


class Served:
    """A running server."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Served]:
    """Serve an application until the end of the block."""
    options = {"lifespan": "off", "log_level": "warning", **options}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **options))
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:
                assert not task.done(), task.result()
                await asyncio.sleep(0.01)
        yield Served(server, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        async with asyncio.timeout(PATIENCE_S):
            await task
