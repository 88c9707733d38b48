"""Time what a collection's triggers and CHECK constraints cost per row: the same writes to three tables, in turns.

    python bench/triggers.py [CONNINFO]

Without CONNINFO it starts a private server. `bare` has only the columns and primary key of a collection, `checked` also
its CHECK constraints, and `collection` is a collection. The server does all the work, so the times exclude the client.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time

import psycopg

from pgdoc.database.migrate import migrate
from pgdoc.server import LocalServer

ROWS = 50_000
ROUNDS = 9
TABLES = ("bare", "checked", "collection")

SETUP = """
DROP SCHEMA IF EXISTS bench_triggers CASCADE;
SELECT pgdoc.create_collection('bench_triggers', 'collection');
CREATE TABLE bench_triggers.checked (LIKE bench_triggers.collection INCLUDING ALL);
CREATE TABLE bench_triggers.bare (LIKE bench_triggers.collection INCLUDING DEFAULTS INCLUDING INDEXES);
ALTER TABLE bench_triggers.checked REPLICA IDENTITY FULL;
ALTER TABLE bench_triggers.bare REPLICA IDENTITY FULL;
CREATE TABLE bench_triggers.source AS
  SELECT 'o-' || n AS id, jsonb_build_object('number', n, 'status', 'new', 'total', n * 1.25, 'customer',
    jsonb_build_object('name', md5(n::text), 'city', 'Reykjavík'), 'items', jsonb_build_array(n, n + 1)) AS data
  FROM generate_series(1, {rows}) n
"""

WRITES = {
    "INSERT": "INSERT INTO bench_triggers.{table} (id, data) SELECT id, data FROM bench_triggers.source",
    "COPY": "COPY bench_triggers.{table} (id, data) FROM STDIN",
    "UPDATE": 'UPDATE bench_triggers.{table} SET data = data || \'{{"status": "paid"}}\'',
}


def main() -> None:
    with contextlib.ExitStack() as stack:
        conninfo = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(LocalServer()).conninfo
        migrate(conninfo)
        connection = stack.enter_context(psycopg.connect(conninfo, autocommit=True))
        connection.execute(SETUP.format(rows=ROWS).encode())
        report(measure(connection))
        connection.execute("DROP SCHEMA bench_triggers CASCADE")


def measure(connection: psycopg.Connection) -> dict[tuple[str, str], list[float]]:
    """Return microseconds per row for each kind of write and each table, one figure per round."""
    figures: dict[tuple[str, str], list[float]] = {(write, table): [] for write in WRITES for table in TABLES}
    with connection.cursor().copy("COPY bench_triggers.source TO STDOUT") as copy:
        rows = b"".join(bytes(block) for block in copy)
    for turn in range(ROUNDS):
        for table in TABLES[turn % 3 :] + TABLES[: turn % 3]:
            for write, query in WRITES.items():
                if write != "UPDATE":
                    connection.execute(f"TRUNCATE bench_triggers.{table}".encode())
                connection.execute("CHECKPOINT")
                began = time.perf_counter()
                run(connection, query.format(table=table).encode(), rows)
                figures[write, table].append((time.perf_counter() - began) / ROWS * 1e6)
    return figures


def run(connection: psycopg.Connection, query: bytes, rows: bytes) -> None:
    with connection.cursor() as cursor:
        if not query.startswith(b"COPY"):
            cursor.execute(query)
            return
        with cursor.copy(query) as copy:
            copy.write(rows)


def report(figures: dict[tuple[str, str], list[float]]) -> None:
    print(f"microseconds per row, {ROWS:,} rows, median of {ROUNDS} rounds")
    print(f"{'':8}{'bare':>10}{'checked':>10}{'collection':>12}{'collection - bare':>19}{'collection / bare':>19}")
    for write in WRITES:
        bare, checked, collection = (statistics.median(figures[write, table]) for table in TABLES)
        print(
            f"{write:8}{bare:10.2f}{checked:10.2f}{collection:12.2f}{collection - bare:19.2f}{collection / bare:19.2f}"
        )


if __name__ == "__main__":
    main()
