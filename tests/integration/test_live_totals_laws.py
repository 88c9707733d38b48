"""The totals of live aggregates are the same in Python and in PostgreSQL."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import pgdoc
from pgdoc.crud.find_query import Search
from pgdoc.crud.totals import totals_statement
from pgdoc.live.aggregates import Aggregate, AggregateKind, Totals
from pgdoc.live.images import RowImage
from pgdoc.query import parse_filter
from pgdoc.query.indexes.plan import NO_INDEXES
from tests import json_values

if TYPE_CHECKING:
    from collections.abc import Iterator

laws = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.sampled_from([0, 1, -7, 10**30, 0.1, 1e-7, 1e300, Decimal("0.10"), Decimal("-123456789012345678901.25")])
odd = st.sampled_from([None, "1", "x", True, [], [3], {}, {"b": 5}])
documents = st.fixed_dictionaries(
    {},
    optional={
        "a": numbers | odd | st.fixed_dictionaries({"b": numbers}) | st.lists(numbers, max_size=2),
        "by": st.sampled_from([None, "x", "y", 1, 1.0, True, [1], {"b": 1}, Decimal("1.00")]),
        "s": st.sampled_from([1, 2]),
    },
)


@pytest.fixture
def store(dsn: str) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(dsn) as store:
        yield store


def found(aggregate: Aggregate, totals: list[Totals]) -> Any:
    aggregate.load(totals, is_all=True)
    aggregate.commit()
    return aggregate.values


@laws
@given(
    st.lists(documents | json_values.documents, max_size=8),
    st.sampled_from([("a",), ("a", "b"), ("a", "0"), ("_id",)]),
    st.sampled_from([None, ("by",), ("a",), ("_id",), ("by", "0")]),
    st.sampled_from([{}, {"s": 1}, {"a": {"$exists": True}}]) | json_values.filters,
)
@example([{"a": 1e308}, {"a": 1e308}, {"a": 5e-324}], ("a",), None, {})
def test_the_totals_that_the_server_computes_are_those_of_its_documents(
    store: pgdoc.Store, drawn: list[dict[str, Any]], path: Any, by: Any, wanted: dict[str, Any]
) -> None:
    collection = store.collection("things")
    with store.transaction() as tx:
        tx.collection("things").delete_many({})
        rows = ({key: value for key, value in data.items() if key != "_id"} for data in drawn)
        tx.collection("things").insert_many((str(number), data) for number, data in enumerate(rows))
        query, params = totals_statement(Search(wanted), collection._table.name, NO_INDEXES, path, by)
        totals = [Totals(*row) for row in tx.collection("things")._table.read(query, params)]
        images = [RowImage(each) for each in tx.collection("things").find()]
    for kind in AggregateKind:
        here, there = (Aggregate(parse_filter(wanted), kind, path, by) for _ in range(2))
        assert found(there, totals) == found(here, here.totals_of(images))
