"""What all parts of `python -m bench` share: a private server, stores for both plugins, sizes, a writing process."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg

import pgdoc
from pgdoc.database.migrate import migrate
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from pathlib import Path

    Connect = Callable[[str], AbstractContextManager[Callable[[str, int], object]]]

TEMPLATE = "bench_template"
PLUGINS = ("wal2json", "pgoutput")
SETTINGS: dict[str, object] = {
    "max_connections": 400,
    "max_wal_senders": 64,
    "max_replication_slots": 64,
    "checkpoint_timeout": "1h",  # a checkpoint in the middle of a round would only make it slower and its WAL larger
    "max_wal_size": "20GB",
    "max_slot_wal_keep_size": "20GB",
}

# `bench.document(n, bytes)` is a document of about that many bytes as JSON text. Its digests do not compress, as little
# as the ids and names in a real one.
SETUP = """
CREATE SCHEMA bench;
CREATE FUNCTION bench.document(n int, bytes int) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('n', n, 'total', n * 1.25, 'status', 'new', 'lines', (
    SELECT jsonb_agg(jsonb_build_object('sku', md5(n || '-' || i), 'count', i))
    FROM generate_series(1, greatest(1, (bytes - 70) / 58)) i))
$$;
"""
FILL = """
INSERT INTO docs.orders (id, data)
SELECT 'o-' || n, bench.document(n, 200) FROM generate_series(%s::int, %s::int) n
"""


@dataclass
class Bench:
    """One run: its server, how thorough it is, and what it had to leave out.

    Attributes:
        server: a private server, with a database for each part.
        quick: whether to run everything with small sizes, to see that it works.
        most_rounds: the most rounds of one figure.
        skipped: the references that could not be measured, each with the reason.
    """

    server: LocalServer
    quick: bool = False
    most_rounds: int = 9
    skipped: dict[str, str] = field(default_factory=dict)
    databases: Iterator[int] = field(default_factory=itertools.count)

    def size(self, full: int, quick: int) -> int:
        """Return a size, or a number of rounds."""
        return quick if self.quick else full

    def points(self, *sizes: int) -> tuple[int, ...]:
        """Return the sizes of what grows; a quick run takes two."""
        return sizes[:2] if self.quick else sizes

    def rounds(self, full: int = 5) -> int:
        return min(full, self.most_rounds)

    @contextlib.contextmanager
    def site(self) -> Iterator[Site]:
        """Create a database with the catalog and the collection `docs.orders`; drop it, and its slots, at the end."""
        name = f"bench_{next(self.databases)}"
        with psycopg.connect(self.server.conninfo, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}".encode())
            try:
                conninfo = self.server.conninfo_for(name)
                with contextlib.ExitStack() as stack:
                    stores = {plugin: stack.enter_context(pgdoc.Store(conninfo, plugin=plugin)) for plugin in PLUGINS}
                    stores["wal2json"].create_collection("orders")
                    yield Site(self.server.bin_dir, conninfo, stores)
            finally:
                _drop_slots(admin, name)
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def skip(self, name: str, reason: str) -> None:
        """Record, loudly, that a reference is missing."""
        self.skipped[name] = reason
        print(f"\n!!! {name} is NOT measured: {reason} !!!\n", flush=True)


@contextlib.contextmanager
def started(*, quick: bool, most_rounds: int) -> Iterator[Bench]:
    """Start the server of a run. A quick run's does not wait for the disk, because its figures mean nothing."""
    settings = SETTINGS | ({"fsync": False} if quick else {})
    with LocalServer(plugin="wal2json", settings=settings) as server:
        with psycopg.connect(server.conninfo, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {TEMPLATE}".encode())
            migrate(server.conninfo_for(TEMPLATE))
            with psycopg.connect(server.conninfo_for(TEMPLATE)) as connection:
                connection.execute(SETUP)
            _drop_slots(admin, TEMPLATE)
        yield Bench(server, quick, most_rounds)


def _drop_slots(admin: psycopg.Connection[Any], database: str) -> None:
    """Drop the slots of a database, which would keep WAL, and the database."""
    slots = "FROM pg_replication_slots WHERE database = %s"
    admin.execute(f"SELECT pg_terminate_backend(active_pid, 5000) {slots} AND active".encode(), [database])
    admin.execute(f"SELECT pg_drop_replication_slot(slot_name) {slots}".encode(), [database])


@dataclass(frozen=True)
class Site:
    """A database.

    Attributes:
        stores: one for each plugin. A store that has had a stream reads on, and wakes this process at each commit: who
            times what happens beside a writer opens a `store` for each turn.
    """

    bin_dir: Path
    conninfo: str
    stores: dict[str, pgdoc.Store]

    def store(self, plugin: str = "wal2json") -> pgdoc.Store:
        """Return another store, to be closed by the caller."""
        return pgdoc.Store(self.conninfo, plugin=plugin)

    def connect(self, options: str = "") -> psycopg.Connection[Any]:
        """Connect in autocommit mode. `options` are those of a session, such as `-c synchronous_commit=off`."""
        return psycopg.connect(self.conninfo, autocommit=True, options=options)


class Commit(NamedTuple):
    """When a writer sent a statement, and when it knew that it had committed: monotonic times in nanoseconds."""

    sent: int
    returned: int


class Writer:
    """A process of its own that writes on request, and tells when each of its commits returned.

    All processes of a machine share the monotonic clock.
    """

    def __init__(self, target: str, connect: Connect | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_write, args=(target, connect or sql_writer, there), daemon=True)
        self._begun = 0

    def __enter__(self) -> Self:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._here.send(None)
        self._process.join()

    def begin(self, statement: str, count: int, pause_s: float) -> int:
        """Begin to run a statement `count` times, with running numbers for its %(n)s; return the first number."""
        self._here.send((statement, self._begun, count, pause_s))
        self._begun += count
        return self._begun - count

    def commits(self) -> list[Commit]:
        """Wait until the writer is done; return when it sent each statement, and when that had committed."""
        return [Commit(*times) for times in self._here.recv()]

    def returned(self) -> list[int]:
        """Wait until the writer is done; return the monotonic time in nanoseconds at which each commit returned."""
        return [commit.returned for commit in self.commits()]


def _write(target: str, connect: Connect, requests: Connection) -> None:
    with connect(target) as write:
        requests.send("ready")
        while (request := requests.recv()) is not None:
            statement, first, count, pause_s = request
            times = []
            for n in range(first, first + count):
                time.sleep(pause_s)
                sent = time.monotonic_ns()
                write(statement, n)
                times.append((sent, time.monotonic_ns()))
            requests.send(times)


@contextlib.contextmanager
def sql_writer(conninfo: str) -> Iterator[Callable[[str, int], object]]:
    """Yield a function that runs a statement with a number."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield lambda statement, n: connection.execute(statement, {"n": n})


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def take(count: int, items: Iterable[Any]) -> None:
    """Read that many items, and nothing beyond."""
    for _ in zip(range(count), items, strict=False):
        pass


def wal_end(connection: psycopg.Connection[Any]) -> str:
    """Return the LSN of the end of the WAL."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    return str(row and row[0])


def wal_bytes(connection: psycopg.Connection[Any]) -> int:
    """Return the end of the WAL in bytes."""
    high, low = wal_end(connection).split("/")
    return (int(high, 16) << 32) + int(low, 16)


def flush(connection: psycopg.Connection[Any]) -> None:
    """Let the server flush what a session with `synchronous_commit = off` has written."""
    connection.execute("SET synchronous_commit = on")
    connection.execute("SELECT pg_logical_emit_message(true, 'bench', 'flush')")
