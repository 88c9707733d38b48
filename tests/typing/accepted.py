"""What both checkers accept, with the types that they find."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Annotated, Any, Union, assert_type

from pydantic import Field

from pgdoc import (
    AsyncBulkCollection,
    AsyncChangeStream,
    AsyncCollection,
    AsyncLiveQuery,
    AsyncStore,
    BulkCollection,
    ChangeEvent,
    ChangeStream,
    Collection,
    Document,
    LiveQuery,
    Mirror,
    RawJson,
    Store,
    Transaction,
)
from tests.typing.models import Address, BigOrder, Customer, Event, Invoice, Order, Page, Refund

if TYPE_CHECKING:
    from datetime import datetime


def every_kind_of_model(store: Store) -> None:
    assert_type(store.collection("a", Order), Collection[Order])
    assert_type(store.collection("a", Event), Collection[Event])
    assert_type(store.collection("a", Customer), Collection[Customer])
    assert_type(store.collection("a", Address), Collection[Address])
    assert_type(store.collection("a", Invoice), Collection[Invoice])
    assert_type(store.collection("a", Page[Order]), Collection[Page[Order]])
    assert_type(store.collection("a", Order | Refund), Collection[Order | Refund])
    assert_type(store.collection("a", Union[Order, Refund]), Collection[Order | Refund])  # noqa: UP007
    assert_type(
        store.collection("a", Annotated[Order | Refund, Field(discriminator="kind")]), Collection[Order | Refund]
    )


def without_a_model(store: Store, now: datetime) -> Document:
    orders: Collection = store["orders"]
    assert_type(orders, Collection[dict[str, Any]])
    assert_type(store.collection("orders"), Collection[dict[str, Any]])
    assert_type(store.watch(), ChangeStream[dict[str, Any]])
    for document in orders.find({"a": 1}, fields=["a"]):
        assert_type(document, Document[dict[str, Any]])
    orders.insert("a", Order(status="new"))
    orders.insert("a", Customer("Ada"))
    orders.insert("a", {"status": "new"})
    assert_type(Document("a", {}, 1, now, now), Document[dict[str, Any]])
    return orders.insert("a", Event("created"))


def reading(store: Store) -> None:
    orders = store.collection("orders", Order)
    found = orders.get("o-1")
    assert_type(found, Document[Order] | None)
    if found is not None:
        assert_type(found.data, Order)
        assert_type(found.data.total, float)
        assert_type(found["status"], Any)
    assert_type(orders.find(), Generator[Document[Order]])
    assert_type(orders.find(fields=["total"]), Generator[Document[dict[str, Any]]])
    assert_type(orders.find_one({"status": "new"}), Document[Order] | None)
    assert_type(orders.find_one(fields="total"), Document[dict[str, Any]] | None)
    assert_type(orders.delete_one({}), Document[Order] | None)
    for page in orders.find(sort="total", limit=10, after=found):
        assert_type(page.data, Order)


def writing(store: Store) -> None:
    orders = store.collection("orders", Order)
    assert_type(orders.insert("o-1", Order(status="new")), Document[Order])
    orders.insert("o-2", {"status": "new"})
    orders.insert("o-3", RawJson(b'{"status": "new"}'))
    orders.insert("o-4", BigOrder(status="new"))
    assert_type(orders.replace("o-1", Order(status="paid"), upsert=True), Document[Order] | None)
    assert_type(orders.replace_one({}, Order(status="paid")), Document[Order] | None)
    assert_type(orders.update("o-1", {"$set": {"status": "paid"}}), Document[Order] | None)
    assert_type(orders.update_one({}, {"$set": {"status": "paid"}}), Document[Order] | None)
    orders.insert_many([("o-5", Order(status="new")), ("o-6", Order(status="new"))])
    orders.insert_many({"o-7": {"status": "new"}}.items())


def streams(store: Store) -> None:
    with store.collection("orders", Order).watch() as stream:
        assert_type(stream, ChangeStream[Order])
        for event in stream:
            assert_type(event, ChangeEvent[Order])
            if event.full_document is not None:
                assert_type(event.full_document.data, Order)
            assert_type(event.full_document_before_change, Document[Order] | None)
            stream.ack(event)
        assert_type(stream.next(timeout=1), ChangeEvent[Order] | None)
        assert_type(stream.next_batch(), list[ChangeEvent[Order]])
    assert_type(ChangeEvent.from_json(b"{}", model=Order), ChangeEvent[Order])
    assert_type(ChangeEvent.from_json(b"{}"), ChangeEvent[dict[str, Any]])


def live_queries(store: Store) -> None:
    orders = store.collection("orders", Order)
    with orders.live({"status": "new"}, sort="-total", limit=10) as query:
        assert_type(query, LiveQuery[Order])
        assert_type(query.documents, list[Document[Order]])
        for change in query:
            assert_type(change.document.data, Order)
    assert_type(orders.live(fields=["total"]), LiveQuery[dict[str, Any]])
    assert_type(orders.mirror(), Mirror[Order])


def transactions(store: Store) -> None:
    def pay(tx: Transaction) -> Document[Order] | None:
        return tx.collection("orders", Order).update("o-1", {"$set": {"status": "paid"}})

    assert_type(store.run(pay), Document[Order] | None)
    with store.transaction() as tx:
        assert_type(tx.collection("orders", Order), Collection[Order])
        assert_type(tx["orders"], Collection[dict[str, Any]])
    with store.bulk() as bulk:
        assert_type(bulk.collection("orders", Order), BulkCollection[Order])
        assert_type(bulk["orders"], BulkCollection[dict[str, Any]])
        bulk.collection("orders", Order).insert("o-1", Order(status="new"))
        bulk["orders"].insert("o-1", Customer("Ada"))


async def async_calls(store: AsyncStore) -> None:
    orders = store.collection("orders", Order)
    assert_type(orders, AsyncCollection[Order])
    assert_type(store["orders"], AsyncCollection[dict[str, Any]])
    assert_type(await orders.get("o-1"), Document[Order] | None)
    assert_type(orders.find(), AsyncGenerator[Document[Order]])
    assert_type(await orders.find_one(fields=["total"]), Document[dict[str, Any]] | None)
    async with orders.watch() as stream:
        assert_type(stream, AsyncChangeStream[Order])
        async for event in stream:
            assert_type(event, ChangeEvent[Order])
    async with orders.live() as query:
        assert_type(query, AsyncLiveQuery[Order])
    assert_type(orders.live(fields="total"), AsyncLiveQuery[dict[str, Any]])
    async with store.bulk() as bulk:
        assert_type(bulk.collection("orders", Order), AsyncBulkCollection[Order])


def what_is_only_read_is_covariant(
    document: Document[BigOrder], event: ChangeEvent[BigOrder], stream: ChangeStream[BigOrder]
) -> tuple[Document[Order], ChangeEvent[Order | Refund], ChangeStream[Order]]:
    return document, event, stream
