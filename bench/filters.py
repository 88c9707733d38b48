"""One stream beside a thousand others that want nothing of what it reads, to the same stream alone.

    python -m bench filters

Where the collection, document id, event type or an equal value excludes the others, an index skips them; otherwise
their filter is evaluated. Streams with equal filters share one evaluation.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.figures import compare, in_turns
from bench.harness import FILL, seconds, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    import pgdoc
    from bench.figures import Figure
    from bench.harness import Bench, Site

    Where = Callable[[int], tuple[str, dict[str, Any] | None]]

A_TRANSACTION = 100

FILTERS: dict[str, Where] = {
    "on other collections": lambda number: (f"other_{number}", None),
    "with another document_id": lambda number: ("orders", {"document_id": f"other-{number}"}),
    "with another event_type": lambda number: ("orders", {"event_type": "delete", "metadata.number": {"$gt": number}}),
    "with another value each": lambda number: ("orders", {"full_document.data.n": -number - 1}),
    "with one range that all share": lambda _number: ("orders", {"full_document.data.n": {"$lt": 0}}),
    "with another range each": lambda number: ("orders", {"full_document.data.n": {"$lt": -number}}),
}


def measure(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site:
        yield from with_others(bench, site)


def with_others(bench: Bench, site: Site) -> Iterator[Figure]:
    store, number = site.stores["wal2json"], bench.size(1_000, 20)
    for other in range(number):
        store.create_collection(f"other_{other}")
    with site.connect() as writer, store["orders"].watch() as stream:

        def alone() -> float:
            return write_and_read(bench, writer, stream)

        def beside(where: Where) -> float:
            with contextlib.ExitStack() as stack:
                for collection, condition in map(where, range(number)):
                    stack.enter_context(store[collection].watch(where=condition))
                return alone()

        ways = {"the stream alone": alone}
        for name, where in FILTERS.items():
            ways[f"{number:,} others {name}"] = partial(beside, where)
        values = in_turns(bench.rounds(3), ways)
    yield from compare("filters", values, "the stream alone", "s", less_is_better=True)


def write_and_read(bench: Bench, writer: psycopg.Connection[Any], stream: pgdoc.ChangeStream) -> float:
    writer.execute("TRUNCATE docs.orders")
    stream.next(timeout=60)
    changes = bench.size(2_000, 200)

    def work() -> None:
        for n in range(0, changes, A_TRANSACTION):
            writer.execute(FILL, (n, n + A_TRANSACTION - 1))
        take(changes, stream)

    return seconds(work)
