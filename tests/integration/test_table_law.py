"""The events of watched tables give exactly their rows, and are the same through both plugins."""

from __future__ import annotations

import pytest

from tests.table_law import check_plugins, check_rows

_TRANSACTIONS = 40


@pytest.mark.parametrize("seed", range(2))
def test_events_give_exactly_the_rows_of_tables(dsn: str, seed: int) -> None:
    check_rows(dsn, seed, _TRANSACTIONS)


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("seed", range(2))
def test_both_plugins_send_the_same_rows_of_tables(dsn: str, seed: int) -> None:
    check_plugins(dsn, seed, _TRANSACTIONS)
