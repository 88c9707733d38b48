"""The replica law with four concurrent writers and a stream that is cut anywhere."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, Phase, given, settings

from tests.replica import Program, programs, run

_numbers = itertools.count(1)

# No shrinking: the threads interleave differently in each run, so a smaller example may pass by chance.
_settings = settings(
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(_settings, max_examples=8)
@given(program=programs())
def test_events_give_exactly_the_tables(shared_dsn: str, program: Program) -> None:
    run(shared_dsn, f"law_{next(_numbers)}", program)


@settings(_settings, max_examples=2)
@given(program=programs(works=2, cuts=2, sizes=(1_000_000, 5_000_000)))
def test_events_of_documents_of_megabytes_give_exactly_the_tables(rough_dsn: str, program: Program) -> None:
    run(rough_dsn, f"large_{next(_numbers)}", program)
