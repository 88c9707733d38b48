"""Random filters, updates, sorts and fields: 100,000, or `PGDOC_FUZZ_CASES`, with a new seed each time.

`PGDOC_FUZZ_SEED` repeats the cases of a seed.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import psycopg

from tests.fuzz.run import SEED, print_outcome, run

if TYPE_CHECKING:
    import pytest

    from tests.fixtures.fix_server import Server

CASES = int(os.environ.get("PGDOC_FUZZ_CASES", "100000"))


def test_a_hundred_thousand_cases(server: Server, shared_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = SEED or random.SystemRandom().randrange(1, 1_000_000)
    with psycopg.connect(server.conninfo_for(shared_database), autocommit=True) as connection:
        outcome = run(connection, seed, CASES)
    print_outcome(capsys, seed, outcome)
    assert not outcome.wrong, "\n\n".join(outcome.wrong)
