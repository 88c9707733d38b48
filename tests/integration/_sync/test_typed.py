# Written by .ci/twins.py from tests/integration/_async/test_typed.py: change that file, and run it.
"""Typed collections: their calls, streams, transactions and bulks, on the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from pgdoc import Store, RawJson
from pgdoc.errors import BulkError, InvalidInput, InvalidModel, ModelViolation
from tests.integration._sync.streams import PATIENCE_S, take

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


class Order(pydantic.BaseModel):
    status: str
    total: Decimal = Decimal("0.00")
    at: datetime = NOON
    lines: list[str] = []


class OrderStruct(msgspec.Struct):
    status: str
    total: Decimal = Decimal("0.00")
    at: datetime = NOON
    lines: list[str] = []


@dataclass
class OrderDataclass:
    status: str
    total: Decimal = Decimal("0.00")
    at: datetime = NOON
    lines: list[str] = field(default_factory=list)


class OrderDict(TypedDict):
    status: str
    total: Decimal
    at: datetime
    lines: NotRequired[list[str]]


EXACT = Decimal("12345678901234567890.10")
MODELS = [Order, OrderStruct, OrderDataclass, OrderDict]


def made(model: Any, **fields: Any) -> Any:
    return model(**{"total": Decimal("0.00"), "at": NOON, "lines": []} | fields)


@pytest.mark.parametrize("model", MODELS)
def test_every_call_returns_models(own_schema: dict[str, Any], model: Any) -> None:
    new, paid = made(model, status="new", total=EXACT), made(model, status="paid", total=EXACT)
    with Store(**own_schema) as store:
        orders = store.collection("orders", model)
        found = [
            orders.insert("a", new),
            orders.get("a"),
            orders.find_one({"status": "new"}),
            orders.replace("a", new),
            orders.replace_one({}, new),
            orders.update("a", {"$set": {"status": "new"}}),
            orders.update_one({}, {"$set": {"more": 1}}, return_document="before"),
        ]
        assert [each.data for each in found if each] == [new] * 7
        changed = orders.update("a", {"$set": {"status": "paid"}})
        assert changed is not None
        assert (changed.data, changed["more"], changed["status"]) == (paid, 1, "paid")
        orders.insert_many([("b", new), ("c", {"status": "new", "total": EXACT, "at": NOON, "lines": []})])
        pages = [each for each in orders.find(sort="status", limit=2)]
        assert [each.data for each in pages] == [new, new]
        rest = [each for each in orders.find(sort="status", after=pages[1])]
        assert [each.data for each in rest] == [paid]
        removed = orders.delete_one({"status": "paid"})
        assert removed is not None
        assert removed.data == paid


def test_many_documents_are_streamed_as_models(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store.collection("orders", OrderStruct)
        orders.insert_many((f"{n:04}", OrderStruct("new", Decimal(n))) for n in range(300))
        assert [each.data.total for each in orders.find(sort="_id")] == list(range(300))


def test_partial_reads_are_dicts(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store.collection("orders", Order)
        orders.insert("a", Order(status="new"))
        fields: list[Any] = [["status"], {"status": 1}, {}]
        for each in fields:
            found = orders.find_one(fields=each)
            assert found is not None
            assert found.data["status"] == "new"
        assert [each.data for each in orders.find(fields="status")] == [{"status": "new"}]


def test_mappings_are_checked_by_the_model_before_anything_is_sent(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders, wrong = store.collection("orders", Order), {"status": "new", "total": "much"}
        stored = orders.insert("a", {"status": "new"})
        assert stored.data == Order(status="new")
        calls: list[Callable[[], Any]] = [
            lambda: orders.insert("b", wrong),
            lambda: orders.replace("a", wrong),
            lambda: orders.replace("b", wrong, upsert=True),
            lambda: orders.replace_one({"status": "new"}, wrong),
            lambda: orders.insert_many([("b", {"status": "new"}), ("c", wrong)]),
            lambda: orders.insert("b", RawJson(b'{"status": 5}')),
        ]
        for call in calls:
            with pytest.raises(
                ModelViolation, match=r'of collection "[^"]+\.orders": the data is not a valid Order: at'
            ):
                call()
        with pytest.raises(ModelViolation, match=r"^document 'c' of"):
            orders.insert_many([("c", wrong)])
        assert [document for document in orders.find()] == [stored]


def test_a_bulk_and_a_transaction_check_and_return_models(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with store.bulk() as bulk:
            orders = bulk.collection("orders", Order)
            orders.insert("a", Order(status="new"))
            orders.insert("b", {"status": "new"})
            with pytest.raises(ModelViolation, match=r"^document 'c' of collection"):
                orders.insert("c", {"status": 5})
            with pytest.raises(ModelViolation, match=r"^document 'a' of collection"):
                orders.replace("a", {"status": 5})
            with pytest.raises(ModelViolation, match=r"^a document of collection"):
                orders.replace_one({"_id": "a"}, {"status": 5})
            orders.replace("b", {"status": "paid"})
        with store.transaction() as tx:
            found = tx.collection("orders", Order).get("b")
            assert found is not None
            assert found.data == Order(status="paid")
            with tx.bulk() as inner:
                inner.collection("orders", Order).replace("b", Order(status="new"))
        assert [each.data for each in store.collection("orders", Order).find()] == [Order(status="new")] * 2
        with pytest.raises(BulkError):
            with store.bulk() as bulk:
                bulk.collection("orders", Order).insert("a", Order(status="new"))


def test_a_document_that_is_not_valid_stops_no_iteration(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert_many([("a", {"status": "new"}), ("b", {"status": [5]}), ("c", {"status": "new"})])
        orders = store.collection("orders", Order)
        found = [each for each in orders.find(sort="_id")]
        assert (found[0].data, found[2].data) == (Order(status="new"), Order(status="new"))
        with pytest.raises(InvalidModel, match="document 'b' of collection \"orders\"") as caught:
            _ = found[1].data
        assert (caught.value.document_id, caught.value.path) == ("b", "status")
        assert found[1]["status"] == [5]
        changed = orders.update("b", {"$set": {"status": "mended"}})
        assert changed is not None
        assert changed.data.status == "mended"


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_delivers_models_and_goes_on_after_what_is_not_valid(own_schema: dict[str, Any], model: Any) -> None:
    with Store(**own_schema) as store:
        orders, plain = store.collection("orders", model), store["orders"]
        orders.insert("a", made(model, status="new", total=EXACT))
        with orders.watch(snapshot=True) as stream, plain.watch() as other:
            (first,) = take(stream)
            orders.update("a", {"$set": {"status": "paid", "more": 1}})
            plain.insert("b", {"status": 5})
            orders.delete("a")
            found, expected = [first, *take(stream, 3)], take(other, 3)
        new, paid = made(model, status="new", total=EXACT), made(model, status="paid", total=EXACT)
        after, before = [
            [each and each.data for each in images] for images in images_of([found[0], found[1], found[3]])
        ]
        assert after == [new, paid, None]
        assert before == [None, new, paid]
        assert found[2].full_document is not None
        with pytest.raises(InvalidModel, match="document 'b' of collection \"orders\""):
            _ = found[2].full_document.data
        description = found[1].update_description
        assert description is not None
        assert description.updated_fields == {"status": "paid", "more": 1}
        assert [each.to_json() for each in found[1:]] == [each.to_json() for each in expected]


def images_of(events: list[Any]) -> tuple[list[Any], list[Any]]:
    return [each.full_document for each in events], [each.full_document_before_change for each in events]


def test_a_typed_stream_filters_on_stored_fields_and_resumes(own_schema: dict[str, Any]) -> None:
    consumer = f"typed_{own_schema['schema']}"
    where = {"full_document.data.status": "paid"}
    with Store(**own_schema) as store:
        orders = store.collection("orders", Order)
        orders.insert_many([("a", Order(status="new")), ("b", Order(status="paid"))])
        with orders.watch(where=where, snapshot=True, consumer=consumer) as stream:
            (event,) = take(stream)
            assert event.document_id == "b"
            orders.update("a", {"$set": {"status": "paid"}})
            (batch,) = [stream.next_batch(timeout=PATIENCE_S)]
            assert [each.full_document and each.full_document.data.status for each in batch] == ["paid"]
            stream.ack(batch[-1])
        orders.insert("c", Order(status="paid"))
        with orders.watch(where=where, snapshot=True, consumer=consumer) as stream:
            (event,) = take(stream)
            assert event.full_document is not None
            assert (event.document_id, event.full_document.data) == ("c", Order(status="paid"))
        store.drop_consumer(consumer)


def test_what_is_read_is_written_back_as_it_was(own_schema: dict[str, Any], sql: psycopg.Connection) -> None:
    with Store(**own_schema) as store:
        orders = store.collection("orders", Order)
        orders.insert("a", {"status": "new", "total": Decimal("9.90"), "at": "2026-07-01T12:00:00.5Z"})
        stored = sql.execute("SELECT data::text FROM orders").fetchone()
        found = orders.get("a")
        assert found is not None
        orders.replace("a", found.data)
        assert sql.execute("SELECT data::text FROM orders").fetchone() == stored
        assert stored is not None
        assert '"total": 9.90' in stored[0]
        assert '"at": "2026-07-01T12:00:00.500000Z"' in stored[0]


def test_a_model_is_checked_when_the_handle_is_made(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(InvalidInput, match="model must be"):
            store.collection("orders", dict)
        with store.transaction() as tx:
            with pytest.raises(InvalidInput, match="model must be"):
                tx.collection("orders", int)
        with pytest.raises(InvalidInput, match="model must be"):
            store.bulk().collection("orders", int)
