"""Filters, updates, sorts and fields of any shape, 100,000 or `PGDOC_FUZZ_CASES` of them; others each time.

`PGDOC_FUZZ_SEED` repeats those of one time.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import psycopg

from tests.fuzz.run import SEED, run, tell

if TYPE_CHECKING:
    import pytest

    from tests.fixtures.fix_server import Server

CASES = int(os.environ.get("PGDOC_FUZZ_CASES", "100000"))


def test_a_hundred_thousand_cases(server: Server, shared_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = SEED or random.SystemRandom().randrange(1, 1_000_000)
    with psycopg.connect(server.conninfo_for(shared_database), autocommit=True) as connection:
        outcome = run(connection, seed, CASES)
    tell(capsys, seed, outcome)
    assert not outcome.wrong, "\n\n".join(outcome.wrong)
