"""Time 10,000 mixed writes in one transaction: `bulk()`, the same calls one by one, and a psycopg pipeline.

    python -m bench.bulk

The three take turns. The server runs on the same machine, where a round trip costs next to nothing; over a network,
round trips make most of the difference.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg.types.json import Jsonb

import pgdoc
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import BulkCollection, Collection

WRITES = 10_000
ROUNDS = 7
DATA = {"total": 1250.5, "status": "new", "customer": {"name": "Anna", "city": "Reykjavík"}, "items": [1, 2]}

INSERT = "INSERT INTO docs.orders (id, data) VALUES (%s, %s)"
UPSERT = "INSERT INTO docs.orders AS o (id, data) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET data = o.data || %s"
DELETE = "DELETE FROM docs.orders WHERE id = %s"


def main() -> int:
    with LocalServer() as server, pgdoc.Store(server.conninfo) as store:
        store.migrate()
        store.create_collection("orders")
        peers: dict[str, Callable[[], None]] = {
            "psycopg pipeline": lambda: write_by_hand(server.conninfo),
            "store.bulk()": lambda: write_bulk(store),
            "calls one by one": lambda: write_one_by_one(store),
        }
        figures: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(ROUNDS):
            for name, write in peers.items():
                store["orders"].delete_many({})
                started = time.perf_counter()
                write()
                figures[name].append(time.perf_counter() - started)
    report(figures)
    return 0


def write_bulk(store: pgdoc.Store) -> None:
    with store.bulk() as b:
        write_all(b["orders"])


def write_one_by_one(store: pgdoc.Store) -> None:
    with store.transaction() as tx:
        write_all(tx["orders"])


def write_all(orders: BulkCollection | Collection) -> None:
    """Write in groups of five: two inserts, an upsert that updates, an upsert that inserts, and a delete."""
    for n in range(0, WRITES, 5):
        orders.insert(f"o-{n}", DATA)
        orders.insert(f"o-{n + 1}", DATA)
        orders.update(f"o-{n}", {"$set": {"status": "paid"}}, upsert=True)
        orders.update(f"o-{n + 2}", {"$set": {"status": "paid"}}, upsert=True)
        orders.delete(f"o-{n + 1}")


def write_by_hand(conninfo: str) -> None:
    """Write the same documents without reading the results."""
    data, paid = Jsonb(DATA), Jsonb({"status": "paid"})
    with psycopg.connect(conninfo) as connection, connection.pipeline():
        for n in range(0, WRITES, 5):
            connection.execute(INSERT, (f"o-{n}", data))
            connection.execute(INSERT, (f"o-{n + 1}", data))
            connection.execute(UPSERT, (f"o-{n}", paid, paid))
            connection.execute(UPSERT, (f"o-{n + 2}", paid, paid))
            connection.execute(DELETE, (f"o-{n + 1}",))


def report(figures: dict[str, list[float]]) -> None:
    base = statistics.median(figures["psycopg pipeline"])
    print(f"{WRITES:,} mixed writes in one transaction, median of {ROUNDS} rounds")
    print(f"{'':18} {'us per write':>12} {'ratio to pipeline':>18}")
    for name, values in figures.items():
        median = statistics.median(values)
        print(f"{name:18} {median / WRITES * 1e6:12.1f} {median / base:18.2f}")


if __name__ == "__main__":
    sys.exit(main())
