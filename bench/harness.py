"""What all parts of `python -m bench` share: a private server, stores for both plugins, sizes, a writing process."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import psycopg

import pgdoc
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

PLUGINS = ("wal2json", "pgoutput")
SETTINGS: dict[str, object] = {
    "max_connections": 400,
    "max_wal_senders": 64,
    "max_replication_slots": 64,
    "checkpoint_timeout": "1h",  # a checkpoint in the middle of a round would only make it slower and its WAL larger
    "max_wal_size": "20GB",
    "max_slot_wal_keep_size": "20GB",
}


@dataclass
class Bench:
    """One run: how thorough it is, and what it had to leave out.

    Attributes:
        quick: whether to run everything with small sizes, to see that it works.
        skipped: the references that could not be measured, each with the reason.
    """

    quick: bool = False
    skipped: dict[str, str] = field(default_factory=dict)

    def size(self, full: int, quick: int) -> int:
        """Return a size, or a number of rounds."""
        return quick if self.quick else full

    def rounds(self, full: int = 5) -> int:
        return self.size(full, 1)

    @contextlib.contextmanager
    def server(self, **settings: object) -> Iterator[Site]:
        """Start a private server with the catalog and the collection `docs.orders`."""
        with LocalServer(plugin="wal2json", settings=SETTINGS | settings) as server, contextlib.ExitStack() as stack:
            stores = {plugin: stack.enter_context(pgdoc.Store(server.conninfo, plugin=plugin)) for plugin in PLUGINS}
            stores["wal2json"].migrate()
            stores["wal2json"].create_collection("orders")
            yield Site(server, stores)

    def skip(self, name: str, reason: str) -> None:
        """Record, loudly, that a reference is missing."""
        self.skipped[name] = reason
        print(f"\n!!! {name} is NOT measured: {reason} !!!\n", flush=True)


@dataclass(frozen=True)
class Site:
    """A private server with a store for each plugin."""

    server: LocalServer
    stores: dict[str, pgdoc.Store]

    @property
    def conninfo(self) -> str:
        return self.server.conninfo

    def connect(self, options: str = "") -> psycopg.Connection[Any]:
        """Connect in autocommit mode. `options` are those of a session, such as `-c synchronous_commit=off`."""
        return psycopg.connect(self.conninfo, autocommit=True, options=options)


class Writer:
    """A process of its own that writes on request, and tells when each of its commits returned.

    All processes of a machine share the monotonic clock.
    """

    def __init__(self, conninfo: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_write, args=(conninfo, there), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._here.send(None)
        self._process.join()

    def begin(self, statement: str, count: int, pause_s: float) -> None:
        """Begin to run a statement `count` times; its only parameters are a running number, for %(n)s."""
        self._here.send((statement, count, pause_s))

    def returned(self) -> list[int]:
        """Wait until the writer is done; return the monotonic time in nanoseconds at which each commit returned."""
        times: list[int] = self._here.recv()
        return times


def _write(conninfo: str, requests: Connection) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        requests.send("ready")
        number = 0
        while (request := requests.recv()) is not None:
            statement, count, pause_s = request
            times = []
            for _ in range(count):
                time.sleep(pause_s)
                number += 1
                connection.execute(statement, {"n": number})
                times.append(time.monotonic_ns())
            requests.send(times)


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def take(count: int, items: Iterable[Any]) -> None:
    """Read that many items, and nothing beyond."""
    for _ in zip(range(count), items, strict=False):
        pass
