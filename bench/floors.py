"""What a hand-over between threads costs by itself, beside streams: latency of one, and of the last of 100.

    python -m bench floors [ROUNDS]

A stream decodes on the hub's thread and hands its events over to the user's thread or event loop. By hand means the
loop of `bench.bare` on a thread of its own, which parses the messages, and then hands each document over: under a
lock to a waiting thread; or to tasks that wait for a future each, woken together by one `call_soon_threadsafe`. It
reconnects to nothing, filters nothing, keeps no positions and bounds no memory. "As the contract says" is the loop of
`bench.hand_over`, which does a part of that, fed by pgdoc's decoder. Times count from the return of the commit, in
microseconds: the median of each round, and over the rounds, which take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import threading
import time
from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from bench import bare, hand_over, latency, streams, waking
from bench.arguments import parser_of, positive
from bench.harness import Writer, started
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.decoding.records import Span
from pgdoc.decoding.wal2json import Wal2Json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from psycopg.pq.abc import PGconn

    from bench.harness import Site
    from pgdoc.changes.change import Change

ROUNDS = 5
COUNT = 300
MOMENTS = 60
STREAMS = 100
MOMENT_PAUSE_S = 0.013


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("rounds", type=positive, nargs="?", default=ROUNDS, help=f"by default {ROUNDS}")
    rounds: int = parser.parse_args().rounds
    with started(quick=True, most_rounds=rounds) as bench, bench.site() as site, Writer(site.conninfo) as writer:
        ways = {**ways_of_one(site, writer), **ways_of_many(site, writer)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(way())
    report(times, rounds)
    return 0


def ways_of_one(site: Site, writer: Writer) -> dict[str, Callable[[], float]]:
    insert = latency.INSERT.format("docs.orders")

    def of(begin: Callable[[], Generator[Any]]) -> Callable[[], float]:
        return lambda: latency.read(begin, writer, insert, COUNT).after_commit

    return {
        "one: bare loop, one thread": of(partial(bare.changes, site.conninfo)),
        "one: by hand, to a thread": of(partial(handed_over, site.conninfo)),
        "one: sync stream": of(partial(latency.documents, site)),
        "one: by hand, to a task": lambda: 1e3 * handed_to_tasks(site, writer, 1, COUNT, latency.PAUSE_S),
        "one: asyncio stream": lambda: 1e3 * streams.asyncio_streams(site, writer, 1, COUNT, latency.PAUSE_S),
    }


def ways_of_many(site: Site, writer: Writer) -> dict[str, Callable[[], float]]:
    name = f"last of {STREAMS}"
    many = (site, writer, STREAMS, MOMENTS, MOMENT_PAUSE_S)
    return {
        f"{name}: bare futures, no socket": lambda: 1e3 * waking.bare_futures(STREAMS, MOMENTS, MOMENT_PAUSE_S),
        f"{name}: by hand, to tasks": lambda: 1e3 * handed_to_tasks(*many),
        f"{name}: as the contract says": lambda: 1e3 * asyncio.run(_as_the_contract_says(*many)),
        f"{name}: asyncio streams": lambda: 1e3 * streams.asyncio_streams(*many),
    }


def handed_over(conninfo: str) -> Generator[Any, None, None]:
    """Yield what `bare.changes` yields, read by a thread and handed over under a lock."""
    handed: deque[Any] = deque()
    unset = threading.Lock()
    unset.acquire()
    reading = threading.Thread(target=_hand_over, args=(conninfo, handed, unset), daemon=True)
    reading.start()
    while True:
        unset.acquire()
        while handed:
            yield handed.popleft()


def _hand_over(conninfo: str, handed: deque[Any], unset: threading.Lock) -> None:
    with contextlib.closing(bare.changes(conninfo)) as changes:
        for _, change in zip(range(COUNT + 1), changes, strict=False):  # and the first, which is no change
            handed.append(change)
            if unset.locked():
                unset.release()


def handed_to_tasks(site: Site, writer: Writer, number: int, moments: int, pause_s: float) -> float:
    return asyncio.run(_handed_to_tasks(site, writer, number, moments, pause_s))


async def _handed_to_tasks(site: Site, writer: Writer, number: int, moments: int, pause_s: float) -> float:
    loop = asyncio.get_running_loop()
    boxes: list[deque[Any]] = [deque() for _ in range(number)]
    waiting: list[asyncio.Future[None]] = []
    has_begun = asyncio.Event()
    seen: list[list[int]] = [[] for _ in boxes]

    async def note(box: deque[Any], times: list[int]) -> None:
        while len(times) < moments:
            while not box:
                future = loop.create_future()
                waiting.append(future)
                await future
            _ = box.popleft()["n"]
            times.append(time.monotonic_ns())

    def wake() -> None:
        for future in waiting:
            future.set_result(None)
        waiting.clear()

    def read() -> None:
        with contextlib.closing(bare.changes(site.conninfo)) as changes:
            next(changes)
            loop.call_soon_threadsafe(has_begun.set)
            for _, change in zip(range(moments), changes, strict=False):
                for box in boxes:
                    box.append(change)
                loop.call_soon_threadsafe(wake)

    reading = asyncio.ensure_future(asyncio.to_thread(read))
    await has_begun.wait()
    writer.begin(latency.INSERT.format("docs.orders"), moments, pause_s)
    await asyncio.gather(reading, *map(note, boxes, seen))
    return waking.last_in_ms(seen, writer.returned())


async def _as_the_contract_says(site: Site, writer: Writer, number: int, moments: int, pause_s: float) -> float:
    loop, has_begun = asyncio.get_running_loop(), asyncio.Event()
    opened = [hand_over.StreamByHand() for _ in range(number)]
    seen: list[list[int]] = [[] for _ in opened]

    async def note(stream: hand_over.StreamByHand, times: list[int]) -> None:
        async for event in stream:
            _ = event.document_id
            times.append(time.monotonic_ns())
            if len(times) == moments:
                return

    def read() -> None:
        with bare.started(site.conninfo) as pgconn:
            loop.call_soon_threadsafe(has_begun.set)
            for change in islice(_changes(pgconn), moments):
                hand_over.hand_by_contract(opened, change)

    reading = asyncio.ensure_future(asyncio.to_thread(read))
    await has_begun.wait()
    writer.begin(latency.INSERT.format("docs.orders"), moments, pause_s)
    await asyncio.gather(reading, *map(note, opened, seen))
    return waking.last_in_ms(seen, writer.returned())


def _changes(pgconn: PGconn) -> Generator[Change, None, None]:
    """Yield the changes of `docs.orders`, decoded by pgdoc."""
    decoder, assembler = Wal2Json("docs"), Assembler(0, Registry("docs", [Span(0, "docs", "orders", 0, None)]))
    for frame in filter(None, bare.frames(pgconn)):
        yield from assembler.feed(decoder.decode([frame])).changes


def report(times: dict[str, list[float]], rounds: int) -> None:
    print(f"microseconds after the commit, median of {rounds} rounds; differences are the median of the rounds'")
    print(f"{'':36}{'us':>8}{'lowest':>8}{'beyond the first':>18}{'beyond by hand':>16}")
    groups: dict[str, list[str]] = {}
    for name in times:
        groups.setdefault(name.partition(":")[0], []).append(name)
    for names in groups.values():
        by_hand = ""
        for name in names:
            by_hand = name if "by hand" in name or "contract" in name else by_hand
            first, floor = (beyond(times[name], times[base]) if base else "" for base in (names[0], by_hand))
            print(f"{name:36}{statistics.median(times[name]):8.0f}{min(times[name]):8.0f}{first:>18}{floor:>16}")


def beyond(values: list[float], base: list[float]) -> str:
    return f"{statistics.median(map(float.__sub__, values, base)):.0f}"


if __name__ == "__main__":
    sys.exit(main())
