"""Reads a log in JetStream back: the rate of one stream, sync and async, and of a group.

`bench.relay` calls these functions with the URL of a log that has the events already.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pgdoc
from pgdoc.relay.engines import open_log_reader
from pgdoc.relay.targets import LogTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

BATCH = 500


def parsing_rate(body: bytes, count: int) -> float:
    """Return events/s of `ChangeEvent.from_json` alone, with the document read."""
    begun = time.perf_counter()
    for _ in range(count):
        _ = pgdoc.ChangeEvent.from_json(body).full_document
    return count / (time.perf_counter() - begun)


def engine_rate(url: str, count: int) -> float:
    """Return entries/s of the engine's reader alone, without events."""
    return asyncio.run(_engine_rate(url, count))


async def _engine_rate(url: str, count: int) -> float:
    reader = open_log_reader(LogTarget.parse(url))
    await reader.open()
    try:
        await reader.begin(0)
        begun, left = time.perf_counter(), count
        while left > 0:
            left -= len(await reader.fetch(1000, 10.0))
        return count / (time.perf_counter() - begun)
    finally:
        await reader.close()


def sync_rate(url: str, count: int) -> float:
    """Return events/s of a `RemoteStream`, in batches."""
    with pgdoc.RemoteStream(url, start="beginning") as stream:
        begun, left = time.perf_counter(), count
        while left > 0:
            left -= len(stream.next_batch(BATCH, timeout=10.0))
        return count / (time.perf_counter() - begun)


def async_rate(url: str, count: int) -> float:
    """Return events/s of an `AsyncRemoteStream`, in batches."""
    return asyncio.run(_async_rate(url, count))


async def _async_rate(url: str, count: int) -> float:
    async with pgdoc.AsyncRemoteStream(url, start="beginning") as stream:
        begun, left = time.perf_counter(), count
        while left > 0:
            left -= len(await stream.next_batch(BATCH, timeout=10.0))
        return count / (time.perf_counter() - begun)


def group_rate(url: str, count: int, workers: int) -> float:
    """Return events/s of a new group of processes, from when all have joined and the first one reads."""
    spawn = multiprocessing.get_context("spawn")
    group, go, results = uuid4().hex, spawn.Event(), spawn.Queue()
    total = spawn.Value("q", 0)
    processes = [
        spawn.Process(target=_member, args=(url, group, count, go, total, results), daemon=True) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        results.get(timeout=60)
    time.sleep(6)  # until the partitions are shared out
    begun = time.perf_counter()
    go.set()
    for process in processes:
        process.join(120)
    return count / (time.perf_counter() - begun)


def _member(url: str, group: str, count: int, go: Event, total: Any, results: Any) -> None:  # noqa: PLR0913, PLR0917 (its plan)
    with pgdoc.RemoteStream(url, group=group, start="beginning") as stream:
        results.put(None)
        go.wait()
        while total.value < count:
            found = len(stream.next_batch(BATCH, timeout=0.1))
            with total.get_lock():
                total.value += found


@contextlib.contextmanager
def reading(url: str, count: int, readers: int) -> Iterator[None]:
    """Read a log, which may not exist yet, in so many processes; the block is entered when they have begun.

    Raises:
        RuntimeError: one has not read `count` events within a minute after the block.
    """
    spawn = multiprocessing.get_context("spawn")
    begun = spawn.Queue()
    processes = [spawn.Process(target=_read, args=(url, count, begun), daemon=True) for _ in range(readers)]
    for process in processes:
        process.start()
    for _ in processes:
        begun.get(timeout=60)
    yield
    for process in processes:
        process.join(60)
        if process.exitcode != 0:
            raise RuntimeError(f"a reader has ended with {process.exitcode}")


def _read(url: str, count: int, begun: Any) -> None:
    begun.put(None)
    while True:
        try:
            sync_rate(url, count)
        except pgdoc.LogRefused:  # the relay has not created it
            time.sleep(0.01)
        else:
            return


def latency_ms(stream: pgdoc.RemoteStream, events: int) -> list[float]:
    """Return, for events whose document has the time of its write in `at`, how long each took to a remote reader."""
    found = []
    for _ in range(events):
        event = stream.next(timeout=30.0)
        if event is not None and event.full_document is not None:
            found.append(1000 * (time.time() - event.full_document["at"]))
    return found
