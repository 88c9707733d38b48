"""Sessions that create, register, rename, move and drop tables at random, beside writers: what streams say of it.

1. A row is delivered once, under the name that its collection had when it was written, and no other row is.
2. Both output plugins, and a stream that reads the same WAL later, deliver the same events with the same tokens.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from tests.fixtures.fix_server import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ChangeStream

SESSIONS = 3
STEPS = 80
NAMES = ("a", "b", "c")
SCHEMAS = ("docs", "else")
PATIENCE_S = 60
TABLE = """
CREATE TABLE {0} (
  id text PRIMARY KEY, data jsonb NOT NULL,
  version bigint NOT NULL DEFAULT 1, replaced_version bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now())
"""
REFUSED = (  # by another session that was faster
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateObject,
    psycopg.errors.UniqueViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.WrongObjectType,
    psycopg.errors.UndefinedObject,
    psycopg.errors.ObjectNotInPrerequisiteState,
    psycopg.errors.InternalError,  # "tuple concurrently updated"
)


class Session:
    """A session that does random steps, and notes which rows are changes of a collection.

    Attributes:
        written: `(id, name)` of each committed row that was a collection's when it was written.
    """

    def __init__(self, dsn: str, seed: str, *, renames_schemas: bool) -> None:
        self._chance = random.Random(seed)
        self._connection = psycopg.connect(dsn)
        self._connection.execute("SET lock_timeout = '3s'")
        self._connection.commit()
        self._renames_schemas = renames_schemas
        self._seed = seed
        self._count = 0
        self.written: list[tuple[str, str]] = []

    def run(self) -> None:
        steps = [self._create, self._register, self._unregister, self._rename, self._move, self._drop]
        steps += [self._rename_schema if self._renames_schemas else self._rename, *[self._write] * 8]
        with self._connection:
            for _ in range(STEPS):
                self._transaction(steps)

    def _transaction(self, steps: list[Callable[[], list[tuple[str, str]]]]) -> None:
        """A few steps, some of them in a savepoint that is rolled back."""
        written: list[tuple[str, str]] = []
        try:
            for step in self._chance.choices(steps, k=self._chance.randint(1, 3)):
                self._connection.execute("SAVEPOINT step")
                found = step()
                if self._chance.random() < 0.2:
                    self._connection.execute("ROLLBACK TO step")
                else:
                    written += found
            if self._chance.random() < 0.9:
                self._connection.commit()
                self.written += written
            else:
                self._connection.rollback()
        except REFUSED:
            self._connection.rollback()

    def _table(self, schema: str = "docs") -> str:
        return f"{schema}.{self._chance.choice(NAMES)}"

    def _execute(self, query: str, *params: Any) -> psycopg.Cursor[Any]:
        return self._connection.execute(query.encode(), params or None)

    def _create(self) -> list[tuple[str, str]]:
        schema, name = self._table().split(".")
        self._execute("SELECT pgdoc.create_collection(%s, %s)", schema, name)
        return []

    def _register(self) -> list[tuple[str, str]]:
        table = self._table()
        self._execute(TABLE.format(table))
        # Nothing can keep a schema from being renamed beside a table that is not committed.
        written = [] if self._renames_schemas else self._insert(table)
        self._execute("SELECT pgdoc.register(%s)", table)
        return written + self._insert(table)

    def _unregister(self) -> list[tuple[str, str]]:
        table = self._table()
        self._execute("SELECT pgdoc.unregister(%s)", table)
        return self._insert(table)

    def _rename(self) -> list[tuple[str, str]]:
        self._execute(f"ALTER TABLE {self._table()} RENAME TO {self._chance.choice(NAMES)}")
        return []

    def _move(self) -> list[tuple[str, str]]:
        here, there = self._chance.sample(SCHEMAS, 2)
        self._execute(f'ALTER TABLE "{here}".{self._chance.choice(NAMES)} SET SCHEMA "{there}"')
        return []

    def _rename_schema(self) -> list[tuple[str, str]]:
        """Let the two schemas exchange their names."""
        for old, new in ((SCHEMAS[0], "between"), SCHEMAS[::-1], ("between", SCHEMAS[1])):
            self._execute(f'ALTER SCHEMA "{old}" RENAME TO "{new}"')
        return []

    def _drop(self) -> list[tuple[str, str]]:
        self._execute(f"DROP TABLE {self._table()}")
        return []

    def _write(self) -> list[tuple[str, str]]:
        return self._insert(self._table())

    def _insert(self, table: str) -> list[tuple[str, str]]:
        """Insert a row. Its lock keeps the table as it is until the transaction ends, and so is what is asked then."""
        self._count += 1
        row_id = f"{self._seed}-{self._count}"
        self._execute(f"INSERT INTO {table} (id, data) VALUES (%s, '{{}}')", row_id)
        ((is_collection,),) = self._execute("SELECT pgdoc.is_collection(%s)", table).fetchall()
        return [(row_id, table.partition(".")[2])] if is_collection else []


def read(stream: ChangeStream, last: str) -> list[tuple[Any, ...]]:
    """Return the events up to the row `last`, without it."""
    found: list[tuple[Any, ...]] = []
    while True:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        if event.document_id == last:
            return found
        found.append(
            (str(event.resume_token), str(event.event_type), event.collection, event.document_id, event.renamed_to)
        )


def plugins() -> tuple[str, ...]:
    return ("wal2json", "pgoutput") if PLUGIN == "auto" else (PLUGIN,)


@pytest.mark.parametrize("renames_schemas", [False, True])
@pytest.mark.parametrize("seed", ["1", "2"])
def test_rows_are_delivered_under_the_name_that_their_collection_had(
    dsn: str, seed: str, *, renames_schemas: bool
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for schema in SCHEMAS:  # a schema without a collection is none of pgdoc's business
            connection.execute("SELECT pgdoc.create_collection(%s, 'anchor')", [schema])
    with Store(dsn, plugin=plugins()[0]) as store, store.watch() as live:
        start = str(live.resume_token)
        seeds = [f"{seed}.{number}" for number in range(SESSIONS)]
        sessions = [Session(dsn, each, renames_schemas=renames_schemas) for each in seeds]
        threads = [threading.Thread(target=session.run) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SELECT pgdoc.create_collection('docs', 'the_end')")
            connection.execute("INSERT INTO docs.the_end (id, data) VALUES ('last', '{}')")
        events = read(live, "last")
    written = sorted(row for session in sessions for row in session.written)
    assert written
    assert sorted((row_id, name) for _, kind, name, row_id, _ in events if kind == "insert") == written
    for plugin in plugins():
        with Store(dsn, plugin=plugin) as store, store.watch(resume_after=start) as later:
            assert read(later, "last") == events
