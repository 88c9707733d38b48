"""A process that keeps writing through faults and restarts: `python -m tests.faulty_day.writer PLAN`.

Each transaction starts by inserting a row with the next number into the ledger. If the outcome of a commit is unknown,
the writer retries with the same number. If the first attempt did commit, the row conflicts; if it is still in progress,
the insert waits for it. So every number is written exactly once.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg.types.json import Jsonb

import pgdoc
from pgdoc import Store
from pgdoc.errors import DatabaseError, ServerUnreachable
from tests.faulty_day.plan import BOOKS, COLLECTIONS, SCHEMA, SHOP, TABLES, WriterPlan, from_argument
from tests.faulty_day.process import is_set, set_up_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import Transaction

logger = logging.getLogger("writer")

_KEPT = 150  # number of transactions whose documents are kept; older ones are deleted
_SIZES = ((5, 88.0), (50, 9.0), (300, 2.5), (0, 0.5))
_HOT_KEYS = 60
_LAG_S = 3.0
_RETRY_S = 0.2
_GIVE_UP_AFTER_S = 120.0

_CLAIM = f"INSERT INTO {BOOKS}.ledger (writer, number) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING true"
_LAST = f"SELECT coalesce(max(number), 0) FROM {BOOKS}.ledger WHERE writer = %s"


_NEXT = f"nextval('{SHOP}.numbers')"  # makes each image of a row another one
_ITEM = f"INSERT INTO {TABLES[0]} VALUES (%s, %s, %s, {_NEXT}, %s) ON CONFLICT DO NOTHING"
_PAPER = (
    f"INSERT INTO {TABLES[1]} VALUES (%s, %s, %s, %s::jsonb || jsonb_build_object('n', {_NEXT}), {_NEXT}) "
    "ON CONFLICT DO NOTHING"
)
_CHANGE_ITEM = f"UPDATE {TABLES[0]} SET n = {_NEXT}, note = coalesce(note, '') || '%%' WHERE id = %s"
_CHANGE_PAPER = (
    f"UPDATE {TABLES[1]} SET n = {_NEXT}, payload = payload || jsonb_build_object('n', {_NEXT}, 'last', %s::int) "
    "WHERE id = %s"
)
_RENAME_ITEMS = (
    f"UPDATE {TABLES[0]} SET id = 'moved ' || n, n = {_NEXT} WHERE by = %s AND number = %s AND id LIKE 'new%%'"
)
_DELETE_ROWS = "DELETE FROM {table} WHERE by = %s AND number < %s"


class Style(Protocol):
    """How a writer accesses the server."""

    def write(self, number: int, size: int) -> None:
        """Write a transaction, unless an earlier attempt committed."""


class Dice:
    """Random transactions.

    Attributes:
        more: Number of changes of the last transaction beyond its size, made by statements that change many rows.
    """

    def __init__(self, plan: WriterPlan) -> None:
        self.more = 0
        self.random = random.Random(plan.seed)
        self._plan = plan

    def size(self) -> int:
        """Return the number of changes of the next transaction."""
        limit = self.random.choices([size for size, _ in _SIZES], [weight for _, weight in _SIZES])[0]
        return self.random.randint(1, limit or self._plan.largest)

    def data(self, number: int) -> dict[str, Any]:
        """Return a small document."""
        tags = self.random.sample(["red", "green", "blue", "ü", 'q"', "\\"], 2)
        return {"by": self._plan.number, "number": number, "total": self.random.randint(0, 999), "tags": tags}

    def rows(self, number: int, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Return new documents with ids."""
        return [(pgdoc.new_id(), self.data(number)) for _ in range(count)]

    def hot_id(self) -> str:
        """Return the id of a document that all writers write to."""
        return f"hot-{self.random.randrange(_HOT_KEYS)}"

    def collection(self) -> str:
        return self.random.choice(COLLECTIONS)


