"""Three relays into a log in Redis while everything fails: the log equals the account of its events, one by one."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import redis

from tests import relay_day
from tests.logs import Engine
from tests.relay_day import RelayDay
from tests.relay_process import RelayPlan

if TYPE_CHECKING:
    import pytest

    from tests.redis_server import RedisServer

EVENTS = int(os.environ.get("PGDOC_STRESS_RELAY_EVENTS", "1000000"))
SEED = int(os.environ.get("PGDOC_STRESS_SEED", "20"))


class RedisDay(RelayDay):
    """A day of relays into Redis."""

    @property
    def _servers(self) -> list[Any]:
        return list(self._engine.servers)  # type: ignore[union-attr]

    def _plans(self) -> list[RelayPlan]:
        to = f"redis://127.0.0.1:{self._proxies[0].port}/{relay_day.STREAM}?timeout=2s&ack_wait=3s"
        return [
            RelayPlan(self._dsn, "relay", to),
            RelayPlan(self._dsn, "relay", to, is_async=True),
            RelayPlan(self._dsn, "other", to),
        ]

    def _stored(self) -> int:
        try:
            return int(self._servers[0].ask("HGET", f"{{{relay_day.STREAM}}}:log", "sequence") or 0)
        except redis.RedisError:
            return 0


def test_three_relays_into_redis_lose_and_repeat_nothing(
    private_dsn: str, private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_of(_: str, log: str) -> list[tuple[str, bytes]]:
        return [(token, body) for _, token, body in Engine(private_redis).entries(log)]

    monkeypatch.setattr(relay_day, "log_of", log_of)
    engine: Any = SimpleNamespace(servers=[private_redis], url=private_redis.url)
    faults = RedisDay(private_dsn, engine, random.Random(SEED), EVENTS // 4).run(120 + EVENTS / 2000)
    assert faults > 5
