"""The replica law for watched tables: the rows of events are those of the tables, byte for byte.

`TableWorkload` changes tables with columns of every type in random transactions, DDL included; `TableReplica` applies
the events and compares.
"""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING, Final

import orjson
import psycopg
from psycopg import sql

from pgdoc import EventType, Store
from tests.column_values import SETTINGS, VALUES
from tests.plugins import END, PATIENCE_S, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ChangeEvent

Rows = dict[str, tuple[str, str | None]]
"""By the id in events, the JSON of each row, or of its document and of its other columns."""

SCHEMA: Final = "docs"
_SCHEMAS: Final = ("public", "shop, two")
_NAMES: Final = ("wide", "keyed", "stored", 'o"d\\d')
_LOSING: Final = frozenset({"float4", "float8", "numeric", "numeric(6,2)"})
"""The types of which wal2json loses NaN and the infinities."""

_USER_TYPES: Final = {
    "mood": ("'sad'", "'o, \"k'"),
    "d_numeric": ("1.50", "'NaN'"),
    "d_bool": ("true", "false"),
    "d_json": ("'{\"a\":  1}'", "'null'"),
    "d_time": ("'2026-11-29 12:00'", "'infinity'"),
    "d_bytes": ("'\\xdead'", "''"),
    "d_ints": ("'{1,NULL}'", "'[0:1]={2,3}'"),
    "d_deep": ("2.50",),
    "int_pair": ("'(1,2)'", "'(,)'"),
    "span": ("'[1,2.5)'",),
}
_TYPES_SQL: Final = """
CREATE TYPE public.mood AS ENUM ('sad', 'o, "k');
CREATE DOMAIN public.d_numeric AS numeric;
CREATE DOMAIN public.d_bool AS bool;
CREATE DOMAIN public.d_json AS json;
CREATE DOMAIN public.d_time AS timestamptz;
CREATE DOMAIN public.d_bytes AS bytea;
CREATE DOMAIN public.d_ints AS int[];
CREATE DOMAIN public.d_deep AS public.d_numeric CHECK (value > 0);
CREATE TYPE public.int_pair AS (a int, b int);
CREATE TYPE public.span AS RANGE (subtype = numeric);
"""
_AS_TEXT: Final = frozenset({"int_pair", "int_pair[]", "d_ints[]"})
"""The types whose structure is not in the stream."""

_COLUMNS: Final = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull, attgenerated <> '' FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_KEYS: Final = """
SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_attribute a
WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place
"""


def check_rows(dsn: str, seed: int, transactions: int) -> None:
    """Check that the events of random transactions give exactly the rows that these leave."""
    start, rows = run(dsn, seed, transactions, has_nan=True)
    replica = TableReplica()
    with Store(dsn, schema=SCHEMA, plugin="auto") as store, store.watch(tables=True, resume_after=start) as stream:
        while (event := stream.next(timeout=PATIENCE_S)) is not None and event.collection != END:
            replica.apply(event)
    assert event is not None
    assert replica.kinds >= {"insert", "update", "delete", "schema", "create"}
    held = {name: found for name, found in replica.rows.items() if found}
    assert held == {name: found for name, found in rows.items() if found}


def check_plugins(dsn: str, seed: int, transactions: int) -> None:
    """Check that the events of random transactions are the same through both plugins."""
    start, _ = run(dsn, seed, transactions, has_nan=False)
    assert len(compare(dsn, SCHEMA, start, tables=True)) > transactions


