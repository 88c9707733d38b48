"""Check that both output plugins, read from the same position, give the same events and tokens.

`Workload` writes to a schema with plain SQL, including everything that the plugins could report differently.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgdoc import ChangeEvent, Store
from pgdoc.decoding.plugins import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ResumeToken

END = "end"
PATIENCE_S = 60.0
NAMES = ("a", "b", "C-3", "dé")
MORE_NAMES = (*NAMES, "e", "f", "g")
_COLUMNS = """
  id text PRIMARY KEY, data jsonb NOT NULL,
  version bigint NOT NULL DEFAULT 1, replaced_version bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(), more numeric(9, 2)[]
"""
_TABLES = """
SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY (%s) AND tablename <> 'plain' ORDER BY 1, 2
"""


def read(dsn: str, schema: str, plugin: str, after: ResumeToken | str, *, tables: bool = False) -> list[bytes]:
    """Return all events after a token up to the end mark, as JSON."""
    events: list[bytes] = []
    names = () if tables else ("*",)
    with (
        Store(dsn, schema=schema, plugin=plugin) as store,
        store.watch(*names, resume_after=after, tables=tables, topics=["*"]) as stream,
    ):
        while True:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None, f"no event within {PATIENCE_S:.0f} s"
            if event.collection == END:
                return events
            text = event.to_json()
            assert ChangeEvent.from_json(text).to_json() == text
            assert ChangeEvent.from_json(text) == event
            events.append(text)


def compare(dsn: str, schema: str, after: ResumeToken | str, *, tables: bool = False) -> list[bytes]:
    """Read with every plugin, check that the events are equal, and return them."""
    first, *others = (read(dsn, schema, plugin, after, tables=tables) for plugin in PLUGINS)
    for other in others:
        for one, another in zip(first, other, strict=False):
            assert one == another
        assert len(first) == len(other)
    return first


class Workload:
    """Random transactions in the schema that is read and in a second one.

    Args:
        connection: A connection in autocommit mode.
        schema: An existing schema with its collections.
        seed: The seed of the random actions.
    """

    def __init__(self, connection: psycopg.Connection, schema: str, seed: int) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._schemas = (schema, f"{schema}_beside")
        actions = [
            *[self._insert, self._update, self._copy] * 4,
            *[self._touch, self._delete, self._emit_messages, self._publish] * 3,
            *[self._truncate, self._nest, self._alter, self._create, self._create_by_hand] * 2,
            *[self._rename, self._drop, self._move, self._rename_schema],
        ]
        self._actions: list[Callable[[], None]] = actions

    def prepare(self) -> None:
        for schema in self._schemas:
            self._execute("CREATE SCHEMA IF NOT EXISTS {}", schema)
            self._execute("CREATE TABLE {}.plain (n int PRIMARY KEY, data jsonb)", schema)
            for name in NAMES:
                self._connection.execute("SELECT pgdoc.create_collection(%s, %s)", [schema, name])

    def transaction(self) -> None:
        """Run one transaction of random actions; an action that fails is rolled back by itself."""
        rolls_back = self._random.random() < 0.1
        with self._connection.transaction(force_rollback=rolls_back):
            for _ in range(self._random.randint(1, 6)):
                self._act()

    def end(self) -> None:
        self._connection.execute("SELECT pgdoc.create_collection(%s, %s)", [self._schemas[0], END])

    def _act(self) -> None:
        with contextlib.suppress(psycopg.Error), self._connection.transaction():
            self._random.choice(self._actions)()

    def _nest(self) -> None:
        with self._connection.transaction(force_rollback=self._random.random() < 0.5):
            for _ in range(self._random.randint(1, 4)):
                self._act()

    def _execute(self, text: str, *names: str) -> None:
        self._connection.execute(sql.SQL(text).format(*map(sql.Identifier, names)))

    def _name(self) -> str:
        return self._random.choice(MORE_NAMES)

    def _schema_and_name(self) -> tuple[str, str]:
        """Choose a schema and table name, which may exist; prefer the schema that is read."""
        return self._random.choice([self._schemas[0], *self._schemas]), self._name()

    def _table(self) -> tuple[str, str]:
        """Choose an existing collection."""
        rows = self._connection.execute(_TABLES, [list(self._schemas)]).fetchall()
        found: tuple[str, str] = self._random.choice(rows)
        return found

    def _data(self) -> str:
        pad = self._random.randbytes(self._random.choice([0, 0, 20, 20, 3_000, 30_000])).hex()
        return f'{{"n": {self._random.choice(["1", "1.50", "10000000000000000000001", "-0.0"])}, "ü🦉": "{pad}"}}'

    def _on_table(self, text: str, *values: object) -> None:
        self._connection.execute(sql.SQL(text).format(sql.Identifier(*self._table())), values or None)

    def _publish(self) -> None:
        """Publish events, some of which are refused, or copied with others at one LSN."""
        topic = self._random.choice(["order.shipped", "order.line.added", "other", "no topic"])
        if self._random.random() < 0.3:
            with self._connection.cursor().copy("COPY pgdoc.messages (topic, key, payload) FROM STDIN") as copy:
                for number in range(self._random.choice([1, 5, 200])):
                    copy.write_row((topic, f"k-{number}", self._data()))
        else:
            key = self._random.choice([None, "k", "🦉"])
            self._connection.execute("SELECT pgdoc.publish(%s, %s, %s)", [topic, self._data(), key])

    def _insert(self) -> None:
        rows = self._random.choice([1, 1, 1, 7, 300])
        self._on_table(
            "INSERT INTO {} (id, data) SELECT n || %s, %s::jsonb FROM generate_series(1, %s) n ON CONFLICT (id) "
            "DO UPDATE SET data = excluded.data",
            self._random.choice(["", "'", "🦉"]),
            self._data(),
            rows,
        )

    def _update(self) -> None:
        self._on_table("UPDATE {} SET data = data || %s::jsonb WHERE id < %s", self._data(), self._id())

    def _touch(self) -> None:
        """Update rows without changing their TOAST values; sometimes mark them as replaced."""
        whole = ", replaced_version = version + 1" if self._random.random() < 0.3 else ""
        self._on_table(f"UPDATE {{}} SET updated_at = now(){whole} WHERE id < %s", self._id())

    def _delete(self) -> None:
        self._on_table("DELETE FROM {} WHERE id >= %s", self._id())

    def _id(self) -> str:
        return str(self._random.randint(1, 9))

    def _copy(self) -> None:
        query = sql.SQL("COPY {} (id, data) FROM STDIN").format(sql.Identifier(*self._table()))
        with self._connection.cursor() as cursor, cursor.copy(query) as copy:
            for _ in range(self._random.choice([1, 5, 200])):
                copy.write_row((self._random.randbytes(6).hex(), self._data()))

    def _truncate(self) -> None:
        tables = {self._table() for _ in range(self._random.randint(1, 5))}
        if self._random.random() < 0.5:
            tables.add((self._schemas[0], "plain"))
        listed = sql.SQL(", ").join(
            sql.Identifier(*table) for table in self._random.sample(sorted(tables), len(tables))
        )
        self._connection.execute(sql.SQL("TRUNCATE {}").format(listed))

    def _emit_messages(self) -> None:
        self._connection.execute("SELECT pgdoc.set_metadata(%s)", [f'{{"n": {self._random.randint(1, 99)}}}'])
        if self._random.random() < 0.5:
            transactional, prefix = self._random.choice([(True, "other"), (False, "pgdoc"), (True, "pgdoc.")])
            self._connection.execute("SELECT pg_logical_emit_message(%s, %s, 'text')", [transactional, prefix])
            self._connection.execute(
                "SELECT pg_logical_emit_message(true, 'pgdoc', %b)",
                [self._random.choice([b"\xff", b"", b'"x"\0y', b"7"])],
            )

    def _alter(self) -> None:
        self._on_table(
            self._random.choice(
                [
                    "ALTER TABLE {} ADD COLUMN IF NOT EXISTS note text DEFAULT 'é'",
                    "ALTER TABLE {} DROP COLUMN IF EXISTS note",
                    "ALTER TABLE {} ADD COLUMN IF NOT EXISTS n int GENERATED ALWAYS AS (length(id)) STORED",
                    "ALTER TABLE {} ALTER COLUMN data SET STORAGE EXTERNAL",
                    "CREATE INDEX ON {} (version)",
                    "ANALYZE {}",
                    "ALTER TABLE {} RENAME COLUMN note TO remark",
                ]
            )
        )

    def _create(self) -> None:
        self._connection.execute("SELECT pgdoc.create_collection(%s, %s)", self._schema_and_name())

    def _create_by_hand(self) -> None:
        table = self._schema_and_name()
        self._execute(f"CREATE TABLE {{}}.{{}} ({_COLUMNS})", *table)
        self._execute("INSERT INTO {}.{} (id, data, more) VALUES ('hand', '{{}}', '{{1.50,NULL}}')", *table)
        self._execute("ALTER TABLE {}.{} REPLICA IDENTITY FULL", *table)

    def _rename(self) -> None:
        schema, name = self._table()
        if self._random.random() < 0.5:
            self._execute("ALTER TABLE {}.{} RENAME TO {}", schema, name, self._name())
        else:
            self._connection.execute("SELECT pgdoc.rename_collection(%s, %s, %s)", [schema, name, self._name()])

    def _drop(self) -> None:
        if self._random.random() < 0.5:
            self._on_table("DROP TABLE {}")
        else:
            self._connection.execute("SELECT pgdoc.drop_collection(%s, %s)", self._table())

    def _move(self) -> None:
        schema, name = self._table()
        self._execute(
            "ALTER TABLE {}.{} SET SCHEMA {}", schema, name, next(each for each in self._schemas if each != schema)
        )

    def _rename_schema(self) -> None:
        """Swap the names of the two schemas."""
        one, other = self._schemas
        for old, new in ((one, "between"), (other, one), ("between", other)):
            self._execute("ALTER SCHEMA {} RENAME TO {}", old, new)
            self._insert()
