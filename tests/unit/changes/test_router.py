"""Which stream gets which change: the index agrees with evaluating each filter on each event."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.changes import events
from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.event_filter import parse_where
from pgdoc.changes.router import Condition, Router, Selection
from pgdoc.decoding.records import CollectionChange, Images, RowChange
from pgdoc.errors import InvalidFilter, ProtocolError
from pgdoc.query import matches, parse_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.events import ChangeEvent

WHEN = TransactionInfo(7, "2026-11-23 03:41:13+00", '{"metadata": {"user": "alice"}}')
MOMENT = "2026-11-23 03:41:13.25+00"


def image(key: str, data: dict[str, Any], version: int, replaced_version: int = 1) -> dict[str, Any]:
    times = {"created_at": MOMENT, "updated_at": MOMENT}
    return {"id": key, "data": json.dumps(data), "version": version, "replaced_version": replaced_version, **times}


def row(kind: str, table: str, key: str = "o-1", *, after: Any = None, before: Any = None, replaced: int = 1) -> Change:
    images = Images(
        image(key, after or {}, 2, replaced) if kind in "IU" else {},
        image(key, before or {}, 1) if kind in "UD" else {},
    )
    return change(RowChange(5, kind, table, b"_", complete=True, read=lambda _message: images))


def change(of: RowChange | CollectionChange) -> Change:
    return Change((9, 5, int(isinstance(of, RowChange)), 0), WHEN, of)


def ddl(kind: str, table: str, renamed_to: str | None = None) -> Change:
    return change(CollectionChange(5, kind, table, b"_", renamed_to=renamed_to))


def view_of(of: Change) -> ChangeEvent:
    return events.from_change(of, (1, 1, None))


def select(where: dict[str, Any] | None, *collections: str) -> Selection:
    return Selection(frozenset(collections) or None, None if where is None else parse_where(where))


def route(changes: list[Change], *selections: Selection, view: Callable[[Change], Any] = view_of) -> list[list[Change]]:
    router = Router(view)
    for each in selections:
        router.add(each)
    found = router.route(changes)
    return [found.get(each, []) for each in selections]


TABLES, IDS, VALUES = ["a", "b"], ["1", "2"], [0, 1, True, "x", None, [1, "x"], [[1]]]
rows = st.builds(
    row,
    st.sampled_from("IUDT"),
    st.sampled_from(TABLES),
    st.sampled_from(IDS),
    after=st.dictionaries(st.sampled_from("xy"), st.sampled_from(VALUES)),
    before=st.dictionaries(st.sampled_from("xy"), st.sampled_from(VALUES)),
    replaced=st.sampled_from([1, 2]),
)
life = st.builds(ddl, st.sampled_from(["create", "drop"]), st.sampled_from(TABLES)) | st.just(ddl("rename", "a", "b"))

_types = st.sampled_from(["insert", "update", "replace", "delete", "truncate", "create", "rename", "drop"])


def _one_or_more(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.fixed_dictionaries({"$in": st.lists(values, max_size=3)}) | values.map(lambda one: {"$ne": one})


conditions = {
    "event_type": _one_or_more(_types),
    "collection": _one_or_more(st.sampled_from(TABLES)),
    "document_id": _one_or_more(st.sampled_from([*IDS, None])),
    "full_document.data.x": _one_or_more(st.sampled_from([*VALUES, [1, "x"]])),
    "full_document_before_change.version": _one_or_more(st.just(1)),
    "update_description.updated_fields.x": st.fixed_dictionaries({"$exists": st.booleans()}),
    "update_description.removed_fields": st.just("y"),
    "metadata.user": st.sampled_from(["alice", "bob"]),
    "renamed_to": _one_or_more(st.sampled_from([*TABLES, None])),
    "transaction_id": st.fixed_dictionaries({"$gte": st.sampled_from([7, 8])}),
}
_flat = st.fixed_dictionaries({}, optional=conditions)
wheres = st.none() | _flat | st.lists(_flat, min_size=1, max_size=2).map(lambda parts: {"$or": parts})
wheres |= st.lists(_flat, min_size=1, max_size=2).map(lambda parts: {"$and": parts})
selections = st.builds(lambda where, names: select(where, *names), wheres, st.lists(st.sampled_from(TABLES)))


@given(st.lists(rows | life, max_size=8), st.lists(st.tuples(selections, wheres), max_size=4))
def test_the_index_finds_what_each_filter_matches(changes, drawn):
    router = Router(view_of)
    wanted = [selection for selection, _ in drawn]
    for each in wanted:
        router.add(each)
    found = router.route(changes)
    assert all(found.values())
    for each in wanted:
        assert found.get(each, []) == [one for one in changes if is_wanted(each, one)]
    one_by_one = [router.route([change]) for change in changes]  # along the routes that are known by now
    for each in wanted:
        assert [one for routed in one_by_one for one in routed.get(each, [])] == found.get(each, [])


def is_wanted(selection: Selection, one: Change) -> bool:
    names, kind = selection.collections, one.row.kind
    if kind in {"create", "rename", "drop"} and names is not None:
        return one.row.table in names or one.row.renamed_to in names
    return (names is None or one.row.table in names) and (
        selection.where is None or selection.where.matches(view_of(one))
    )


@given(rows | life, _flat)
def test_a_filter_matches_an_event_exactly_if_it_matches_its_dict(one, where):
    event = view_of(one)
    condition, plain = parse_where(where), event.to_dict()
    assert condition.matches(event) == matches(parse_filter(where), "", plain)


def test_streams_of_other_values_kinds_and_collections_cost_nothing():
    mine = select({"document_id": "o-1", "metadata.user": "alice"})
    others = [select({"document_id": f"other-{number}", "metadata.user": "alice"}) for number in range(500)]
    others += [select({"full_document.data.customer": f"c-{number}"}) for number in range(500)]
    others += [select({"full_document.data.n": {"$gt": 0}}, f"other-{number}") for number in range(500)]
    others += [select({"collection": f"other-{number}", "metadata.user": "alice"}) for number in range(500)]
    others += [select({"event_type": kind, "timestamp": {"$gt": "2"}}) for kind in ("update", "delete", "truncate")]
    evaluate = mock.Mock(return_value=True)
    views = mock.Mock(side_effect=view_of)
    wanted = [Selection(each.collections, replace(each.where, rest=evaluate)) for each in (mine, *others) if each.where]
    found = route([row("I", "a", "o-1", after={"customer": "c"})], *wanted, view=views)
    assert [len(each) for each in found] == [1, *[0] * len(others)]
    assert (evaluate.call_count, views.call_count) == (1, 1)


def test_equal_filters_are_evaluated_once():
    evaluate = mock.Mock(return_value=True)
    conditions = [Condition(b"same", None, None, None, evaluate, evaluate) for _ in range(5)]
    router = Router(view_of)
    for each in conditions:
        router.add(Selection(None, each))
    one = row("I", "a")
    assert list(router.route([one]).values()) == [[one]]
    assert evaluate.call_count == 1
    for each in conditions[1:]:
        router.remove(Selection(None, each))
    assert len(router.route([row("I", "a")])) == 1
    router.remove(Selection(None, conditions[0]))
    assert router.route([row("I", "a")]) == {}


def test_a_removed_selection_leaves_nothing_behind():
    router = Router(view_of)
    wanted = [select({"document_id": "o-1"}), select({"full_document.data.n": {"$gt": 1}}, "a"), select(None, "a")]
    wanted += [select({"document_id": "o-1"}, f"table-{number}") for number in range(3)]
    for each in wanted:
        router.add(each)
    for each in wanted:
        router.remove(each)
    assert (router._counts, router._by_table_and_kind, router._indexes) == ({}, {}, {})


def test_a_router_keeps_no_more_routes_than_it_needs_for_the_tables_of_a_while():
    router = Router(view_of)
    everything = Selection(None, None)
    router.add(everything)
    for number in range(6_000):
        assert [*router.route([row("I", f"t{number}")])] == [everything]
    assert len(router._routes) <= 4_096


def test_a_change_that_can_not_be_read_is_delivered_to_every_stream_of_its_collection():
    def broken(_message: bytes) -> Images:
        raise ProtocolError("it is broken", offset=0)

    torn = change(RowChange(5, "I", "a", b"_", complete=True, read=broken))
    bare = change(RowChange(5, "D", "a", b"_", complete=False, read=lambda _message: Images({}, {})))
    wanted = [select({"document_id": "o-1"}), select({"full_document.data.x": 1}, "a"), select({"document_id": "o-2"})]
    elsewhere = [select({"document_id": "o-1"}, "b"), select({"collection": "b", "document_id": "o-1"})]
    for one in torn, bare:
        assert route([one], *wanted, *elsewhere) == [[one], [one], [one], [], []]
    kinds = [select({"event_type": "delete"}, "a"), select({"event_type": {"$in": ["insert", "update"]}})]
    assert route([bare], *kinds) == [[bare], []]


def test_a_selection_without_restrictions_wants_everything():
    changes = [row("I", "a"), row("T", "b"), ddl("drop", "a")]
    assert route(changes, select(None), select({}), select(None, "a")) == [changes, changes, [changes[0], changes[2]]]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"_id": "o-1"}, "no event has '_id': use document_id"),
        ({"operation": "insert"}, "no event has 'operation': use one of event_type, collection, document_id"),
        (
            {"full_document.total": 5},
            "full_document has id, data, version, created_at, updated_at, for example full_doc",
        ),
        ({"$or": [{"full_document_before_change.total": 5}]}, "for example full_document_before_change.data.total"),
        ({"update_description.fields.a": 5}, "update_description has updated_fields, removed_fields, truncated_arrays"),
        ({"event_type": "inserted"}, "no event has the event_type 'inserted': use one of insert, update, replace"),
        ({"event_type": {"$in": ["insert", "x"]}}, "'x': use one of"),
        ({"event_type": {"$ne": "x"}}, "'x': use one of"),
        ({"event_type": {"$not": {"$eq": "x"}}}, "'x': use one of"),
        ({"$or": [{"collection": "a"}, {"$nor": [{"event_type": {"$nin": [None, "x"]}}]}]}, "'x': use one of"),
        ({"metadata.user": {"$like": "a"}}, "unknown operator '$like' at 'metadata.user'"),
        (["insert"], "a filter must be a dict"),
    ],
)
def test_a_filter_on_a_path_that_no_event_has_is_refused(where, words):
    with pytest.raises(InvalidFilter) as raised:
        parse_where(where)
    assert words in str(raised.value)
    assert raised.value.path or "a filter must be a dict" in words


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"full_document": None}, False),
        ({"full_document.data": {"address": {"city": "Bern"}, "tags": ["x"]}}, True),
        ({"full_document.data.address.city": "Bern"}, True),
        ({"full_document.data.tags": "x"}, True),
        ({"full_document.id": "o-1"}, True),
        ({"full_document.version": {"$gt": 1}}, True),
        ({"full_document.updated_at": {"$lt": "2027"}}, True),
        ({"full_document_before_change.data.address.city": "Rome"}, True),
        ({"update_description.updated_fields.address.city": "Bern"}, True),
        ({"update_description.updated_fields.address": {"$exists": True}}, False),
        ({"update_description.updated_fields": {"address.city": "Bern"}}, True),
        ({"update_description.removed_fields": "old"}, True),
        ({"update_description.truncated_arrays.field": "tags"}, True),
        ({"update_description.truncated_arrays": {"$elemMatch": {"field": "tags", "new_size": 1}}}, True),
        ({"update_description.disambiguated_paths": {}}, True),
        ({"timestamp": {"$regex": "^2026-11-23T03:41"}}, True),
        ({"transaction_id": 7}, True),
        ({"metadata": {"user": "alice"}}, True),
        ({"resume_token": {"$regex": r"\.1\.1$"}}, True),
        ({"renamed_to": {"$exists": True}}, True),
        ({"event_type": {"$ne": "replace"}, "document_id": {"$regex": "^o-"}}, True),
    ],
)
def test_each_part_of_an_event_can_be_filtered(where, expected):
    before = {"address": {"city": "Rome"}, "tags": ["x", "y"], "old": 1}
    one = row("U", "a", after={"address": {"city": "Bern"}, "tags": ["x"]}, before=before)
    assert parse_where(where).matches(view_of(one)) is expected
    assert route([one], select(where)) == [[one] if expected else []]
