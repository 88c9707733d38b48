"""What both checkers refuse: a comment that ignores an error is one itself where there is no error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.typing.models import BigOrder, Order, Refund

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, Collection, Document, Store


def what_is_not_a_model(store: Store) -> None:
    store.collection("orders", 5)  # type: ignore[call-overload]
    store.collection("orders", Order(status="new"))  # type: ignore[call-overload]
    _ = store["orders", Order]  # type: ignore[index]


def another_model(store: Store) -> None:
    orders = store.collection("orders", Order)
    orders.insert("o-1", Refund(order="o-1"))  # type: ignore[arg-type]
    orders.replace("o-1", Refund(order="o-1"))  # type: ignore[arg-type]
    orders.replace_one({}, Refund(order="o-1"))  # type: ignore[arg-type]
    orders.insert_many([("o-1", Refund(order="o-1"))])  # type: ignore[list-item]
    with store.bulk() as bulk:
        bulk.collection("orders", Order).insert("o-1", Refund(order="o-1"))  # type: ignore[arg-type]


def a_field_that_the_model_does_not_have(document: Document[Order], event: ChangeEvent[Order]) -> None:
    _ = document.data.name  # type: ignore[attr-defined]
    _ = document.data["status"]  # type: ignore[index]
    _ = event.full_document.data  # type: ignore[union-attr]
    document.data = Order(status="new")  # type: ignore[misc]


def a_partial_read(orders: Collection[Order]) -> None:
    for document in orders.find(fields=["status"]):
        _ = document.data.status  # type: ignore[attr-defined]


def a_collection_of_another_model(orders: Collection[BigOrder]) -> Collection[Order]:
    return orders  # type: ignore[return-value]


def documents_of_dicts(document: Document[Order]) -> Document:
    return document  # type: ignore[return-value]
