"""Measure changes per second over a backlog: pg_recvlogical, a bare loop and pgdoc's streams, in turns.

    python -m bench.throughput

All read the same 200,000 waiting changes from the same position, through both plugins with pgdoc's options; the bare
loop supports only wal2json. pg_recvlogical discards the changes; "sync, reads data" also parses each document.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg

import pgdoc
from bench import bare
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANGES = 200_000
A_TRANSACTION = 100
ROUNDS = 5
FILL = """
INSERT INTO docs.backlog (id, data)
SELECT 'd-' || n, jsonb_build_object('total', n * 1.25, 'status', 'new', 'customer',
  jsonb_build_object('name', md5(n::text), 'city', 'Reykjavík'), 'items', jsonb_build_array(n, n + 1))
FROM generate_series(%s::int, %s::int) n
"""


def main() -> int:
    with LocalServer(plugin="wal2json") as server, contextlib.ExitStack() as stack:
        stores = {plugin: stack.enter_context(pgdoc.Store(server.conninfo, plugin=plugin)) for plugin in PLUGINS}
        store = stores["wal2json"]
        store.migrate()
        store.create_collection("backlog")
        with store["backlog"].watch() as stream:
            token = stream.resume_token
        end = fill(server.conninfo)
        peers: dict[str, Callable[[], None]] = {"bare loop, wal2json": lambda: read_bare(server.conninfo)}
        for plugin in PLUGINS:
            peers |= peers_of(plugin, stores[plugin], server, token, end)
        rates: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(ROUNDS):
            for name, read in peers.items():
                started = time.perf_counter()
                read()
                rates[name].append(CHANGES / (time.perf_counter() - started))
    report(rates)
    return 0


def peers_of(
    plugin: str, store: pgdoc.Store, server: LocalServer, token: pgdoc.ResumeToken, end: str
) -> dict[str, Callable[[], None]]:
    return {
        f"pg_recvlogical, {plugin}": lambda: receive(server, plugin, end),
        f"sync, {plugin}": lambda: read_sync(store, token, data=False),
        f"sync, reads data, {plugin}": lambda: read_sync(store, token, data=True),
        f"async, {plugin}": lambda: asyncio.run(read_async(server.conninfo, plugin, token)),
    }


def fill(conninfo: str) -> str:
    """Create a slot, write the backlog, and return the LSN of the WAL's end."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('bench', 'wal2json')")
        for n in range(0, CHANGES, A_TRANSACTION):
            connection.execute(FILL, (n + 1, n + A_TRANSACTION))
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        return str(row and row[0])


def receive(server: LocalServer, plugin: str, end: str) -> None:
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_copy_logical_replication_slot('bench', 'bench_copy', false, %s)", [plugin])
        listed = [f"--option={name}={value}" for name, value in PLUGINS[plugin].options("docs").items()]
        command: list[str | Path] = [
            server.bin_dir / "pg_recvlogical",
            "--dbname",
            server.conninfo,
            "--slot=bench_copy",
            "--start",
        ]
        subprocess.run([*command, f"--endpos={end}", "--no-loop", "--file=/dev/null", *listed], check=True)
        connection.execute("SELECT pg_drop_replication_slot('bench_copy')")


def read_bare(conninfo: str) -> None:
    with contextlib.closing(bare.changes(conninfo, "docs", source="bench")) as changes:
        for _ in zip(range(CHANGES + 1), changes, strict=False):
            pass


def read_sync(store: pgdoc.Store, token: pgdoc.ResumeToken, *, data: bool) -> None:
    with store["backlog"].watch(resume_after=token) as stream:
        for _, event in zip(range(CHANGES), stream, strict=False):
            if data and event.full_document:
                event.full_document.data["total"]


async def read_async(conninfo: str, plugin: str, token: pgdoc.ResumeToken) -> None:
    async with pgdoc.AsyncStore(conninfo, plugin=plugin) as store, store["backlog"].watch(resume_after=token) as stream:
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == CHANGES:
                break


def report(rates: dict[str, list[float]]) -> None:
    base = statistics.median(rates["pg_recvlogical, wal2json"])
    print(f"{CHANGES:,} waiting changes, {A_TRANSACTION} per transaction, median of {ROUNDS} rounds")
    print(f"{'':28} {'changes/s':>10} {'ratio to pg_recvlogical, wal2json':>34}")
    for name, values in rates.items():
        print(f"{name:28} {statistics.median(values):10,.0f} {statistics.median(values) / base:34.2f}")


if __name__ == "__main__":
    sys.exit(main())
