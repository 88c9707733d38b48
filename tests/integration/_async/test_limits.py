"""The limit on the JSON text of documents holds for every writer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgdoc
from pgdoc import AsyncCollection, AsyncStore
from pgdoc._async.brief_locks import try_briefly
from pgdoc._async.limits import AsyncLimits
from pgdoc.errors import (
    BulkError,
    CollectionNotFound,
    DatabaseError,
    DocumentTooLarge,
    InvalidInput,
    SchemaViolation,
)
from pgdoc.runtime.primitives import async_sleep
from tests.background import AsyncBackground

if TYPE_CHECKING:
    from pgdoc._async.bulk_collection import AsyncBulkCollection

MOST = 1_000
FITS: dict[str, Any] = {"n": 1, "text": "x" * (MOST - 20)}  # as PostgreSQL prints it: {"n": 1, "text": "..."}
TOO_LARGE: dict[str, Any] = {"n": 1, "text": "x" * (MOST - 19)}
DENSE: dict[str, Any] = {"n": 1, "list": [1] * 400}  # over the limit only as PostgreSQL prints it, with spaces

Write = Callable[[AsyncCollection], Any]
BulkWrite = Callable[["AsyncBulkCollection"], Any]
WRITES: dict[str, Write] = {
    "insert": lambda c: c.insert("new", TOO_LARGE),
    "insert of what has few bytes when it is sent": lambda c: c.insert("new", DENSE),
    "insert_many": lambda c: c.insert_many([("new", {}), ("large", TOO_LARGE)]),
    "insert_many of what has few bytes when it is sent": lambda c: c.insert_many([("new", DENSE)]),
    "replace": lambda c: c.replace("o-1", TOO_LARGE),
    "replace, upsert": lambda c: c.replace("new", TOO_LARGE, upsert=True),
    "update": lambda c: c.update("o-1", {"$set": {"more": "x" * MOST}}),
    "update, upsert": lambda c: c.update("new", {"$set": {"more": "x" * MOST}}, upsert=True),
    "update_one": lambda c: c.update_one({"n": 1}, {"$set": {"more": "x" * MOST}}),
    "update_many": lambda c: c.update_many({}, {"$set": {"more": "x" * MOST}}),
    "a product": lambda c: c.update_many({}, {"$mul": {"n": 10**1001}}),
}


async def limited(store: AsyncStore) -> AsyncCollection:
    collection = await store.create_collection("orders", max_size=MOST)
    await collection.insert("o-1", {"n": 1})
    await collection.insert("o-2", FITS)
    return collection


async def state(store: AsyncStore) -> dict[str, Any]:
    return {document.id: document.data async for document in store["orders"].find()}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_every_write_is_refused_beyond_the_limit(shared_dsn: str, schema: str, write: Write) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await limited(store)
        with pytest.raises(DocumentTooLarge):
            await write(collection)
        assert await state(store) == {"o-1": {"n": 1}, "o-2": FITS}
    async with AsyncStore(shared_dsn, schema=schema) as store:  # one that does not know the limit
        with pytest.raises(DocumentTooLarge):
            await write(store["orders"])
        assert await state(store) == {"o-1": {"n": 1}, "o-2": FITS}


@pytest.mark.parametrize(
    "write",
    [
        lambda b: b.insert("new", TOO_LARGE),
        lambda b: b.insert("new", DENSE),
        lambda b: b.replace("o-1", TOO_LARGE),
        lambda b: b.update("o-1", {"$set": {"more": "x" * MOST}}),
    ],
)
async def test_a_bulk_is_refused_beyond_the_limit(shared_dsn: str, schema: str, write: BulkWrite) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await limited(store)
        with pytest.raises((DocumentTooLarge, BulkError)) as caught:
            await in_bulk(store, write)
        assert isinstance(caught.value, DocumentTooLarge) or isinstance(caught.value.__cause__, DocumentTooLarge)
        assert await state(store) == {"o-1": {"n": 1}, "o-2": FITS}


async def in_bulk(store: AsyncStore, write: BulkWrite) -> None:
    async with store.bulk() as bulk:
        await bulk["orders"].insert("another", {})
        await write(bulk["orders"])


async def test_the_error_has_what_is_known(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await limited(store)
        with pytest.raises(DocumentTooLarge, match="document 'new' of collection") as caught:
            await collection.insert("new", {"text": "x" * 2000})
        assert (caught.value.document_id, caught.value.size, caught.value.max_size) == ("new", 2011, MOST)
        with pytest.raises(DocumentTooLarge, match="document 'o-1' of collection") as caught:
            await collection.update("o-1", {"$set": {"more": "x" * MOST}})
        assert (caught.value.document_id, caught.value.size, caught.value.max_size) == ("o-1", None, None)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders (id, data) VALUES ('new', jsonb_build_object('text', repeat('x', 2000)))",
        "INSERT INTO orders (id, data) VALUES ('new', '{\"n\": 1e1001}')",
        "INSERT INTO orders (id, data) VALUES ('new', '{\"n\": 1e-1001}')",
        "INSERT INTO orders (id, data) VALUES ('new', jsonb_build_object('text', repeat(chr(1), 200)))",
        "UPDATE orders SET data = data || '{\"n\": 1e1001}'",
        "INSERT INTO orders (id, data) SELECT 'new', data FROM large",
    ],
)
async def test_sql_is_refused_beyond_the_limit(
    shared_dsn: str, schema: str, sql: psycopg.Connection, statement: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await limited(store)
        large = await store.create_collection("large", max_size=None)
        await large.insert("large", {"text": "x" * 100_000})  # stored in compressed form, it has 1.2 kB
        with pytest.raises(psycopg.errors.CheckViolation, match="pgdoc_size"):
            sql.execute(statement.encode())
        assert await state(store) == {"o-1": {"n": 1}, "o-2": FITS}


@pytest.mark.parametrize("max_size", [1_000, 100_000, 1_000_000])
async def test_small_documents_of_long_numbers_are_measured_as_they_are_printed(
    shared_dsn: str, schema: str, sql: psycopg.Connection, max_size: int
) -> None:
    """In jsonb, a number of 131,072 digits takes 16 bytes."""
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store.create_collection("orders", max_size=max_size)
        for number in ("1e131071", "1e-16383", "0e-16383"):
            for count in (1, 7, 70):
                data = f'{{"n": [{", ".join([number] * count)}]}}'
                ((size,),) = sql.execute("SELECT octet_length(%s::jsonb::text)", [data]).fetchall()
                insert = ("INSERT INTO orders (id, data) VALUES (%s, %s)", [f"{number} {count}", data])
                if size > max_size:
                    with pytest.raises(psycopg.errors.CheckViolation, match="pgdoc_size"):
                        sql.execute(*insert)
                else:
                    sql.execute(*insert)


async def test_a_new_collection_has_a_limit_of_64_mib(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["implicit"].insert("o-1", {})
        await store.create_collection("explicit")
        async with store["watched"].watch():
            pass
        sql.execute("SELECT pgdoc.create_collection(%s, 'in_sql')", [schema])
        for name in await store.collections():
            ((found,),) = sql.execute("SELECT pgdoc.max_size(%s::regclass)", [name]).fetchall()
            assert (name, found) == (name, 64 << 20)


async def test_a_registered_table_has_no_limit_until_it_is_set(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await limited(store)
        sql.execute("CREATE TABLE plain (LIKE orders INCLUDING DEFAULTS INCLUDING INDEXES)")
        sql.execute("INSERT INTO plain (id, data) VALUES ('large', jsonb_build_object('text', repeat('x', 2000)))")
        sql.execute("SELECT pgdoc.register('plain')")
        plain = store["plain"]
        changed = await plain.update("large", {"$set": {"more": "x" * 2000}})
        assert changed is not None
        with pytest.raises(DocumentTooLarge, match=r"'large' of collection .* has 4,0.. bytes") as caught:
            await plain.set_limits(max_size=MOST)
        assert caught.value.document_id == "large"
        assert await plain.update("large", {"$set": {"still": 1}})
        await plain.replace("large", {"text": "x"})
        await plain.set_limits(max_size=MOST)
        with pytest.raises(DocumentTooLarge):
            await plain.replace("large", TOO_LARGE)


async def test_a_limit_can_be_raised_lowered_and_removed(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await limited(store)
        with pytest.raises(DocumentTooLarge):
            await collection.insert("new", TOO_LARGE)
        await collection.set_limits(max_size=2 * MOST)
        await collection.insert("new", TOO_LARGE)
        with pytest.raises(DocumentTooLarge, match="'new'"):
            await collection.set_limits(max_size=MOST)
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]
        async with store.transaction() as tx:
            await tx["orders"].delete("new")
            await tx["orders"].set_limits(max_size=MOST)
        assert limits(sql) == [("pgdoc_size", MOST)]
        await collection.set_limits(max_size=None)
        assert limits(sql) == []
        await collection.insert("large", {"text": "x" * 100_000})


def limits(sql: psycopg.Connection) -> list[Any]:
    return sql.execute(
        "SELECT conname, pgdoc.max_size('orders') FROM pg_constraint "
        "WHERE conrelid = 'orders'::regclass AND conname ~ 'size'"
    ).fetchall()


async def test_a_limit_that_another_process_has_raised_does_not_refuse_a_document(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as one, AsyncStore(shared_dsn, schema=schema) as other:
        collection = await limited(one)
        await other["orders"].set_limits(max_size=None)
        await collection.insert("new", TOO_LARGE)


async def test_what_was_left_of_a_limit_that_was_not_finished_is_replaced(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await limited(store)
        sql.execute("SELECT pgdoc.set_max_size('orders', 10, false)")  # its process was killed after this step
        assert limits(sql) == [("pgdoc_size", MOST), ("pgdoc_size_new", MOST)]
        with pytest.raises(DocumentTooLarge):
            await collection.insert("new", {"n": 1, "k": 2})
        await collection.set_limits(max_size=2 * MOST)
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]
        await collection.insert("new", TOO_LARGE)


async def test_readers_and_writers_go_on_while_documents_are_looked_at(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await limited(store)
        with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as other:
            sql.execute("SELECT pgdoc.set_max_size('orders', 5000, false)")
            other.execute("ALTER TABLE orders VALIDATE CONSTRAINT pgdoc_size_new")  # keeps its lock
            await store["orders"].insert("new", {"n": 2})
            assert await store["orders"].count() == 3


async def test_limits_that_are_set_again_need_no_lock(shared_dsn: str, schema: str) -> None:
    rules = {"required": ["n"], "properties": {"it's\\": {"type": "string", "maxLength": 9}}}
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await limited(store)
        with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as reader:
            for limits_ in ({"json_schema": rules}, {"json_schema": {"properties": {"n": {"pattern": "x"}}}}):
                await collection.set_limits(max_size=2 * MOST, **limits_)
                reader.execute("SELECT FROM orders")
                await collection.set_limits(max_size=2 * MOST, **limits_)
                reader.rollback()
            await collection.set_limits(max_size=None, json_schema=None)
            reader.execute("SELECT FROM orders")
            await collection.set_limits(max_size=None, json_schema=None)


async def test_others_are_held_up_for_moments_while_a_limit_waits_for_a_long_transaction(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, AsyncStore(patient(shared_dsn), schema=schema) as other:
        collection = await limited(store)
        for limits_ in ({"json_schema": {"required": ["n"]}}, {"max_size": 2 * MOST}):
            with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as reader:
                reader.execute("SELECT FROM orders")
                async with AsyncBackground(partial(collection.set_limits, **limits_)):
                    await wait_for_exclusive(sql)
                    assert await other["orders"].count() == 2
                    reader.rollback()
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]
        with pytest.raises(SchemaViolation):
            await collection.insert("new", {})


async def test_a_limit_that_fails_is_taken_back_without_holding_up_others(
    shared_dsn: str, schema: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as holder:
        before(monkeypatch, "validate", lambda: holder.execute("LOCK orders IN SHARE UPDATE EXCLUSIVE MODE"))
        async with (
            AsyncStore(shared_dsn, schema=schema) as one,
            AsyncStore(patient(shared_dsn), schema=schema) as other,
        ):
            collection = await limited(one)

            async def fail() -> None:
                with pytest.raises(DatabaseError, match="user request"):
                    await collection.set_limits(max_size=2 * MOST)

            async with AsyncBackground(fail):
                while not sql.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                    "WHERE query ~ '^ALTER TABLE .* VALIDATE' AND wait_event_type = 'Lock' "
                    "AND datname = current_database()"
                ).fetchall():
                    await async_sleep(0.05)
                await wait_for_exclusive(sql)
                assert await other["orders"].count() == 2
                holder.rollback()
    assert limits(sql) == [("pgdoc_size", MOST)]


async def test_a_limit_that_a_long_transaction_keeps_from_its_end_says_what_holds_now(
    shared_dsn: str, schema: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert try_briefly.__kwdefaults__ is not None
    monkeypatch.setitem(try_briefly.__kwdefaults__, "tries", 1)
    async with AsyncStore(shared_dsn, schema=schema) as store:
        collection = await limited(store)
        with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as reader:
            before(monkeypatch, "validate", lambda: reader.execute("SELECT FROM orders"))
            with pytest.raises(DatabaseError, match=r"holds for writes.*call set_limits again"):
                await collection.set_limits(max_size=2 * MOST)
            assert limits(sql) == [("pgdoc_size", MOST), ("pgdoc_size_new", MOST)]
            reader.rollback()
            monkeypatch.undo()
            await collection.set_limits(max_size=2 * MOST)
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]


def patient(dsn: str) -> str:
    return make_conninfo(dsn, options="-c statement_timeout=6s")


async def wait_for_exclusive(sql: psycopg.Connection) -> None:
    """Wait until another session waits for the exclusive lock of the collection."""
    while not sql.execute(
        "SELECT FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted"
    ).fetchall():
        await async_sleep(0.02)


def before(monkeypatch: pytest.MonkeyPatch, name: str, do: Callable[[], object]) -> None:
    """Do something just before one of the statements of a limit is sent."""
    sql = AsyncLimits._sql

    def call(self: AsyncLimits, wanted: str) -> bytes:
        if wanted == name:
            do()
        return sql(self, wanted)

    monkeypatch.setattr(AsyncLimits, "_sql", call)


@pytest.mark.parametrize("max_size", [0, -1, 10**9 + 1, 1.5, "64MiB", True])
async def test_a_limit_is_a_number_of_bytes(shared_dsn: str, schema: str, max_size: Any) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        with pytest.raises(InvalidInput, match="max_size must be a number of bytes"):
            await store.create_collection("orders", max_size=max_size)
        with pytest.raises(InvalidInput, match="max_size must be a number of bytes"):
            await store["orders"].set_limits(max_size=max_size)
        with pytest.raises(CollectionNotFound):
            await store["orders"].set_limits(max_size=1000)


async def test_metadata_comes_with_a_collection_that_has_a_limit(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        with pgdoc.metadata(user="ann"):
            await store.create_collection("orders", max_size=MOST)
            await store["others"].insert("o-1", {})
        with pytest.raises(DocumentTooLarge):
            await store["orders"].insert("o-1", TOO_LARGE)


async def test_the_limit_is_known_under_every_setting(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await limited(store)
    dsn = make_conninfo(shared_dsn, options="-c quote_all_identifiers=on")
    async with AsyncStore(dsn, schema=schema) as store:
        with pytest.raises(DocumentTooLarge) as caught:
            await store["orders"].insert("new", {"text": "x" * 100_000})
        assert caught.value.max_size == MOST
