# Written by .ci/twins.py from tests/integration/_async/test_values.py: change that file, and run it.
"""Python values that JSON does not have, in every call; and a store that reads decimals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pydantic
import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidInput, InvalidUpdate
from tests.integration._sync.streams import PATIENCE_S, take

if TYPE_CHECKING:
    import psycopg

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SAME_NOON = NOON.astimezone(timezone(timedelta(hours=9)))
NUMBER = UUID(int=7)
STORED = "2026-07-01T12:00:00.000000Z"


class State(Enum):
    NEW = "new"
    PAID = "paid"


@dataclass
class Line:
    sku: str
    price: Decimal


class Order(pydantic.BaseModel):
    at: datetime
    state: State
    lines: list[Line] = []


def millis(value: Any) -> Any:
    """Store times as milliseconds, and bytes as hexadecimal digits."""
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    return value.hex() if isinstance(value, bytes) else value


def test_whole_documents_are_objects_of_any_class_with_fields(
    own_schema: dict[str, Any], sql: psycopg.Connection
) -> None:
    order = Order(at=SAME_NOON, state=State.NEW, lines=[Line("a", Decimal("9.90"))])
    with Store(**own_schema) as store:
        orders = store["orders"]
        inserted = orders.insert("a", order)
        orders.insert_many([("b", order), ("c", {"at": NOON})])
        with store.bulk() as bulk:
            bulk["orders"].insert("d", order)
            bulk["orders"].replace("c", order)
        with store.transaction() as tx:
            tx["orders"].replace("e", order, upsert=True)
        assert inserted.data == {"at": STORED, "state": "new", "lines": [{"sku": "a", "price": 9.9}]}
        assert [document.data for document in orders.find()] == [inserted.data] * 5
    prices = sql.execute("SELECT DISTINCT data #>> '{lines,0,price}' FROM orders").fetchall()
    assert prices == [("9.90",)]


def test_updates_and_filters_take_values_as_documents_do(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store["orders"]
        orders.insert("a", {"at": NOON - HOUR, "seen": [NOON], "by": NUMBER, "took": HOUR, "day": date(2026, 7, 1)})
        changed = orders.update(
            "a",
            {
                "$max": {"at": SAME_NOON},
                "$min": {"day": date(999, 7, 1)},
                "$push": {"lines": Line("a", Decimal("0.10"))},
                "$addToSet": {"seen": {"$each": [SAME_NOON, NOON + HOUR]}},
                "$inc": {"took": timedelta(seconds=1.5)},
                "$set": {"state": State.PAID},
            },
        )
        assert changed is not None
        assert changed.data == {
            "at": STORED,
            "day": "0999-07-01",
            "lines": [{"sku": "a", "price": 0.1}],
            "seen": [STORED, "2026-07-01T13:00:00.000000Z"],
            "by": "00000000-0000-0000-0000-000000000007",
            "took": 3601.5,
            "state": "paid",
        }
        for wanted in (
            {"at": NOON},
            {"at": {"$gte": NOON, "$lt": NOON + HOUR / 3600}},
            {"seen": {"$all": [SAME_NOON]}},
            {"by": {"$in": [NUMBER]}, "state": State.PAID},
            {"lines": {"$elemMatch": {"price": Decimal("0.100")}}},
            {"lines": Line("a", Decimal("0.1"))},
            {"took": {"$gt": HOUR}},
            {"day": {"$lt": date(1000, 1, 1)}},
            {"at": {"$not": {"$gt": NOON}}},
        ):
            assert orders.count(wanted) == 1, wanted
        assert orders.count({"at": {"$gt": NOON}}) == 0
        pulled = orders.update("a", {"$pull": {"seen": {"$lte": NOON}, "lines": Line("a", Decimal("0.1"))}})
        assert pulled is not None
        assert (pulled.data["seen"], pulled.data["lines"]) == (["2026-07-01T13:00:00.000000Z"], [])


def test_the_server_stores_the_digits_of_a_decimal(own_schema: dict[str, Any], sql: psycopg.Connection) -> None:
    price = Decimal("0.12345678901234567890")
    with Store(**own_schema) as store:
        orders = store["orders"]
        orders.insert("insert", {"price": price})
        orders.insert_many([("insert_many", {"price": price})])
        orders.update("insert", {"$set": {"price": price}})
        orders.update("upsert", {"$set": {"price": price}}, upsert=True)
        orders.update("add", {"$inc": {"price": price}}, upsert=True)
        orders.update("few", {"$inc": {"fee": Decimal("9.90")}}, upsert=True)
        orders.update("least", {"$min": {"price": price}}, upsert=True)
        with store.bulk() as bulk:
            bulk["orders"].update("bulk", {"$setOnInsert": {"price": price}}, upsert=True)
    prices = sql.execute("SELECT DISTINCT coalesce(data ->> 'price', data ->> 'fee') FROM orders ORDER BY 1").fetchall()
    assert prices == [("0.12345678901234567890",), ("9.90",)]


def test_the_error_of_an_update_compares_all_digits(own_schema: dict[str, Any]) -> None:
    number = Decimal("1.12345678901234567890")
    with Store(**own_schema) as store:
        docs = store["docs"]
        docs.insert("a", {"items": [{"n": number, "text": "x"}]})
        with pytest.raises(InvalidUpdate, match="the value is 'x', not a number"):
            docs.update_one({"items.n": number}, {"$inc": {"items.$.text": 1}})


def test_sorts_pages_and_indexes_follow_the_order_of_times(own_schema: dict[str, Any]) -> None:
    moments = [NOON + HOUR * number for number in range(-30, 30)]
    with Store(**own_schema) as store:
        orders = store["orders"]
        orders.insert_many([(f"{moment:%d-%H}", {"at": moment}) for moment in reversed(moments)])
        orders.create_index("at", where={"at": {"$gt": NOON}}, name="late")
        orders.create_index("at")
        found = [document for document in orders.find({"at": {"$gt": NOON}}, sort="at", limit=3)]
        assert [datetime.fromisoformat(document["at"]) for document in found] == moments[31:34]
        rest = [document for document in orders.find(sort="at", after=[moments[33], found[-1].id])]
        assert [datetime.fromisoformat(document["at"]) for document in rest] == moments[34:]
        with pytest.raises(InvalidInput, match="no time zone"):
            orders.find(sort="at", after=[NOON.replace(tzinfo=None), "x"])


def test_a_value_that_is_refused_names_its_path(own_schema: dict[str, Any]) -> None:
    naive = NOON.replace(tzinfo=None)
    with Store(**own_schema) as store:
        orders = store["orders"]
        with pytest.raises(InvalidDocument, match=r"at 'at': .*has no time zone"):
            orders.insert("a", {"at": naive})
        with pytest.raises(InvalidDocument, match=r"document 'a': at 'at\.0': .*give the store an encoder"):
            orders.insert_many([("a", {"at": [b"x"]})])
        with pytest.raises(InvalidUpdate, match=r"\$max has a path or value .*has no time zone") as update:
            orders.update("a", {"$max": {"at": naive}})
        with pytest.raises(InvalidFilter, match=r"\$gt has a value .*has no time zone") as filter_:
            orders.count({"at": {"$gt": naive}})
        assert (update.value.path, filter_.value.path) == ("at", "at")


@pytest.mark.parametrize("arguments", [{"encoder": 5}, {"decimals": 1}, {"decimals": None}])
def test_a_store_checks_its_options_for_values(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Store(**arguments)


def test_the_encoder_of_a_store_is_used_in_every_call(own_schema: dict[str, Any]) -> None:
    at = int(NOON.timestamp() * 1000)
    with Store(**own_schema, encoder=millis) as store:
        orders = store["orders"]
        with orders.watch(where={"full_document.data.at": {"$gte": NOON}, "timestamp": {"$gt": NOON}}) as stream:
            assert (orders.insert("a", {"at": NOON, "raw": b"\1"})).data == {"at": at, "raw": "01"}
            orders.insert_many([("b", {"at": NOON})])
            with store.bulk() as bulk:
                bulk["orders"].insert("c", {"at": NOON})
                bulk["orders"].update("c", {"$set": {"x": NOON}})
                bulk["orders"].update_many({"at": {"$lt": NOON}}, {"$set": {"at": 0}})
            with store.transaction() as tx:
                tx["orders"].replace("d", {"at": NOON}, upsert=True)
                assert tx["orders"].count({"at": NOON}) == 4
            assert [event.document_id for event in take(stream, 5)] == ["a", "b", "c", "c", "d"]
        orders.create_index("at", where={"at": {"$gte": NOON}})
        assert (orders.indexes())[0].where == {"at": {"$gte": at}}
        changed = orders.update_one({"at": NOON}, {"$set": {"seen": NOON}}, sort="_id")
        assert changed is not None
        assert changed.data["seen"] == at
        assert orders.distinct("at", {"at": NOON}) == [at]
        assert [document.id for document in orders.find(sort="at", after=[NOON, "b"])] == ["c", "d"]
        assert orders.find_one({"raw": b"\1", "at": NOON}) is not None
        assert orders.update_many({"at": NOON}, {"$max": {"at": NOON + HOUR}}) == 4
        assert orders.delete_one({"at": NOON + HOUR}) is not None
        assert orders.delete_many({"at": NOON + HOUR}) == 3


def test_a_store_with_decimals_reads_the_digits_that_are_stored(own_schema: dict[str, Any]) -> None:
    price = Decimal("9.90")

    def is_exact(value: Any, digits: str = "9.90") -> bool:
        return isinstance(value, Decimal) and str(value) == digits

    with Store(**own_schema, decimals=True) as store, Store(**own_schema) as usual:
        orders = store["orders"]
        with orders.watch() as stream, usual["orders"].watch() as floats:
            assert is_exact((orders.insert("a", {"price": price, "n": 1, "big": 10**30}))["price"])
            changed = orders.update("a", {"$inc": {"price": Decimal("0.10")}})
            unchanged = orders.update("a", {"$set": {"n": 1}})
            replaced = orders.replace("a", {"price": price, "text": "1.50"})
            for document, digits in (changed, "10.00"), (unchanged, "10.00"), (replaced, "9.90"):
                assert document is not None
                assert is_exact(document["price"], digits)
            events: Any = take(stream, 3)
            insert, update, replace = events
            assert is_exact(insert.full_document["price"])
            assert insert.full_document["n"] == 1
            assert is_exact(update.full_document_before_change["price"])
            assert is_exact(update.update_description.updated_fields["price"], "10.00")
            assert is_exact(replace.full_document["price"])
            assert b'"price":9.90' in replace.to_json()
            orders.update("a", {"$set": {"n": 2}})
            events = stream.next_batch(timeout=PATIENCE_S)
            assert is_exact(events[0].full_document["price"])
            events = take(floats)
            assert isinstance(events[0].full_document["price"], float)
        with orders.watch(snapshot=True, where={"full_document.data.price": {"$gte": price}}) as stream:
            events = take(stream)
            assert is_exact(events[0].full_document["price"])
        for document in (
            orders.get("a"),
            orders.find_one({"price": 9.9}),
            orders.update_one({"price": price}, {"$set": {"x": 1}}),
            *[document for document in orders.find()],
            orders.delete_one({}),
        ):
            assert document is not None
            assert is_exact(document["price"])
        with store.transaction() as tx:
            assert is_exact((tx["orders"].insert("b", {"price": price}))["price"])
        (found,) = orders.distinct("price")
        assert is_exact(found)
        assert isinstance((usual["orders"].distinct("price"))[0], float)


def test_the_filter_of_a_stream_compares_as_the_server_does(
    own_schema: dict[str, Any], sql: psycopg.Connection
) -> None:
    exact = "0.10000000000000000001"
    with Store(**own_schema) as store:
        orders = store["orders"]
        above = {"full_document.data.n": {"$gt": Decimal("0.1")}}
        same = {"full_document.data.n": {"$in": [Decimal(exact), "x"]}}
        with orders.watch(where=above) as larger, orders.watch(where=same) as equal:
            for number in "0.1", "0.10", exact, "0.2":
                sql.execute(
                    "INSERT INTO orders (id, data) VALUES (%s, jsonb_build_object('n', %s::numeric))", [number, number]
                )
            assert [event.document_id for event in take(larger, 2)] == [exact, "0.2"]
            assert [event.document_id for event in take(equal)] == [exact]
        assert sorted([document.id for document in orders.find({"n": {"$gt": Decimal("0.1")}})]) == [exact, "0.2"]
        with orders.watch(where=above, snapshot=True) as stream:
            assert sorted(str(event.document_id) for event in take(stream, 2)) == [exact, "0.2"]


def test_the_times_of_an_event_compare_with_datetimes(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store["orders"]
        before = datetime.now(timezone(timedelta(hours=5))) - HOUR
        after = before + 2 * HOUR
        between = {"$gt": before, "$lt": after}
        passing = {
            "timestamp": between,
            "$or": [{"full_document.created_at": between}, {"timestamp": {"$in": [before]}}],
            "full_document.data.at": {"$gt": NOON - HOUR, "$lte": SAME_NOON},
        }
        never = {"$or": [{"timestamp": {"$gte": after}}, {"full_document.updated_at": {"$not": between}}]}
        with orders.watch(where=passing) as all_events, orders.watch(where=never) as none:
            start = all_events.resume_token
            first = orders.insert("a", {"at": NOON})
            (event,) = take(all_events)
            assert none.try_next() is None
        exactly = {"timestamp": event.timestamp, "full_document.created_at": first.created_at}
        with store.watch("orders", where=exactly, resume_after=start) as again:
            assert [each.document_id for each in take(again)] == ["a"]
        by_writer = {"metadata.at": {"$gte": SAME_NOON}, "metadata.by": NUMBER}
        with orders.watch(where=by_writer) as written:
            with pgdoc.metadata(at=NOON, by=NUMBER):
                orders.insert("b", {})
            assert (take(written))[0].metadata == {"at": STORED, "by": str(NUMBER)}
        with pytest.raises(InvalidFilter, match="no time zone"):
            orders.watch(where={"timestamp": {"$gt": NOON.replace(tzinfo=None)}})
