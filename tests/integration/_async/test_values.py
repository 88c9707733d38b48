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
from pgdoc import AsyncStore
from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidInput, InvalidUpdate
from tests.integration._async.streams import PATIENCE_S, take

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


async def test_whole_documents_are_objects_of_any_class_with_fields(
    own_schema: dict[str, Any], sql: psycopg.Connection
) -> None:
    order = Order(at=SAME_NOON, state=State.NEW, lines=[Line("a", Decimal("9.90"))])
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        inserted = await orders.insert("a", order)
        await orders.insert_many([("b", order), ("c", {"at": NOON})])
        async with store.bulk() as bulk:
            await bulk["orders"].insert("d", order)
            await bulk["orders"].replace("c", order)
        async with store.transaction() as tx:
            await tx["orders"].replace("e", order, upsert=True)
        assert inserted.data == {"at": STORED, "state": "new", "lines": [{"sku": "a", "price": 9.9}]}
        assert [document.data async for document in orders.find()] == [inserted.data] * 5
    prices = sql.execute("SELECT DISTINCT data #>> '{lines,0,price}' FROM orders").fetchall()
    assert prices == [("9.90",)]


async def test_updates_and_filters_take_values_as_documents_do(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert(
            "a", {"at": NOON - HOUR, "seen": [NOON], "by": NUMBER, "took": HOUR, "day": date(2026, 7, 1)}
        )
        changed = await orders.update(
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
            assert await orders.count(wanted) == 1, wanted
        assert await orders.count({"at": {"$gt": NOON}}) == 0
        pulled = await orders.update("a", {"$pull": {"seen": {"$lte": NOON}, "lines": Line("a", Decimal("0.1"))}})
        assert pulled is not None
        assert (pulled.data["seen"], pulled.data["lines"]) == (["2026-07-01T13:00:00.000000Z"], [])


async def test_the_server_stores_the_digits_of_a_decimal(own_schema: dict[str, Any], sql: psycopg.Connection) -> None:
    price = Decimal("0.12345678901234567890")
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert("insert", {"price": price})
        await orders.insert_many([("insert_many", {"price": price})])
        await orders.update("insert", {"$set": {"price": price}})
        await orders.update("upsert", {"$set": {"price": price}}, upsert=True)
        await orders.update("add", {"$inc": {"price": price}}, upsert=True)
        await orders.update("few", {"$inc": {"fee": Decimal("9.90")}}, upsert=True)
        await orders.update("least", {"$min": {"price": price}}, upsert=True)
        async with store.bulk() as bulk:
            await bulk["orders"].update("bulk", {"$setOnInsert": {"price": price}}, upsert=True)
    prices = sql.execute("SELECT DISTINCT coalesce(data ->> 'price', data ->> 'fee') FROM orders ORDER BY 1").fetchall()
    assert prices == [("0.12345678901234567890",), ("9.90",)]


async def test_the_error_of_an_update_compares_all_digits(own_schema: dict[str, Any]) -> None:
    number = Decimal("1.12345678901234567890")
    async with AsyncStore(**own_schema) as store:
        docs = store["docs"]
        await docs.insert("a", {"items": [{"n": number, "text": "x"}]})
        with pytest.raises(InvalidUpdate, match="the value is 'x', not a number"):
            await docs.update_one({"items.n": number}, {"$inc": {"items.$.text": 1}})


async def test_sorts_pages_and_indexes_follow_the_order_of_times(own_schema: dict[str, Any]) -> None:
    moments = [NOON + HOUR * number for number in range(-30, 30)]
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        await orders.insert_many([(f"{moment:%d-%H}", {"at": moment}) for moment in reversed(moments)])
        await orders.create_index("at", where={"at": {"$gt": NOON}}, name="late")
        await orders.create_index("at")
        found = [document async for document in orders.find({"at": {"$gt": NOON}}, sort="at", limit=3)]
        assert [datetime.fromisoformat(document["at"]) for document in found] == moments[31:34]
        rest = [document async for document in orders.find(sort="at", after=[moments[33], found[-1].id])]
        assert [datetime.fromisoformat(document["at"]) for document in rest] == moments[34:]
        with pytest.raises(InvalidInput, match="no time zone"):
            orders.find(sort="at", after=[NOON.replace(tzinfo=None), "x"])


async def test_a_value_that_is_refused_names_its_path(own_schema: dict[str, Any]) -> None:
    naive = NOON.replace(tzinfo=None)
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        with pytest.raises(InvalidDocument, match=r"at 'at': .*has no time zone"):
            await orders.insert("a", {"at": naive})
        with pytest.raises(InvalidDocument, match=r"document 'a': at 'at\.0': .*give the store an encoder"):
            await orders.insert_many([("a", {"at": [b"x"]})])
        with pytest.raises(InvalidUpdate, match=r"\$max has a path or value .*has no time zone") as update:
            await orders.update("a", {"$max": {"at": naive}})
        with pytest.raises(InvalidFilter, match=r"\$gt has a value .*has no time zone") as filter_:
            await orders.count({"at": {"$gt": naive}})
        assert (update.value.path, filter_.value.path) == ("at", "at")


@pytest.mark.parametrize("arguments", [{"encoder": 5}, {"decimals": 1}, {"decimals": None}])
def test_a_store_checks_its_options_for_values(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AsyncStore(**arguments)


async def test_the_encoder_of_a_store_is_used_in_every_call(own_schema: dict[str, Any]) -> None:
    at = int(NOON.timestamp() * 1000)
    async with AsyncStore(**own_schema, encoder=millis) as store:
        orders = store["orders"]
        async with orders.watch(where={"full_document.data.at": {"$gte": NOON}, "timestamp": {"$gt": NOON}}) as stream:
            assert (await orders.insert("a", {"at": NOON, "raw": b"\1"})).data == {"at": at, "raw": "01"}
            await orders.insert_many([("b", {"at": NOON})])
            async with store.bulk() as bulk:
                await bulk["orders"].insert("c", {"at": NOON})
                await bulk["orders"].update("c", {"$set": {"x": NOON}})
                await bulk["orders"].update_many({"at": {"$lt": NOON}}, {"$set": {"at": 0}})
            async with store.transaction() as tx:
                await tx["orders"].replace("d", {"at": NOON}, upsert=True)
                assert await tx["orders"].count({"at": NOON}) == 4
            assert [event.document_id for event in await take(stream, 5)] == ["a", "b", "c", "c", "d"]
        await orders.create_index("at", where={"at": {"$gte": NOON}})
        assert (await orders.indexes())[0].where == {"at": {"$gte": at}}
        changed = await orders.update_one({"at": NOON}, {"$set": {"seen": NOON}}, sort="_id")
        assert changed is not None
        assert changed.data["seen"] == at
        assert await orders.distinct("at", {"at": NOON}) == [at]
        assert [document.id async for document in orders.find(sort="at", after=[NOON, "b"])] == ["c", "d"]
        assert await orders.find_one({"raw": b"\1", "at": NOON}) is not None
        assert await orders.update_many({"at": NOON}, {"$max": {"at": NOON + HOUR}}) == 4
        assert await orders.delete_one({"at": NOON + HOUR}) is not None
        assert await orders.delete_many({"at": NOON + HOUR}) == 3


async def test_a_store_with_decimals_reads_the_digits_that_are_stored(own_schema: dict[str, Any]) -> None:
    price = Decimal("9.90")

    def is_exact(value: Any, digits: str = "9.90") -> bool:
        return isinstance(value, Decimal) and str(value) == digits

    async with AsyncStore(**own_schema, decimals=True) as store, AsyncStore(**own_schema) as usual:
        orders = store["orders"]
        async with orders.watch() as stream, usual["orders"].watch() as floats:
            assert is_exact((await orders.insert("a", {"price": price, "n": 1, "big": 10**30}))["price"])
            changed = await orders.update("a", {"$inc": {"price": Decimal("0.10")}})
            unchanged = await orders.update("a", {"$set": {"n": 1}})
            replaced = await orders.replace("a", {"price": price, "text": "1.50"})
            for document, digits in (changed, "10.00"), (unchanged, "10.00"), (replaced, "9.90"):
                assert document is not None
                assert is_exact(document["price"], digits)
            events: Any = await take(stream, 3)
            insert, update, replace = events
            assert is_exact(insert.full_document["price"])
            assert insert.full_document["n"] == 1
            assert is_exact(update.full_document_before_change["price"])
            assert is_exact(update.update_description.updated_fields["price"], "10.00")
            assert is_exact(replace.full_document["price"])
            assert b'"price":9.90' in replace.to_json()
            await orders.update("a", {"$set": {"n": 2}})
            events = await stream.next_batch(timeout=PATIENCE_S)
            assert is_exact(events[0].full_document["price"])
            events = await take(floats)
            assert isinstance(events[0].full_document["price"], float)
        async with orders.watch(snapshot=True, where={"full_document.data.price": {"$gte": price}}) as stream:
            events = await take(stream)
            assert is_exact(events[0].full_document["price"])
        for document in (
            await orders.get("a"),
            await orders.find_one({"price": 9.9}),
            await orders.update_one({"price": price}, {"$set": {"x": 1}}),
            *[document async for document in orders.find()],
            await orders.delete_one({}),
        ):
            assert document is not None
            assert is_exact(document["price"])
        async with store.transaction() as tx:
            assert is_exact((await tx["orders"].insert("b", {"price": price}))["price"])
        (found,) = await orders.distinct("price")
        assert is_exact(found)
        assert isinstance((await usual["orders"].distinct("price"))[0], float)


async def test_the_filter_of_a_stream_compares_as_the_server_does(
    own_schema: dict[str, Any], sql: psycopg.Connection
) -> None:
    exact = "0.10000000000000000001"
    async with AsyncStore(**own_schema) as store:
        orders = store["orders"]
        above = {"full_document.data.n": {"$gt": Decimal("0.1")}}
        same = {"full_document.data.n": {"$in": [Decimal(exact), "x"]}}
        async with orders.watch(where=above) as larger, orders.watch(where=same) as equal:
            for number in "0.1", "0.10", exact, "0.2":
                sql.execute(
                    "INSERT INTO orders (id, data) VALUES (%s, jsonb_build_object('n', %s::numeric))", [number, number]
                )
            assert [event.document_id for event in await take(larger, 2)] == [exact, "0.2"]
            assert [event.document_id for event in await take(equal)] == [exact]
        assert sorted([document.id async for document in orders.find({"n": {"$gt": Decimal("0.1")}})]) == [exact, "0.2"]
        async with orders.watch(where=above, snapshot=True) as stream:
            assert sorted(str(event.document_id) for event in await take(stream, 2)) == [exact, "0.2"]


async def test_the_times_of_an_event_compare_with_datetimes(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
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
        async with orders.watch(where=passing) as all_events, orders.watch(where=never) as none:
            start = all_events.resume_token
            first = await orders.insert("a", {"at": NOON})
            (event,) = await take(all_events)
            assert await none.try_next() is None
        exactly = {"timestamp": event.timestamp, "full_document.created_at": first.created_at}
        async with store.watch("orders", where=exactly, resume_after=start) as again:
            assert [each.document_id for each in await take(again)] == ["a"]
        by_writer = {"metadata.at": {"$gte": SAME_NOON}, "metadata.by": NUMBER}
        async with orders.watch(where=by_writer) as written:
            with pgdoc.metadata(at=NOON, by=NUMBER):
                await orders.insert("b", {})
            assert (await take(written))[0].metadata == {"at": STORED, "by": str(NUMBER)}
        with pytest.raises(InvalidFilter, match="no time zone"):
            orders.watch(where={"timestamp": {"$gt": NOON.replace(tzinfo=None)}})
