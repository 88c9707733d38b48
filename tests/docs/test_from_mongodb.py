"""The table in docs/how-to/from-mongodb.md: what it calls the same is accepted, and what is missing is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

import pgdoc
from pgdoc.errors import InvalidFilter, InvalidInput, InvalidUpdate
from pgdoc.query import parse_filter, parse_update
from pgdoc.query.filters.projection_parse import parse_fields
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/how-to/from-mongodb.md").read_text(encoding="utf-8")

FILTERS: dict[str, Any] = {
    **{name: {"a": {name: 1}} for name in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$exists", "$size")},
    **{name: {"a": {name: [1, 0]}} for name in ("$in", "$nin", "$all", "$mod")},
    **{name: {name: [{"a": 1}]} for name in ("$and", "$or", "$nor")},
    **{name: {"a": {name: {"$gt": 1}}} for name in ("$not", "$elemMatch")},
    **{name: {"a": {name: 6}} for name in ("$bitsAllSet", "$bitsAnySet", "$bitsAllClear", "$bitsAnyClear")},
    **{name: {"a": {name: {"$geometry": {}}}} for name in ("$geoWithin", "$geoIntersects", "$near", "$nearSphere")},
    "$type": {"a": {"$type": "string"}},
    "$regex": {"a": {"$regex": "^b"}},
    "$options": {"a": {"$regex": "^b", "$options": "i"}},
    "$comment": {"$comment": "why"},
    "$expr": {"$expr": {"$gt": ["$a", "$b"]}},
    "$where": {"$where": "this.a > this.b"},
    "$jsonSchema": {"$jsonSchema": {}},
    "$text": {"$text": {"$search": "a"}},
    "$rand": {"$rand": {}},
}
UPDATES: dict[str, Any] = {
    **{name: {name: {"a": 1}} for name in ("$set", "$unset", "$setOnInsert", "$inc", "$mul", "$min", "$max")},
    **{name: {name: {"a": 1}} for name in ("$push", "$addToSet", "$pop", "$pull")},
    **{name: {"$push": {"a": {"$each": [1], name: 1}}} for name in ("$position", "$slice", "$sort")},
    "$rename": {"$rename": {"a": "b"}},
    "$bit": {"$bit": {"a": {"or": 1}}},
    "$currentDate": {"$currentDate": {"a": True}},
    "$pullAll": {"$pullAll": {"a": [1]}},
    "$each": {"$push": {"a": {"$each": [1]}}},
}
PROJECTIONS: dict[str, Any] = {
    **{name: {"a": {name: "$b"}} for name in ("$size", "$first", "$last")},
    **{name: {"a": {name: ["$b", 1]}} for name in ("$arrayElemAt", "$ifNull", "$add", "$concat")},
    **{name: {"a": {name: {}}} for name in ("$cond", "$filter", "$map", "$dateToString", "$meta")},
    "$slice": {"a": {"$slice": 1}},
    "$elemMatch": {"a": {"$elemMatch": {"b": 1}}},
    "$literal": {"a": {"$literal": 1}},
    "$path": {"a": "$path"},
}


def rows(section: str) -> list[tuple[str, str]]:
    """Return the first two cells of each row in a section of the table."""
    _, _, after = PAGE.partition(f"| **{section}** | | |\n")
    cells = [line.strip("| ").split(" | ") for line in after.partition("| **")[0].partition("\n\n")[0].splitlines()]
    return [(first, status) for first, status, *_ in cells]


def operators(section: str) -> dict[str, str]:
    """Return the operators of a section, each with its status."""
    found: dict[str, str] = {}
    for first, status in rows(section):
        found.update(dict.fromkeys(re.findall(r"`\"?(\$[a-zA-Z]+)\"?`", first), status))
    return found


def is_accepted(parse: Any, example: Any) -> bool:
    try:
        parse(example)
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize(
    ("section", "parse", "examples"),
    [("Filters", parse_filter, FILTERS), ("Updates", parse_update, UPDATES), ("Projection", parse_fields, PROJECTIONS)],
)
def test_the_status_of_each_operator_is_true(section: str, parse: Any, examples: dict[str, Any]) -> None:
    listed = operators(section)
    assert set(listed) == set(examples)
    accepted = {name for name, example in examples.items() if is_accepted(parse, example)}
    assert accepted == {name for name, status in listed.items() if status != "missing"}


def test_the_table_has_every_operator_of_the_language() -> None:
    with pytest.raises(InvalidFilter) as of_filter:
        parse_filter({"a": {"$unknown": 1}})
    with pytest.raises(InvalidUpdate) as of_update:
        parse_update({"$unknown": {"a": 1}})
    with pytest.raises(InvalidInput) as of_fields:
        parse_fields({"a": {"$unknown": 1}})
    for section, error in ("Filters", of_filter), ("Updates", of_update), ("Projection", of_fields):
        known = set(re.findall(r"\$\w+", str(error.value))) - {"$unknown"}
        assert len(known) > 4
        assert known <= set(operators(section))


def test_each_row_has_a_status_and_what_is_not_the_same_has_a_reason() -> None:
    table = PAGE.partition("| MongoDB, PyMongo | pgdoc | how, or why |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
    lines = table.splitlines()
    assert len(lines) > 100
    for line in lines:
        first, status, reason = (cell.strip() for cell in line.split("|")[1:-1])
        if not first.startswith("**"):
            assert status in {"same", "differs", "missing"}, line
            assert status == "same" or reason, line


def test_the_table_has_every_method_of_a_collection_in_pymongo() -> None:
    methods = """
        aggregate bulk_write count_documents create_index create_indexes delete_many delete_one distinct drop
        drop_index estimated_document_count find find_one find_one_and_delete find_one_and_replace find_one_and_update
        find_raw_batches index_information insert_many insert_one list_indexes rename replace_one update_many update_one
        watch with_options batch_size clone collation comment explain hint limit max_time_ms rewind skip sort to_list
        start_session with_transaction create_collection list_collection_names validate_collection
    """
    assert [name for name in methods.split() if not re.search(rf"`[^`]*\b{name}\b", PAGE)] == []


def test_the_calls_that_the_table_names_exist() -> None:
    calls = set(re.findall(r"\b(c|store)\.(\w+)\(", "\n".join(line.rpartition(" | ")[2] for line in PAGE.splitlines())))
    assert len(calls) > 20
    owners = {"c": pgdoc.Collection, "store": pgdoc.Store}
    assert [name for owner, name in calls if not hasattr(owners[owner], name)] == []
