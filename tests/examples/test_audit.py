"""The audit log records every change exactly once, wherever its program is killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from docs.examples import audit
from tests.examples.dying import STEPS
from tests.examples.programs import PATIENCE_S, ROOT, drop_consumer, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

Entry = tuple[Any, ...]
EXCEPT_THE_LOG = {"collection": {"$ne": audit.AUDIT}}
DEEP = "[" * 253 + "]" * 253


@pytest.fixture
def store(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pgdoc.Store]:
    """A store on a database whose audit consumer exists."""
    monkeypatch.setenv("PGDOC_DSN", dsn)  # for the program
    with pgdoc.Store(dsn) as store:
        store.create_collection("orders")
        store.create_collection("stock")
        store.create_collection(audit.AUDIT)
        store.create_consumer(audit.AUDIT, where=EXCEPT_THE_LOG)
        yield store
        drop_consumer(store, audit.AUDIT)


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, options="-c search_path=docs", autocommit=True) as connection:
        yield connection


class History:
    """Writers that record the entries that the log must have."""

    def __init__(self, store: pgdoc.Store, sql: psycopg.Connection) -> None:
        self.store, self.sql = store, sql
        self.entries: list[Entry] = []
        self.transactions: list[int] = []
        self._numbers = itertools.count()

    def go_on(self) -> None:
        """Make ten changes in seven transactions, with and without a user, through pgdoc and in SQL."""
        number = next(self._numbers)
        order, sku, orders = f"o-{number}", f"s-{number}", self.store["orders"]
        new, paid = {"total": number, "lines": [1, 2]}, {"total": number, "lines": [1], "paid": True}
        with pgdoc.metadata(user="alice"), self._transaction() as tx:
            tx["orders"].insert(order, new)
            tx["stock"].insert(sku, {"left": 9})
        self._wrote("alice", "insert", "orders", order, None, new)
        self._wrote("alice", "insert", "stock", sku, None, {"left": 9})
        with pgdoc.metadata(user="bob"), self._transaction() as tx:
            tx["orders"].update(order, {"$set": {"lines": [1], "paid": True}})
            tx["stock"].update(sku, {"$inc": {"left": -1}})
        self._wrote("bob", "update", "orders", order, new, paid)
        self._wrote("bob", "update", "stock", sku, {"left": 9}, {"left": 8})
        with self._in_sql():
            self.sql.execute('SELECT pgdoc.set_metadata(\'{"user": "carol"}\')')
            self.sql.execute("UPDATE stock SET data = '{\"left\": true}' WHERE id = %s", [sku])
        self._wrote("carol", "update", "stock", sku, {"left": 8}, {"left": True})
        with self._in_sql():
            self.sql.execute("UPDATE stock SET data = '{\"left\": 1}' WHERE id = %s", [sku])
            self.sql.execute("DELETE FROM orders WHERE id = %s", [order])
        self._wrote(None, "update", "stock", sku, {"left": True}, {"left": 1})
        self._wrote(None, "delete", "orders", order, paid, None)
        with contextlib.suppress(ZeroDivisionError), self.store.transaction(metadata={"user": "mallory"}) as tx:
            tx["orders"].insert(order, {})
            raise ZeroDivisionError
        with self._transaction() as tx:
            tx["stock"].replace(sku, {})
        self._wrote(None, "replace", "stock", sku, {"left": 1}, {})
        assert orders.get(order) is None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[pgdoc.Transaction]:
        with self.store.transaction() as tx:
            yield tx
            self._number(tx.connection)

    @contextlib.contextmanager
    def _in_sql(self) -> Iterator[None]:
        with self.sql.transaction():
            yield
            self._number(self.sql)

    def _number(self, connection: psycopg.Connection[Any]) -> None:
        ((self._transaction_id,),) = connection.execute("SELECT pg_current_xact_id()::xid::text::bigint").fetchall()

    def _wrote(self, *entry: Any) -> None:
        self.entries.append((*entry, self._transaction_id))


def written(store: pgdoc.Store) -> list[Entry]:
    """Return the entries of the log, in the order in which they were written."""
    names = ("who", "what", "collection", "document", "before", "after", "transaction")
    return [tuple(entry[name] for name in names) for entry in store[audit.AUDIT].find(sort="_id")]


def same(one: list[Entry], other: list[Entry]) -> bool:
    """Compare as JSON, where true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def finish(store: pgdoc.Store, history: History) -> None:
    """Let the program record everything, and compare the log with the history."""
    with running("audit.py") as process:
        wait_until(lambda: store[audit.AUDIT].count() >= len(history.entries), process)
        history.go_on()
        wait_until(lambda: store[audit.AUDIT].count() >= len(history.entries), process)
    assert same(written(store), history.entries)


