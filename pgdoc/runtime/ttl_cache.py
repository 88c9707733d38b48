"""A ten-second cache of server lookups, and what a transaction adds to it."""

from __future__ import annotations

import time
from typing import Final, Generic, TypeVar

__all__ = ["TTLCache", "TransactionCache"]

T = TypeVar("T")

FOR_S: Final = 10.0
_MOST: Final = 1024


class TTLCache(Generic[T]):
    """Keeps each value for ten seconds. Any thread may use it without a lock: each method does one step on the dict."""

    def __init__(self) -> None:
        self._values: dict[object, tuple[float, T]] = {}

    def get(self, key: object) -> T | None:
        """Return the value; `None` if it is missing or expired."""
        found = self._values.get(key)
        return found[1] if found is not None and time.monotonic() < found[0] else None

    def put(self, key: object, value: T) -> None:
        """Keep a value for ten seconds."""
        if len(self._values) >= _MOST:
            self._values.clear()
        self._values[key] = (time.monotonic() + FOR_S, value)

    def forget(self, key: object) -> None:
        """Drop a value."""
        self._values.pop(key, None)


class TransactionCache(Generic[T]):
    """What a transaction looked up, over the cache of its store, which learns of it at the commit.

    The transaction may have seen what is rolled back with it. A value that it has used stays until it ends.
    """

    def __init__(self, shared: TTLCache[T]) -> None:
        self._shared = shared
        self._own: dict[object, T] = {}

    def get(self, key: object) -> T | None:
        """Return the value; `None` if it is missing."""
        found = self._own.get(key)
        if found is None and (found := self._shared.get(key)) is not None:
            self._own[key] = found
        return found

    def put(self, key: object, value: T) -> None:
        """Keep a value for the transaction."""
        self._own[key] = value

    def forget(self, key: object) -> None:
        """Drop a value that was wrong, for the store, too."""
        self._own.pop(key, None)
        self._shared.forget(key)

    def known(self) -> dict[object, T]:
        """Return what the transaction has looked up so far."""
        return self._own.copy()

    def restore(self, known: dict[object, T]) -> None:
        """Go back to what was known at a savepoint."""
        self._own = known

    def share(self) -> None:
        """Keep the values for the store."""
        for key, value in self._own.items():
            if self._shared.get(key) is None:
                self._shared.put(key, value)
