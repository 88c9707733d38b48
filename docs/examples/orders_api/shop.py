"""What connects FastAPI and pgdoc: one store, and what endpoints get of it."""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

import pgdoc
from pgdoc import web

from .models import Order


@dataclass
class Shop:
    """What the endpoints use."""

    orders: pgdoc.AsyncCollection[Order]
    products: pgdoc.AsyncMirror  # in memory, and up to date
    changes: web.Broadcast
    unpaid: web.Broadcast


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one store for all requests. Its end ends all streams."""
    async with pgdoc.AsyncStore(os.environ["PGDOC_DSN"]) as store, store.mirror("products") as products:
        await store.set_history()  # browsers can go on where they were, also after the application was away
        orders = store.collection("orders", Order)
        unpaid = web.Broadcast(orders.live({"status": "new"}, sort="-cents", limit=20))
        app.state.shop = Shop(orders, products, web.Broadcast(store.watch("orders")), unpaid)
        yield


async def current_shop(connection: HTTPConnection) -> Shop:
    """Return what the lifespan has opened."""
    shop: Shop = connection.app.state.shop
    return shop


CurrentShop = Annotated[Shop, Depends(current_shop)]
