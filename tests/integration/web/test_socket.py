"""The same messages over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

import pgdoc
from pgdoc import web
from tests.integration.web.test_shutdown import close_code
from tests.integration.web.test_sse import open_streams
from tests.web_browsers import PATIENCE_S, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.websockets import WebSocket


class Line:
    """A served endpoint, and its collection."""

    def __init__(self, orders: pgdoc.AsyncCollection, url: str, server: Any) -> None:
        self.orders, self.url, self.server = orders, url, server


@contextlib.asynccontextmanager
async def line(
    dsn: str, *, watch: dict[str, Any] | None = None, hello: bool = False, **options: Any
) -> AsyncIterator[Line]:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store["orders"]

        async def endpoint(websocket: WebSocket) -> None:
            after = None
            if hello:
                await websocket.accept()
                after = (await websocket.receive_json())["after"]
            await web.websocket(websocket, orders.watch(**watch or {}), after=after, **options)

        async with serving(Starlette(routes=[WebSocketRoute("/", endpoint)])) as served:
            yield Line(orders, served.ws_url, served.server)


async def receive(socket: ClientConnection, *kinds: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if message["event"] in kinds or (not kinds and message["event"] != "heartbeat"):
                return message


async def test_a_message_has_the_parts_of_a_server_sent_event(dsn: str) -> None:
    async with line(dsn) as shown, connect(shown.url) as socket:
        first = await receive(socket, "heartbeat")
        assert first["data"]["mode"] == "live"
        await shown.orders.insert("o-1", {"total": 1})
        message = await receive(socket)
        assert message.keys() == {"event", "id", "data"}
        assert message["event"] == "change"
        assert message["id"] == message["data"]["resume_token"]
        assert message["data"]["full_document"]["data"] == {"total": 1}
        await socket.send("what a client sends is ignored")
        await shown.orders.insert("o-2", {})
        assert (await receive(socket))["data"]["document_id"] == "o-2"


@pytest.mark.parametrize("hello", [False, True])
async def test_a_client_resumes_by_the_query_or_by_its_first_message(dsn: str, hello: bool) -> None:
    async with line(dsn, hello=hello) as shown:

        @contextlib.asynccontextmanager
        async def resumed(token: str) -> AsyncIterator[ClientConnection]:
            async with connect(shown.url if hello else f"{shown.url}?after={token}") as socket:
                if hello:
                    await socket.send(json.dumps({"after": token}))
                yield socket

        async with resumed("") as socket:
            token = (await receive(socket, "heartbeat"))["id"]
        await shown.orders.insert("o-1", {})
        async with resumed(token) as socket:
            assert (await receive(socket))["data"]["document_id"] == "o-1"
        async with resumed("nonsense") as socket:
            assert (await receive(socket))["data"] == {"reason": "invalid_token"}


async def test_a_view_decides_what_the_client_sees(dsn: str) -> None:
    async with line(dsn, view=lambda event: event.document_id != "o-1") as shown, connect(shown.url) as socket:
        await receive(socket, "heartbeat")
        await shown.orders.insert("o-1", {})
        await shown.orders.insert("o-2", {})
        assert (await receive(socket))["data"]["document_id"] == "o-2"


async def test_the_stream_closes_when_the_client_leaves(dsn: str) -> None:
    async with line(dsn) as shown:
        async with connect(shown.url) as socket:
            await receive(socket, "heartbeat")
            assert open_streams() == 1
        async with asyncio.timeout(PATIENCE_S):
            while open_streams():  # noqa: ASYNC110 (nothing to await)
                await asyncio.sleep(0.01)


async def test_a_view_that_fails_closes_with_1011(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    async with line(dsn, view=lambda _: 1 / 0) as shown, connect(shown.url) as socket:
        await receive(socket, "heartbeat")
        await shown.orders.insert("o-1", {})
        assert await close_code(socket) == 1011
    assert "ZeroDivisionError" in caplog.text


async def test_the_end_of_the_stream_closes_with_1000_and_an_error_with_1013(dsn: str) -> None:
    async with line(dsn) as shown, connect(shown.url) as socket:
        await shown.orders.insert("o-1", {})
        await receive(socket, "heartbeat")
        async with pgdoc.AsyncStore(dsn) as store:
            await store.drop_collection("orders")
        assert await close_code(socket) == 1000
    async with pgdoc.AsyncStore(dsn, auto_create=False) as store:

        async def endpoint(websocket: WebSocket) -> None:
            await web.websocket(websocket, store["nothing"].watch())

        async with (
            serving(Starlette(routes=[WebSocketRoute("/", endpoint)])) as served,
            connect(served.ws_url) as socket,
        ):
            assert await close_code(socket) == 1013


async def test_a_client_that_does_not_read_slows_nobody(dsn: str) -> None:
    async with (
        line(dsn) as shown,
        connect(shown.url, max_queue=1, ping_interval=None) as slow,
        connect(shown.url) as fast,
    ):
        await receive(fast, "heartbeat")
        text = "x" * 20_000
        await shown.orders.insert_many((f"o-{number:04}", {"text": text}) for number in range(600))
        for number in range(600):
            assert (await receive(fast))["data"]["document_id"] == f"o-{number:04}"
        for number in range(600):
            assert (await receive(slow))["data"]["document_id"] == f"o-{number:04}"