def write_rows(dice: Dice, connection: psycopg.Connection[Any], writer: int, number: int) -> None:
    """Write to the tables: a few rows in each, some of them again, keys too."""
    data, count = dice.data(number), dice.random.randint(1, 3)
    for _ in range(count):
        connection.execute(_ITEM, [f"new {pgdoc.new_id()}", writer, number, data["tags"][0]])
        connection.execute(_PAPER, [pgdoc.new_id(), writer, number, Jsonb(data)])
    connection.execute(_ITEM, [dice.hot_id(), writer, number, None])
    connection.execute(_PAPER, [dice.hot_id(), writer, number, Jsonb(data)])
    changed = [
        connection.execute(_CHANGE_ITEM, [dice.hot_id()]),
        connection.execute(_CHANGE_PAPER, [number, dice.hot_id()]),
        connection.execute(_RENAME_ITEMS, [writer, number]),
    ]
    if dice.random.random() < 0.2:
        deletes = (_DELETE_ROWS.format(table=table).encode() for table in TABLES)
        changed += [connection.execute(delete, [writer, number - _KEPT]) for delete in deletes]
    dice.more += 2 * count + 1 + sum(each.rowcount for each in changed)


class LibraryStyle:
    """Writes through a pgdoc store."""

    def __init__(self, plan: WriterPlan, dice: Dice) -> None:
        self._writer, self._dice = plan.number, dice
        self._store = Store(plan.conninfo, schema=SCHEMA, pool_size=2)

    def write(self, number: int, size: int) -> None:
        with self._store.transaction(metadata={"writer": self._writer, "number": number}) as tx:
            if tx.connection.execute(_CLAIM, [self._writer, number]).fetchone() is None:
                return
            tx["orders"].insert(pgdoc.new_id(), self._dice.data(number))
            if size >= 10:
                tx[self._dice.collection()].insert_many(self._dice.rows(number, size - 1))
                return
            for action in self._dice.random.choices(self._actions, k=size - 1):
                action(self, tx, number)

    def _update(self, tx: Transaction, number: int) -> None:
        changes = {"$inc": {"count": 1}, "$set": {"last.number": number}, "$unset": {"touched": ""}}
        tx["stock"].update(self._dice.hot_id(), changes, upsert=True)

    def _replace(self, tx: Transaction, number: int) -> None:
        tx["stock"].replace(self._dice.hot_id(), self._dice.data(number), upsert=True)

    def _delete(self, tx: Transaction, _number: int) -> None:
        tx["stock"].delete(self._dice.hot_id())

    def _delete_old(self, tx: Transaction, number: int) -> None:
        deleted = tx.connection.execute(
            f"DELETE FROM {SCHEMA}.{self._dice.collection()} WHERE data @> %s AND (data->>'number')::int < %s",
            [Jsonb({"by": self._writer}), number - _KEPT],
        )
        self._dice.more += deleted.rowcount

    def _nested(self, tx: Transaction, number: int) -> None:
        """Write in a savepoint, which is released or rolled back."""
        with tx.connection.transaction(force_rollback=self._dice.random.random() < 0.5):
            tx["orders"].insert(pgdoc.new_id(), self._dice.data(number))
            self._update(tx, number)

    def _write_rows(self, tx: Transaction, number: int) -> None:
        write_rows(self._dice, tx.connection, self._writer, number)

    _actions = (_update, _update, _replace, _delete, _delete_old, _nested, _write_rows)


