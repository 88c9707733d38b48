"""WAL bytes and writes/s of a collection and of plain tables, and what lowers the WAL, in turns.

    python -m bench.wal

Each write is a transaction of its own, unless the row says otherwise. The first table takes a plain table and adds what
a collection has, one thing after the other. The second one changes a setting or a table. Updates set one field of
documents that are chosen at random. "after a checkpoint" counts the first update of each page since a checkpoint, which
writes the whole page (`full_page_writes`); "later" counts further updates.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from bench.arguments import parser_of
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off"}
WRITES = 500
DOCUMENTS = 10_000
ROUNDS = 3
FILL = """
INSERT INTO {table} (id, data) SELECT 'o-' || n, jsonb_build_object('number', n, 'status', 'new', 'total', n * 1.25,
  'customer', jsonb_build_object('name', md5(n::text), 'city', 'Reykjavík'), 'note', {note})
FROM generate_series({first}, {last}) n
"""
UPDATE = "UPDATE {table} SET data = data || jsonb_build_object('total', {number}) WHERE id = 'o-{document}'"
SMALL = "repeat('x', 60)"
LARGE = """(SELECT string_agg(md5((n * 1000 + part)::text) || ' lorem ipsum dolor sit amet', ' ')
  FROM generate_series(1, 60) part)"""
COLUMNS = """
  version bigint NOT NULL DEFAULT 1, replaced_version bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()
