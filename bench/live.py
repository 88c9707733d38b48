"""CPU time of live queries for a change, beside as many streams with `watch(where=...)`.

    python -m bench live [--sizes 1 100 10000] [--rounds N] [--quick]

One process of asyncio reads, another one writes: each transaction changes the total of one document. In `own`, each
reader asks for the two documents of a customer of its own, so a change concerns one of them. In `shared`, all ask the
same, so a change concerns all. A stream asks for these changes with `where`, a live query for the documents with
`sort="-total", limit=10`. Beside them, one stream reads all changes. All read in turns, each round in another order;
the least CPU time of the rounds counts. It is that of the whole process, from the first write until the last reader has
the last change. A server of its own takes part, and its CPU time does not count.

A live query does what a stream does not: it decodes both images of the change, keeps the documents sorted, and hands
out what changes in the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pgdoc
from bench.arguments import parser_of, positive
from bench.harness import Writer, started

if TYPE_CHECKING:
    from bench.harness import Bench, Site

SIZES: Final = (1, 100, 10_000)
QUICK_SIZES: Final = (1, 20)
ROUNDS: Final = 3
DOCUMENTS: Final = 2  # of a customer
AT_ONCE: Final = 50  # readers that are opened at once
MOST_DELIVERIES: Final = 100_000
CHANGES: Final = 500
SINGLE, STREAMS, QUERIES = "one stream", "streams", "live queries"

FILL = """
INSERT INTO docs.orders (id, data)
SELECT 'o-' || n, bench.document(n, 200) || jsonb_build_object('customer', 'c-' || n %% %s::int, 'total', n)
FROM generate_series(0, %s::int - 1) n
"""
CHANGE = """
UPDATE docs.orders SET data = data || jsonb_build_object('total', 1000000 + %(n)s::int)
WHERE id = 'o-' || (%(n)s::int * 7919) %% {documents}
"""


@dataclass(frozen=True)
class Load:
    """How many readers there are, and what they ask for.

    Attributes:
        is_shared: whether all ask the same.
        changes: how many are measured.
    """

    readers: int
    is_shared: bool
    changes: int

    @classmethod
    def of(cls, readers: int, *, is_shared: bool, quick: bool) -> Load:
        most = CHANGES if not quick else 20
        return cls(readers, is_shared, max(10, min(most, MOST_DELIVERIES // readers)) if is_shared else most)

    @property
    def name(self) -> str:
        return f"{self.readers:,} {'shared' if self.is_shared else 'own'}"

    @property
    def documents(self) -> int:
        return DOCUMENTS * (1 if self.is_shared else self.readers)

    def filter(self, number: int) -> dict[str, Any]:
        return {"customer": f"c-{0 if self.is_shared else number}"}

    def expected(self, kind: str, changes: int) -> int:
        """Return how many changes all readers get."""
        return changes * (self.readers if self.is_shared and kind != SINGLE else 1)

    def open(self, store: pgdoc.AsyncStore, kind: str) -> list[Any]:
        """Return the readers, which are not open yet."""
        orders = store["orders"]
        if kind == SINGLE:
            return [orders.watch()]
        filters = map(self.filter, range(self.readers))
        if kind == STREAMS:
            return [
                orders.watch(where={f"full_document.data.{path}": value for path, value in each.items()})
                for each in filters
            ]
        return [orders.live(each, sort="-total", limit=10) for each in filters]


class Count:
    """How many changes all readers have got."""

    def __init__(self) -> None:
        self.found = self.wanted = 0
        self.has_all = asyncio.Event()

    def want(self, more: int) -> None:
        self.wanted += more
        self.has_all.clear()

    def add(self, number: int) -> None:
        self.found += number
        if self.found >= self.wanted:
            self.has_all.set()


async def read(reader: Any, count: Count) -> None:
    with contextlib.suppress(pgdoc.errors.StreamClosed):
        while True:
            count.add(len(await reader.next_batch()))


async def measure(conninfo: str, load: Load, kind: str, writer: Writer) -> float:
    """Return the microseconds of CPU for a change."""
    async with pgdoc.AsyncStore(conninfo, plugin="pgoutput") as store:
        readers, count = load.open(store, kind), Count()
        for start in range(0, len(readers), AT_ONCE):
            await asyncio.gather(*(_opened(reader) for reader in readers[start : start + AT_ONCE]))
        tasks = [asyncio.create_task(read(reader, count)) for reader in readers]
        await _write(writer, load, kind, count, min(10, load.changes))
        gc.collect()
        began = time.process_time_ns()
        await _write(writer, load, kind, count, load.changes)
        used = time.process_time_ns() - began
        if count.found != count.wanted:
            raise RuntimeError(f"{kind}, {load.name}: {count.found} changes instead of {count.wanted}")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return used / 1000 / load.changes


async def _opened(reader: Any) -> None:
    await reader


async def _write(writer: Writer, load: Load, kind: str, count: Count, changes: int) -> None:
    count.want(load.expected(kind, changes))
    writer.begin(CHANGE.format(documents=load.documents), changes, 0.0)
    await count.has_all.wait()
    await asyncio.to_thread(writer.returned)


def compare(bench: Bench, load: Load, rounds: int) -> dict[str, float]:
    """Return the microseconds of each kind of reader."""
    kinds, found = [SINGLE, STREAMS, QUERIES], dict[str, float]()
    with bench.site() as site, Writer(site.conninfo) as writer:
        _fill(site, load)
        for number in range(rounds):
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                us = asyncio.run(measure(site.conninfo, load, kind, writer))
                found[kind] = min(us, found.get(kind, us))
    return found


def _fill(site: Site, load: Load) -> None:
    with site.connect() as connection:
        connection.execute(FILL, [load.documents // DOCUMENTS, load.documents])
        connection.execute("VACUUM ANALYZE docs.orders")


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", type=positive, nargs="+", help="how many readers: by default 1, 100 and 10,000")
    parser.add_argument("--rounds", type=positive, help=f"by default {ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    sizes: list[int] = arguments.sizes or [*(QUICK_SIZES if quick else SIZES)]
    rounds: int = arguments.rounds or (1 if quick else ROUNDS)
    print(HEADER, flush=True)
    with started(quick=quick, most_rounds=rounds) as bench:
        for is_shared in (False, True):
            for readers in sizes:
                load = Load.of(readers, is_shared=is_shared, quick=quick)
                print(row(load, compare(bench, load, rounds)), flush=True)
    return 0


HEADER: Final = (
    f"{'us of CPU for a change':24}{SINGLE:>12}{STREAMS:>12}{QUERIES:>14}{'to one stream':>16}{'to streams':>12}"
)


def row(load: Load, us: dict[str, float]) -> str:
    ratios = [us[QUERIES] / us[SINGLE], us[QUERIES] / us[STREAMS]]
    return (
        f"{load.name:24}{us[SINGLE]:12,.0f}{us[STREAMS]:12,.0f}{us[QUERIES]:14,.0f}{ratios[0]:16.2f}{ratios[1]:12.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