def test_killed_at_every_step_in_turn(store: pgdoc.Store, sql: psycopg.Connection) -> None:
    history = History(store, sql)
    for step, count in itertools.product(STEPS, (1, 4)):
        history.go_on()
        command = [sys.executable, "-m", "tests.examples.dying", "audit.py", step, str(count)]
        assert subprocess.run(command, cwd=ROOT, check=False, timeout=PATIENCE_S).returncode == -9
    finish(store, history)


def test_killed_at_any_time(store: pgdoc.Store, sql: psycopg.Connection) -> None:
    history = History(store, sql)
    for _ in range(8):
        with running("audit.py") as process:
            before = store[audit.AUDIT].count()
            for _ in range(4):
                history.go_on()
            wait_until(lambda before=before: store[audit.AUDIT].count() > before, process)  # type: ignore[misc]
            time.sleep(random.uniform(0, 0.05))
            process.kill()
    finish(store, history)


def record_next(store: pgdoc.Store, count: int = 1) -> None:
    """Call the handler as the worker does, with one event at a time."""
    with store.watch(consumer=audit.AUDIT, where=EXCEPT_THE_LOG) as stream:
        for event in itertools.islice(stream, count):
            with store.transaction() as tx:
                audit.record(tx, [event])
                stream.checkpoint(event, tx)


def record_one(store: pgdoc.Store) -> pgdoc.Document:
    record_next(store)
    (entry,) = store[audit.AUDIT].find()
    return entry


def test_an_entry(store):
    began = store["orders"].insert("o-1", {"total": 5, "of": {"city": "Bern"}})
    record_next(store)
    store[audit.AUDIT].delete_many({})
    with store.transaction(metadata={"user": "alice"}) as tx:
        changed = tx["orders"].update("o-1", {"$set": {"of.city": "Basel"}, "$unset": {"total": True}})
    entry = record_one(store)
    assert entry["difference"]["updated_fields"] == {"of.city": "Basel"}
    assert entry["difference"]["removed_fields"] == ["total"]
    assert (entry["before"], entry["after"]) == (began.data, changed.data)
    assert entry["when"] >= changed.updated_at.isoformat()
    assert entry["who"] == "alice"


@pytest.mark.parametrize("user", ['{"name": "eve"}', '"\\u0000"', DEEP, "17"])
def test_a_user_that_is_no_text_is_nobody(store, sql, user):
    """Any role that can write can send any metadata."""
    with sql.transaction():
        sql.execute("SELECT pg_logical_emit_message(true, 'pgdoc', %s)", [f'{{"metadata": {{"user": {user}}}}}'])
        sql.execute("INSERT INTO orders (id, data) VALUES ('o-1', '{}')")
    entry = record_one(store)
    assert entry["who"] is None
    assert entry["document"] == "o-1"


@pytest.mark.parametrize("data", [f'{{"a": {DEEP}}}', f'{{"a": {DEEP.replace("[]", "[1]")}, "b": {"9" * 5000}}}'])
def test_data_that_can_not_be_written_down_does_not_stop_the_log(store, sql, data):
    sql.execute("INSERT INTO orders (id, data) VALUES ('o-1', %s::jsonb)", [data])
    entry = record_one(store)
    assert entry["document"] == "o-1"
    assert entry["what"] == "insert"
    assert entry["problem"]


def test_what_becomes_of_collections_is_written_down_and_the_log_itself_is_not(store, sql):
    store.rename_collection("orders", "purchases")
    sql.execute("TRUNCATE stock")
    record_next(store, 2)
    renamed, emptied = store[audit.AUDIT].find(sort="_id")
    assert (renamed["what"], renamed["collection"], renamed["renamed_to"]) == ("rename", "orders", "purchases")
    assert (emptied["what"], emptied["collection"], emptied["document"]) == ("truncate", "stock", None)
