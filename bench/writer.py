"""What a collection costs those who write to it, to a plain table of `id` and `data`: writes per second and WAL.

    python -m bench writer

One session writes one document a transaction. Its commits do not wait for the disk, which would hide the rest. The
server's part alone is measured with 50,000 rows in one statement.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench import alternatives
from bench.figures import compare, in_turns
from bench.harness import seconds, wal_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from bench.figures import Figure
    from bench.harness import Bench, Site

PLAIN = "a plain table"
FULL = "a plain table, REPLICA IDENTITY FULL"
TABLES = {
    PLAIN: "bench.plain",
    FULL: "bench.full_rows",
    "a collection": "docs.orders",
    "a plain table, trigger and outbox": "bench.polled",
    "a plain table, trigger that notifies": "bench.listened",
}
OTHERS = tuple(name for name in TABLES if name != "a collection")
SETUP = """
CREATE TABLE bench.plain (id text PRIMARY KEY, data jsonb NOT NULL);
CREATE TABLE bench.full_rows (LIKE bench.plain INCLUDING ALL);
ALTER TABLE bench.full_rows REPLICA IDENTITY FULL;
CREATE TABLE bench.checked (LIKE docs.orders INCLUDING ALL);
ALTER TABLE bench.checked REPLICA IDENTITY FULL;
CREATE UNLOGGED TABLE bench.source (id text, data jsonb);
"""
SOURCE = "INSERT INTO bench.source SELECT 'o-' || n, bench.document(n, %s::int) FROM generate_series(1, %s::int) n"
WRITES = {
    "insert": "INSERT INTO {table} (id, data) SELECT id, data FROM bench.source WHERE id = 'o-' || %s",
    "update": "UPDATE {table} SET data = data || '{{\"status\": \"paid\"}}' WHERE id = 'o-' || %s",
    "delete": "DELETE FROM {table} WHERE id = 'o-' || %s",
}
AT_ONCE = {
    "INSERT": "INSERT INTO {table} (id, data) SELECT id, data FROM bench.source",
    "UPDATE": 'UPDATE {table} SET data = data || \'{{"status": "paid"}}\'',
    "COPY": "COPY {table} (id, data) FROM STDIN",
}
CHECKED = "the columns and checks of a collection, no triggers"
ASYNCHRONOUS = "-c synchronous_commit=off"


def measure(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site, site.connect(ASYNCHRONOUS) as connection:
        connection.execute(alternatives.SETUP)
        connection.execute(SETUP)
        yield from one_by_one(bench, connection)
        yield from by_size(bench, connection)
        yield from at_once(bench, connection)
        yield from ways_to_less_wal(bench, site)


def prepare(connection: psycopg.Connection, size: int, documents: int) -> None:
    connection.execute("TRUNCATE bench.source")
    connection.execute(SOURCE, (size, documents))
    connection.execute("CREATE INDEX IF NOT EXISTS source_id ON bench.source (id)")
    connection.execute("ANALYZE bench.source")


def write(connection: psycopg.Connection, table: str, documents: int) -> dict[str, tuple[float, float]]:
    """Insert, update and delete documents one by one; return writes per second and bytes of WAL per write."""
    connection.execute(f"TRUNCATE {table}".encode())
    measured = {}
    for kind, text in WRITES.items():
        statement = text.format(table=table).encode()

        def work(statement: bytes = statement) -> None:
            for n in range(1, documents + 1):
                connection.execute(statement, (str(n),))

        before = wal_bytes(connection)
        took = seconds(work)
        measured[kind] = documents / took, (wal_bytes(connection) - before) / documents
    return measured


def one_by_one(bench: Bench, connection: psycopg.Connection) -> Iterator[Figure]:
    documents = bench.size(2_000, 50)
    prepare(connection, 200, documents)
    ways = {name: partial(write, connection, table, documents) for name, table in TABLES.items()}
    rounds = in_turns(bench.rounds(), ways)
    for which, part, unit in ((0, "writes", "writes/s"), (1, "WAL", "bytes/write")):
        for kind in WRITES:
            values = {_named(kind, name): [each[kind][which] for each in turns] for name, turns in rounds.items()}
            others = [_named(kind, name) for name in OTHERS]
            yield from compare(part, values, _named(kind, PLAIN), unit, less_is_better=which == 1, others=others)


def _named(kind: str, table: str) -> str:
    return f"{kind}, {table}"


def by_size(bench: Bench, connection: psycopg.Connection) -> Iterator[Figure]:
    """Compare the WAL of an insert and an update of documents that grow."""
    tables = {name: table for name, table in TABLES.items() if table != "bench.listened"}  # has no room for 50 KB
    documents = bench.size(200, 20)
    for size in bench.points(200, 2_000, 10_000, 50_000):
        prepare(connection, size, documents)
        ways = {name: partial(write, connection, table, documents) for name, table in tables.items()}
        rounds = in_turns(bench.size(3, 1), ways)
        values = {
            name: [(each["insert"][1] + each["update"][1]) / 2 for each in turns] for name, turns in rounds.items()
        }
        yield from compare("WAL by size", values, PLAIN, "bytes/write", less_is_better=True, x=size, others=OTHERS)


def at_once(bench: Bench, connection: psycopg.Connection) -> Iterator[Figure]:
    """Compare the time of the server alone, for many rows in one statement."""
    rows = bench.size(50_000, 500)
    prepare(connection, 200, rows)
    with connection.cursor().copy("COPY bench.source TO STDOUT") as copy:
        lines = b"".join(bytes(block) for block in copy)

    def us_per_row(table: str) -> dict[str, float]:
        took = {}
        for kind, text in AT_ONCE.items():
            if kind != "UPDATE":
                connection.execute(f"TRUNCATE {table}".encode())
            statement = text.format(table=table).encode()
            took[kind] = seconds(partial(run, connection, statement, lines)) / rows * 1e6
        return took

    tables = {name: TABLES[name] for name in (PLAIN, FULL, "a collection")} | {CHECKED: "bench.checked"}
    rounds = in_turns(bench.rounds(), {name: partial(us_per_row, table) for name, table in tables.items()})
    for kind in AT_ONCE:
        values = {_named(kind, name): [each[kind] for each in turns] for name, turns in rounds.items()}
        others = [_named(kind, name) for name in (*OTHERS, CHECKED)]
        yield from compare("rows", values, _named(kind, PLAIN), "us/row", less_is_better=True, others=others)


def run(connection: psycopg.Connection, statement: bytes, lines: bytes) -> None:
    with connection.cursor() as cursor:
        if not statement.startswith(b"COPY"):
            cursor.execute(statement)
            return
        with cursor.copy(statement) as copy:
            copy.write(lines)


def ways_to_less_wal(bench: Bench, site: Site) -> Iterator[Figure]:
    """Compare the WAL of updates of a collection, with a setting that lowers it, to the same updates without it."""
    documents = bench.size(500, 50)

    def updates(
        setting: str, size: int, *, a_transaction: int = 1, fillfactor: int = 100, checkpoint: bool = False
    ) -> float:
        with site.connect(f"{ASYNCHRONOUS} {setting}") as connection:
            connection.execute("TRUNCATE docs.orders")
            connection.execute(f"ALTER TABLE docs.orders SET (fillfactor = {fillfactor})".encode())
            prepare(connection, size, documents)
            connection.execute(AT_ONCE["INSERT"].format(table="docs.orders").encode())
            if checkpoint:
                connection.execute("CHECKPOINT")
            before = wal_bytes(connection)
            for first in range(1, documents + 1, a_transaction):
                with connection.transaction():
                    for n in range(first, first + a_transaction):
                        connection.execute(WRITES["update"].format(table="docs.orders").encode(), (str(n),))
            return (wal_bytes(connection) - before) / documents

    lowered: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "50 updates a transaction, to 1": (lambda: updates("", 200), lambda: updates("", 200, a_transaction=50)),
        "fillfactor = 50, to 100": (lambda: updates("", 200), lambda: updates("", 200, fillfactor=50)),
        "no checkpoint in between, to one": (
            lambda: updates("", 200, checkpoint=True),
            lambda: updates("", 200),
        ),
        "wal_compression, to none, after a checkpoint": (
            lambda: updates("", 200, checkpoint=True),
            lambda: updates("-c wal_compression=on", 200, checkpoint=True),
        ),
    }
    for name, (without, with_it) in lowered.items():
        values = in_turns(bench.rounds(3), {"without": without, name: with_it})
        yield from compare("less WAL", values, "without", "bytes/write", less_is_better=True)