"""


@dataclass(frozen=True)
class Kind:
    """A table to write to.

    Attributes:
        make: statements that make it; `{table}` is its name.
        settings: of the server.
        note: an expression for the text of a document.
        batch: updates in a transaction.
    """

    name: str
    make: tuple[str, ...]
    settings: tuple[str, ...] = ()
    note: str = SMALL
    batch: int = 1


PLAIN = 'CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, data jsonb NOT NULL)'
WIDE = f'CREATE TABLE {{table}} (id text COLLATE "C" PRIMARY KEY, data jsonb NOT NULL, {COLUMNS})'
FULL = "ALTER TABLE {table} REPLICA IDENTITY FULL"
COLLECTION = "SELECT pgdoc.create_collection('docs', '{name}')"
INDEX = "CREATE INDEX ON {table} ((data ->> 'status'))"
ROOM = "ALTER TABLE {table} SET (fillfactor = 70)"

PARTS = (
    Kind("plain table: id and data", (PLAIN,)),
    Kind("+ version and times", (WIDE,)),
    Kind("+ REPLICA IDENTITY FULL", (WIDE, FULL)),
    Kind("collection (+ trigger, checks)", (COLLECTION,)),
)
ADVICE = (
    Kind("collection", (COLLECTION,)),
    Kind("fillfactor = 70", (COLLECTION, ROOM)),
    Kind("an index", (COLLECTION, INDEX)),
    Kind("an index, fillfactor = 70", (COLLECTION, INDEX, ROOM)),
    Kind("wal_compression = lz4", (COLLECTION,), ("wal_compression = lz4",)),
    Kind("100 updates in a transaction", (COLLECTION,), batch=100),
    Kind("100 updates, wal_compression", (COLLECTION,), ("wal_compression = lz4",), batch=100),
    Kind("4 KB documents", (COLLECTION,), note=LARGE),
    Kind("4 KB, SET COMPRESSION lz4", (COLLECTION, "ALTER TABLE {table} ALTER data SET COMPRESSION lz4"), note=LARGE),
    Kind("4 KB, SET STORAGE EXTERNAL", (COLLECTION, "ALTER TABLE {table} ALTER data SET STORAGE EXTERNAL"), note=LARGE),
    Kind("4 KB, wal_compression = lz4", (COLLECTION,), ("wal_compression = lz4",), note=LARGE),
    Kind("4 KB, plain table", (PLAIN,), note=LARGE),
)


@dataclass
class Figures:
    """WAL bytes of one write, in each round; writes/s; and the share of HOT updates."""

    insert: float
    first_update: float
    later_update: float
    inserts_per_s: float
    updates_per_s: float
    hot: float


def main() -> int:
    parser_of(__doc__).parse_args()
    with LocalServer(settings=SETTINGS) as server, psycopg.connect(server.conninfo, autocommit=True) as connection:
        with pgdoc.Store(server.conninfo) as store:
            store.migrate()
            store.create_collection("first")  # which makes the schema
        for title, kinds in (("what a collection adds", PARTS), ("what lowers the WAL", ADVICE)):
            figures: dict[str, list[Figures]] = {kind.name: [] for kind in kinds}
            for _ in range(ROUNDS):
                for kind in kinds:
                    with made(connection, kind) as table:
                        figures[kind.name].append(measure(connection, kind, table))
            report(title, figures)
    return 0


@contextlib.contextmanager
def made(connection: psycopg.Connection[Any], kind: Kind) -> Iterator[str]:
    for setting in kind.settings:
        connection.execute(f"ALTER SYSTEM SET {setting}".encode())
    connection.execute("SELECT pg_reload_conf()")
    time.sleep(0.1)  # until this session has read it
    for statement in kind.make:
        connection.execute(statement.format(table="docs.written", name="written").encode())
    connection.execute(FILL.format(table="docs.written", note=kind.note, first=1, last=DOCUMENTS).encode())
    connection.execute("VACUUM ANALYZE docs.written")
    try:
        yield "docs.written"
    finally:
        connection.execute("DROP TABLE docs.written")
        for setting in kind.settings:
            connection.execute(f"ALTER SYSTEM RESET {setting.partition(' ')[0]}".encode())


def measure(connection: psycopg.Connection[Any], kind: Kind, table: str) -> Figures:
    dice = random.Random(7)
    documents = dice.sample(range(1, DOCUMENTS + 1), WRITES)
    inserts = [
        FILL.format(table=table, note=kind.note, first=number, last=number)
        for number in range(DOCUMENTS + 1, DOCUMENTS + 1 + WRITES)
    ]
    first, later = (
        [UPDATE.format(table=table, number=number, document=document) for document in documents] for number in (1, 2)
    )
    before = hot_and_all(connection)
    insert, inserts_s = wal_of(connection, inserts, kind.batch)
    connection.execute("CHECKPOINT")
    first_update, _ = wal_of(connection, first, kind.batch)
    later_update, updates_s = wal_of(connection, later, kind.batch)
    hot, updates = (now - then for now, then in zip(hot_and_all(connection), before, strict=True))
    return Figures(
        insert, first_update, later_update, WRITES / inserts_s, WRITES / updates_s, hot / updates if updates else 0.0
    )


def wal_of(connection: psycopg.Connection[Any], statements: list[str], batch: int) -> tuple[float, float]:
    """Return the WAL bytes of one statement, and the seconds of all."""
    position = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
    ((before,),) = connection.execute(position).fetchall()
    began = time.perf_counter()
    for at in range(0, len(statements), batch):
        connection.execute(";".join(statements[at : at + batch]).encode())  # one transaction
    seconds = time.perf_counter() - began
    ((after,),) = connection.execute(position).fetchall()
    return float(after - before) / len(statements), seconds


def hot_and_all(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    connection.execute("SELECT pg_stat_force_next_flush()")
    ((hot, updates),) = connection.execute(
        "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relid = 'docs.written'::regclass"
    ).fetchall()
    return hot, updates


def report(title: str, figures: dict[str, list[Figures]]) -> None:
    print(f"{title}: {WRITES:,} of {DOCUMENTS:,} documents, median of {ROUNDS} rounds")
    print(
        f"{'':32}{'WAL bytes of an':>18}{'update after a':>16}{'later':>8}{'HOT':>7}{'inserts/s':>11}{'updates/s':>11}"
    )
    print(f"{'':32}{'insert':>18}{'checkpoint':>16}")
    for name, rounds in figures.items():
        insert, first, later, inserts, updates, hot = map(statistics.median, zip(*map(astuple, rounds), strict=True))
        print(f"{name:32}{insert:18,.0f}{first:16,.0f}{later:8,.0f}{hot:7.0%}{inserts:11,.0f}{updates:11,.0f}")
    print()


if __name__ == "__main__":
    sys.exit(main())
