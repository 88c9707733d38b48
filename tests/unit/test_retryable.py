"""Which errors may simply be run again."""

from __future__ import annotations

import pytest

import pgdoc
from pgdoc import errors
from pgdoc.runtime.retry import random_delays


def test_only_these_errors_are_retryable() -> None:
    every = [getattr(errors, name) for name in errors.__all__]
    assert {kind.__name__ for kind in every if kind.retryable} == {
        "PoolExhausted",
        "SerializationFailure",
        "SlotBlocked",
        "SlotsExhausted",
        "TransactionLost",
    }


def test_a_lost_connection_may_have_stored_the_write() -> None:
    assert not pgdoc.ServerUnreachable.retryable
    assert not pgdoc.CommitUnknown.retryable


@pytest.mark.parametrize("count", [0, 3, 40])
def test_delays_are_random_and_bounded(count: int) -> None:
    delays = list(random_delays(count))
    assert len(delays) == count
    assert all(0 <= delay_s <= 1 for delay_s in delays)
    assert len(set(delays)) == count
