"""The application of the tests that start a server as a process: `uvicorn tests.web_app:app`.

As a program, it serves itself: `python -m tests.web_app PORT main|thread`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

import pgdoc
from pgdoc import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with pgdoc.AsyncStore(os.environ["PGDOC_DSN"]) as store:
        app.state.orders = store["orders"]
        app.state.broadcast = web.Broadcast(store["orders"].watch())
        yield
    sys.stdout.write("the store is closed\n")
    sys.stdout.flush()


async def events(request: Request) -> Response:
    return web.sse(request, request.app.state.orders.watch(), heartbeat=0.5)


async def shared(request: Request) -> Response:
    return web.sse(request, request.app.state.broadcast, heartbeat=0.5)


async def socket(websocket: WebSocket) -> None:
    await web.websocket(websocket, websocket.app.state.orders.watch(), heartbeat=0.5)


async def index(_: Request) -> Response:
    return PlainTextResponse("ok")


app = Starlette(
    routes=[Route("/", index), Route("/events", events), Route("/shared", shared), WebSocketRoute("/socket", socket)],
    middleware=[Middleware(web.PgdocMiddleware)],
    lifespan=lifespan,
)


@contextlib.asynccontextmanager
async def worker_lifespan(_: Starlette) -> AsyncIterator[None]:
    async with pgdoc.AsyncStore(os.environ["PGDOC_DSN"]) as store:
        worker = pgdoc.AsyncWorker(store)

        @worker.on("orders", consumer="copies")
        async def copy(tx: pgdoc.AsyncTransaction, event: pgdoc.ChangeEvent) -> None:
            await tx["copies"].insert(pgdoc.new_id(), {"order": event.document_id})

        await worker.declare()
        running = asyncio.create_task(worker.run())
        yield
        worker.stop()
        await running


with_worker = Starlette(lifespan=worker_lifespan)


def main() -> None:
    """Serve from a task of a program of its own, or in a thread, which gets no signals."""
    server = uvicorn.Server(uvicorn.Config(app, port=int(sys.argv[1]), log_level="info"))
    if sys.argv[2] == "main":
        asyncio.run(as_a_task(server))
        return
    thread = threading.Thread(target=server.run)
    thread.start()
    signal.sigwait({signal.SIGTERM})
    server.should_exit = True
    thread.join()


async def as_a_task(server: uvicorn.Server) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.wait_for(server.serve(), None))


if __name__ == "__main__":
    if sys.argv[2] == "thread":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
