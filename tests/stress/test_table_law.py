"""The laws of watched tables, for many seeds."""

from __future__ import annotations

import os

import pytest

from tests.table_law import check_plugins, check_rows

_SEEDS = range(1_000, 1_000 + int(os.environ.get("PGDOC_STRESS_EXAMPLES", "30")) // 2)
_TRANSACTIONS = 150


@pytest.mark.parametrize("seed", _SEEDS)
def test_events_give_exactly_the_rows_of_many_tables(dsn: str, seed: int) -> None:
    check_rows(dsn, seed, _TRANSACTIONS)


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("seed", _SEEDS)
def test_both_plugins_send_the_same_rows_of_many_tables(dsn: str, seed: int) -> None:
    check_plugins(dsn, seed, _TRANSACTIONS)