class SqlStyle:
    """Writes plain SQL, as any other program would; only the triggers are pgdoc's."""

    def __init__(self, plan: WriterPlan, dice: Dice) -> None:
        self._writer, self._dice, self._conninfo = plan.number, dice, plan.conninfo
        self._connection: psycopg.Connection[Any] | None = None
        self._truncated = 0

    def write(self, number: int, size: int) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._conninfo, autocommit=True, options=f"-c search_path={SCHEMA},public", connect_timeout=5
            )
        connection = self._connection
        with connection.transaction():
            if connection.execute(_CLAIM, [self._writer, number]).fetchone() is None:
                return
            metadata = Jsonb({"writer": self._writer, "number": number})
            connection.execute("SELECT pgdoc.set_metadata(%s)", [metadata])
            self._insert(connection, number)
            if size >= 10:
                self._copy(connection, number, size - 1)
                return
            for action in self._dice.random.choices(self._actions, self._weights, k=size - 1):
                action(self, connection, number)

    def _insert(self, connection: psycopg.Connection[Any], number: int) -> None:
        connection.execute(
            "INSERT INTO orders (id, data) VALUES (%s, %s)", [pgdoc.new_id(), Jsonb(self._dice.data(number))]
        )

    def _copy(self, connection: psycopg.Connection[Any], number: int, count: int) -> None:
        with connection.cursor().copy(f"COPY {self._dice.collection()} (id, data) FROM STDIN") as copy:
            for document_id, data in self._dice.rows(number, count):
                copy.write_row((document_id, json.dumps(data)))

    def _update(self, connection: psycopg.Connection[Any], number: int) -> None:
        connection.execute(
            "UPDATE stock SET data = jsonb_set(data, '{sql}', to_jsonb(%s)) WHERE id = %s",
            [number, self._dice.hot_id()],
        )

    def _touch_many(self, connection: psycopg.Connection[Any], _number: int) -> None:
        touch = "UPDATE stock SET data = data || '{\"touched\": true}' WHERE id BETWEEN 'hot-' AND %s"
        self._dice.more += connection.execute(touch, [self._dice.hot_id()]).rowcount

    def _delete_old(self, connection: psycopg.Connection[Any], number: int) -> None:
        deleted = connection.execute(
            f"DELETE FROM {self._dice.collection()} WHERE data @> %s AND (data->>'number')::int < %s",
            [Jsonb({"by": self._writer}), number - _KEPT],
        )
        self._dice.more += deleted.rowcount

    def _truncate(self, connection: psycopg.Connection[Any], number: int) -> None:
        """Truncate at most once per transaction: two such events would be equal, and every event must be unique."""
        if number != self._truncated:
            connection.execute("TRUNCATE scratch")
            self._truncated = number

    def _nested(self, connection: psycopg.Connection[Any], number: int) -> None:
        with connection.transaction(force_rollback=self._dice.random.random() < 0.5):
            self._insert(connection, number)
            self._update(connection, number)

    def _write_rows(self, connection: psycopg.Connection[Any], number: int) -> None:
        write_rows(self._dice, connection, self._writer, number)

    _actions = (_insert, _update, _touch_many, _delete_old, _truncate, _nested, _write_rows)
    _weights = (30, 30, 4, 10, 1, 10, 10)


_STYLES: dict[str, Callable[[WriterPlan, Dice], Style]] = {"library": LibraryStyle, "sql": SqlStyle}


def main() -> None:
    set_up_process()
    plan = from_argument(WriterPlan)
    dice = Dice(plan)
    style = _STYLES[plan.style](plan, dice)
    due = time.monotonic()
    for number in itertools.count(_retry(plan, lambda: _last(plan)) + 1):
        if is_set(plan.folder, "stop"):
            return
        dice.more, size = 0, dice.size()
        _retry(plan, lambda number=number, size=size: style.write(number, size))  # type: ignore[misc]
        due = max(due + (size + dice.more) / plan.changes_per_s, time.monotonic() - _LAG_S)
        time.sleep(max(0.0, due - time.monotonic()))


def _last(plan: WriterPlan) -> int:
    with psycopg.connect(plan.conninfo, connect_timeout=5) as connection:
        row = connection.execute(_LAST, [plan.number]).fetchone()
        assert row is not None
        return int(row[0])


def _retry(plan: WriterPlan, call: Callable[[], Any]) -> Any:
    """Retry on errors that a server fault can cause; give up after two minutes."""
    began = time.monotonic()
    while True:
        try:
            return call()
        except (psycopg.Error, ServerUnreachable, DatabaseError) as exc:
            logger.info("retrying after: %s", str(exc).strip())
            if time.monotonic() - began > _GIVE_UP_AFTER_S:
                raise
            time.sleep(_RETRY_S)


if __name__ == "__main__":
    main()
