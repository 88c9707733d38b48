"""Time large updates, and how their time grows when document and update have twice the size.

    python -m bench updates [SUBSTRING OF AN UPDATE'S NAME]

A ratio of 2 is linear; of 4, the product of both sizes.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pgdoc
from bench.arguments import selected
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (25_000, 50_000, 100_000)
ROUNDS = 5


@dataclass(frozen=True)
class LargeUpdate:
    """One kind of update: the document and the update of a size."""

    name: str
    data: Callable[[int], dict[str, Any]]
    update: Callable[[int], dict[str, Any]]
    filter: Callable[[int], dict[str, Any]] | None = None
    array_filters: tuple[dict[str, Any], ...] = ()


def keys(size: int) -> dict[str, Any]:
    return {f"key-{n}": n for n in range(size)}


def nested(size: int) -> dict[str, Any]:
    return {f"key-{n}": {"value": n} for n in range(size // 2)}


def objects(size: int) -> dict[str, Any]:
    return {"items": [{"number": n} for n in range(size * 8 // 10)]}


def spread(size: int, count: int) -> range:
    """Return `count` numbers below `size`, equally far from each other."""
    return range(0, size - size % count, size // count)


UPDATES = (
    LargeUpdate("$inc of one key", keys, lambda _: {"$inc": {"key-7": 1}}),
    LargeUpdate(
        "$inc of 900 keys (at 100,000)",
        keys,
        lambda size: {"$inc": {f"key-{n}": 1 for n in spread(size, size * 9 // 1000)}},
    ),
    LargeUpdate(
        "$inc of 900 nested fields",
        nested,
        lambda size: {"$inc": {f"key-{n}.value": 1 for n in spread(size // 2, size * 9 // 1000)}},
    ),
    LargeUpdate(
        "$set of fields in 500 items",
        objects,
        lambda size: {"$set": {f"items.{n}.seen": True for n in spread(size * 8 // 10, size // 200)}},
    ),
    LargeUpdate(
        "$addToSet of 500 objects to 80,000",
        objects,
        lambda size: {"$addToSet": {"items": {"$each": [{"number": -n} for n in range(size // 200)]}}},
    ),
    LargeUpdate(
        "$pullAll of 500 objects from 80,000",
        objects,
        lambda size: {"$pullAll": {"items": [{"number": n} for n in spread(size * 8 // 10, size // 200)]}},
    ),
    LargeUpdate(
        "$push of 500 objects, sorted",
        objects,
        lambda size: {
            "$push": {"items": {"$each": [{"number": n} for n in range(size // 200)], "$sort": {"number": -1}}}
        },
    ),
    LargeUpdate("$inc of all 80,000 items, by $[]", objects, lambda _: {"$inc": {"items.$[].number": 1}}),
    LargeUpdate(
        "$inc of a part of 80,000 items, by $[x]",
        objects,
        lambda _: {"$inc": {"items.$[x].number": 1, "items.$[x].changes": 1}},
        array_filters=({"x.number": {"$mod": [100, 0]}},),
    ),
    LargeUpdate(
        "$set of fields of one item, by $",
        objects,
        lambda _: {"$set": {"items.$.number": 1, "items.$.seen": True}},
        lambda size: {"_id": "1", "items.number": size * 8 // 10 - 1},
    ),
)


def main() -> int:
    updates = selected(__doc__, UPDATES, lambda update: update.name)
    with LocalServer() as server, pgdoc.Store(server.conninfo) as store:
        store.migrate()
        print(f"milliseconds per update, best of {ROUNDS} rounds; ratio: of the last two sizes")
        print(f"{'':40}" + "".join(f"{size:>10,}" for size in SIZES) + f"{'ratio':>7}")
        for update in updates:
            rounds = [[milliseconds(store["large"], update, size) for size in SIZES] for _ in range(ROUNDS)]
            took = [min(times) for times in zip(*rounds, strict=True)]
            print(f"{update.name:40}" + "".join(f"{each:10,.0f}" for each in took) + f"{took[-1] / took[-2]:7.2f}")
    return 0


def milliseconds(large: pgdoc.Collection, update: LargeUpdate, size: int) -> float:
    large.replace("1", update.data(size), upsert=True)
    changes, wanted = update.update(size), update.filter and update.filter(size)
    began = time.perf_counter()
    if wanted is None:
        large.update("1", changes, array_filters=update.array_filters)
    else:
        large.update_one(wanted, changes)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    sys.exit(main())
