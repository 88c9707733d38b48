"""The most memory that a process of its own holds: a large transaction, many streams, a full buffer.

    python -m bench memory

Each process imports the same modules, so that the bare loop's memory is mostly that of Python and psycopg. Where
/proc is missing, nothing is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pgdoc
from bench import bare
from bench.figures import compare
from bench.harness import flush, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from bench.figures import Figure
    from bench.harness import Bench, Site

STATUS = Path("/proc/self/status")
BARE = "a bare psycopg loop"
ONE_INSERT = (
    "INSERT INTO docs.orders (id, data) SELECT 'o-' || n, bench.document(n, %s::int) FROM generate_series(1, %s::int) n"
)
QUIET_S = 1.0


def measure(bench: Bench) -> Iterator[Figure]:
    if not STATUS.exists():
        bench.skip("memory", f"{STATUS} is missing")
        return
    for changes in bench.points(1_000, 10_000, 100_000, 1_000_000):
        yield from a_transaction(bench, bench.size(changes, changes // 100))
    with bench.site() as site:
        reference = peak(read_bare, site, None, 0)
        for streams in bench.points(1, 10, 100, 1_000):
            number = streams
            values = {BARE: [reference], "asyncio streams": [peak(open_streams, site, number)]}
            yield from compare("memory by streams", values, BARE, "MB", less_is_better=True, x=number)
    yield from full_buffer(bench)


def a_transaction(bench: Bench, changes: int) -> list[Figure]:
    """Read one transaction of so many inserts of 200 bytes."""
    with bench.site() as site:
        token = fill(site, 200, changes)
        values = {
            BARE: [peak(read_bare, site, "oldest", changes)],
            "a stream": [peak(read_stream, site, token, changes)],
        }
    return compare("memory by changes", values, BARE, "MB", less_is_better=True, x=changes)


def full_buffer(bench: Bench) -> list[Figure]:
    """Let documents of 10 KB wait for a stream that reads none of them, until its buffer is full."""
    documents = bench.size(20_000, 500)
    with bench.site() as site:
        token = fill(site, 10_000, documents)
        values = {
            BARE: [peak(read_bare, site, "oldest", documents)],
            "a stream that holds 64 MiB of 10 KB documents": [peak(hold, site, token)],
        }
    return compare("memory of a buffer", values, BARE, "MB", less_is_better=True)


def fill(site: Site, size: int, documents: int) -> str:
    """Insert documents in one transaction; return the token before it. The slot `oldest` stands there, too."""
    with site.stores["wal2json"]["orders"].watch() as stream, site.connect("-c synchronous_commit=off") as connection:
        token = str(stream.resume_token)
        connection.execute("SELECT pg_create_logical_replication_slot('oldest', 'wal2json')")
        connection.execute(ONE_INSERT, (size, documents))
        flush(connection)
    return token


def peak(work: Callable[..., None], site: Site, *args: object) -> float:
    """Run a function in a process of its own; return the most megabytes that it held."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, work, site.conninfo, *args))
    process.start()
    there.close()
    megabytes: float = here.recv()
    process.join()
    return megabytes


def _work(answer: Connection, work: Callable[..., None], *args: object) -> None:
    work(*args)
    # Not getrusage(): its maximum is that of the process that forked this one, too.
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    answer.send(int(line.split()[1]) / 1000)


def read_bare(conninfo: str, slot: str | None, changes: int) -> None:
    with contextlib.closing(bare.changes(conninfo, source=slot)) as documents:
        next(documents)
        take(changes, documents)


def read_stream(conninfo: str, token: str, changes: int) -> None:
    with (
        pgdoc.Store(conninfo, plugin="wal2json") as store,
        store["orders"].watch(resume_after=token) as stream,
    ):
        for _, event in zip(range(changes), stream, strict=False):
            _ = event.full_document and event.full_document.data


def hold(conninfo: str, token: str) -> None:
    """Keep a stream open that reads nothing until its buffer has something and has not grown for a while."""
    with (
        pgdoc.Store(conninfo, plugin="wal2json") as store,
        store["orders"].watch(resume_after=token) as stream,
    ):
        buffered, since = 0, time.monotonic()
        while not buffered or time.monotonic() - since < QUIET_S:  # a large transaction comes when it has committed
            time.sleep(0.05)
            if stream.stats().buffered != buffered:
                buffered, since = stream.stats().buffered, time.monotonic()


def open_streams(conninfo: str, number: int) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            store = await stack.enter_async_context(pgdoc.AsyncStore(conninfo, plugin="wal2json"))
            for n in range(number):
                await stack.enter_async_context(store["orders"].watch(where={"document_id": f"o-{n}"}))

    asyncio.run(main())
