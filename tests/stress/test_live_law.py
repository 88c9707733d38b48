"""The law of live queries, of `tests/live_law.py`, in a long run with many cuts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests import live_law
from tests.live_law import Asked

if TYPE_CHECKING:
    import pytest

FILTERS = ({"customer": "c1"}, {"n": {"$gte": 10}}, {"customer": {"$in": ["c0", "c2"]}}, None)


def test_where_live_queries_stand_their_documents_are_what_find_gave(
    dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BATCHES", 50)
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    asked = [
        Asked(
            dice.choice(FILTERS),
            dice.choice([None, "n", "-n"]),
            dice.choice([None, 1, 5, 20]),
            dice.random() < 0.5,
            dice.choice([0.0, 0.01, 0.5]),
        )
        for _ in range(8)
    ]
    assert live_law.run(dsn, schema, seed, asked, seconds=40.0, cuts=20) > 100
