"""Time finds among 1,000,000 documents: without an index, with create_index, and with hand-written SQL and indexes.

    python -m bench million

Takes some minutes. One document in a hundred has an array at the indexed paths; pgdoc searches its items, the
hand-written SQL does not.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from bench import by_hand
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENTS = 1_000_000
SHOPS = 100_000
KINDS = 100
ROUNDS = 7
BY_HAND: dict[tuple[str, ...], bytes | None] = {
    ("shop",): b"CREATE INDEX CONCURRENTLY by_hand_shop ON docs.orders ((data ->> 'shop'))",
    ("total",): b"CREATE INDEX CONCURRENTLY by_hand_total ON docs.orders ((data -> 'total'), id)",
    (
        "kind",
        "total",
    ): b"CREATE INDEX CONCURRENTLY by_hand_kind ON docs.orders ((data ->> 'kind'), (data -> 'total'), id)",
    ("tags",): b"CREATE INDEX CONCURRENTLY by_hand_tags ON docs.orders USING gin ((data -> 'tags'))",
    ("email",): b"CREATE INDEX CONCURRENTLY by_hand_email ON docs.orders ((data ->> 'email') text_pattern_ops)",
    ("name",): b"CREATE INDEX CONCURRENTLY by_hand_name ON docs.orders ((lower(data ->> 'name')))",
    ("$**",): None,  # a hand-written index would be the same
}
COLLATIONS: dict[tuple[str, ...], str] = {("name",): "ci"}


@dataclass(frozen=True)
class Query:
    """A find and the equivalent SQL condition; both take a running number."""

    name: str
    find: Callable[[int], dict[str, Any]]
    condition: bytes
    params: Callable[[int], list[Any]]
    calls: int = 50


def shop(n: int) -> str:
    return f"shop-{n % SHOPS}"


def shops(n: int, count: int) -> list[str]:
    return [shop(n + other) for other in range(count)]


def tags(n: int, count: int) -> list[str]:
    return [f"tag-{(n + other) % DOCUMENTS}" for other in range(count)]


def kind(n: int) -> str:
    return f"kind-{n * 7 // 3 % KINDS}"


def user(n: int) -> int:
    return 10_000 + n % 90_000


def total(n: int) -> float:
    return n * 0.25


QUERIES = (
    Query(
        "equality, 10 documents",
        lambda n: {"filter": {"shop": shop(n)}},
        b"WHERE data ->> 'shop' = %s",
        lambda n: [shop(n)],
    ),
    Query(
        "$in of 10, 100 documents",
        lambda n: {"filter": {"shop": {"$in": [shop(n + other) for other in range(1, 11)]}}},
        b"WHERE data ->> 'shop' = ANY(%s)",
        lambda n: [[shop(n + other) for other in range(1, 11)]],
    ),
    Query(
        "$or of 100, 1,000 documents",
        lambda n: {"filter": {"$or": [{"shop": name} for name in shops(n, 100)]}},
        b"WHERE data ->> 'shop' = ANY(%s)",
        lambda n: [shops(n, 100)],
        calls=10,
    ),
    Query(
        "$or of 1,000, 10,000 documents",
        lambda n: {"filter": {"$or": [{"shop": name} for name in shops(n, 1_000)]}},
        b"WHERE data ->> 'shop' = ANY(%s)",
        lambda n: [shops(n, 1_000)],
        calls=1,
    ),
    Query(
        "$in of 30,000, the first 1,000",
        lambda n: {"filter": {"shop": {"$in": shops(n, 30_000)}}, "limit": 1_000},
        b"WHERE data ->> 'shop' = ANY(%s) LIMIT 1000",
        lambda n: [shops(n, 30_000)],
        calls=1,
    ),
    Query(
        "$in of 30,000 in arrays, 30,000",
        lambda n: {"filter": {"tags": {"$in": tags(n, 30_000)}}},
        # With ?|, or a plain join, PostgreSQL would compare each document with all 30,000.
        b"WHERE id IN (SELECT o.id FROM unnest(%s::text[]) AS t(tag) CROSS JOIN LATERAL "
        b"(SELECT id FROM docs.orders WHERE data -> 'tags' ? tag OFFSET 0) AS o)",
        lambda n: [tags(n, 30_000)],
        calls=1,
    ),
    Query(
        "range, 100 documents",
        lambda n: {"filter": {"total": {"$gte": total(n), "$lt": total(n + 100)}}},
        b"WHERE data -> 'total' >= %s::jsonb AND data -> 'total' < %s::jsonb",
        lambda n: [str(total(n)), str(total(n + 100))],
    ),
    Query(
        "range, sorted, the first 10",
        lambda n: {"filter": {"total": {"$gte": total(n)}}, "sort": "total", "limit": 10},
        b"WHERE data -> 'total' >= %s::jsonb ORDER BY data -> 'total', id LIMIT 10",
        lambda n: [str(total(n))],
    ),
    Query(
        "equality, sorted, the first 10",
        lambda n: {"filter": {"kind": kind(n)}, "sort": "total", "limit": 10},
        b"WHERE data ->> 'kind' = %s ORDER BY data -> 'total', id LIMIT 10",
        lambda n: [kind(n)],
    ),
    Query(
        "sort, the first 10",
        lambda _: {"sort": "total", "limit": 10},
        b"ORDER BY data -> 'total', id LIMIT 10",
        lambda _: [],
    ),
    Query(
        "a prefix, 11 documents",
        lambda n: {"filter": {"email": {"$regex": f"^user-{user(n)}"}}},
        b"WHERE data ->> 'email' LIKE %s",
        lambda n: [f"user-{user(n)}%"],
    ),
    Query(
        "equality, any case, 10 documents",
        lambda n: {"filter": {"name": f"NAME-{n % SHOPS}"}, "collation": "ci"},
        b"WHERE lower(data ->> 'name') = lower(%s)",
        lambda n: [f"NAME-{n % SHOPS}"],
    ),
    Query(
        "equality by $**, 10 documents",
        lambda n: {"filter": {"customer.name": f"name-{n % SHOPS}"}},
        b"WHERE data @> jsonb_build_object('customer', jsonb_build_object('name', %s::text))",
        lambda n: [f"name-{n % SHOPS}"],
    ),
    Query(
        "_id",
        lambda n: {"filter": {"_id": f"o-{n}"}},
        b"WHERE id = %s",
        lambda n: [f"o-{n}"],
    ),
)


def order(n: int) -> dict[str, Any]:
    in_array = n % 100 == 0
    return {
        "shop": [shop(n), "none"] if in_array else shop(n),
        "total": [total(n)] if in_array else total(n),
        "kind": [kind(n)] if in_array else kind(n),
        "email": [f"user-{n}@example.com"] if in_array else f"user-{n}@example.com",
        "name": [f"Name-{n % SHOPS}"] if in_array else f"Name-{n % SHOPS}",
        "customer": {"name": f"name-{n % SHOPS}", "city": "Reykjavík"},
        "tags": [f"tag-{n}", "every"] if n % 20 == 0 else f"tag-{n}",
        "lines": [{"sku": f"sku-{n % 77}", "count": n % 9}],
    }


def main() -> int:
    with (
        LocalServer() as server,
        pgdoc.Store(server.conninfo) as store,
        contextlib.closing(by_hand.ByHand(server.conninfo)) as hand,
        psycopg.connect(server.conninfo, autocommit=True) as connection,
    ):
        store.migrate()
        orders = store["orders"]
        took = seconds(orders.insert_many, ((f"o-{n}", order(n)) for n in range(DOCUMENTS)))
        print(f"insert_many of {DOCUMENTS:,} documents: {DOCUMENTS / took:,.0f} per second")
        connection.execute("VACUUM ANALYZE docs.orders")
        without = {query.name: without_index(orders, query) for query in QUERIES}
        for paths, statement in BY_HAND.items():
            print(f"create_index{paths!r}: {seconds(build, orders, paths):.1f} s", end="")
            print(f", by hand {seconds(connection.execute, statement):.1f} s" if statement else "")
        connection.execute("VACUUM ANALYZE docs.orders")
        report(without, measure(orders, hand))
        print("scans in the plan of each find:")
        for query in QUERIES:
            print(f"{query.name:32} {', '.join(scans(orders.explain(**query.find(4_321))))}")
    return 0


def build(orders: pgdoc.Collection, paths: tuple[str, ...]) -> None:
    orders.create_index(*paths, collation=COLLATIONS.get(paths))


def without_index(orders: pgdoc.Collection, query: Query) -> float:
    return statistics.median(seconds(find, orders, query, [n]) for n in (4_321, 77_777, 654_321))


def measure(orders: pgdoc.Collection, hand: by_hand.ByHand) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds per call for each query: a pair (by hand, pgdoc) per round."""
    figures: dict[str, list[tuple[float, float]]] = {query.name: [] for query in QUERIES}
    for turn in range(-1, ROUNDS):
        for query in QUERIES:
            first = (turn + 1) * query.calls
            numbers = [n * 618_033 % DOCUMENTS for n in range(first, first + query.calls)]
            plain = seconds(find_by_hand, hand, query, numbers)
            ours = seconds(find, orders, query, numbers)
            if turn >= 0:  # turn -1 fills caches and prepares statements
                figures[query.name].append((plain / query.calls, ours / query.calls))
    return figures


