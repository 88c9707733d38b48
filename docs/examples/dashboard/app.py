"""Show the collection `orders` live, in any number of browsers.

    python app.py [CONNINFO] [--port 8000] [--demo]

CONNINFO defaults to PGDOC_DSN. `--demo` writes sample orders. An order is a document such as
{"customer": "Ada", "total": 12.5, "status": "new"}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route

import pgdoc
from pgdoc import web

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

PAGE = Path(__file__).with_name("page.html")
AMOUNTS, MOST = {int, float, Decimal}, 10**13  # JavaScript adds cents exactly up to about 10**15
NAMES = ["Ada", "Alan", "Barbara", "Donald", "Edsger", "Grace"]


async def events(request: Request) -> web.EventStream:
    """Send all orders, and then each change, to a browser; after a reconnect, what it has missed."""
    orders = request.app.state.store["orders"]
    return web.sse(request, orders.watch(snapshot=True), view=change, heartbeat=1)


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
    uvicorn.run(app, port=arguments.port, timeout_graceful_shutdown=3)  # for browsers that read nothing


if __name__ == "__main__":
    main()
