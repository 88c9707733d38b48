"""A page that shows the collection `orders` as it changes, in any number of browsers.

    python app.py [CONNINFO] [--port 8000] [--demo]

CONNINFO is PGDOC_DSN where it is not given; `--demo` writes orders to look at. An order is a document such as
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
BEAT_S = 1.0  # how often a browser hears something where nothing changes
BATCH = 500  # events that are written at once
AMOUNTS, MOST = {int, float, Decimal}, 10**13  # JavaScript adds cents up exactly to some 10**15
NAMES = ["Ada", "Alan", "Barbara", "Donald", "Edsger", "Grace"]
logger = logging.getLogger("uvicorn.error")


class Events(StreamingResponse):
    """Server-sent events, whose source is closed when the browser goes."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[str]) -> None:
        super().__init__(source, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until either end has had enough."""
        async with contextlib.aclosing(self._source):
            await super().__call__(scope, receive, send)


async def events(request: Request) -> Events:
    """Go on where this browser was: it says so itself when it reconnects, and in the address where it could not."""
    return Events(follow(request.app.state, request.headers.get("last-event-id") or request.query_params.get("after")))


async def follow(state: Any, place: str | None) -> AsyncGenerator[str]:
    """Give one browser all changes behind its place; without one that can be had, begin with what exists."""
    yield "retry: 1000\n\n"
    while True:
        try:
            if not place:
                yield message("begin", {})
            token = pgdoc.ResumeToken.parse(place) if place else None
            async with state.store["orders"].watch(snapshot=True, resume_after=token) as stream:
                while not state.server.should_exit:
                    yield await batch(stream)
        except (pgdoc.HistoryLost, pgdoc.InvalidResumeToken) as exc:
            logger.warning("a browser begins anew: %s", exc)
            place = None
            continue
        except pgdoc.PgdocError as exc:  # the browser comes again by itself
            logger.warning("a browser has to wait: %s", exc)
        return


async def batch(stream: pgdoc.AsyncChangeStream) -> str:
    """Write what has come, or that nothing has; the last id is the place up to which all is told."""
    texts = []
    event = await stream.next(timeout=BEAT_S)
    while event is not None:
        texts.append(message("change", change(event), event.resume_token))
        event = await stream.try_next() if len(texts) < BATCH and event.event_type != "invalidate" else None
    beat = {"mode": stream.stats().mode, "now": time.time() * 1000}  # a browser's clock may be wrong
    return "".join(texts) + message("beat", beat, stream.resume_token)


def message(kind: str, data: dict[str, Any], place: pgdoc.ResumeToken | str = "") -> str:
    """Write a server-sent event; the browser keeps the id, and sends it when it reconnects."""
    return f"event: {kind}\nid: {place}\ndata: {json.dumps(data)}\n\n"


def change(event: pgdoc.ChangeEvent) -> dict[str, Any]:
    """Take from an event what the page shows."""
    return {
        "type": event.event_type,
        "id": event.document_id,
        "by": str(event.metadata.get("user", "")),
        "at": event.timestamp.timestamp() * 1000,
        "before": order(event.full_document_before_change),
        "after": order(event.full_document),
    }


def order(document: pgdoc.Document | None) -> dict[str, Any] | None:
    """Take from an order what the page shows; anyone may write anything into one, with SQL."""
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
    """Hold one store for all browsers: their streams share the reading."""
    async with pgdoc.AsyncStore(app.state.arguments.conninfo) as app.state.store, asyncio.TaskGroup() as tasks:
        await app.state.store.set_history()  # it stays while nobody streams, so that browsers go on where they were
        writer = [tasks.create_task(write_orders(app.state.store["orders"]))] if app.state.arguments.demo else []
        yield
        for task in writer:
            task.cancel()


async def write_orders(orders: pgdoc.AsyncCollection) -> None:
    """Write orders to look at, and move them on."""
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
    """Serve until SIGTERM or Ctrl-C; the browsers come again when it is back."""
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
