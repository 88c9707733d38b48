"""What was looked up in the server a moment ago, and need not be looked up again."""

from __future__ import annotations

import time
from typing import Final, Generic, TypeVar

__all__ = ["TTLCache"]

T = TypeVar("T")

FOR_S: Final = 10.0
_MOST: Final = 1024


class TTLCache(Generic[T]):
    """Values by their keys, each for ten seconds; safe to use from several threads."""

    def __init__(self) -> None:
        self._values: dict[object, tuple[float, T]] = {}

    def get(self, key: object) -> T | None:
        """Return the value, or `None` where there is none that is recent."""
        found = self._values.get(key)
        return found[1] if found is not None and time.monotonic() < found[0] else None

    def put(self, key: object, value: T) -> None:
        """Remember a value."""
        if len(self._values) >= _MOST:
            self._values.clear()
        self._values[key] = (time.monotonic() + FOR_S, value)

    def forget(self, key: object) -> None:
        """Have a value looked up anew."""
        self._values.pop(key, None)
