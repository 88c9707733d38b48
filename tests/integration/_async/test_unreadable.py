"""A row that can't be read stops nobody: every reader delivers it as such, and the others as they are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from pgdoc import AsyncStore, Document, EventType
from pgdoc.errors import InvalidUpdate, UnreadableDocument
from tests.integration._async.streams import take

if TYPE_CHECKING:
    import psycopg

    from pgdoc import AsyncCollection

BAD = "m"
OTHERS = ("a", "z")

# What SQL can store, by kind: the data, created_at, updated_at, and the field that can't be read.
ROWS = {
    "digits": ("jsonb_build_object('n', 1e4300)", "now()", "now()", "data"),
    "depth": ("('{\"n\": ' || repeat('[', 3000) || repeat(']', 3000) || '}')::jsonb", "now()", "now()", "data"),
    "infinity": ("'{\"n\": 5}'::jsonb", "'infinity'", "now()", "created_at"),
    "-infinity": ("'{\"n\": 5}'::jsonb", "now()", "'-infinity'", "updated_at"),
    "BC": ("'{\"n\": 5}'::jsonb", "'4713-01-01 BC'", "now()", "created_at"),
    "year 294276": ("'{\"n\": 5}'::jsonb", "now()", "'294276-12-31'", "updated_at"),
}


class UndoneError(Exception):
    """Rolls back a transaction."""


async def get(c: AsyncCollection) -> list[Document]:
    return [d for i in ("a", BAD, "z") if (d := await c.get(i)) is not None]


async def find(c: AsyncCollection) -> list[Document]:
    return [d async for d in c.find()]


async def find_few(c: AsyncCollection) -> list[Document]:
    return [d async for d in c.find({"_id": {"$in": ["a", BAD, "z"]}}, limit=50)]


async def find_sorted(c: AsyncCollection) -> list[Document]:
    return [d async for d in c.find(sort="n")]


async def find_fields(c: AsyncCollection) -> list[Document]:
    return [d async for d in c.find(fields=["n", "k"])]


async def find_one(c: AsyncCollection) -> list[Document]:
    return [d for i in ("a", BAD, "z") if (d := await c.find_one({"_id": i})) is not None]


async def update_without_a_change(c: AsyncCollection) -> list[Document]:
    return [d for i in ("a", BAD, "z") if (d := await c.update(i, {"$set": {"k": 1}})) is not None]


async def update_one(c: AsyncCollection) -> list[Document]:
    return [d for i in ("a", BAD, "z") if (d := await c.update_one({"_id": i}, {"$set": {"x": 2}})) is not None]


async def delete_one(c: AsyncCollection) -> list[Document]:
    return [d for i in ("a", BAD, "z") if (d := await c.delete_one({"_id": i})) is not None]


READERS = {
    each.__name__: each
    for each in (
        get,
        find,
        find_few,
        find_sorted,
        find_fields,
        find_one,
        update_without_a_change,
        update_one,
        delete_one,
    )
}


async def filled(store: AsyncStore, sql: psycopg.Connection, kind: str) -> AsyncCollection:
    collection = store["orders"]
    for document_id in OTHERS:
        await collection.insert(document_id, {"n": 7, "k": 1})
    insert_unreadable(sql, kind)
    return collection


def insert_unreadable(sql: psycopg.Connection, kind: str) -> None:
    data, created_at, updated_at, _ = ROWS[kind]
    sql.execute("SET session_replication_role = replica")  # without the trigger that refuses odd times
    sql.execute(
        "INSERT INTO orders (id, data, created_at, updated_at) "
        f"VALUES ('{BAD}', {data} || '{{\"k\": 1}}', {created_at}, {updated_at})".encode()
    )
    sql.execute("RESET session_replication_role")


def check(documents: list[Document], kind: str, *, writes: bool = False) -> None:
    """All documents are there; only the field that can't be read raises, and names its document."""
    assert sorted(document.id for document in documents) == ["a", BAD, "z"]
    for document in documents:
        field = ROWS[kind][3]
        if document.id != BAD or (writes and field == "updated_at"):  # a write sets it
            assert document.data["k"] == 1
            assert document.created_at <= document.updated_at
            continue
        for _ in range(2):
            with pytest.raises(UnreadableDocument, match="document 'm' of collection \"orders\"") as caught:
                getattr(document, field)
            assert (caught.value.collection, caught.value.document_id) == ("orders", BAD)
        assert document.version >= 1
        for other in {"data", "created_at", "updated_at"} - {field}:
            getattr(document, other)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("reader", READERS)
async def test_every_reader_returns_every_document(
    shared_dsn: str, schema: str, sql: psycopg.Connection, kind: str, reader: str
) -> None:
    writes = reader == "update_one"
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await filled(store, sql, kind)
        with contextlib.suppress(UndoneError):
            async with store.transaction() as tx:  # an error of the server would abort it
                check(await READERS[reader](tx["orders"]), kind, writes=writes)
                assert await tx["orders"].count() == (0 if reader == "delete_one" else 3)
                raise UndoneError
        check(await READERS[reader](collection), kind, writes=writes)


