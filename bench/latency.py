"""Time from a commit to its event in the reader's loop: a bare loop, sync and async streams, in turns.

    python -m bench.latency

A writer in a separate process inserts documents one by one and records when each commit returns. The reader records
when it has the decoded data of the document. Both use the machine's monotonic clock. An event can arrive before the
writer's call returns; its latency is then negative.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import statistics
import sys
import time
from typing import TYPE_CHECKING, Self

import psycopg

import pgdoc
from bench import bare
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

DOCUMENTS = 500
WARM_UP = 50
ROUNDS = 8
PAUSE_S = 0.002
INSERT = "INSERT INTO docs.latency (id, data) VALUES (%s, jsonb_build_object('n', %s::int, 'status', 'new'))"


def main() -> int:
    with LocalServer(plugin="wal2json") as server, contextlib.ExitStack() as stack:
        conninfo = server.conninfo
        stores = {plugin: stack.enter_context(pgdoc.Store(conninfo, plugin=plugin)) for plugin in PLUGINS}
        stores["wal2json"].migrate()
        stores["wal2json"].create_collection("latency")
        readers: dict[str, Callable[[Writer], list[float]]] = {
            "bare loop": lambda writer: read_bare(conninfo, writer),
            "sync, wal2json": lambda writer: read_sync(stores["wal2json"], writer),
            "sync, pgoutput": lambda writer: read_sync(stores["pgoutput"], writer),
            "async, wal2json": lambda writer: asyncio.run(read_async(conninfo, "wal2json", writer)),
            "async, pgoutput": lambda writer: asyncio.run(read_async(conninfo, "pgoutput", writer)),
        }
        figures: dict[str, list[float]] = {name: [] for name in readers}
        with Writer(conninfo) as writer:
            for _ in range(ROUNDS):
                for name, read in readers.items():
                    figures[name] += read(writer)
    report(figures)
    return 0


class Writer:
    """A separate process that inserts documents on request."""

    def __init__(self, conninfo: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=write, args=(conninfo, there), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._here.send(None)
        self._process.join()

    def begin(self) -> None:
        self._here.send(WARM_UP + DOCUMENTS)

    def returned(self) -> list[int]:
        """Wait for the writer; return the monotonic time in nanoseconds at which each commit returned."""
        times: list[int] = self._here.recv()
        return times


def write(conninfo: str, orders: Connection) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        orders.send("ready")
        written = 0
        while (count := orders.recv()) is not None:
            times = []
            for n in range(count):
                time.sleep(PAUSE_S)
                written += 1
                connection.execute(INSERT, (f"d-{written}", n))
                times.append(time.monotonic_ns())
            orders.send(times)


def latencies(seen: list[int], writer: Writer) -> list[float]:
    """Return the microseconds from each commit's return to its event, without the warm-up."""
    return [(at - returned) / 1000 for at, returned in zip(seen, writer.returned(), strict=True)][WARM_UP:]


def read_bare(conninfo: str, writer: Writer) -> list[float]:
    with contextlib.closing(bare.changes(conninfo, "docs")) as changes:
        next(changes)
        writer.begin()
        return latencies(
            [time.monotonic_ns() for _, _ in zip(range(WARM_UP + DOCUMENTS), changes, strict=False)], writer
        )


def read_sync(store: pgdoc.Store, writer: Writer) -> list[float]:
    seen = []
    with store["latency"].watch() as stream:
        writer.begin()
        for event in stream:
            if event.full_document and event.full_document.data["n"] >= 0:
                seen.append(time.monotonic_ns())
            if len(seen) == WARM_UP + DOCUMENTS:
                break
    return latencies(seen, writer)


async def read_async(conninfo: str, plugin: str, writer: Writer) -> list[float]:
    seen = []
    async with pgdoc.AsyncStore(conninfo, plugin=plugin) as store, store["latency"].watch() as stream:
        writer.begin()
        async for event in stream:
            if event.full_document and event.full_document.data["n"] >= 0:
                seen.append(time.monotonic_ns())
            if len(seen) == WARM_UP + DOCUMENTS:
                break
    return latencies(seen, writer)


def report(figures: dict[str, list[float]]) -> None:
    base = statistics.median(figures["bare loop"])
    print(f"microseconds from the return of a commit to its event, {ROUNDS} rounds of {DOCUMENTS} documents")
    print(f"{'':16} {'median':>8} {'99%':>8} {'max':>8} {'median / bare loop':>19}")
    for name, values in figures.items():
        median, most = statistics.median(values), statistics.quantiles(values, n=100)[98]
        print(f"{name:16} {median:8.0f} {most:8.0f} {max(values):8.0f} {median / base:19.2f}")


if __name__ == "__main__":
    sys.exit(main())
