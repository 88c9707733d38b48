"""Statements about dead letters take about as long as there are letters, not as their square."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgdoc.sql import statement

COUNT = 20_000
FILL = """
INSERT INTO pgdoc.dead_letters (consumer, handler, state, event_type, collection, document_id, token)
SELECT 'audit', 'notify', CASE WHEN i = 1 THEN 'dead' ELSE 'parked' END, 'update', 'orders', 'o-' || i %% %s,
  '0/64.7421.1.16384'
FROM generate_series(1, %s) AS i
"""
LANE = {"name": "audit", "handler": "notify", "parks": True, "collection": "orders", "document_id": "o-0"}


@pytest.mark.parametrize(("block", "documents", "released"), [("release", 50, 19_600), ("release_next", 1, 19_999)])
def test_many_letters_are_released_at_once(dsn: str, block: str, documents: int, released: int) -> None:
    """The limit is dozens of times what it takes; to compare each letter with all others takes minutes."""
    with psycopg.connect(dsn) as connection:
        connection.execute(FILL, [documents, COUNT])
        if block == "release_next":  # the dead one was processed
            connection.execute("DELETE FROM pgdoc.dead_letters WHERE state = 'dead'")
        connection.execute("SET LOCAL statement_timeout = '30s'")
        params: dict[str, Any] = LANE
        assert len(connection.execute(statement("workers", block).encode(), params).fetchall()) == released
