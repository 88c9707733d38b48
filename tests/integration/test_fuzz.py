"""Thousands of random filters and updates, the same in each run; `tests/stress` has many more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from tests.fuzz.run import SEED, print_outcome, run

if TYPE_CHECKING:
    import pytest

    from tests.fixtures.fix_server import Server

CASES = 4_000


def test_four_thousand_cases(server: Server, shared_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(server.conninfo_for(shared_database), autocommit=True) as connection:
        outcome = run(connection, SEED or 1, CASES)
    print_outcome(capsys, SEED or 1, outcome)
    assert not outcome.wrong, "\n\n".join(outcome.wrong)
    assert outcome.counts["filters"] > CASES / 4
    assert outcome.counts["updates"] > CASES / 4
    assert outcome.counts["filters refused"] > CASES / 50
    assert outcome.counts["updates refused"] > CASES / 50
