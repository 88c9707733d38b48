"""Show the collection `orders` live, in any number of browsers.

    python app.py [CONNINFO] [--port 8000] [--demo]

CONNINFO defaults to PGDOC_DSN. `--demo` writes sample orders. An order is a document such as
{"customer": "Ada", "total": 12.5, "status": "new"}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, StreamingResponse
from starlette.routing import Route

import pgdoc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

PAGE = Path(__file__).with_name("page.html")
BEAT_S = 1.0  # seconds between messages to a browser while nothing changes
BATCH = 500  # the most events in one write
AMOUNTS, MOST = {int, float, Decimal}, 10**13  # JavaScript adds cents exactly up to about 10**15
NAMES = ["Ada", "Alan", "Barbara", "Donald", "Edsger", "Grace"]
logger = logging.getLogger("uvicorn.error")


class Events(StreamingResponse):
    """Server-sent events. Closes their source when the browser disconnects."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[str]) -> None:
        super().__init__(source, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the browser disconnects or the source ends."""
        async with contextlib.aclosing(self._source):
            await super().__call__(scope, receive, send)


async def events(request: Request) -> Events:
    """Serve the events after the browser's token, from its reconnect header or else from the query string."""
    return Events(follow(request.app.state, request.headers.get("last-event-id") or request.query_params.get("after")))


async def follow(state: Any, after: str | None) -> AsyncGenerator[str]:
    """Yield all changes after a browser's token. Without a usable token, start with a snapshot."""
    yield "retry: 1000\n\n"
    while True:
        try:
            if not after:
                yield message("begin", {})
            token = pgdoc.ResumeToken.parse(after) if after else None
            async with state.store["orders"].watch(snapshot=True, resume_after=token) as stream:
                while not state.server.should_exit:
                    yield await batch(stream)
        except (pgdoc.HistoryLost, pgdoc.InvalidResumeToken) as exc:
            logger.warning("restarting a browser with a snapshot: %s", exc)
            after = None
            continue
        except pgdoc.PgdocError as exc:  # the browser reconnects by itself
            logger.warning("disconnecting a browser, which will reconnect: %s", exc)
        return


async def batch(stream: pgdoc.AsyncChangeStream) -> str:
    """Return the waiting changes, then a beat whose id is the token after the last change."""
    texts = []
    event = await stream.next(timeout=BEAT_S)
    while event is not None:
        texts.append(message("change", change(event), event.resume_token))
        event = await stream.try_next() if len(texts) < BATCH and event.event_type != "invalidate" else None
    beat = {"mode": stream.stats().mode, "now": time.time() * 1000}  # the browser's clock may be wrong
    return "".join(texts) + message("beat", beat, stream.resume_token)


def message(kind: str, data: dict[str, Any], token: pgdoc.ResumeToken | str = "") -> str:
    """Format a server-sent event. The browser keeps the id and sends it when it reconnects."""
    return f"event: {kind}\nid: {token}\ndata: {json.dumps(data)}\n\n"


def change(event: pgdoc.ChangeEvent) -> dict[str, Any]:
    """Return the fields of an event that the page shows."""
    return {
        "type": event.event_type,
        "id": event.document_id,
        "by": str(event.metadata.get("user", "")),
        "at": event.timestamp.timestamp() * 1000,
        "before": order(event.full_document_before_change),
        "after": order(event.full_document),
    }


def order(document: pgdoc.Document | None) -> dict[str, Any] | None:
    """Return the fields of an order that the page shows. SQL can write any data, so check all types."""
    if document is None:
        return None
    data: dict[str, Any] = {}
    with contextlib.suppress(pgdoc.UnreadableDocument):
        data = document.data
    total = data.get("total", 0)
    return {
        "cents": round(total * 100) if type(total) in AMOUNTS and abs(total) < MOST else 0,
        "status": str(data.get("status", "none"))[:20],
        "customer": str(data.get("customer", ""))[:40],
        "created": document.created_at.timestamp() * 1000,
    }


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Open one store for all browsers, whose streams share the reading of the WAL."""
    async with pgdoc.AsyncStore(app.state.arguments.conninfo) as app.state.store, asyncio.TaskGroup() as tasks:
        await app.state.store.set_history()  # kept without streams, too, so that browsers can resume
        writer = [tasks.create_task(write_orders(app.state.store["orders"]))] if app.state.arguments.demo else []
        yield
        for task in writer:
            task.cancel()


async def write_orders(orders: pgdoc.AsyncCollection) -> None:
    """Write sample orders, and change their status."""
    steps, recent = {"new": "paid", "paid": "shipped", "shipped": "delivered"}, ["none"]
    while True:
        await asyncio.sleep(random.expovariate(2 + abs(time.time() % 40 - 20) / 2))  # busier and quieter times
        data = {"customer": random.choice(NAMES), "total": round(random.lognormvariate(3.5, 0.8), 2), "status": "new"}
        with contextlib.suppress(pgdoc.ServerError), pgdoc.metadata(user=random.choice(["web", "app", "shop"])):
            recent = [*recent[-60:], (await orders.insert(pgdoc.new_id(), data)).id]
            moved = await orders.get(random.choice(recent))
            if moved and moved["status"] in steps:
                await orders.update(moved.id, {"$set": {"status": steps[moved["status"]]}})


def main() -> None:
    """Serve until SIGTERM or Ctrl-C. Browsers reconnect when the server is back."""
    parser = argparse.ArgumentParser()
    parser.add_argument("conninfo", nargs="?", default=os.environ.get("PGDOC_DSN", ""))
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--demo", action="store_true")
    app = Starlette(routes=[Route("/", lambda _: FileResponse(PAGE)), Route("/events", events)], lifespan=lifespan)
    app.state.arguments = arguments = parser.parse_args()
    app.state.server = uvicorn.Server(uvicorn.Config(app, port=arguments.port, timeout_graceful_shutdown=3))
    app.state.server.run()


if __name__ == "__main__":
    main()
