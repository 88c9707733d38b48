from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgdoc.runtime.ttl_cache import FOR_S, TTLCache

if TYPE_CHECKING:
    import pytest


def test_a_value_is_recent_for_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    recent: TTLCache[int] = TTLCache()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recent.put("a", 1)
    assert recent.get("a") == 1
    assert recent.get("b") is None
    now += FOR_S
    assert recent.get("a") is None
    recent.put("a", 2)
    recent.forget("a")
    recent.forget("a")
    assert recent.get("a") is None


def test_there_are_never_many() -> None:
    recent: TTLCache[int] = TTLCache()
    for number in range(5_000):
        recent.put(number, number)
    assert sum(recent.get(number) is not None for number in range(5_000)) <= 1_024
    assert recent.get(4_999) == 4_999
