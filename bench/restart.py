"""Time the first call of a store after its server was restarted, beside one connect.

    python -m bench restart

All connections of the store's pool are dead then.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from typing import TYPE_CHECKING

import psycopg

import pgdoc
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
POOL_SIZES = (1, 10, 50)


def main() -> int:
    """Print the medians for each size of the pool."""
    with LocalServer(settings={"fsync": False, "max_connections": 200}) as server:
        with pgdoc.Store(server.conninfo) as store:
            store.migrate()
            store["orders"].insert("o-1", {})
        for size in POOL_SIZES:
            rounds = [measure(server, size) for _ in range(ROUNDS)]
            connect, first = (statistics.median(times) for times in zip(*rounds, strict=True))
            print(f"pool_size {size:2}: one connect {connect * 1e3:5.1f} ms, the first call {first * 1e3:5.1f} ms")
    return 0


def measure(server: LocalServer, size: int) -> tuple[float, float]:
    """Return the seconds that a connect takes after a restart, and the first call."""
    with pgdoc.Store(server.conninfo, pool_size=size) as store:
        with contextlib.ExitStack() as transactions:
            for _ in range(size):
                transactions.enter_context(store.transaction())
        server.restart()
        connect = timed(lambda: psycopg.connect(server.conninfo).close())
        return connect, timed(lambda: store["orders"].get("o-1"))


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


if __name__ == "__main__":
    sys.exit(main())
