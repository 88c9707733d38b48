"""Counts who holds the connections of a store, for the error that names them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING

from pgdoc.errors import PoolExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Holders"]


class Holders:
    """The transactions of a store, and the calls that keep their connection while the caller's code runs.

    The calls are limited to `limit`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # guards both
        self._transactions = 0
        self._keepers: Counter[str] = Counter()

    def transaction_begins(self) -> None:
        """Count one more transaction."""
        with self._lock:
            self._transactions += 1

    def transaction_ends(self) -> None:
        """Count one transaction less."""
        with self._lock:
            self._transactions -= 1

    @contextlib.contextmanager
    def keeping(self, holder: str) -> Iterator[None]:
        """Count one more call inside the block.

        Raises:
            PoolExhausted: as many calls as the limit are running.
        """
        with self._lock:
            if self._keepers.total() >= self._limit:
                raise self._exhausted()
            self._keepers[holder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers[holder] -= 1

    def _exhausted(self) -> PoolExhausted:
        found = tuple((+self._keepers).elements())
        listed = ", ".join(f"{count} x {name}" for name, count in (+self._keepers).items())
        return PoolExhausted(
            f"all {self._limit} connections for iterating finds and index builds are in use: {listed}. Exhaust or "
            "close the iterators, read at most 100 documents with `limit`, or raise pool_size",
            holders=found,
        )

    def waited_in_vain(self, seconds: float) -> PoolExhausted:
        """Return the error of a call for which no connection became free."""
        with self._lock:
            transactions = self._transactions
        return PoolExhausted(
            f"none of the {self._limit} connections for calls became free within {seconds:.0f} s, and {transactions} "
            "of them are in transactions. Make calls inside a transaction with its own handles, `tx[name]`; keep "
            "transactions short; or raise pool_size",
            holders=("a transaction",) * transactions,
        )
