"""A short day of relays; `tests/stress/test_relays.py` has the long ones."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.relay_day import RelayDay

if TYPE_CHECKING:
    from tests.engines import NatsServer


def test_three_relays_into_one_log_lose_and_repeat_nothing(dsn: str, private_nats: NatsServer) -> None:
    assert RelayDay(dsn, private_nats, random.Random(20), 20_000, pause_s=0.8).run(150) > 1
