"""Measure how much a thousand other streams slow down one stream, in turns.

    python -m bench fanout

One stream reads 10,000 documents while they are written, 100 per transaction: first alone, then with a thousand other
streams that match none of them. Where the collection, document id, event type or an equal value excludes those streams,
an index skips them; otherwise their filter is evaluated. Streams with equal filters share one evaluation.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable

STREAMS = 1_000
CHANGES = 10_000
A_TRANSACTION = 100
ROUNDS = 3
WRITE = """
INSERT INTO docs.orders (id, data)
SELECT 'o-' || n, jsonb_build_object('n', n, 'status', 'new', 'customer', jsonb_build_object('city', 'Reykjavík'))
FROM generate_series(%s::int, %s::int) n
"""

OTHERS: dict[str, Callable[[int], tuple[str, dict[str, Any] | None]]] = {
    "on other collections": lambda number: (f"other_{number}", None),
    "with another document_id": lambda number: ("orders", {"document_id": f"other-{number}"}),
    "with another event_type": lambda number: ("orders", {"event_type": "delete", "metadata.number": {"$gt": number}}),
    "with different equality filters": lambda number: ("orders", {"full_document.data.n": -number - 1}),
    "with the same range filter": lambda _number: ("orders", {"full_document.data.n": {"$lt": 0}}),
    "with different range filters": lambda number: ("orders", {"full_document.data.n": {"$lt": -number}}),
}


def main() -> int:
    with LocalServer() as server, pgdoc.Store(server.conninfo) as store:
        store.migrate()
        for number in range(STREAMS):
            store.create_collection(f"other_{number}")
        took: dict[str, list[float]] = {name: [] for name in ("alone", *OTHERS)}
        with psycopg.connect(server.conninfo, autocommit=True) as writer, store["orders"].watch() as stream:
            for _ in range(ROUNDS):
                for name, figures in took.items():
                    with contextlib.ExitStack() as stack:
                        for number in range(STREAMS if name in OTHERS else 0):
                            collection, where = OTHERS[name](number)
                            stack.enter_context(store[collection].watch(where=where))
                        figures.append(write_and_read(writer, stream))
    report(took)
    return 0


def write_and_read(writer: psycopg.Connection[Any], stream: pgdoc.ChangeStream) -> float:
    writer.execute("TRUNCATE docs.orders")
    stream.next(timeout=60)
    began = time.perf_counter()
    for n in range(0, CHANGES, A_TRANSACTION):
        writer.execute(WRITE, (n + 1, n + A_TRANSACTION))
    for _ in range(CHANGES):
        stream.next()
    return time.perf_counter() - began


def report(took: dict[str, list[float]]) -> None:
    base = statistics.median(took["alone"])
    print(f"seconds to write and read {CHANGES:,} changes, {A_TRANSACTION} per transaction, median of {ROUNDS} rounds")
    print(f"{'':50} {'seconds':>8} {'ratio to alone':>15}")
    for name, figures in took.items():
        label = f"and {STREAMS:,} streams {name}" if name in OTHERS else "one stream alone"
        print(f"{label:50} {statistics.median(figures):8.2f} {statistics.median(figures) / base:15.2f}")


if __name__ == "__main__":
    sys.exit(main())