def find(orders: pgdoc.Collection, query: Query, numbers: list[int]) -> None:
    for n in numbers:
        _ = [document.data for document in orders.find(**query.find(n))]


def find_by_hand(hand: by_hand.ByHand, query: Query, numbers: list[int]) -> None:
    statement = b" ".join((by_hand.FIND, query.condition))
    for n in numbers:
        hand.find(statement, query.params(n))


def seconds(work: Callable[..., object], *args: Any) -> float:
    began = time.perf_counter()
    work(*args)
    return time.perf_counter() - began


def scans(plan: str) -> list[str]:
    """Return the scans of a plan with the relation each reads, without the digests in index names."""
    found = re.findall(r'(\w+ Scan(?: Backward)?) (?:using|on) "?([\w.$]+?)(?:\.\w{10})?"? ', plan)
    return [" ".join(scan) for scan in found]


def report(without: dict[str, float], figures: dict[str, list[tuple[float, float]]]) -> None:
    print(f"\nmicroseconds per find among {DOCUMENTS:,} documents, median of {ROUNDS} rounds")
    print(f"{'':32}{'by hand':>10}{'pgdoc':>10}{'pgdoc / by hand':>17}{'pgdoc, no index':>17}{'no index / index':>18}")
    for name, pairs in figures.items():
        plain, ours = (statistics.median(figure) for figure in zip(*pairs, strict=True))
        ratio = statistics.median(mine / other for other, mine in pairs)
        print(
            f"{name:32}{plain * 1e6:10,.0f}{ours * 1e6:10,.0f}{ratio:17.2f}"
            f"{without[name] * 1e6:17,.0f}{without[name] / ours:18,.0f}"
        )
    print()


if __name__ == "__main__":
    sys.exit(main())
