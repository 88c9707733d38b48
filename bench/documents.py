"""Time the calls on documents against the same work hand-written with SQL, psycopg and orjson, in turns.

    python -m bench.documents [SUBSTRING OF AN OPERATION'S NAME]

Both write to tables that pgdoc created, so that the same CHECK constraints and triggers run. Each time is the median
over all rounds; each ratio is the median of the per-round ratios, because the peers run right after each other in a
round.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

import pgdoc
from bench import by_hand
from bench.arguments import selected
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 15
DOCUMENTS = 10_000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SHOPS = 1_000
BULK = 1_000
PEERS = ("by hand", "pgdoc", "by hand, async", "pgdoc, async")
HAND_INDEXES = """
CREATE INDEX ON docs.orders ((data ->> 'shop'));
CREATE INDEX ON docs.orders (lower(data ->> 'shop'));
CREATE INDEX ON docs.orders USING gin ((data -> 'shop') jsonb_path_ops) WHERE jsonb_typeof(data -> 'shop') = 'array';
ANALYZE docs.orders
"""


@dataclass(frozen=True)
class Operation:
    """One kind of call, made `calls` times per round; each function takes the peer and a running number."""

    name: str
    calls: int
    pgdoc: Callable[[Any, int], Any]
    by_hand: Callable[[Any, int], Any]
    figures: dict[str, list[float]] = field(default_factory=lambda: {peer: [] for peer in PEERS})


def order(n: int) -> dict[str, Any]:
    return {
        "number": n,
        "status": "new" if n % 4 else "paid",
        "shop": f"shop-{n % SHOPS}",
        "total": n * 1.25,
        "customer": {"name": f"Anna {n}", "city": "Reykjavík", "email": f"anna{n}@example.org"},
        "lines": [{"sku": f"sku-{n % 77}", "count": 2}, {"sku": "sku-x", "count": n % 9}],
    }


def dated(n: int) -> dict[str, Any]:
    made = BEGIN + timedelta(microseconds=n)
    return {**order(n), "made": made, "paid": made, "sent": made, "lines": [{"sku": "sku-x", "at": made}]}


def many(kind: str, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((f"{kind}-{number}-{n}", order(n)) for n in range(DOCUMENTS))


def key(n: int) -> str:
    return f"o-{n % DOCUMENTS}"


def data_of(found: Any) -> Any:
    """Return the data of the document that a call found; for an async call, return an awaitable of it."""
    return _awaited(found) if hasattr(found, "__await__") else found.data


async def _awaited(found: Any) -> Any:
    return (await found).data


def every(found: Any) -> Any:
    """Return the data of all documents that a call finds; for an async call, return an awaitable of it."""
    return _iterated(found) if hasattr(found, "__aiter__") else [document.data for document in found]


async def _iterated(found: Any) -> Any:
    return [document.data async for document in found]


SLICED = {"shop": 1, "lines": {"$slice": 1}}
COMPUTED = {"city": "$customer.city", "lines": {"$size": "$lines"}}


def matching(n: int) -> dict[str, Any]:
    return {"shop": f"shop-{n % SHOPS}", "lines.sku": "sku-x"}


def insert_all(store: Any, n: int, *, ordered: bool, times: int) -> Any:
    """Insert each id as many times as given; for an async store, return an awaitable of it."""
    keys = [f"p-{n}-{i // times}" for i in range(BULK)]
    if isinstance(store, pgdoc.AsyncStore):
        return _insert_all(store, keys, order(n), ordered=ordered)
    with contextlib.suppress(pgdoc.BulkIncomplete), store.bulk(ordered=ordered) as bulk:
        for each in keys:
            bulk["written"].insert(each, order(n))
    return None


async def _insert_all(store: pgdoc.AsyncStore, keys: list[str], data: dict[str, Any], *, ordered: bool) -> None:
    with contextlib.suppress(pgdoc.BulkIncomplete):
        async with store.bulk(ordered=ordered) as bulk:
            for each in keys:
                await bulk["written"].insert(each, data)


OPERATIONS = (
    Operation(
        "insert",
        200,
        lambda store, n: store["written"].insert(f"p-{n}", order(n)),
        lambda hand, n: hand.insert(f"h-{n}", order(n)),
    ),
    Operation(
        "insert, with four datetimes",
        200,
        lambda store, n: store["written"].insert(f"pt-{n}", dated(n)),
        lambda hand, n: hand.insert(f"ht-{n}", dated(n)),
    ),
    Operation(
        "insert_many of 10,000 (by hand: COPY)",
        1,
        lambda store, n: store["written"].insert_many(many("p", n)),
        lambda hand, n: hand.insert_many(many("h", n)),
    ),
    Operation("get", 300, lambda store, n: data_of(store["orders"].get(key(n))), lambda hand, n: hand.get(key(n))),
    Operation(
        "update, $set of a field",
        200,
        lambda store, n: data_of(store["orders"].update(key(n), {"$set": {"total": n + 0.5}})),
        lambda hand, n: hand.set(key(n), ["total"], n + 0.25),
    ),
    Operation(
        "update, $set inside an object",
        200,
        lambda store, n: data_of(store["orders"].update(key(n), {"$set": {"customer.city": f"p-{n}"}})),
        lambda hand, n: hand.set(key(n), ["customer", "city"], f"h-{n}"),
    ),
    Operation(
        "update, $inc",
        200,
        lambda store, n: data_of(store["orders"].update(key(n), {"$inc": {"number": 1}})),
        lambda hand, n: hand.increment(key(n), ["number"], 1),
    ),
    Operation(
        "update_one, upsert by the id",
        200,
        lambda store, n: data_of(
            store["orders"].update_one({"_id": key(n)}, {"$set": {"total": n + 0.5}}, upsert=True)
        ),
        lambda hand, n: hand.upsert(key(n), {"total": n + 0.25}, ["total"], n + 0.25),
    ),
    Operation(
        "update_one, $ in an array",
        200,
        lambda store, n: data_of(
            store["orders"].update_one({"_id": key(n), "lines.sku": "sku-x"}, {"$set": {"lines.$.count": n}})
        ),
        lambda hand, n: hand.set(key(n), ["lines", "1", "count"], n + 1),
    ),
    Operation(
        "find 10 of 10,000 by an index",
        200,
        lambda store, n: every(store["orders"].find({"shop": f"shop-{n % SHOPS}"})),
        lambda hand, n: hand.find(by_hand.FIND_SHOP, [f"shop-{n % SHOPS}"]),
    ),
    Operation(
        "the same, by hand with arrays",
        200,
        lambda store, n: every(store["orders"].find({"shop": f"shop-{n % SHOPS}"})),
        lambda hand, n: hand.find(by_hand.FIND_SHOP_OR_ARRAY, [f"shop-{n % SHOPS}"] * 2),
    ),
    Operation(
        "find 10, any case, by an index",
        200,
        lambda store, n: every(store["orders"].find({"shop": f"SHOP-{n % SHOPS}"}, collation="ci")),
        lambda hand, n: hand.find(by_hand.FIND_ANY_CASE, [f"SHOP-{n % SHOPS}"]),
    ),
    Operation(
        "find 10, one item of an array of each",
        200,
        lambda store, n: every(store["orders"].find({"shop": f"shop-{n % SHOPS}"}, fields=SLICED)),
        lambda hand, n: hand.find(by_hand.FIND_SLICED, [f"shop-{n % SHOPS}"]),
    ),
    Operation(
        "find 10, the item that the filter found",
        200,
        lambda store, n: every(store["orders"].find(matching(n), fields=["lines.$"])),
        lambda hand, n: hand.find(by_hand.FIND_MATCHED, [f"shop-{n % SHOPS}"]),
    ),
    Operation(
        "find 10, a renamed field and a size",
        200,
        lambda store, n: every(store["orders"].find({"shop": f"shop-{n % SHOPS}"}, fields=COMPUTED)),
        lambda hand, n: hand.find(by_hand.FIND_COMPUTED, [f"shop-{n % SHOPS}"]),
    ),
    Operation(
        "bulk of 1,000 inserts, ordered",
        1,
        lambda store, n: insert_all(store, n, ordered=True, times=1),
        lambda hand, n: hand.insert_apart([f"h-{n}-{i}" for i in range(BULK)], order(n)),
    ),
    Operation(
        "bulk of 1,000 inserts, unordered",
        1,
        lambda store, n: insert_all(store, n, ordered=False, times=1),
        lambda hand, n: hand.insert_apart([f"h-{n}-{i}" for i in range(BULK)], order(n)),
    ),
    Operation(
        "unordered, half of the ids exist",
        1,
        lambda store, n: insert_all(store, n, ordered=False, times=2),
        lambda hand, n: hand.insert_apart([f"h-{n}-{i // 2}" for i in range(BULK)], order(n)),
    ),
    Operation(
        "find all 10,000",
        1,
        lambda store, _: every(store["orders"].find()),
        lambda hand, _: hand.find(by_hand.FIND, []),
    ),
    Operation(
        "count 10 of 10,000 by an index",
        200,
        lambda store, n: store["orders"].count({"shop": f"shop-{n % SHOPS}"}),
        lambda hand, n: hand.count(by_hand.COUNT_SHOP, [f"shop-{n % SHOPS}"]),
    ),
    Operation(
        "the same, by hand with arrays",
        200,
        lambda store, n: store["orders"].count({"shop": f"shop-{n % SHOPS}"}),
        lambda hand, n: hand.count(by_hand.COUNT_SHOP_OR_ARRAY, [f"shop-{n % SHOPS}"] * 2),
    ),
    Operation(
        "count 2,500 of 10,000 without an index",
        2,
        lambda store, _: store["orders"].count({"status": "paid"}),
        lambda hand, _: hand.count(by_hand.COUNT_STATUS, ["paid"]),
    ),
    Operation(
        "the same, by hand with arrays",
        2,
        lambda store, _: store["orders"].count({"status": "paid"}),
        lambda hand, _: hand.count(by_hand.COUNT_STATUS_OR_ARRAY, ["paid"]),
    ),
)


def main() -> int:
    operations = selected(__doc__, OPERATIONS, lambda operation: operation.name)
    with LocalServer() as server:
        fill(server.conninfo)
        asyncio.run(measure(server.conninfo, operations))
    report(operations)
    return 0


def fill(conninfo: str) -> None:
    with pgdoc.Store(conninfo) as store, psycopg.connect(conninfo, autocommit=True) as connection:
        store.migrate()
        store.create_collection("written")
        store["orders"].insert_many((key(n), order(n)) for n in range(DOCUMENTS))
        store["orders"].create_index("shop")
        store["orders"].create_index("shop", collation="ci")
        connection.execute(HAND_INDEXES)


async def measure(conninfo: str, operations: list[Operation]) -> None:
    with pgdoc.Store(conninfo) as store, contextlib.closing(by_hand.ByHand(conninfo)) as hand:
        async with pgdoc.AsyncStore(conninfo) as async_store, by_hand.AsyncByHand(conninfo) as async_hand:
            peers = dict(zip(PEERS, (hand, store, async_hand, async_store), strict=True))
            numbers = itertools.count()
            for turn in range(-1, ROUNDS):
                for operation in operations:
                    for name in PEERS if turn % 2 else reversed(PEERS):
                        took = await timed(operation, name, peers[name], numbers)
                        if turn >= 0:  # turn -1 fills caches and prepares statements
                            operation.figures[name].append(took)


async def timed(operation: Operation, name: str, peer: Any, numbers: Iterator[int]) -> float:
    """Return the mean seconds per call."""
    call = operation.pgdoc if name.startswith("pgdoc") else operation.by_hand
    mine = list(itertools.islice(numbers, operation.calls))
    began = time.perf_counter()
    if name.endswith("async"):
        for n in mine:
            await call(peer, n)
    else:
        for n in mine:
            call(peer, n)
    return (time.perf_counter() - began) / operation.calls


def report(operations: list[Operation]) -> None:
    print(f"microseconds per call, median of {ROUNDS} rounds; ratio: pgdoc / by hand")
    print(f"{'':40}{'by hand':>10}{'pgdoc':>10}{'ratio':>7}    async{'by hand':>10}{'pgdoc':>10}{'ratio':>7}")
    for operation in operations:
        hand, ours, async_hand, async_ours = operation.figures.values()
        print(f"{operation.name:40}{side_by_side(hand, ours)}         {side_by_side(async_hand, async_ours)}")


def side_by_side(base: list[float], ours: list[float]) -> str:
    ratio = statistics.median(mine / other for mine, other in zip(ours, base, strict=True))
    return f"{statistics.median(base) * 1e6:10,.0f}{statistics.median(ours) * 1e6:10,.0f}{ratio:7.2f}"


if __name__ == "__main__":
    sys.exit(main())
