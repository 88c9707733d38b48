"""What each part of a collection costs its writers, beside a plain table to which the same is added in SQL.

    python -m bench writer_parts [ROUNDS]

The tables take turns. One session writes one document of 200 bytes a transaction, and its commits do not wait for the
disk. CPU is that of the session's server process for a write (Linux), of the round with the least, so that other work
on the machine matters little. The ratio of updates/s is the median of the rounds, and needs a quiet machine. WAL is the
mean of an insert and an update; it is the same each time but for the bytes of a block that is written whole.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import writer
from bench.arguments import parser_of, positive
from bench.harness import seconds, started, wal_bytes

if TYPE_CHECKING:
    import psycopg

ROUNDS = 9
DOCUMENTS = 1_000
SIZE = 200
PLAIN = "CREATE TABLE {table} (id text PRIMARY KEY, data jsonb NOT NULL)"
PARTS = {
    "documents before changes": "ALTER TABLE {table} REPLICA IDENTITY FULL",
    "version and times": (
        "ALTER TABLE {table} ADD version bigint NOT NULL DEFAULT 1, ADD replaced_version bigint NOT NULL DEFAULT 1,"
        " ADD created_at timestamptz NOT NULL DEFAULT now(), ADD updated_at timestamptz NOT NULL DEFAULT now()"
    ),
    "checks of id and data": (
        "ALTER TABLE {table} ADD CHECK (octet_length(id) BETWEEN 1 AND 1024),"
        " ADD CHECK (jsonb_typeof(data) = 'object' AND NOT data ? '_id'),"
        " ADD CHECK (pg_column_size(data || '{{}}') <= 6710 OR octet_length(data::text) <= 67108864)"
    ),
    "SQL can't forge a version, UPDATE": (
        "CREATE TRIGGER before_update BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION bench.set_version()"
    ),
    "SQL can't forge a version, INSERT": (
        "CREATE TRIGGER after_insert AFTER INSERT ON {table} FOR EACH ROW WHEN (NEW.version <> 1 OR"
        " NEW.replaced_version <> 1 OR NEW.created_at <> now() OR NEW.updated_at <> now())"
        " EXECUTE FUNCTION bench.refuse()"
    ),
}
"""In this order. Each needs the ones before it only where it names a column."""
SETUP = """
CREATE FUNCTION bench.set_version() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  NEW.version := OLD.version + 1;
  NEW.replaced_version := OLD.replaced_version;
  NEW.created_at := OLD.created_at;
  NEW.updated_at := now();
  RETURN NEW;
END $$;
CREATE FUNCTION bench.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
"""
COLLECTION, TABLE, ALL = "a collection", "a plain table", "as the contract says, by hand"


class Cost(NamedTuple):
    """Of one round, for a write: the server's microseconds of CPU by kind, the seconds of an update, bytes of WAL."""

    insert_us: float
    update_us: float
    update_s: float
    wal_bytes: float


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("rounds", type=positive, nargs="?", default=ROUNDS, help=f"by default {ROUNDS}")
    parser.add_argument("--documents", type=positive, default=DOCUMENTS, help=f"by default {DOCUMENTS:,}")
    arguments = parser.parse_args()
    costs: dict[str, list[Cost]] = {}
    with (
        started(quick=True, most_rounds=arguments.rounds) as bench,
        bench.site() as site,
        site.connect(writer.ASYNCHRONOUS) as connection,
    ):
        connection.execute(writer.SETUP.encode())
        connection.execute(SETUP)
        writer.prepare(connection, SIZE, arguments.documents)
        tables = create_tables(connection)
        for _ in range(arguments.rounds):
            for name, table in tables.items():
                costs.setdefault(name, []).append(cost_of(connection, table, arguments.documents))
    report(costs)
    return 0


def create_tables(connection: psycopg.Connection) -> dict[str, str]:
    """Create a table for each set of parts; return the tables, and the collection, by what they are."""
    every = list(PARTS)
    sets: dict[str, list[str]] = {TABLE: []}
    for count, part in enumerate(every, 1):
        sets[ALL if part is every[-1] else f"+ {part}"] = every[:count]
    for part in every:
        if part != "version and times":  # the others need its columns
            sets[f"{ALL}, without {part}"] = [each for each in every if each is not part]
    tables = {}
    for number, (name, parts) in enumerate(sets.items()):
        table = tables[name] = f"bench.parts_{number}"
        for statement in (PLAIN, *map(PARTS.__getitem__, parts)):
            connection.execute(statement.format(table=table).encode())
    return {**tables, COLLECTION: "docs.orders"}


def cost_of(connection: psycopg.Connection, table: str, documents: int) -> Cost:
    connection.execute(f"TRUNCATE {table}".encode())
    insert, update = (writer.WRITES[kind].format(table=table).encode() for kind in ("insert", "update"))
    wal = wal_bytes(connection)
    insert_us, _ = _write(connection, insert, documents)
    update_us, update_s = _write(connection, update, documents)
    return Cost(insert_us, update_us, update_s, (wal_bytes(connection) - wal) / documents / 2)


def _write(connection: psycopg.Connection, statement: bytes, documents: int) -> tuple[float, float]:
    def work() -> None:
        for n in range(1, documents + 1):
            connection.execute(statement, (str(n),))

    before = _cpu_us(connection.info.backend_pid)
    took = seconds(work)
    return (_cpu_us(connection.info.backend_pid) - before) / documents, took / documents


def _cpu_us(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def report(costs: dict[str, list[Cost]]) -> None:
    plain = costs[TABLE]
    print("the server's us of CPU for a write of 200 bytes; updates/s and WAL to a plain table")
    print(f"{'':71}{'insert':>7}{'update':>7}{'updates/s':>11}{'WAL':>6}")
    for name, rounds in costs.items():
        insert, update = (min(map(each, rounds)) for each in (lambda cost: cost.insert_us, lambda cost: cost.update_us))
        rate = statistics.median(base.update_s / cost.update_s for base, cost in zip(plain, rounds, strict=True))
        wal = statistics.median(cost.wal_bytes for cost in rounds) / statistics.median(c.wal_bytes for c in plain)
        print(f"{name:71}{insert:7.1f}{update:7.1f}{rate:11.2f}{wal:6.2f}")


if __name__ == "__main__":
    sys.exit(main())
