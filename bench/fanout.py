"""What a thousand other streams cost a stream: by turns, in one run.

    python -m bench fanout

One stream of a store is read while 10,000 documents are written, 100 a transaction, alone and beside a thousand other
streams that want none of them, because their collection, document id, kind, or a value in it is another, which an index
knows, or because their filter says so when it is asked. Streams of one filter share its answer.
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
    "of other collections": lambda number: (f"other_{number}", None),
    "of other documents": lambda number: ("orders", {"document_id": f"other-{number}"}),
    "of other kinds": lambda number: ("orders", {"event_type": "delete", "metadata.number": {"$gt": number}}),
    "of another value each": lambda number: ("orders", {"full_document.data.n": -number - 1}),
    "of one filter": lambda _number: ("orders", {"full_document.data.n": {"$lt": 0}}),
    "of a filter each": lambda number: ("orders", {"full_document.data.n": {"$lt": -number}}),
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
    print(f"{CHANGES:,} changes written and read, {A_TRANSACTION} a transaction, medians of {ROUNDS} rounds")
    print(f"{'':40} {'seconds':>8} {'to alone':>9}")
    for name, figures in took.items():
        beside = f"beside {STREAMS:,} streams {name}" if name in OTHERS else name
        print(f"{beside:40} {statistics.median(figures):8.2f} {statistics.median(figures) / base:9.2f}")


if __name__ == "__main__":
    sys.exit(main())
