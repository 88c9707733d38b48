"""An unordered bulk does what its calls do one by one, if each error is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import pgdoc
from pgdoc.errors import BulkIncomplete, PgdocError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import BulkCollection, Collection

_ids = st.sampled_from(["a", "b", "c"])
_versions = st.sampled_from([None, 1, 2, 3])
_data = st.fixed_dictionaries({}, optional={"key": st.sampled_from([1, 2, "t"]), "n": st.sampled_from([1, "t", [1]])})
_changes = st.sampled_from(
    [{"$inc": {"n": 1}}, {"$set": {"key": 1}}, {"$set": {"key": 2}}, {"$push": {"n": 2}}, {"$inc": {"n.$[]": 1}}]
)
_filters = st.sampled_from([{}, {"key": 1}, {"n": "t"}, {"_id": "a"}])
_calls = st.one_of(
    st.tuples(st.just("insert"), st.tuples(_ids, _data), st.just({})),
    st.tuples(st.just("update"), st.tuples(_ids, _changes), st.fixed_dictionaries({"if_version": _versions})),
    st.tuples(st.just("update"), st.tuples(_ids, _changes), st.just({"upsert": True})),
    st.tuples(st.just("update_many"), st.tuples(_filters, _changes), st.just({})),
    st.tuples(st.just("update_one"), st.tuples(_filters, _changes), st.just({"sort": "_id"})),
    st.tuples(st.just("replace"), st.tuples(_ids, _data), st.fixed_dictionaries({"if_version": _versions})),
    st.tuples(st.just("replace"), st.tuples(_ids, _data), st.just({"upsert": True})),
    st.tuples(st.just("delete"), st.tuples(_ids), st.fixed_dictionaries({"if_version": _versions})),
    st.tuples(st.just("delete_one"), st.tuples(_filters), st.just({"sort": "_id"})),
)


@pytest.fixture
def store(own_schema: dict[str, Any]) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(**own_schema) as store:
        for name in "single", "bulk":
            store[name].create_index("key", unique=True, where={"key": {"$exists": True}})
        yield store


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_calls, min_size=1, max_size=12))
@example([("insert", ("a", {"key": 1}), {}), ("insert", ("b", {"key": 1}), {}), ("insert", ("c", {"key": 2}), {})])
@example([("insert", ("a", {"n": "t"}), {}), ("update", ("a", {"$inc": {"n": 1}}), {"upsert": True})])
@example([("update", ("a", {"$inc": {"n.$[]": 1}}), {"upsert": True}), ("insert", ("a", {}), {})])
def test_an_unordered_bulk_does_what_single_calls_do(store: pgdoc.Store, calls: list[Any]) -> None:
    for name in "single", "bulk":
        store[name].delete_many({})
    errors = {}
    for index, call in enumerate(calls):
        try:
            run(store["single"], call)
        except PgdocError as error:
            errors[index] = type(error)
    try:
        with store.bulk(ordered=False) as bulk:
            for call in calls:
                run(bulk["bulk"], call)
    except BulkIncomplete:
        assert errors
    assert {failure.index: type(failure.error) for failure in bulk.result.failures} == errors
    assert stored(store["bulk"]) == stored(store["single"])


def run(collection: BulkCollection | Collection, call: Any) -> None:
    name, args, options = call
    getattr(collection, name)(*args, **options)


def stored(collection: Collection) -> list[Any]:
    return [(document.id, document.data, document.version) for document in collection.find(sort="_id")]
