"""The replica law with longer programs than in `tests/integration`, and new ones in each run."""

from __future__ import annotations

import itertools
import os

from hypothesis import HealthCheck, Phase, given, settings

from pgdoc import Store
from tests.replica import Program, programs, run

EXAMPLES = int(os.environ.get("PGDOC_STRESS_EXAMPLES", "30"))
HISTORY_BYTES = 3 << 30  # documents of megabytes soon exceed the default
_numbers = itertools.count(1)

_settings = settings(phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)


@settings(_settings, max_examples=EXAMPLES)
@given(program=programs(works=30, cuts=20))
def test_events_give_exactly_the_tables(shared_dsn: str, program: Program) -> None:
    run(shared_dsn, f"day_{next(_numbers)}", program)


@settings(_settings, max_examples=max(1, EXAMPLES // 10))
@given(program=programs(works=6, cuts=10, sizes=(1_000_000, 5_000_000)))
def test_events_of_documents_of_megabytes_give_exactly_the_tables(rough_dsn: str, program: Program) -> None:
    with Store(rough_dsn) as store:
        store.set_history(size=HISTORY_BYTES)
    run(rough_dsn, f"large_day_{next(_numbers)}", program)
