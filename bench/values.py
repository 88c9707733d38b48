"""Time encoding and decoding of one document, without a server, against orjson alone.

    python -m bench.values

orjson writes datetimes and UUIDs in forms of its own, and loses what pgdoc checks: NaN becomes null, for example.
"""

from __future__ import annotations

import sys
import timeit
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from bench.documents import dated, order
from pgdoc.model.json_codec import decode, decode_comparable, decode_decimals, encode

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 400
CALLS = 50  # few, so that on a busy machine some rounds are not interrupted
NUMBER = UUID(int=7)


@dataclass
class Line:
    sku: str
    count: int
    at: datetime


def leave(value: Any) -> Any:
    return value


def main() -> int:
    plain, times = order(7), dated(7)
    both = {**times, "id": NUMBER, "note": None}
    lines = {**plain, "lines": [Line("sku-x", n, datetime.now(UTC)) for n in range(3)]}
    prices = {**plain, "price": Decimal("9.90")}
    texts = encode(prices)
    report(
        {
            "encode, plain": (lambda: encode(plain), lambda: orjson.dumps(plain)),
            "encode, four datetimes": (lambda: encode(times), lambda: orjson.dumps(times)),
            "encode, the same, a UUID and a null": (lambda: encode(both), lambda: orjson.dumps(both)),
            "encode, three dataclasses": (lambda: encode(lines), lambda: orjson.dumps(lines)),
            "encode, a Decimal": (lambda: encode(prices), lambda: orjson.dumps(prices, str)),
            "encode, plain, with an encoder": (lambda: encode(plain, leave), lambda: orjson.dumps(plain)),
            "encode, datetimes, with an encoder": (lambda: encode(times, leave), lambda: orjson.dumps(times)),
            "decode": (lambda: decode(texts), lambda: orjson.loads(texts)),
            "decode for a filter": (lambda: decode_comparable(texts), lambda: orjson.loads(texts)),
            "decode, decimals=True": (lambda: decode_decimals(texts), lambda: orjson.loads(texts)),
        }
    )
    return 0


def report(calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]]) -> None:
    print(f"microseconds per call, least of {ROUNDS} rounds")
    print(f"{'':40}{'orjson':>10}{'pgdoc':>10}")
    for name, (ours, alone) in calls.items():
        figures = [min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6 for call in (alone, ours)]
        print(f"{name:40}{figures[0]:10.2f}{figures[1]:10.2f}")


if __name__ == "__main__":
    sys.exit(main())
