"""What a watched table costs: its readers beside those of a collection, its writers, add_table, and a snapshot.

    python -m bench tables [--quick] [--rounds N] [PART ...]

The parts, all by default:

    reading    changes per second, to `pg_recvlogical` with the same plugin and options, and the CPU time of a change in
               pgdoc's thread and in the user's, to that of a collection whose documents are the same rows. Half of the
               changes are inserts and half updates, 100 a transaction.
    writing    the time and the WAL of a write with REPLICA IDENTITY FULL, to DEFAULT, by the size of the row. The large
               value of a row of 8,000 bytes is in TOAST, and no update changes it. Commits do not wait for the disk.
    adding     the longest wait of four writers while `add_table` adds a table of 1,000,000 rows, to their longest one
               without it
    snapshot   the time of a stream from the start of a snapshot of 1,000,000 rows to a change after it, to a bare COPY

A row has 8 columns of usual types, about 200 bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from bench import machine
from bench.arguments import parser_of, positive
from bench.figures import compare, in_turns, table
from bench.harness import PLUGINS, Writer, flush, seconds, started, wal_bytes, wal_end
from bench.rates import USES, Backlog, receive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    import pgdoc
    from bench.figures import Figure
    from bench.harness import Bench, Site

TABLE = "public.orders"
COLLECTION = "orders"
A_TRANSACTION = 100
WRITERS = 4
WRITE_PAUSE_S = 0.001
CREATE = """
CREATE TABLE {table} (id bigint PRIMARY KEY, customer uuid NOT NULL, status text NOT NULL,
  total numeric(12, 2) NOT NULL, paid boolean NOT NULL, created_at timestamptz NOT NULL, note text, attributes jsonb)
"""
ROWS = """
SELECT n::bigint AS id, md5(n::text)::uuid AS customer, 'new' AS status, n * 1.25 AS total, false AS paid,
  now() AS created_at, 'Leave it at the "back" door, please; ring twice.' AS note,
  jsonb_build_object('city', 'Reykjavík', 'lines', jsonb_build_array(n, n + 1)) AS attributes
FROM generate_series({first}, {last}) n
"""
INSERTS = {
    TABLE: f"INSERT INTO public.orders {ROWS}",
    COLLECTION: f"INSERT INTO docs.orders (id, data) SELECT o.id::text, to_jsonb(o) FROM ({ROWS}) o",
}
UPDATES = {
    TABLE: "UPDATE public.orders SET status = 'paid' WHERE id BETWEEN {first} AND {last}",
    COLLECTION: """UPDATE docs.orders SET data = data || '{{"status": "paid"}}'
      WHERE id = ANY (ARRAY(SELECT n::text FROM generate_series({first}, {last}) n))""",
}
FILL = """
DO $do$ BEGIN
  FOR block IN 0 .. {blocks} - 1 LOOP
    {insert};
    COMMIT;
    {update};
    COMMIT;
  END LOOP;
