"""A ten-second cache of server lookups."""

from __future__ import annotations

import time
from typing import Final, Generic, TypeVar

__all__ = ["TTLCache"]

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
