"""Time from the return of a commit to the event, in a loop that has its document: pgdoc and what people use instead.

    python -m bench latency

A process of its own inserts documents one by one and notes when each commit returns. An event can arrive before the
commit has returned to its writer; its latency is then negative.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pgdoc
from bench import alternatives, bare
from bench.figures import compare, in_turns
from bench.harness import PLUGINS, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from bench.figures import Figure
    from bench.harness import Bench, Site

WARM_UP = 20
PAUSE_S = 0.002
INSERT = "INSERT INTO {} (id, data) VALUES ('w-' || %(n)s::int, bench.document(%(n)s::int, 200))"
REFERENCE = "bare psycopg loop"


def measure(bench: Bench) -> Iterator[Figure]:
    count = WARM_UP + bench.size(300, 20)
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(bench.site())
        writer = stack.enter_context(Writer(site.conninfo))
        with site.connect() as connection:
            connection.execute(alternatives.SETUP)
        ways = ours(site, writer, count)
        others = alternative_ways(bench, site, writer, count)
        if alternatives.has_mongodb():
            uri = alternatives.MONGODB
            theirs = stack.enter_context(Writer(uri, alternatives.mongodb_writer))
            others["MongoDB change stream"] = partial(read, partial(alternatives.mongodb, uri), theirs, "", count)
        else:
            bench.skip("MongoDB", "PGDOC_BENCH_MONGODB names no replica set, or pymongo is not installed")
        rounds = in_turns(bench.rounds(), {REFERENCE: others[REFERENCE], **ways, **others})
    medians = {name: map(statistics.median, times) for name, times in rounds.items()}
    yield from compare("latency", medians, REFERENCE, "us", less_is_better=True, others=others)
    worst = {name: map(percentile_99, rounds[name]) for name in (REFERENCE, *ways)}
    for figure in compare("latency", worst, REFERENCE, "us", less_is_better=True):
        yield replace(figure, name=f"{figure.name}, 99%", reference=f"{REFERENCE}, 99%")


def ours(site: Site, writer: Writer, count: int) -> dict[str, Callable[[], list[float]]]:
    insert = INSERT.format("docs.orders")
    ways: dict[str, Callable[[], list[float]]] = {}
    for plugin, store in site.stores.items():
        ways[f"sync stream, {plugin}"] = partial(read, partial(documents, store), writer, insert, count)
    for plugin in PLUGINS:
        ways[f"asyncio stream, {plugin}"] = partial(run_async, site, plugin, writer, count)
    return ways


def alternative_ways(bench: Bench, site: Site, writer: Writer, count: int) -> dict[str, Callable[[], list[float]]]:
    known: dict[str, tuple[Callable[[str], Generator[Any]], str]] = {
        REFERENCE: (bare.changes, "docs.orders"),
        "LISTEN/NOTIFY by a trigger": (alternatives.listen, "bench.listened"),
        "trigger and outbox, polled every 50 ms": (alternatives.poll, "bench.polled"),
    }
    if alternatives.has_psycopg2():
        known["psycopg2 and json"] = (alternatives.psycopg2, "docs.orders")
    else:
        bench.skip("psycopg2", "it is not installed; pip install psycopg2-binary")
    return {
        name: partial(read, partial(changes, site.conninfo), writer, INSERT.format(table), count)
        for name, (changes, table) in known.items()
    }


def documents(store: pgdoc.Store) -> Generator[Any]:
    """Yield `None` when a stream is open, then the document of each change."""
    with store["orders"].watch() as stream:
        yield None
        for event in stream:
            yield event.full_document and event.full_document.data


def read(begin: Callable[[], Generator[Any]], writer: Writer, statement: str, count: int) -> list[float]:
    """Return the microseconds from each commit's return to its document, without the first ones."""
    with contextlib.closing(begin()) as changes:
        next(changes)
        writer.begin(statement, count, PAUSE_S)
        seen = [time.monotonic_ns() for _, _ in zip(range(count), changes, strict=False)]
    return latencies(seen, writer.returned())


def run_async(site: Site, plugin: str, writer: Writer, count: int) -> list[float]:
    return asyncio.run(read_async(site, plugin, writer, count))


async def read_async(site: Site, plugin: str, writer: Writer, count: int) -> list[float]:
    seen: list[int] = []
    async with pgdoc.AsyncStore(site.conninfo, plugin=plugin) as store, store["orders"].watch() as stream:
        writer.begin(INSERT.format("docs.orders"), count, PAUSE_S)
        async for event in stream:
            _ = event.full_document and event.full_document.data
            seen.append(time.monotonic_ns())
            if len(seen) == count:
                break
    return latencies(seen, writer.returned())


def latencies(seen: list[int], returned: list[int]) -> list[float]:
    return [(at - done) / 1000 for at, done in zip(seen, returned, strict=True)][WARM_UP:]


def percentile_99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]