@pytest.mark.parametrize("kind", ROWS)
async def test_a_stream_and_its_snapshot_deliver_every_document(
    shared_dsn: str, schema: str, sql: psycopg.Connection, kind: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await filled(store, sql, kind)
        async with store["orders"].watch(snapshot=True, where={"full_document.data.k": 1}) as stream:
            events = await take(stream, 3)
            check([event.full_document for event in events if event.full_document], kind)
            assert {event.event_type for event in events} == {EventType.SNAPSHOT}
            sql.execute("DELETE FROM orders")
            insert_unreadable(sql, kind)
            (inserted,) = await take(stream)  # of the deleted ones there is no full document
            assert (inserted.document_id, inserted.collection) == (BAD, "orders")
            assert inserted.timestamp
            with pytest.raises(UnreadableDocument) as caught:
                inserted.to_dict()
            assert (caught.value.collection, caught.value.document_id) == ("orders", BAD)
            await store["orders"].insert("next", {"k": 1})
            assert [event.document_id for event in await take(stream)] == ["next"]


@pytest.mark.parametrize(("document_id", "data"), [(BAD, "'{\"k\": 1}'"), (BAD, "NULL"), ("0", "NULL")])
async def test_a_snapshot_goes_on_after_a_row_of_nulls(
    shared_dsn: str, schema: str, sql: psycopg.Connection, document_id: str, data: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        for other in OTHERS:
            await store["orders"].insert(other, {"k": 1})
        sql.execute("SET session_replication_role = replica")  # without the triggers that refuse this
        for column in ("data", "version", "created_at", "updated_at"):
            sql.execute(f"ALTER TABLE orders ALTER {column} DROP NOT NULL".encode())
        columns = "(id, data, version, created_at, updated_at)"
        sql.execute(f"INSERT INTO orders {columns} VALUES ('{document_id}', {data}, NULL, NULL, NULL)".encode())
        sql.execute("RESET session_replication_role")
        async with store["orders"].watch(snapshot=True) as stream:
            events = await take(stream, 3)
    documents = {event.document_id: event.full_document for event in events if event.full_document}
    assert set(documents) == {document_id, *OTHERS}
    for field in ("created_at", "updated_at", *(["data"] if data == "NULL" else [])):
        with pytest.raises(UnreadableDocument):
            getattr(documents[document_id], field)
    assert [documents[other].data for other in OTHERS] == [{"k": 1}] * 2


async def test_an_update_that_does_not_fit_an_unreadable_document_is_refused(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await filled(store, sql, "digits")
        for call in (
            lambda: collection.update(BAD, {"$push": {"k": 1}}),
            lambda: collection.update_many({"_id": BAD}, {"$push": {"k": 1}}),
            lambda: collection.update_one({"_id": BAD}, {"$push": {"k": 1}}),
        ):
            with pytest.raises(InvalidUpdate, match="the update does not fit"):
                await call()


async def test_a_document_that_is_nested_too_deep_is_filtered_and_projected(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await filled(store, sql, "depth")
        for fields in (
            ["n.a", "k"],
            ["-n.a"],
            {"n": {"$slice": 1}, "k": 0},
            {"n": {"$elemMatch": {"$ne": 1}}},
            {"x": "$n.a", "y": {"$first": "$n"}, "z": {"$size": "$n"}},
            {"n.$": 1},
        ):
            wanted = {"$or": [{"n.a": {"$ne": 1}}, {"n": 5}]}
            assert sorted([d.id async for d in collection.find(wanted, fields=fields)]) == ["a", BAD, "z"]


async def test_distinct_values_that_python_can_not_hold_are_a_typed_error(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await filled(store, sql, "digits")
        with pytest.raises(UnreadableDocument, match=rf"'n' of collection \"{schema}.orders\"") as caught:
            await collection.distinct("n")
        assert caught.value.collection == "orders"
        assert await collection.distinct("k") == [1]


async def test_a_document_that_the_server_can_not_print_stops_nobody(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    """A row of a few kB whose text has more than 1 GB; other values print less before they fail."""
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await store.create_collection("orders", max_size=None)
        for document_id in OTHERS:
            await collection.insert(document_id, {"n": 7, "k": 1})
        numbers = "SELECT jsonb_agg(1e131071::numeric) FROM generate_series(1, 8200)"
        sql.execute(f"INSERT INTO orders VALUES ('{BAD}', jsonb_build_object('k', 1, 'n', ({numbers})))".encode())
        check(await find(collection), "digits")  # fails once, and is repeated
        async with store.transaction() as tx:
            check([d async for d in tx["orders"].find({"k": 1})], "digits")
            assert await tx["orders"].count() == 3
        async with store["orders"].watch(snapshot=True) as stream:
            events = await take(stream, 3)
        check([event.full_document for event in events if event.full_document], "digits")
    async with AsyncStore(shared_dsn, schema=schema) as store:  # without a stream, which would print it
        changed = await store["orders"].update(BAD, {"$unset": {"n": 1}})
        assert changed is not None
        assert changed.data == {"k": 1}
