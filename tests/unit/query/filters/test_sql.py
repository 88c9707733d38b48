from __future__ import annotations

import re
from typing import Any

from hypothesis import given, reject
from hypothesis import strategies as st

from pgdoc.errors import InvalidUpdate
from pgdoc.query import compile_filter, compile_sort, compile_update, parse_filter, parse_sort, parse_update
from pgdoc.query.filters.projection import compile_fields
from pgdoc.query.filters.projection_parse import parse_fields
from pgdoc.query.indexes.definition import plan_index
from pgdoc.query.indexes.plan import branches, by_key
from pgdoc.sql.qualify import qualified
from tests import json_values
from tests.indexed import every_index, times_found

MARK = "\U0001f980"

marked = st.recursive(
    st.just(MARK),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just(MARK), inner, max_size=1),
    max_leaves=4,
)


@given(st.sampled_from(["$eq", "$ne", "$gt", "$lte"]), st.sampled_from([MARK, f"a.{MARK}", f"{MARK}.0", "_id"]), marked)
def test_neither_values_nor_paths_are_in_the_text(operator: str, path: str, value: Any) -> None:
    texts = [
        compile_filter(parse_filter({path: {operator: value}})).text,
        compile_filter(parse_filter({"$or": [{path: {"$in": [value, MARK]}}]})).text,
        compile_filter(parse_filter({path: {"$all": [value], "$elemMatch": {"$eq": value}, "$regex": MARK}})).text,
        compile_filter(parse_filter({path: {"$elemMatch": {f"{MARK}.1": value, "_id": {"$regex": MARK}}}})).text,
        compile_sort(parse_sort(path)).text,
        times_found(parse_filter({path: {operator: value}})).text,
    ]
    if path != "_id":
        texts.append(
            compile_update(parse_update({"$set": {path: value}, "$unset": {"b.c": 1}, "$inc": {f"x{MARK}": 7}})).text
        )
    assert MARK not in "".join(texts)


@given(json_values.filters)
def test_every_placeholder_has_its_parameter_and_no_other_percent_sign_stands_there(wanted: dict[str, Any]) -> None:
    compiled = times_found(parse_filter(wanted))
    assert re.findall("%.", compiled.text) == ["%s"] * len(compiled.params)


@given(json_values.updates)
def test_the_same_for_updates(wanted: dict[str, Any]) -> None:
    try:
        compiled = compile_update(parse_update(wanted))
    except InvalidUpdate:
        return
    assert re.findall("%.", compiled.text) == ["%s"] * len(compiled.params)


def test_the_common_filters_are_one_operator_that_an_index_can_serve() -> None:
    assert compile_filter(parse_filter({"address.city": 'Łó"dź'})).params[0] == '$."address"."city" == "Łó\\"dź"'
    assert compile_filter(parse_filter({"total": {"$gte": 5}})).text == qualified("data @@ %s::jsonpath")
    assert compile_filter(parse_filter({"total": {"$exists": True}})).text == qualified("data @? %s::jsonpath")
    assert compile_filter(parse_filter({"_id": "o-1"})).text == qualified("id = %s::text")
    assert compile_filter(parse_filter({"_id": {"$in": ["a", "b"]}})).params == [["a", "b"]]
    assert compile_filter(parse_filter(None)).text == "TRUE"


def test_paths_are_constants_that_nothing_can_end() -> None:
    node = parse_filter({"it's %s {\\ é": 1})
    text = compile_filter(by_key(node, every_index(node))).text
    path = r"it\U00000027s \U00000025s {\U0000005C \U000000E9"
    assert qualified(f"data -> E'{path}'::text") in text
    assert text.isascii()
    assert re.findall("%.", text) == ["%s"] * 2


def test_fields_of_the_document_itself_are_set_and_removed_by_operators() -> None:
    compiled = compile_update(parse_update({"$set": {"b": 1, "a": [True]}, "$unset": {"c": ""}}))
    assert compiled.text == qualified("((data || %s::jsonb) - %s::text[])")
    assert compiled.params == ['{"a":[true],"b":1}', ["c"]]
    assert compile_update(parse_update({"$set": {}})).text == "data"


def test_a_sort_ends_with_the_id_unless_it_has_it() -> None:
    assert compile_sort(parse_sort("total")).text.endswith('id COLLATE pg_catalog."C"')
    assert compile_sort(parse_sort("-_id")).text == 'id COLLATE pg_catalog."C" DESC'
    assert compile_sort(()).text == ""


def test_patterns_and_ids_are_compared_by_code_point_whatever_the_collation_of_the_database() -> None:
    for path in ("a", "a.0", "_id"):
        assert qualified('COLLATE "C" ~ %s') in compile_filter(parse_filter({path: {"$regex": "é"}})).text


@given(json_values.filters)
def test_nothing_in_a_compiled_filter_depends_on_the_search_path(wanted: dict[str, Any]) -> None:
    node = parse_filter(wanted)
    for part in (node, by_key(node, every_index(node)), *branches(node, every_index(node), None).nodes):
        text = compile_filter(part).text
        assert qualified(text) == text


@given(st.lists(json_values.sort_paths, min_size=1, max_size=3, unique=True))
def test_nothing_in_a_sort_an_index_or_a_projection_depends_on_the_search_path(paths: list[str]) -> None:
    texts = [compile_sort(parse_sort(paths)).text, compile_fields(parse_fields(paths[:1])).text]
    for unique in (False, True):
        texts += [part.body.text for part in plan_index(tuple(paths), unique=unique, where={"a": 1}, name=None).parts]
    assert [qualified(text) for text in texts] == texts


@given(st.tuples(json_values.documents, json_values.updates) | json_values.documents_with_updates())
def test_nothing_in_a_compiled_update_depends_on_the_search_path(drawn: tuple[Any, dict[str, Any]]) -> None:
    try:
        text = compile_update(parse_update(drawn[1])).text
    except InvalidUpdate:
        reject()
    assert qualified(text) == text