def run(dsn: str, seed: int, transactions: int, *, has_nan: bool) -> tuple[str, dict[str, Rows]]:
    """Run random transactions; return the position before them, and the rows that they leave."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        with Store(dsn, schema=SCHEMA, plugin="auto") as store, store.watch(tables=True) as stream:
            start = str(stream.resume_token)
        workload = TableWorkload(connection, seed, has_nan=has_nan)
        workload.prepare()
        for _ in range(transactions):
            workload.transaction()
        workload.touch_all()
        connection.execute("SELECT pgdoc.create_collection(%s, %s)", [SCHEMA, END])
        return start, {".".join(table): workload.rows(*table) for table in workload.tables()}


class TableWorkload:
    """Random transactions on watched tables.

    Args:
        connection: A superuser's connection in autocommit mode.
        seed: The seed of the random actions.
        has_nan: Whether values can be NaN, and columns that can have it can be NULL, as wal2json can't tell.
    """

    def __init__(self, connection: psycopg.Connection, seed: int, *, has_nan: bool) -> None:
        self._connection = connection
        self._dice = random.Random(seed)
        self._has_nan = has_nan
        for setting in SETTINGS:
            connection.execute(setting.encode())
        connection.execute("SET search_path = pg_catalog, public")
        self._values = {**VALUES, **_USER_TYPES}
        self._values["numeric"] = tuple(value for value in VALUES["numeric"] if value != "1e131071")  # of 128 kB
        try:
            connection.execute("SELECT '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            del self._values["xml"]
        self._actions: list[Callable[[], None]] = [
            *[self._insert, self._update, self._touch] * 6,
            *[self._delete, self._change_key, self._copy, self._nest] * 3,
            *[self._add_column, self._drop_column, self._rename_column, self._retype] * 2,
            *[self._truncate, self._rename, self._move, self._leave, self._store_apart],
        ]

    def prepare(self) -> None:
        """Create the tables and add them."""
        self._connection.execute(_TYPES_SQL.encode())
        self._connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_SCHEMAS[1])))
        types = [name for each in self._values for name in (each, f"{each}[]")]
        wide = ", ".join(f"c{number} {kind}{self._constraint(kind)}" for number, kind in enumerate(types))
        for ddl in (
            f"CREATE TABLE public.wide (id int PRIMARY KEY, {wide}, twice int GENERATED ALWAYS AS (id * 2) STORED)",
            "CREATE TABLE public.keyed (v text, b numeric, a text, u d_deep, PRIMARY KEY (a, b)) ",
            "CREATE TABLE public.stored (id uuid PRIMARY KEY, payload jsonb, kind mood, n int)",
            'CREATE TABLE "shop, two"."o""d\\d" (id timestamptz PRIMARY KEY, "q""\\ü,{}" bytea, " " bool)',
        ):
            self._connection.execute(ddl.encode())
        for schema, name in ((_SCHEMAS[0], "wide"), (_SCHEMAS[0], "keyed"), (_SCHEMAS[1], _NAMES[3])):
            self._add(schema, name)
        self._connection.execute("SELECT pgdoc.add_table('public.stored', 'payload')")

    def _constraint(self, kind: str) -> str:
        return f" NOT NULL DEFAULT {self._value(kind)}" if kind in _LOSING and not self._has_nan else ""

    def _add(self, schema: str, name: str) -> None:
        self._connection.execute("SELECT pgdoc.add_table(%s::regclass)", [self._quoted(schema, name)])

    def _quoted(self, schema: str, name: str) -> str:
        return sql.Identifier(schema, name).as_string(self._connection)

    def transaction(self) -> None:
        """Run one transaction; an action that fails is rolled back by itself."""
        with self._connection.transaction(force_rollback=self._dice.random() < 0.1):
            for _ in range(self._dice.randint(1, 6)):
                self._act()

    def touch_all(self) -> None:
        """Update every row, which then has the present shape in its event."""
        for schema, name in self.tables():
            key = self._keys(schema, name)[0]
            self._execute(schema, name, "UPDATE {table} SET {key} = {key}", key=sql.Identifier(key))

    def tables(self) -> list[tuple[str, str]]:
        rows = self._connection.execute("SELECT schema_name, name FROM pgdoc.tables() ORDER BY 1, 2").fetchall()
        return [(str(schema), str(name)) for schema, name in rows]

    def rows(self, schema: str, name: str) -> Rows:
        """Return the JSON of each row, or of its document, by its id in events; and that of its other columns."""
        columns = self._columns(schema, name)
        document = "payload" if "payload" in columns else None
        parts = []
        for column, (kind, _, is_generated) in columns.items():
            if not is_generated and column != document:
                text = sql.SQL("::text") if kind in _AS_TEXT else sql.SQL("")
                parts.append(sql.SQL("{column}{text} AS {column}").format(column=sql.Identifier(column), text=text))
        keys = self._keys(schema, name)
        query = sql.SQL(
            "SELECT array[{keys}], row_to_json(r)::text, {document} FROM {table} t, LATERAL (SELECT {parts}) r"
        )
        found = self._connection.execute(
            query.format(
                keys=sql.SQL(", ").join(sql.SQL("format('%s', t.{})").format(sql.Identifier(key)) for key in keys),
                document=sql.SQL("coalesce(t.{}::text, 'null')").format(sql.Identifier(document))
                if document
                else sql.SQL("NULL"),
                table=sql.Identifier(schema, name),
                parts=sql.SQL(", ").join(parts),
            )
        ).fetchall()
        rows = {}
        for key, row, data in found:
            document_id = key[0] if len(key) == 1 else orjson.dumps(key).decode()
            rows[document_id] = (row, None) if data is None else (data, row)
        return rows

    # Actions --------------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        with contextlib.suppress(psycopg.Error), self._connection.transaction():
            self._dice.choice(self._actions)()

    def _nest(self) -> None:
        with self._connection.transaction(force_rollback=self._dice.random() < 0.5):
            for _ in range(self._dice.randint(1, 4)):
                self._act()

    def _table(self) -> tuple[str, str]:
        return self._dice.choice(self.tables())

    def _columns(self, schema: str, name: str) -> dict[str, tuple[str, bool, bool]]:
        rows = self._connection.execute(_COLUMNS, [self._quoted(schema, name)]).fetchall()
        return {column: (kind, is_needed, is_generated) for column, kind, is_needed, is_generated in rows}

    def _keys(self, schema: str, name: str) -> list[str]:
        return [key for (key,) in self._connection.execute(_KEYS, [self._quoted(schema, name)])]

    def _execute(self, schema: str, name: str, text: str, **parts: sql.Composable) -> None:
        self._connection.execute(sql.SQL(text).format(table=sql.Identifier(schema, name), **parts))

    def _value(self, kind: str) -> str:
        """Return SQL of a value of a type, as `format_type` or `VALUES` names it."""
        is_array = kind.endswith("[]")
        base = kind.removesuffix("[]")
        values = self._values.get(base) or self._values.get(_SHORT.get(base, ""), ("NULL",))
        if not is_array:
            chosen = self._dice.choice(values)
            is_losing = _SHORT.get(base, base) in _LOSING
            if is_losing and not self._has_nan and ("NaN" in chosen or "Infinity" in chosen):
                chosen = "12.50"
            return f"CAST({chosen} AS {kind})"
        items = [f"CAST({self._dice.choice([*values, 'NULL'])} AS {base})" for _ in range(self._dice.randint(0, 3))]
        return f"CAST(ARRAY[{', '.join(items)}] AS {kind})"

    def _random_value(self, kind: str, *, is_needed: bool) -> sql.Composable:
        if not is_needed and self._dice.random() < 0.2:
            return sql.SQL("NULL")
        if kind in {"text", "jsonb"} and self._dice.random() < 0.1:
            pad = self._dice.randbytes(self._dice.choice([20, 5_000])).hex()
            return sql.Literal(json.dumps({"ü": pad, "n": self._dice.randint(1, 9)}))
        return sql.SQL(self._value(kind))

    def _insert(self) -> None:
        schema, name = self._table()
        columns = {column: found for column, found in self._columns(schema, name).items() if not found[2]}
        values = [self._random_value(kind, is_needed=is_needed) for kind, is_needed, _ in columns.values()]
        keys = self._keys(schema, name)
        if columns[keys[0]][0] == "integer":
            values[list(columns).index(keys[0])] = sql.Literal(self._dice.randint(1, 40))
        if columns[keys[0]][0] == "uuid":
            values[list(columns).index(keys[0])] = sql.SQL("gen_random_uuid()")
        self._execute(
            schema,
            name,
            "INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING",
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join(values),
        )

    def _update(self) -> None:
        schema, name = self._table()
        keys = self._keys(schema, name)
        columns = {
            column: found
            for column, found in self._columns(schema, name).items()
            if not found[2] and (column not in keys or self._dice.random() < 0.1)
        }
        chosen = self._dice.sample(sorted(columns), min(len(columns), self._dice.randint(1, 5)))
        sets = [
            sql.SQL("{} = {}").format(
                sql.Identifier(column), self._random_value(columns[column][0], is_needed=columns[column][1])
            )
            for column in chosen
        ]
        self._execute(
            schema,
            name,
            "UPDATE {table} SET {sets} WHERE {key} IN (SELECT {key} FROM {table} ORDER BY random() LIMIT {count})",
            sets=sql.SQL(", ").join(sets),
            key=sql.Identifier(keys[0]),
            count=sql.Literal(self._dice.randint(1, 4)),
        )

    def _touch(self) -> None:
        """Update rows without changing a value, TOASTed ones included."""
        schema, name = self._table()
        key = sql.Identifier(self._keys(schema, name)[0])
        self._execute(schema, name, "UPDATE {table} SET {key} = {key}", key=key)

    def _change_key(self) -> None:
        name = self._dice.choice(["wide", "keyed"])
        found = [table for table in self.tables() if name == "wide" and "twice" in self._columns(*table)]
        found += [table for table in self.tables() if name == "keyed" and self._keys(*table) == ["a", "b"]]
        change = "id = id + 100" if name == "wide" else "b = b::text::numeric + 0.00"
        self._execute(*found[0], f"UPDATE {{table}} SET {change}")

    def _delete(self) -> None:
        schema, name = self._table()
        key = sql.Identifier(self._keys(schema, name)[0])
        self._execute(schema, name, "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} LIMIT 2)", key=key)

    def _copy(self) -> None:
        found = [table for table in self.tables() if "twice" in self._columns(*table)]
        query = sql.SQL("COPY {} (id) FROM STDIN").format(sql.Identifier(*found[0]))
        with self._connection.cursor() as cursor, cursor.copy(query) as copy:
            for _ in range(self._dice.choice([1, 5, 50])):
                copy.write_row((self._dice.randint(1_000, 1 << 30),))

    def _truncate(self) -> None:
        tables = self._dice.sample(self.tables(), self._dice.randint(1, 3))
        listed = sql.SQL(", ").join(sql.Identifier(*table) for table in tables)
        self._connection.execute(sql.SQL("TRUNCATE {}").format(listed))

    def _add_column(self) -> None:
        kind = self._dice.choice(sorted(self._values)) + self._dice.choice(["", "[]"])
        default = self._constraint(kind) or self._dice.choice(["", f" DEFAULT {self._value(kind)}"])
        column = sql.Identifier(f"more {self._dice.randint(1, 99)}")
        kind_sql, default_sql = sql.SQL(kind), sql.SQL(default)
        self._execute(
            *self._table(),
            "ALTER TABLE {table} ADD COLUMN {column} {kind}{default}",
            column=column,
            kind=kind_sql,
            default=default_sql,
        )

    def _some_column(self, schema: str, name: str) -> str:
        kept = {*self._keys(schema, name), "payload", "twice"}
        return self._dice.choice([column for column in self._columns(schema, name) if column not in kept] or ["none"])

    def _drop_column(self) -> None:
        table = self._table()
        self._execute(
            *table, "ALTER TABLE {table} DROP COLUMN {column}", column=sql.Identifier(self._some_column(*table))
        )

    def _rename_column(self) -> None:
        table = self._table()
        new = self._dice.choice(['n"ew', "_id", "id\\2", f"c {self._dice.randint(1, 9)}", "data", "version"])
        self._execute(
            *table,
            "ALTER TABLE {table} RENAME COLUMN {column} TO {new}",
            column=sql.Identifier(self._some_column(*table)),
            new=sql.Identifier(new),
        )

    def _retype(self) -> None:
        table = self._table()
        kind = self._dice.choice(sorted(self._values)) + self._dice.choice(["", "[]"])
        column = sql.Identifier(self._some_column(*table))
        constraint = ", ALTER COLUMN {column} SET NOT NULL" if self._constraint(kind) else ""
        self._execute(
            *table,
            "ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} TYPE {kind} USING {value}"
            + constraint,
            column=column,
            kind=sql.SQL(kind),
            value=sql.SQL(self._value(kind)),
        )

    def _rename(self) -> None:
        self._execute(
            *self._table(),
            "ALTER TABLE {table} RENAME TO {new}",
            new=sql.Identifier(self._dice.choice([*_NAMES, "new"])),
        )

    def _move(self) -> None:
        schema, name = self._table()
        new = next(each for each in _SCHEMAS if each != schema)
        self._execute(schema, name, "ALTER TABLE {table} SET SCHEMA {new}", new=sql.Identifier(new))

    def _leave(self) -> None:
        """Remove a table, write to it, and add it again."""
        schema, name = self._table()
        document = "payload" if "payload" in self._columns(schema, name) else None
        quoted = self._quoted(schema, name)
        self._connection.execute("SELECT pgdoc.remove_table(%s::regclass)", [quoted])
        self._execute(schema, name, "DELETE FROM {table}")
        self._connection.execute("SELECT pgdoc.add_table(%s::regclass, %s)", [quoted, document])

    def _store_apart(self) -> None:
        table = self._table()
        column = sql.Identifier(self._some_column(*table))
        self._execute(*table, "ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL", column=column)


_SHORT: Final = {
    "boolean": "bool",
    "character varying(50)": "varchar(50)",
    "character(12)": "char(12)",
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "numeric(6,2)": "numeric(6,2)",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "bit varying": "varbit",
}
"""The names in `VALUES` of the types that `format_type` names otherwise."""


class TableReplica:
    """The rows that the events produce, as JSON."""

    def __init__(self) -> None:
        self.rows: dict[str, Rows] = {}
        self.kinds: set[str] = set()
        self._stale: set[str] = set()
        self._dropped: tuple[str, Rows] | None = None  # if the last event did

    def apply(self, event: ChangeEvent) -> None:
        """Apply the next event; check its before image."""
        self.kinds.add(str(event.event_type))
        dropped, self._dropped = self._dropped, None
        rows = self.rows.setdefault(event.collection, {})
        if event.document_id is None:
            self._apply_to_all(event, dropped)
            return
        held = rows.pop(event.document_id, None)
        after, before = images_of(event)
        assert (held is None) == (before is None), (event.event_type, event.collection, event.document_id)
        if before is not None and event.collection not in self._stale:
            assert held is not None
            assert held[0] == before
        if after is not None:
            rows[event.document_id] = (after, columns_of(event))

    def _apply_to_all(self, event: ChangeEvent, dropped: tuple[str, Rows] | None) -> None:
        if event.event_type is EventType.SCHEMA:
            self._stale.add(event.collection)
            return
        rows = self.rows.pop(event.collection)
        if event.event_type is EventType.RENAME:
            assert event.renamed_to is not None
            self.rows[event.renamed_to] = rows
            if event.collection in self._stale:
                self._stale.add(event.renamed_to)
        elif event.event_type is EventType.CREATE:
            assert not rows
            self._stale.discard(event.collection)
            if dropped is not None and dropped[0] != event.collection:  # the table was moved
                self.rows[event.collection] = dropped[1]
                self._stale |= {event.collection} if dropped[0] in self._stale else set()
        elif event.event_type is EventType.DROP:
            self._dropped = event.collection, rows


def images_of(event: ChangeEvent) -> tuple[str | None, str | None]:
    """Return the JSON of the rows after and before the change, as `to_json()` has it."""
    text = event.to_json().decode()
    return _raw(text, "full_document", event), _raw(text, "full_document_before_change", event)


def columns_of(event: ChangeEvent) -> str | None:
    text = event.to_json().decode()
    return _value_at(text, '"columns":') if event.columns is not None else None


def _raw(text: str, field: str, event: ChangeEvent) -> str | None:
    found = f'"{field}":{{"id":{orjson.dumps(event.document_id).decode()},"data":'
    return _value_at(text, found) if found in text else None


def _value_at(text: str, before: str) -> str:
    start = text.rindex(before) + len(before)
    _, end = json.JSONDecoder(parse_int=str).raw_decode(text, start)
    return text[start:end]
