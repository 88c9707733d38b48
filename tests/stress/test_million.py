"""The promise of constant memory, with a transaction of a million changes."""

from __future__ import annotations

from tests.integration.test_memory import check_flat


def test_a_transaction_of_a_million_changes(rough_dsn: str, rough_schema: str) -> None:
    check_flat(rough_dsn, rough_schema, 1_000_000)
