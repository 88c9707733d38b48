# Written by .ci/twins.py from tests/integration/_async/test_limits.py: change that file, and run it.
"""The limit on the JSON text of documents holds for every writer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgdoc
from pgdoc import Collection, Store
from pgdoc._sync.brief_locks import try_briefly
from pgdoc._sync.limits import Limits
from pgdoc.errors import (
    BulkError,
    CollectionNotFound,
    DatabaseError,
    DocumentTooLarge,
    InvalidInput,
    SchemaViolation,
)
from pgdoc.runtime.primitives import sleep
from tests.background import Background

if TYPE_CHECKING:
    from pgdoc._sync.bulk_collection import BulkCollection

MOST = 1_000
FITS: dict[str, Any] = {"n": 1, "text": "x" * (MOST - 20)}  # as PostgreSQL prints it: {"n": 1, "text": "..."}
TOO_LARGE: dict[str, Any] = {"n": 1, "text": "x" * (MOST - 19)}
DENSE: dict[str, Any] = {"n": 1, "list": [1] * 400}  # over the limit only as PostgreSQL prints it, with spaces

Write = Callable[[Collection], Any]
BulkWrite = Callable[["BulkCollection"], Any]
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


def limited(store: Store) -> Collection:
    collection = store.create_collection("orders", max_size=MOST)
    collection.insert("o-1", {"n": 1})
    collection.insert("o-2", FITS)
    return collection


def state(store: Store) -> dict[str, Any]:
    return {document.id: document.data for document in store["orders"].find()}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_write_is_refused_beyond_the_limit(shared_dsn: str, schema: str, write: Write) -> None:
    with Store(shared_dsn, schema=schema) as store:
        collection = limited(store)
        with pytest.raises(DocumentTooLarge):
            write(collection)
        assert state(store) == {"o-1": {"n": 1}, "o-2": FITS}
    with Store(shared_dsn, schema=schema) as store:  # one that does not know the limit
        with pytest.raises(DocumentTooLarge):
            write(store["orders"])
        assert state(store) == {"o-1": {"n": 1}, "o-2": FITS}


@pytest.mark.parametrize(
    "write",
    [
        lambda b: b.insert("new", TOO_LARGE),
        lambda b: b.insert("new", DENSE),
        lambda b: b.replace("o-1", TOO_LARGE),
        lambda b: b.update("o-1", {"$set": {"more": "x" * MOST}}),
    ],
)
def test_a_bulk_is_refused_beyond_the_limit(shared_dsn: str, schema: str, write: BulkWrite) -> None:
    with Store(shared_dsn, schema=schema) as store:
        limited(store)
        with pytest.raises((DocumentTooLarge, BulkError)) as caught:
            in_bulk(store, write)
        assert isinstance(caught.value, DocumentTooLarge) or isinstance(caught.value.__cause__, DocumentTooLarge)
        assert state(store) == {"o-1": {"n": 1}, "o-2": FITS}


def in_bulk(store: Store, write: BulkWrite) -> None:
    with store.bulk() as bulk:
        bulk["orders"].insert("another", {})
        write(bulk["orders"])


def test_the_error_has_what_is_known(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        collection = limited(store)
        with pytest.raises(DocumentTooLarge, match="document 'new' of collection") as caught:
            collection.insert("new", {"text": "x" * 2000})
        assert (caught.value.document_id, caught.value.size, caught.value.max_size) == ("new", 2011, MOST)
        with pytest.raises(DocumentTooLarge, match="document 'o-1' of collection") as caught:
            collection.update("o-1", {"$set": {"more": "x" * MOST}})
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
def test_sql_is_refused_beyond_the_limit(shared_dsn: str, schema: str, sql: psycopg.Connection, statement: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        limited(store)
        large = store.create_collection("large", max_size=None)
        large.insert("large", {"text": "x" * 100_000})  # stored in compressed form, it has 1.2 kB
        with pytest.raises(psycopg.errors.CheckViolation, match="pgdoc_size"):
            sql.execute(statement.encode())
        assert state(store) == {"o-1": {"n": 1}, "o-2": FITS}


@pytest.mark.parametrize("max_size", [1_000, 100_000, 1_000_000])
def test_small_documents_of_long_numbers_are_measured_as_they_are_printed(
    shared_dsn: str, schema: str, sql: psycopg.Connection, max_size: int
) -> None:
    """In jsonb, a number of 131,072 digits takes 16 bytes."""
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("orders", max_size=max_size)
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


def test_a_new_collection_has_a_limit_of_64_mib(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store["implicit"].insert("o-1", {})
        store.create_collection("explicit")
        with store["watched"].watch():
            pass
        sql.execute("SELECT pgdoc.create_collection(%s, 'in_sql')", [schema])
        for name in store.collections():
            ((found,),) = sql.execute("SELECT pgdoc.max_size(%s::regclass)", [name]).fetchall()
            assert (name, found) == (name, 64 << 20)


def test_a_registered_table_has_no_limit_until_it_is_set(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store:
        limited(store)
        sql.execute("CREATE TABLE plain (LIKE orders INCLUDING DEFAULTS INCLUDING INDEXES)")
        sql.execute("INSERT INTO plain (id, data) VALUES ('large', jsonb_build_object('text', repeat('x', 2000)))")
        sql.execute("SELECT pgdoc.register('plain')")
        plain = store["plain"]
        changed = plain.update("large", {"$set": {"more": "x" * 2000}})
        assert changed is not None
        with pytest.raises(DocumentTooLarge, match=r"'large' of collection .* has 4,0.. bytes") as caught:
            plain.set_limits(max_size=MOST)
        assert caught.value.document_id == "large"
        assert plain.update("large", {"$set": {"still": 1}})
        plain.replace("large", {"text": "x"})
        plain.set_limits(max_size=MOST)
        with pytest.raises(DocumentTooLarge):
            plain.replace("large", TOO_LARGE)


def test_a_limit_can_be_raised_lowered_and_removed(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store:
        collection = limited(store)
        with pytest.raises(DocumentTooLarge):
            collection.insert("new", TOO_LARGE)
        collection.set_limits(max_size=2 * MOST)
        collection.insert("new", TOO_LARGE)
        with pytest.raises(DocumentTooLarge, match="'new'"):
            collection.set_limits(max_size=MOST)
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]
        with store.transaction() as tx:
            tx["orders"].delete("new")
            tx["orders"].set_limits(max_size=MOST)
        assert limits(sql) == [("pgdoc_size", MOST)]
        collection.set_limits(max_size=None)
        assert limits(sql) == []
        collection.insert("large", {"text": "x" * 100_000})


def limits(sql: psycopg.Connection) -> list[Any]:
    return sql.execute(
        "SELECT conname, pgdoc.max_size('orders') FROM pg_constraint "
        "WHERE conrelid = 'orders'::regclass AND conname ~ 'size'"
    ).fetchall()


def test_a_limit_that_another_process_has_raised_does_not_refuse_a_document(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as one, Store(shared_dsn, schema=schema) as other:
        collection = limited(one)
        other["orders"].set_limits(max_size=None)
        collection.insert("new", TOO_LARGE)


def test_what_was_left_of_a_limit_that_was_not_finished_is_replaced(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        collection = limited(store)
        sql.execute("SELECT pgdoc.set_max_size('orders', 10, false)")  # its process was killed after this step
        assert limits(sql) == [("pgdoc_size", MOST), ("pgdoc_size_new", MOST)]
        with pytest.raises(DocumentTooLarge):
            collection.insert("new", {"n": 1, "k": 2})
        collection.set_limits(max_size=2 * MOST)
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]
        collection.insert("new", TOO_LARGE)


def test_readers_and_writers_go_on_while_documents_are_looked_at(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        limited(store)
        with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as other:
            sql.execute("SELECT pgdoc.set_max_size('orders', 5000, false)")
            other.execute("ALTER TABLE orders VALIDATE CONSTRAINT pgdoc_size_new")  # keeps its lock
            store["orders"].insert("new", {"n": 2})
            assert store["orders"].count() == 3


def test_limits_that_are_set_again_need_no_lock(shared_dsn: str, schema: str) -> None:
    rules = {"required": ["n"], "properties": {"it's\\": {"type": "string", "maxLength": 9}}}
    with Store(shared_dsn, schema=schema) as store:
        collection = limited(store)
        with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as reader:
            for limits_ in ({"json_schema": rules}, {"json_schema": {"properties": {"n": {"pattern": "x"}}}}):
                collection.set_limits(max_size=2 * MOST, **limits_)
                reader.execute("SELECT FROM orders")
                collection.set_limits(max_size=2 * MOST, **limits_)
                reader.rollback()
            collection.set_limits(max_size=None, json_schema=None)
            reader.execute("SELECT FROM orders")
            collection.set_limits(max_size=None, json_schema=None)


def test_others_are_held_up_for_moments_while_a_limit_waits_for_a_long_transaction(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    with Store(shared_dsn, schema=schema) as store, Store(patient(shared_dsn), schema=schema) as other:
        collection = limited(store)
        for limits_ in ({"json_schema": {"required": ["n"]}}, {"max_size": 2 * MOST}):
            with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as reader:
                reader.execute("SELECT FROM orders")
                with Background(partial(collection.set_limits, **limits_)):
                    wait_for_exclusive(sql)
                    assert other["orders"].count() == 2
                    reader.rollback()
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]
        with pytest.raises(SchemaViolation):
            collection.insert("new", {})


def test_a_limit_that_fails_is_taken_back_without_holding_up_others(
    shared_dsn: str, schema: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as holder:
        before(monkeypatch, "validate", lambda: holder.execute("LOCK orders IN SHARE UPDATE EXCLUSIVE MODE"))
        with (
            Store(shared_dsn, schema=schema) as one,
            Store(patient(shared_dsn), schema=schema) as other,
        ):
            collection = limited(one)

            def fail() -> None:
                with pytest.raises(DatabaseError, match="user request"):
                    collection.set_limits(max_size=2 * MOST)

            with Background(fail):
                while not sql.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                    "WHERE query ~ '^ALTER TABLE .* VALIDATE' AND wait_event_type = 'Lock' "
                    "AND datname = current_database()"
                ).fetchall():
                    sleep(0.05)
                wait_for_exclusive(sql)
                assert other["orders"].count() == 2
                holder.rollback()
    assert limits(sql) == [("pgdoc_size", MOST)]


def test_a_limit_that_a_long_transaction_keeps_from_its_end_says_what_holds_now(
    shared_dsn: str, schema: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert try_briefly.__kwdefaults__ is not None
    monkeypatch.setitem(try_briefly.__kwdefaults__, "tries", 1)
    with Store(shared_dsn, schema=schema) as store:
        collection = limited(store)
        with psycopg.connect(shared_dsn, options=f"-c search_path={schema}") as reader:
            before(monkeypatch, "validate", lambda: reader.execute("SELECT FROM orders"))
            with pytest.raises(DatabaseError, match=r"holds for writes.*call set_limits again"):
                collection.set_limits(max_size=2 * MOST)
            assert limits(sql) == [("pgdoc_size", MOST), ("pgdoc_size_new", MOST)]
            reader.rollback()
            monkeypatch.undo()
            collection.set_limits(max_size=2 * MOST)
        assert limits(sql) == [("pgdoc_size", 2 * MOST)]


def patient(dsn: str) -> str:
    return make_conninfo(dsn, options="-c statement_timeout=6s")


def wait_for_exclusive(sql: psycopg.Connection) -> None:
    """Wait until another session waits for the exclusive lock of the collection."""
    while not sql.execute(
        "SELECT FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted"
    ).fetchall():
        sleep(0.02)


def before(monkeypatch: pytest.MonkeyPatch, name: str, do: Callable[[], object]) -> None:
    """Do something just before one of the statements of a limit is sent."""
    sql = Limits._sql

    def call(self: Limits, wanted: str) -> bytes:
        if wanted == name:
            do()
        return sql(self, wanted)

    monkeypatch.setattr(Limits, "_sql", call)


@pytest.mark.parametrize("max_size", [0, -1, 10**9 + 1, 1.5, "64MiB", True])
def test_a_limit_is_a_number_of_bytes(shared_dsn: str, schema: str, max_size: Any) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with pytest.raises(InvalidInput, match="max_size must be a number of bytes"):
            store.create_collection("orders", max_size=max_size)
        with pytest.raises(InvalidInput, match="max_size must be a number of bytes"):
            store["orders"].set_limits(max_size=max_size)
        with pytest.raises(CollectionNotFound):
            store["orders"].set_limits(max_size=1000)


def test_metadata_comes_with_a_collection_that_has_a_limit(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with pgdoc.metadata(user="ann"):
            store.create_collection("orders", max_size=MOST)
            store["others"].insert("o-1", {})
        with pytest.raises(DocumentTooLarge):
            store["orders"].insert("o-1", TOO_LARGE)


def test_the_limit_is_known_under_every_setting(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        limited(store)
    dsn = make_conninfo(shared_dsn, options="-c quote_all_identifiers=on")
    with Store(dsn, schema=schema) as store:
        with pytest.raises(DocumentTooLarge) as caught:
            store["orders"].insert("new", {"text": "x" * 100_000})
        assert caught.value.max_size == MOST
