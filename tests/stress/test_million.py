"""The million that the promise is about."""

from __future__ import annotations

import psycopg

from tests.integration.test_memory import check_flat


def test_a_transaction_of_a_million_changes(dsn: str) -> None:
    """In a database of its own: it is more than history keeps."""
    with psycopg.connect(dsn, options="-c search_path=docs", autocommit=True) as sql:
        check_flat(dsn, "docs", sql, 1_000_000)
