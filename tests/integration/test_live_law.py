"""The law of live queries, of `tests/live_law.py`, beside concurrent writers, in short runs."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import pgdoc
from pgdoc.live.window import LiveWindow
from tests import live_law
from tests.live_law import Asked

NUMBERS = itertools.count()
QUERIES = st.builds(
    Asked,
    filter=st.sampled_from([None, {"customer": "c1"}, {"n": {"$gte": 10}}, {"customer": {"$in": ["c0", "c2"]}}]),
    sort=st.sampled_from([None, "n", "-n"]),
    limit=st.sampled_from([None, 1, 5, 20]),
    by_batch=st.booleans(),
    pause_s=st.sampled_from([0.0, 0.0, 0.02, 0.2]),
)


@pytest.fixture
def few_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows need reads often, and everything reach its limits."""
    monkeypatch.setattr("pgdoc._sync.live.LiveWindow", partial(LiveWindow, spare=2))
    monkeypatch.setattr("pgdoc._sync.live._SPARE_OF_TABLE", 2)
    monkeypatch.setattr("pgdoc._sync.live_reader._PART_ROWS", 7)
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BATCHES", 8)
    monkeypatch.setattr("pgdoc.live.queries.MANY_TAKEN", 5)
    monkeypatch.setattr("pgdoc.live.shared.MOST_WAITING", 3)


@pytest.mark.usefixtures("few_spare")
@settings(
    max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=[Phase.generate], database=None
)
@given(seed=st.integers(0, 1 << 30), asked=st.lists(QUERIES, min_size=4, max_size=6), cuts=st.integers(0, 2))
def test_where_a_live_query_stands_its_documents_are_what_find_gave(
    shared_dsn: str, schema: str, seed: int, asked: list[Asked], cuts: int
) -> None:
    own_schema = f"{schema}_{next(NUMBERS)}"
    assert live_law.run(shared_dsn, own_schema, seed, asked, seconds=1.0, cuts=cuts) > 5


@pytest.mark.usefixtures("few_spare")
@settings(
    max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=[Phase.generate], database=None
)
@given(seed=st.integers(0, 1 << 30), asked=st.lists(QUERIES, min_size=4, max_size=6), cuts=st.integers(0, 1))
def test_so_it_is_on_a_table_that_several_statements_read(
    shared_dsn: str, schema: str, seed: int, asked: list[Asked], cuts: int
) -> None:
    own_schema = f"{schema}_{next(NUMBERS)}"
    with pgdoc.Store(shared_dsn, schema=own_schema) as store:
        store.create_collection("others")
        with store.transaction() as tx:
            tx.connection.execute(live_law.MAKE_TABLE.format(schema=own_schema).encode())
        store.add_table(f"{own_schema}.{live_law.TABLE}")
    assert live_law.run(shared_dsn, own_schema, seed, asked, seconds=1.0, cuts=cuts, of_table=True) > 5
