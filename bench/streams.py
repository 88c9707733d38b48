"""Many streams in one process: the last of N that want the same change, and N with documents of their own.

    python -m bench streams

The last of N streams is timed from the return of the commit. Its references, N bare threads and N bare futures, are
timed from the moment at which another thread wakes them: they read no socket and decode nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from bench import alternatives, bare, waking
from bench.figures import compare, in_turns
from bench.harness import FILL, Writer
from bench.latency import INSERT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from bench.figures import Figure
    from bench.harness import Bench, Site

DOCUMENTS = 1_000
TOUCHED = 10
TOUCH_PAUSE_S = 0.004
SETTLE_S = 0.2  # in which the last events arrive
TOUCH = f"""
UPDATE docs.orders SET data = data || jsonb_build_object('n', %(n)s::int)
WHERE id = ANY (ARRAY(SELECT 'o-' || (%(n)s::int * {TOUCHED} + i) %% {DOCUMENTS} FROM generate_series(1, {TOUCHED}) i))
"""


def measure(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site, Writer(site.conninfo) as writer:
        with site.connect() as connection:
            connection.execute(alternatives.SETUP)
        for number in bench.points(1, 10, 100, 1_000):
            yield from last_of(bench, site, writer, number)
    with bench.site() as site, Writer(site.conninfo) as writer:
        with site.connect() as connection:
            connection.execute(FILL, (0, DOCUMENTS - 1))
        for number in bench.points(1, 10, 100, 1_000):
            yield from own_documents(bench, site, writer, number)


def last_of(bench: Bench, site: Site, writer: Writer, number: int) -> Iterator[Figure]:
    moments = waking.WARM_UP + bench.size(40, 3)
    pause_s = 0.003 + number * 0.0001
    rounds = bench.rounds(5 if number <= 100 else 3)

    def each(way: Callable[..., float]) -> Callable[[], float]:
        return lambda: way(site, writer, number, moments, pause_s)

    alone = {"N bare futures": lambda: waking.bare_futures(number, moments, pause_s)}
    ways = {"asyncio streams": each(asyncio_streams)}
    listening = {"asyncio connections that LISTEN": each(asyncio_listeners)} if number <= 100 else {}
    values = in_turns(rounds, alone | ways | listening)
    yield from compare("streams", values, "N bare futures", "ms", less_is_better=True, x=number, others=listening)
    if number <= 100:
        threads = {"N bare threads": lambda: waking.bare_threads(number, moments, pause_s)}
        values = in_turns(rounds, threads | {"sync streams, a thread each": each(sync_streams)})
        yield from compare("streams", values, "N bare threads", "ms", less_is_better=True, x=number)


def sync_streams(site: Site, writer: Writer, number: int, moments: int, pause_s: float) -> float:
    seen: list[list[int]] = [[] for _ in range(number)]

    def note(stream: pgdoc.ChangeStream, times: list[int]) -> None:
        for _, event in zip(range(moments), stream, strict=False):
            _ = event.document_id
            times.append(time.monotonic_ns())

    with site.store() as store, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(store["orders"].watch()) for _ in seen]
        threads = [threading.Thread(target=note, args=pair, daemon=True) for pair in zip(streams, seen, strict=True)]
        for thread in threads:
            thread.start()
        writer.begin(INSERT.format("docs.orders"), moments, pause_s)
        for thread in threads:
            thread.join()
    return waking.last_in_ms(seen, writer.returned())


def asyncio_streams(site: Site, writer: Writer, number: int, moments: int, pause_s: float) -> float:
    async def main() -> float:
        seen: list[list[int]] = [[] for _ in range(number)]

        async def note(stream: pgdoc.AsyncChangeStream, times: list[int]) -> None:
            async for event in stream:
                _ = event.document_id
                times.append(time.monotonic_ns())
                if len(times) == moments:
                    return

        async with open_streams(site, number, lambda _: None) as streams:
            writer.begin(INSERT.format("docs.orders"), moments, pause_s)
            await asyncio.gather(*map(note, streams, seen))
        return waking.last_in_ms(seen, writer.returned())

    return asyncio.run(main())


def asyncio_listeners(site: Site, writer: Writer, number: int, moments: int, pause_s: float) -> float:
    async def main() -> float:
        seen: list[list[int]] = [[] for _ in range(number)]

        async def note(connection: psycopg.AsyncConnection[Any], times: list[int]) -> None:
            async for _ in connection.notifies():
                times.append(time.monotonic_ns())
                if len(times) == moments:
                    return

        async with contextlib.AsyncExitStack() as stack:
            connections = []
            for _ in seen:
                connection = await psycopg.AsyncConnection.connect(site.conninfo, autocommit=True)
                connections.append(await stack.enter_async_context(connection))
                await connection.execute("LISTEN bench")
            writer.begin(INSERT.format("bench.listened"), moments, pause_s)
            await asyncio.gather(*map(note, connections, seen))
        return waking.last_in_ms(seen, writer.returned())

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def open_streams(
    site: Site, number: int, where: Callable[[int], dict[str, Any] | None]
) -> AsyncIterator[list[pgdoc.AsyncChangeStream]]:
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(pgdoc.AsyncStore(site.conninfo, plugin="wal2json"))
        streams = [store["orders"].watch(where=where(n)) for n in range(number)]
        yield [await stack.enter_async_context(stream) for stream in streams]


def own_documents(bench: Bench, site: Site, writer: Writer, number: int) -> Iterator[Figure]:
    """Compare N streams on a document each with one bare loop that reads all, at about 2,000 changes a second."""
    transactions = bench.size(300, 110)
    ways = {
        "one bare psycopg loop": lambda: bare_reader(site, writer, transactions),
        "asyncio streams on a document each": lambda: own_readers(site, writer, number, transactions),
    }
    rounds = in_turns(bench.rounds(3), ways)
    for part, unit, which in (("own", "ms", 0), ("cores", "cores", 1)):
        values = {name: [measured[which] for measured in each] for name, each in rounds.items()}
        yield from compare(part, values, "one bare psycopg loop", unit, less_is_better=True, x=number)


def bare_reader(site: Site, writer: Writer, transactions: int) -> tuple[float, float]:
    """Return the median latency in milliseconds and how many cores the process used."""
    with contextlib.closing(bare.changes(site.conninfo)) as changes:
        next(changes)
        began, cpu = time.perf_counter(), time.process_time()
        first = writer.begin(TOUCH, transactions, TOUCH_PAUSE_S)
        seen = [
            (data["n"], time.monotonic_ns()) for _, data in zip(range(transactions * TOUCHED), changes, strict=False)
        ]
        cores = (time.process_time() - cpu) / (time.perf_counter() - began)
    return median_ms(seen, first, writer.returned()), cores


def own_readers(site: Site, writer: Writer, number: int, transactions: int) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        seen: list[tuple[int, int]] = []

        async def note(stream: pgdoc.AsyncChangeStream) -> None:
            async for event in stream:
                if event.full_document:
                    seen.append((event.full_document.data["n"], time.monotonic_ns()))  # noqa: PERF401 (is cancelled)

        async with open_streams(site, number, lambda n: {"document_id": f"o-{n}"}) as streams:
            tasks = [asyncio.create_task(note(stream)) for stream in streams]
            began, cpu = time.perf_counter(), time.process_time()
            first = writer.begin(TOUCH, transactions, TOUCH_PAUSE_S)
            returned = await asyncio.to_thread(writer.returned)
            cores = (time.process_time() - cpu) / (time.perf_counter() - began)
            await asyncio.sleep(SETTLE_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return median_ms(seen, first, returned), cores

    return asyncio.run(main())


def median_ms(seen: list[tuple[int, int]], first: int, returned: list[int]) -> float:
    """Return the median over the changes; `first` is the number of the first transaction."""
    return statistics.median((at - returned[n - first]) / 1e6 for n, at in seen if n >= first)
