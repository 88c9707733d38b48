"""The tests of the API, with the pytest plugin of pgdoc: a store in a database of its own for each."""

import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

import pgdoc
from pgdoc.testing import async_eventually, eventually, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def products(store: pgdoc.Store, pgdoc_conninfo: str, monkeypatch: pytest.MonkeyPatch) -> pgdoc.Collection:
    monkeypatch.setenv("PGDOC_DSN", pgdoc_conninfo)  # before the application is imported
    store["products"].insert("tea", {"name": "Tea", "cents": 450})
    return store["products"]


@pytest.fixture
async def client(products: pgdoc.Collection, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    from orders_api.app import app

    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


TEA = {"customer": "Ada", "product": "tea", "quantity": 2}


async def test_an_order_is_stored_at_the_present_price(client: httpx.AsyncClient, store: pgdoc.Store) -> None:
    placed = await client.post("/orders", json=TEA)
    assert placed.status_code == 201
    assert placed.json()["data"] == {**TEA, "cents": 900, "status": "new"}
    order_id = placed.json()["id"]
    stored = store["orders"].get(order_id)
    assert stored is not None
    assert stored["cents"] == 900
    assert (await client.get(f"/orders/{order_id}")).json() == placed.json()
    assert (await client.get("/orders?customer=Ada")).json() == [placed.json()]
    assert (await client.get("/orders?customer=Bob")).json() == []


async def test_a_new_price_counts_at_once(client: httpx.AsyncClient, products: pgdoc.Collection) -> None:
    products.update("tea", {"$set": {"cents": 500}})

    async def is_dearer() -> bool:
        placed = (await client.post("/orders", json=TEA)).json()
        return bool(placed["data"]["cents"] == 1000)

    await async_eventually(is_dearer)


async def test_what_makes_no_sense_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/orders", json={**TEA, "quantity": 0})).status_code == 422
    assert (await client.post("/orders", json={**TEA, "product": "gold"})).status_code == 422
    assert (await client.get("/orders/none")).status_code == 404
    assert (await client.delete("/orders/none")).status_code == 404


async def test_two_clerks_do_not_overwrite_each_other(client: httpx.AsyncClient) -> None:
    order_id = (await client.post("/orders", json=TEA)).json()["id"]
    paid = await client.patch(f"/orders/{order_id}", json={"status": "paid"}, headers={"if-match": '"1"'})
    assert paid.json()["version"] == 2
    late = await client.patch(f"/orders/{order_id}", json={"status": "shipped"}, headers={"if-match": '"1"'})
    assert late.status_code == 412
    assert late.json()["found_version"] == 2
    assert (await client.delete(f"/orders/{order_id}")).status_code == 204


async def test_the_audit_says_who_did_what(client: httpx.AsyncClient, store: pgdoc.Store) -> None:
    from orders_api.audit import record

    worker = pgdoc.Worker(store)
    worker.on("orders", consumer="audit")(record)
    with running(worker):
        headers = {"x-user": "ann", "x-request-id": "r-1"}
        order_id = (await client.post("/orders", json=TEA, headers=headers)).json()["id"]
        store.wait_for("audit")
        (entry,) = store["audit"].find()
        assert (entry["what"], entry["order"]) == ("insert", order_id)
        assert (entry["who"], entry["request"]) == ("ann", "r-1")


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Serve the application in a thread: a response that never ends needs a real server."""
    from orders_api.app import app

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def next_event(lines: Iterator[str], name: str) -> Any:
    for line in lines:
        if line == f"event: {name}":
            return json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
    raise AssertionError("the response has ended")


def test_a_customer_sees_changes_of_own_orders_only(products: pgdoc.Collection) -> None:
    with served() as url, httpx.stream("GET", f"{url}/events?customer=Ada", timeout=30) as response:
        lines = response.iter_lines()
        next_event(lines, "heartbeat")
        httpx.post(f"{url}/orders", json={**TEA, "customer": "Bob"})
        placed = httpx.post(f"{url}/orders", json=TEA).json()
        assert next_event(lines, "change")["document_id"] == placed["id"]


def test_the_list_of_unpaid_orders_is_live(products: pgdoc.Collection) -> None:
    with served() as url, httpx.stream("GET", f"{url}/unpaid", timeout=30) as response:
        lines = response.iter_lines()
        assert next_event(lines, "documents") == []
        placed = httpx.post(f"{url}/orders", json=TEA).json()
        (added,) = next_event(lines, "changes")
        assert (added["kind"], added["document"]["id"], added["new_index"]) == ("added", placed["id"], 0)
        assert added["document"]["data"] == placed["data"]
        httpx.patch(f"{url}/orders/{placed['id']}", json={"status": "paid"})
        (removed,) = next_event(lines, "changes")
        assert (removed["kind"], removed["old_index"]) == ("removed", 0)
