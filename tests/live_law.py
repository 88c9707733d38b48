"""The law of live queries: where a handle stands, `documents` is what `find` gave at that place of the WAL.

An independent stream follows the collection from the beginning. Its events, applied in the order of the commits, give
the documents at every place between two transactions. Each observation of a handle is compared with those at its token.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from pgdoc.query import matches, parse_filter
from tests.background import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "orders"
TABLE = "sales"
MAKE_TABLE = f"CREATE TABLE {{schema}}.{TABLE} (id text PRIMARY KEY, n int, customer text)"
PATIENCE_S = 40.0

Row = tuple[str, int, int | None]
"""What is compared of a document: its id, its version, and the number that queries sort by."""


@dataclass(frozen=True)
class Asked:
    """A live query, and how its handle reads."""

    filter: dict[str, Any] | None
    sort: str | None
    limit: int | None
    by_batch: bool
    pause_s: float

    def of(self, documents: dict[str, tuple[int, dict[str, Any]]]) -> list[Row]:
        """Return the result, as simply as possible."""
        node = parse_filter(self.filter)
        rows = [(key, version, data["n"]) for key, (version, data) in documents.items() if matches(node, key, data)]
        rows.sort()
        if self.sort is not None:
            rows.sort(key=lambda row: row[2], reverse=self.sort.startswith("-"))
        return rows[: self.limit]


@dataclass
class Seen:
    """What one handle has shown."""

    asked: Asked
    observations: list[tuple[int, list[Row]]] = field(default_factory=list)
    batches: int = 0

    def observe(self, query: pgdoc.LiveQuery) -> None:
        rows = rows_of(query.documents)
        self.observations.append((query.resume_token.position[0], rows))


def rows_of(documents: list[pgdoc.Document]) -> list[Row]:
    return [row_of(each) for each in documents]


def row_of(document: pgdoc.Document) -> Row:
    return document.id, version_of(document), document["n"]


def version_of(document: pgdoc.Document) -> int:
    """Return the version; 0 for the row of a table, which has none."""
    return document.version if type(document) is pgdoc.Document else 0


class History:
    """The documents at every place between two transactions, by an independent stream."""

    def __init__(self) -> None:
        self._ends: list[int] = []  # the commit LSN of each transaction
        self._states: list[dict[str, tuple[int, dict[str, Any]]]] = [{}]

    def take(self, event: pgdoc.ChangeEvent) -> None:
        lsn = event.resume_token.position[0]
        if not self._ends or self._ends[-1] != lsn:
            self._ends.append(lsn)
            self._states.append(dict(self._states[-1]))
        state = self._states[-1]
        if event.event_type == "truncate":
            state.clear()
        elif event.full_document is not None:
            state[event.full_document.id] = (version_of(event.full_document), event.full_document.data)
        elif event.document_id is not None:
            state.pop(event.document_id, None)

    def at(self, lsn: int) -> dict[str, tuple[int, dict[str, Any]]]:
        """Return the documents after all transactions whose commit LSN is lower."""
        return self._states[bisect_left(self._ends, lsn)]

    def __len__(self) -> int:
        return len(self._ends)


def write(tx: pgdoc.Transaction, schema: str, dice: random.Random, documents: int) -> None:
    orders, key = tx[NAME], f"k{dice.randrange(documents):03d}"
    what = dice.random()
    if what < 0.6:
        orders.replace(key, {"n": dice.randrange(40), "customer": f"c{dice.randrange(3)}"}, upsert=True)
    elif what < 0.75:
        orders.update(key, {"$inc": {"n": dice.choice([-1, 1])}})
    elif what < 0.97:
        orders.delete(key)
    elif what < 0.99:
        orders.delete_many({"n": {"$gte": 30}})
    else:
        tx.connection.execute(f'TRUNCATE "{schema}"."{NAME}"'.encode())


def write_row(tx: pgdoc.Transaction, schema: str, dice: random.Random, documents: int) -> None:
    """Write a row of the table, as `write` does a document; now and then its key changes."""
    run, table, key = tx.connection.execute, f"{schema}.{TABLE}", f"k{dice.randrange(documents):03d}"
    what = dice.random()
    if what < 0.55:
        values = [key, dice.randrange(40), f"c{dice.randrange(3)}"]
        update = "ON CONFLICT (id) DO UPDATE SET n = excluded.n, customer = excluded.customer"
        run(f"INSERT INTO {table} VALUES (%s, %s, %s) {update}".encode(), values)
    elif what < 0.7:
        run(f"UPDATE {table} SET n = n + 1 WHERE id = %s".encode(), [key])
    elif what < 0.8:
        other = f"{key}x"
        none = f"NOT EXISTS (SELECT FROM {table} WHERE id = %s)"
        run(f"UPDATE {table} SET id = %s WHERE id = %s AND {none}".encode(), [other, key, other])
    elif what < 0.98:
        run(f"DELETE FROM {table} WHERE id = ANY (%s)".encode(), [[key, f"{key}x"]])
    else:
        run(f"TRUNCATE {table}".encode())


def transact(store: pgdoc.Store, schema: str, dice: random.Random, documents: int, *, of_table: bool) -> None:
    """One transaction, which may be long, touch another collection, or commit without waiting for the disk."""
    with contextlib.suppress(pgdoc.DatabaseError, psycopg.Error), store.transaction() as tx:  # such as a deadlock
        if dice.random() < 0.2:
            tx.connection.execute("SET LOCAL synchronous_commit = off")
        for _ in range(dice.choice([1, 1, 1, 3, 12])):
            (write_row if of_table else write)(tx, schema, dice, documents)
        if dice.random() < 0.2:
            tx["others"].replace("x", {"v": dice.random()}, upsert=True)
        if dice.random() < 0.05:
            time.sleep(0.05)  # others commit meanwhile


@contextlib.contextmanager
def writing(
    dsn: str, schema: str, seed: int, *, writers: int, documents: int, of_table: bool = False
) -> Iterator[None]:
    enough = threading.Event()

    def run(number: int) -> None:
        dice = random.Random(seed + number)
        with pgdoc.Store(dsn, schema=schema) as store:
            while not enough.wait(dice.choice([0, 0, 0.002])):
                transact(store, schema, dice, documents, of_table=of_table)

    with contextlib.ExitStack() as stack:
        for number in range(writers):
            stack.enter_context(Background(run, number))
        stack.callback(enough.set)
        yield


def follow(store: pgdoc.Store, name: str, seen: Seen, until: Callable[[], int | None]) -> None:
    """Read one live query, until it has come to the LSN that `until` returns."""
    asked = seen.asked
    with opened(store, name, asked) as query:
        rows = rows_of(query.documents)
        seen.observe(query)
        deadline: float | None = None
        while (end := until()) is None or query.resume_token.position[0] < end:
            if end is not None:
                deadline = deadline or time.monotonic() + PATIENCE_S
                assert time.monotonic() < deadline
            change = query.next(timeout=0.05)
            if change is None:
                continue
            rest = query.next_batch(timeout=0) if asked.by_batch else []
            for each in [change, *rest]:
                apply(rows, each)
            if asked.by_batch:
                assert rows == rows_of(query.documents), "the changes do not lead to the documents"
                seen.batches += 1
            seen.observe(query)
            time.sleep(asked.pause_s if end is None else 0)
        for each in query.next_batch(timeout=0):  # the rest of the last batch
            apply(rows, each)
        seen.observe(query)
        assert rows == rows_of(query.documents)
        if name == NAME:
            assert rows_of(query.documents) == rows_of(find(store, asked)), "what is left is not what is there"


def opened(store: pgdoc.Store, name: str, asked: Asked) -> pgdoc.LiveQuery:
    while True:
        try:
            return store.live(name, asked.filter, sort=asked.sort, limit=asked.limit)
        except pgdoc.ServerUnreachable:  # it was cut
            time.sleep(0.1)


def find(store: pgdoc.Store, asked: Asked) -> list[pgdoc.Document]:
    return list(store[NAME].find(asked.filter, sort=asked.sort or "_id", limit=asked.limit))


def apply(rows: list[Row], change: pgdoc.LiveChange) -> None:
    document = change.document
    if change.old_index is not None:
        assert rows.pop(change.old_index)[0] == document.id
    if change.new_index is not None:
        rows.insert(change.new_index, row_of(document))
    if change.event is not None and change.event.document_id is not None:
        assert change.event.document_id == document.id


def check(seen: Seen, history: History) -> None:
    places = [place for place, _ in seen.observations]
    assert places == sorted(places), "a place is before the one before it"
    for place, rows in seen.observations:
        assert rows == seen.asked.of(history.at(place)), f"at {pgdoc.Lsn(place)}, {seen.asked}"


def cut(dsn: str) -> None:
    """End all walsenders of the database."""
    query = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication
        JOIN pg_stat_activity USING (pid) WHERE datname = current_database()"""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(query)


