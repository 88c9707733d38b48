"""An API of orders: pages see changes as they happen, and every write says who asked for it.

    uvicorn orders_api.app:app --app-dir docs/examples --timeout-graceful-shutdown 3

PGDOC_DSN names the database. The worker in `audit.py` runs in a process of its own.
"""

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import FileResponse

import pgdoc
from pgdoc import web

from .models import NewOrder, Order, OrderChange
from .shop import CurrentShop, lifespan

StoredOrder = pgdoc.Document[Order]

app = FastAPI(title="Orders", lifespan=lifespan)
app.add_middleware(web.PgdocMiddleware, user=lambda request: request.headers.get("x-user"))


@app.post("/orders", status_code=201)
async def place(order: NewOrder, shop: CurrentShop) -> StoredOrder:
    """Store an order at the present price."""
    product = shop.products.get(order.product)
    if product is None:
        raise HTTPException(422, f"there is no product {order.product!r}")
    cents = product["cents"] * order.quantity
    return await shop.orders.insert(pgdoc.new_id(), Order(**order.model_dump(), cents=cents))


@app.get("/orders")
async def find(
    shop: CurrentShop, customer: str | None = None, limit: Annotated[int, Query(gt=0, le=100)] = 20
) -> list[StoredOrder]:
    """Return the newest orders."""
    found = shop.orders.find({} if customer is None else {"customer": customer}, sort="-_id", limit=limit)
    return [order async for order in found]


@app.get("/orders/{order_id}")
async def get(order_id: str, shop: CurrentShop) -> StoredOrder:
    """Return one order."""
    return existing(await shop.orders.get(order_id))


@app.patch("/orders/{order_id}")
async def change(
    order_id: str,
    change: OrderChange,
    shop: CurrentShop,
    if_match: Annotated[str | None, Header(pattern='^"[0-9]{1,18}"$')] = None,
) -> StoredOrder:
    """Change an order, if it is still at the version in the header If-Match, which HTTP has in quotes."""
    version = None if if_match is None else int(if_match.strip('"'))
    return existing(await shop.orders.update(order_id, {"$set": change.model_dump()}, if_version=version))


@app.delete("/orders/{order_id}", status_code=204)
async def delete(order_id: str, shop: CurrentShop) -> None:
    """Delete an order."""
    if not await shop.orders.delete(order_id):
        raise HTTPException(404)


def existing(order: StoredOrder | None) -> StoredOrder:
    """Return the order, if there is one."""
    if order is None:
        raise HTTPException(404)
    return order


@app.get("/events", response_class=web.EventStream)
async def events(request: Request, shop: CurrentShop, customer: str | None = None) -> web.EventStream:
    """Send each change of an order; with a customer, only of that one's."""

    def view(event: pgdoc.ChangeEvent) -> bool:
        images = (event.full_document, event.full_document_before_change)
        return all(image.get("customer") == customer for image in images if image is not None)

    return web.sse(request, shop.changes, view=None if customer is None else view)


@app.get("/unpaid", response_class=web.EventStream)
async def unpaid(request: Request, shop: CurrentShop) -> web.EventStream:
    """Send the unpaid orders, the largest first, and what changes about them."""
    return web.sse(request, shop.unpaid)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page that shows both."""
    return FileResponse(Path(__file__).with_name("page.html"))
