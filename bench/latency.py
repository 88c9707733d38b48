"""Time from a write to the event, in a loop that has its document: pgdoc and what people use instead.

    python -m bench latency

A process of its own inserts documents one by one, and notes when it sends each and when the commit has returned. Each
candidate is alone: nothing else reads the changes meanwhile.

All are compared by the time since the insert was sent. A bare loop often has the document before the writer learns that
it committed, so ratios of the times since then would say nothing. For streams, these are compared with the
commit, and so is by how much they exceed those of the bare loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pgdoc
from bench import alternatives, bare
from bench.figures import compare, in_turns
from bench.harness import PLUGINS, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from bench.figures import Figure
    from bench.harness import Bench, Commit, Site

WARM_UP = 20
PAUSE_S = 0.002
THE_COMMIT = "the commit itself"
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
    medians = {name: [seen.since_sent for seen in turns] for name, turns in rounds.items()}
    yield from compare("latency", medians, REFERENCE, "us", less_is_better=True, others=others)
    for name in ways:
        turns = rounds[name]
        later = [own.after_commit - base.after_commit for own, base in zip(turns, rounds[REFERENCE], strict=True)]
        values = {
            THE_COMMIT: [seen.commit for seen in turns],
            name: [seen.after_commit for seen in turns],
            f"{name}, 99%": [seen.after_commit_99 for seen in turns],
            f"{name}, beyond a {REFERENCE}": later,
        }
        yield from compare("after the commit", values, THE_COMMIT, "us", less_is_better=True)


class Latencies(NamedTuple):
    """Microseconds of one turn; each a median, but for the 99th percentile.

    Attributes:
        since_sent: from sending an insert to its document.
        after_commit: from the moment at which its writer knew that it had committed.
        commit: from sending an insert to that moment.
    """

    since_sent: float
    after_commit: float
    after_commit_99: float
    commit: float


def ours(site: Site, writer: Writer, count: int) -> dict[str, Callable[[], Latencies]]:
    insert = INSERT.format("docs.orders")
    ways: dict[str, Callable[[], Latencies]] = {}
    for plugin in PLUGINS:
        ways[f"sync stream, {plugin}"] = partial(read, partial(documents, site, plugin), writer, insert, count)
    for plugin in PLUGINS:
        ways[f"asyncio stream, {plugin}"] = partial(run_async, site, plugin, writer, count)
    return ways


def alternative_ways(bench: Bench, site: Site, writer: Writer, count: int) -> dict[str, Callable[[], Latencies]]:
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


def documents(site: Site, plugin: str = "wal2json") -> Generator[Any]:
    """Yield `None` when a stream is open, then the document of each change."""
    with site.store(plugin) as store, store["orders"].watch() as stream:
        yield None
        for event in stream:
            yield event.full_document and event.full_document.data


def read(begin: Callable[[], Generator[Any]], writer: Writer, statement: str, count: int) -> Latencies:
    """Write `count` documents, and return how long each took to arrive."""
    with contextlib.closing(begin()) as changes:
        next(changes)
        writer.begin(statement, count, PAUSE_S)
        seen = [time.monotonic_ns() for _, _ in zip(range(count), changes, strict=False)]
    return latencies(seen, writer.commits())


def run_async(site: Site, plugin: str, writer: Writer, count: int) -> Latencies:
    return asyncio.run(read_async(site, plugin, writer, count))


async def read_async(site: Site, plugin: str, writer: Writer, count: int) -> Latencies:
    seen: list[int] = []
    async with pgdoc.AsyncStore(site.conninfo, plugin=plugin) as store, store["orders"].watch() as stream:
        writer.begin(INSERT.format("docs.orders"), count, PAUSE_S)
        async for event in stream:
            _ = event.full_document and event.full_document.data
            seen.append(time.monotonic_ns())
            if len(seen) == count:
                break
    return latencies(seen, writer.commits())


def latencies(seen: list[int], commits: list[Commit]) -> Latencies:
    """Return what a turn took, without its first documents."""
    measured = list(zip(seen, commits, strict=True))[WARM_UP:]
    after_commit = [(at - commit.returned) / 1000 for at, commit in measured]
    return Latencies(
        since_sent=statistics.median((at - commit.sent) / 1000 for at, commit in measured),
        after_commit=statistics.median(after_commit),
        after_commit_99=statistics.quantiles(after_commit, n=100)[98],
        commit=statistics.median((commit.returned - commit.sent) / 1000 for _, commit in measured),
    )