END $do$
"""
PAD = "(SELECT string_agg(md5(n || '-' || i), '') FROM generate_series(1, {size} / 32) i)"  # does not compress
WRITES = {
    "INSERT": "INSERT INTO {table} SELECT id, customer, status, total, paid, created_at, {pad}, attributes FROM rows",
    "UPDATE": "UPDATE {table} SET status = 'paid' WHERE id = %(n)s",
    "DELETE": "DELETE FROM {table} WHERE id = %(n)s",
}


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="the parts to run")
    parser.add_argument("--quick", action="store_true", help="run everything with small sizes, to see that it works")
    parser.add_argument("--rounds", type=positive, help="the most rounds of one figure: 5, and 1 in a quick run")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: not among {', '.join(PARTS)}")
    load = machine.load_average()
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    with started(quick=arguments.quick, most_rounds=rounds) as bench:
        figures = [figure for name in arguments.parts or PARTS for figure in PARTS[name](bench)]
    print(table(figures))
    if text := machine.warning(load):
        print(f"!!! {text}")
    return 0


def reading(bench: Bench) -> Iterator[Figure]:
    changes = bench.size(50_000, 2_000)
    with backlog(bench, changes, TABLE) as rows, backlog(bench, changes, COLLECTION) as documents:
        for plugin in PLUGINS:
            yield from _rates(bench, plugin, rows, documents)
            yield from _cpu(bench, plugin, rows, documents)


@contextlib.contextmanager
def backlog(bench: Bench, changes: int, name: str) -> Iterator[Backlog]:
    """Yield changes of a table, or of a collection, that wait in the WAL of a database of their own."""
    block = {"first": f"block * {A_TRANSACTION}", "last": f"(block + 1) * {A_TRANSACTION} - 1"}
    fill = FILL.format(
        blocks=changes // A_TRANSACTION // 2,
        insert=INSERTS[name].format(**block),
        update=UPDATES[name].format(**block),
    )
    with bench.site() as site, site.connect("-c synchronous_commit=off -c enable_seqscan=off") as connection:
        if name == TABLE:
            connection.execute(CREATE.format(table=TABLE).encode())
            site.stores["pgoutput"].add_table(TABLE)
        with site.stores["wal2json"].watch(name) as stream:
            token = stream.resume_token
        slot = "rows" if name == TABLE else "documents"
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'wal2json')", [slot])
        connection.execute(fill.encode())
        flush(connection)
        yield Backlog(site, token, wal_end(connection), changes // A_TRANSACTION // 2 * 2 * A_TRANSACTION, slot)


def _rates(bench: Bench, plugin: str, rows: Backlog, documents: Backlog) -> Iterator[Figure]:
    for name, waiting in ((TABLE, rows), (COLLECTION, documents)):
        kind = "a table" if name == TABLE else "a collection"
        watched = [TABLE] if name == TABLE else []
        reference = f"pg_recvlogical, {plugin}"
        ways: dict[str, Callable[[], object]] = {reference: partial(receive, waiting, plugin, watched)}
        ways |= {f"{kind}, {use}, {plugin}": partial(read, waiting, plugin, name, USES[use]) for use in USES}
        rates = in_turns(bench.rounds(), {way: partial(waiting.rate, run) for way, run in ways.items()})
        yield from compare("changes per second", rates, reference, "changes/s")


def _cpu(bench: Bench, plugin: str, rows: Backlog, documents: Backlog) -> Iterator[Figure]:
    for name, use in USES.items():
        values = in_turns(
            bench.rounds(),
            {
                "a collection": partial(read, documents, plugin, COLLECTION, use),
                f"{name}, {plugin}": partial(read, rows, plugin, TABLE, use),
            },
        )
        for part, which in (("CPU of pgdoc's thread", 0), ("CPU of the user's thread", 1)):
            each = {way: [measured[which] for measured in rounds] for way, rounds in values.items()}
            yield from compare(part, each, "a collection", "us/change", less_is_better=True)


def read(waiting: Backlog, plugin: str, name: str, use: Callable[[pgdoc.ChangeEvent], object]) -> tuple[float, float]:
    """Read the backlog; return the CPU time of a change, in microseconds, in all other threads and in this one."""
    began, began_here = time.process_time_ns(), time.thread_time_ns()
    with waiting.site.stores[plugin].watch(name, resume_after=waiting.token) as stream:
        for _, event in zip(range(waiting.changes), stream, strict=False):
            use(event)
        here = time.thread_time_ns() - began_here
        others = time.process_time_ns() - began - here
    return others / 1000 / waiting.changes, here / 1000 / waiting.changes


def writing(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site, site.connect("-c synchronous_commit=off") as connection:
        for identity in ("default", "full"):
            connection.execute(CREATE.format(table=f"bench.with_{identity}").encode())
            connection.execute(f"ALTER TABLE bench.with_{identity} REPLICA IDENTITY {identity}".encode())
        for size in bench.points(300, 2_000, 8_000):
            ways = {name: partial(write, bench, connection, f"bench.with_{name}", size) for name in ("default", "full")}
            rounds = in_turns(bench.rounds(), ways)
            for which, part, unit in ((0, "time of a write", "us/write"), (1, "WAL of a write", "bytes/write")):
                for kind in WRITES:
                    values = {
                        f"{kind}, {name}": [each[kind][which] for each in turns] for name, turns in rounds.items()
                    }
                    yield from compare(part, values, f"{kind}, default", unit, less_is_better=True, x=size)


def write(
    bench: Bench, connection: psycopg.Connection[Any], table_name: str, size: int
) -> dict[str, tuple[float, float]]:
    """Write rows one by one; return microseconds, and bytes of WAL, of each kind of write."""
    rows, measured = bench.size(1_000, 20), {}
    connection.execute(f"TRUNCATE {table_name}".encode())
    for kind, text in WRITES.items():
        one_row = ROWS.format(first="%(n)s::int", last="%(n)s::int")
        statement = text.format(table=table_name, pad=PAD.format(size=size - 200))
        if kind == "INSERT":
            statement = f"WITH rows AS (SELECT id AS n, o.* FROM ({one_row}) o) {statement}"

        def work(statement: bytes = statement.encode()) -> None:
            for n in range(rows):
                connection.execute(statement, {"n": n})

        before = wal_bytes(connection)
        took = seconds(work)
        measured[kind] = took / rows * 1e6, (wal_bytes(connection) - before) / rows
    return measured


@contextlib.contextmanager
def large_table(bench: Bench) -> Iterator[tuple[Site, int]]:
    """Yield a database with a table of many rows that is not watched yet."""
    rows = bench.size(1_000_000, 2_000)
    with bench.site() as site, site.connect() as connection:
        connection.execute(CREATE.format(table=TABLE).encode())
        connection.execute(INSERTS[TABLE].format(first=0, last=rows - 1).encode())
        connection.execute(f"VACUUM (FREEZE, ANALYZE) {TABLE}".encode())
        yield site, rows


def adding(bench: Bench) -> Iterator[Figure]:
    with large_table(bench) as (site, rows), contextlib.ExitStack() as stack:
        writers = [stack.enter_context(Writer(site.conninfo)) for _ in range(WRITERS)]

        def longest_ms(*, adds: bool) -> float:
            site.stores["pgoutput"].remove_table(TABLE)
            for number, writer in enumerate(writers):
                statement = f"UPDATE {TABLE} SET status = 'paid' WHERE id = (%(n)s * {WRITERS} + {number}) % {rows}"
                writer.begin(statement.replace("% ", "%% "), bench.size(4_000, 1_000), WRITE_PAUSE_S)
            time.sleep(bench.size(5, 1) / 20)
            if adds:
                site.stores["pgoutput"].add_table(TABLE)
            added = time.monotonic_ns()
            returned = [writer.returned() for writer in writers]
            if min(times[-1] for times in returned) < added:
                raise RuntimeError("a writer ended before the table was added")
            return max(later - former for times in returned for former, later in itertools.pairwise(times)) / 1e6

        values = in_turns(
            bench.rounds(),
            {"no add_table": partial(longest_ms, adds=False), "add_table": partial(longest_ms, adds=True)},
        )
        yield from compare("longest wait of a writer", values, "no add_table", "ms", less_is_better=True)


def snapshot(bench: Bench) -> Iterator[Figure]:
    with large_table(bench) as (site, rows):
        site.stores["pgoutput"].add_table(TABLE)
        reference = "COPY, rows split"
        ways: dict[str, Callable[[], int]] = {
            reference: lambda: copy(site, f"COPY {TABLE} TO STDOUT", lambda line: line.split(b"\t")),
            "COPY of to_json(row), loaded": lambda: copy(
                site, f"COPY (SELECT to_json(o) FROM {TABLE} o) TO STDOUT", orjson.loads
            ),
        }
        ways |= {f"snapshot and stream, {plugin}": partial(read_snapshot, site, plugin, rows) for plugin in PLUGINS}

        def took(way: Callable[[], int]) -> float:
            began = time.perf_counter()
            if (count := way()) != rows:
                raise RuntimeError(f"{count:,} of {rows:,} rows")
            return time.perf_counter() - began

        values = in_turns(bench.rounds(3), {name: partial(took, way) for name, way in ways.items()})
        others = [name for name in ways if name.startswith("COPY")]
        yield from compare("snapshot", values, reference, "s", less_is_better=True, others=others)


def copy(site: Site, statement: str, use: Callable[[bytes], object]) -> int:
    count = 0
    with site.connect() as connection, connection.cursor().copy(statement.encode()) as blocks:
        for block in blocks:  # a row each
            row = bytes(block)
            use(row.replace(b"\\\\", b"\\") if b"\\" in row else row)
            count += 1
    return count


def read_snapshot(site: Site, plugin: str, rows: int) -> int:
    """Read the data of each row, and then of an update; return how many rows there were."""
    ids: set[str | None] = set()
    with site.stores[plugin].watch(TABLE, snapshot=True) as stream, site.connect() as connection:
        for event in stream:
            assert event.full_document is not None  # noqa: S101 (no row is deleted)
            event.full_document.data["id"]
            if event.event_type == "update":
                break
            ids.add(event.document_id)
            if len(ids) == rows:
                connection.execute(f"UPDATE {TABLE} SET status = 'paid' WHERE id = 7".encode())
    return len(ids)


PARTS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "reading": reading,
    "writing": writing,
    "adding": adding,
    "snapshot": snapshot,
}

if __name__ == "__main__":
    sys.exit(main())