def run(
    dsn: str, schema: str, seed: int, all_asked: list[Asked], *, seconds: float, cuts: int, of_table: bool = False
) -> int:
    """Follow the queries, on a collection or on a table that is watched, beside writers.

    Returns:
        How many transactions there were.
    """
    name = f"{schema}.{TABLE}" if of_table else NAME
    dice, history, seen = random.Random(seed), History(), [Seen(asked) for asked in all_asked]
    end: list[int] = []
    with (
        pgdoc.Store(dsn, schema=schema) as independent,
        pgdoc.Store(dsn, schema=schema) as store,
        independent.watch(name) as stream,
    ):
        with contextlib.ExitStack() as stack:
            for each in seen:
                stack.enter_context(Background(later, dice, store, name, each, end))
            try:
                with writing(dsn, schema, seed, writers=3, documents=60, of_table=of_table):
                    for _ in range(cuts + 1):
                        time.sleep(seconds / (cuts + 1))
                        if cuts:
                            cut(dsn)
            finally:
                end.append(store.now())
        while stream.resume_token.position[0] < end[0]:
            event = stream.next(timeout=0.05)
            if event is not None:
                history.take(event)
    for each in seen:
        check(each, history)
    return len(history)


def later(dice: random.Random, store: pgdoc.Store, name: str, seen: Seen, end: list[int]) -> None:
    time.sleep(dice.random() * 0.3)
    follow(store, name, seen, lambda: end[0] if end else None)
