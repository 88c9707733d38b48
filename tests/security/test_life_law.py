"""A law of random sessions that create, register, rename, move and drop collections in SQL while they write to them.

Both plugins yield the same events, and every row that a committed transaction inserted into a collection is delivered
exactly once, under the name that the collection had at that moment. Rows of tables that are no collections are not.
"""

from __future__ import annotations

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from pgdoc import EventType, Store
from tests.security.readers import PATIENCE_S
from tests.security.test_data_loss import SIX

if TYPE_CHECKING:
    from tests.security.conftest import SharedDatabase

SESSIONS = 3
TRANSACTIONS = 60
NAMES = ("a", "b", "c", "d")
SCHEMAS = ("docs", "beside")
END = "end"

Row = tuple[str, str, str]
"""The schema and the name of a table, and the id of a row in it."""


Seen = tuple[str, str, str | None, str]
"""An event: its type, collection, document and token."""


class Session:
    """Random transactions of one connection.

    Attributes:
        delivered: the rows that a stream must deliver.
    """

    def __init__(self, connection: psycopg.Connection[Any], seed: int, *, renames_schemas: bool) -> None:
        self.delivered: list[Row] = []
        self._connection = connection
        self._dice = random.Random(seed)
        self._seed, self._number = seed, 0
        self._pending: list[Row] = []
        write, change = (
            self._insert,
            [self._create, self._register, self._unregister, self._rename, self._move, self._drop],
        )
        self._actions = [*[write] * 14, *change * 2, *[self._rename_schema] * renames_schemas]

    def run(self) -> None:
        self._connection.execute("SET deadlock_timeout = '50ms'")
        for _ in range(TRANSACTIONS):
            self._pending = []
            if self._dice.random() < 0.2:
                self._create_by_hand()
            try:
                with self._connection.transaction(force_rollback=self._dice.random() < 0.1) as transaction:
                    self._nest(3)
            except psycopg.Error:  # a deadlock, or a lock that is held for too long
                continue
            if not transaction.force_rollback:
                self.delivered += self._pending

    def _nest(self, depth: int) -> None:
        for _ in range(self._dice.randint(1, 4)):
            before = list(self._pending)
            try:
                with self._connection.transaction(force_rollback=self._dice.random() < 0.1) as savepoint:
                    if depth and self._dice.random() < 0.2:
                        self._nest(depth - 1)
                    else:
                        self._dice.choice(self._actions)()
            except psycopg.errors.DeadlockDetected:
                raise
            except psycopg.Error:
                self._pending = before
            else:
                if savepoint.force_rollback:
                    self._pending = before

    def _insert(self) -> None:
        schema, name = self._table()
        for _ in range(self._dice.choice([1, 1, 5])):
            self._number += 1
            key = f"{self._seed}-{self._number}"
            row = self._connection.execute(
                sql.SQL("INSERT INTO {} (id, data) VALUES (%s, '{{}}') RETURNING pgdoc.is_collection(tableoid)").format(
                    sql.Identifier(schema, name)
                ),
                [key],
            ).fetchone()
            if row == (True,):
                self._pending.append((schema, name, key))

    def _create(self) -> None:
        self._connection.execute("SELECT pgdoc.create_collection(%s, %s)", self._table())

    def _create_by_hand(self) -> None:
        """In a transaction of its own: nothing can lock a table that is not committed when its schema is renamed."""
        with contextlib.suppress(psycopg.Error):
            self._on(f"CREATE TABLE {{}} ({SIX}, more int)", *self._table())

    def _register(self) -> None:
        self._connection.execute("SELECT pgdoc.register(%s)", [".".join(self._table())])

    def _unregister(self) -> None:
        self._connection.execute("SELECT pgdoc.unregister(%s)", [".".join(self._table())])

    def _rename(self) -> None:
        schema, name = self._table()
        if self._dice.random() < 0.5:
            self._connection.execute("SELECT pgdoc.rename_collection(%s, %s, %s)", [schema, name, self._name()])
        else:
            self._on(f"ALTER TABLE {{}} RENAME TO {self._name()}", schema, name)

    def _move(self) -> None:
        schema, name = self._table()
        self._on(f"ALTER TABLE {{}} SET SCHEMA {SCHEMAS[schema == SCHEMAS[0]]}", schema, name)

    def _drop(self) -> None:
        self._on("DROP TABLE {}", *self._table())

    def _rename_schema(self) -> None:
        """Exchange the names of both schemas."""
        for old, new in (("docs", "between"), ("beside", "docs"), ("between", "beside")):
            self._connection.execute(f"ALTER SCHEMA {old} RENAME TO {new}".encode())

    def _on(self, statement: str, schema: str, name: str) -> None:
        self._connection.execute(sql.SQL(statement).format(sql.Identifier(schema, name)))

    def _table(self) -> tuple[str, str]:
        return self._dice.choice(SCHEMAS), self._name()

    def _name(self) -> str:
        return self._dice.choice(NAMES)


def read(dsn: str, schema: str, plugin: str, after: str) -> list[Seen]:
    """Read all events after a token, up to the collection that ends the test."""
    events: list[Seen] = []
    with Store(dsn, schema=schema, plugin=plugin) as store, store.watch(resume_after=after) as stream:
        while True:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None, f"no event within {PATIENCE_S:.0f} s"
            if event.collection == END:
                return events
            events.append((event.event_type.value, event.collection, event.document_id, str(event.resume_token)))


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
@pytest.mark.parametrize("renames_schemas", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_row_of_a_collection_is_delivered_once_under_the_name_it_had(
    db: SharedDatabase, seed: int, renames_schemas: bool
) -> None:
    owner = db.connect("owner")
    owner.execute("CREATE SCHEMA beside")
    for schema in SCHEMAS:
        for name in NAMES:
            owner.execute("SELECT pgdoc.create_collection(%s, %s)", [schema, name])
    with db.store().watch() as stream:
        token = str(stream.resume_token)
    sessions = [
        Session(db.connect("owner"), seed * 10 + number, renames_schemas=renames_schemas) for number in range(SESSIONS)
    ]
    with ThreadPoolExecutor() as threads:
        for finished in [threads.submit(session.run) for session in sessions]:
            finished.result()
    for schema in SCHEMAS:
        owner.execute("SELECT pgdoc.create_collection(%s, %s)", [schema, END])
    for schema in SCHEMAS:
        named, exact = (read(db.dsn(), schema, plugin, token) for plugin in ("wal2json", "pgoutput"))
        expected = sorted(row for session in sessions for row in session.delivered if row[0] == schema)
        assert _inserted(exact, schema) == expected
        if renames_schemas:  # wal2json sends no oid, and can name a row of a plain table by its schema's later name
            assert set(_inserted(named, schema)) >= set(expected)
        else:
            assert named == exact
        for events in (named, exact):
            assert len({token for *_, token in events}) == len(events)


def _inserted(events: list[Seen], schema: str) -> list[Row]:
    return sorted((schema, name, str(key)) for kind, name, key, _ in events if kind == EventType.INSERT.value)
