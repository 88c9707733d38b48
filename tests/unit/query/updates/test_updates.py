from __future__ import annotations

import copy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from pgdoc.errors import InvalidUpdate
from pgdoc.query import apply_update, compare, compile_update, parse_update


@pytest.mark.parametrize(
    ("before", "update", "after"),
    [
        ({"a": 1}, {"$set": {}}, {"a": 1}),
        ({"a": 1}, {"$set": {"a": {"_id": 2}}}, {"a": {"_id": 2}}),
        ({}, {"$set": {"a.0.b": 1}}, {"a": {"0": {"b": 1}}}),
        ({"a": [1]}, {"$set": {"a.3.b": 2}}, {"a": [1, None, None, {"b": 2}]}),
        ({"a": [{"b": 1, "c": 2}]}, {"$set": {"a.0.b": 3}}, {"a": [{"b": 3, "c": 2}]}),
        ({"": {"": 1}}, {"$set": {"a": 2}}, {"": {"": 1}, "a": 2}),
        ({"a": []}, {"$set": {"a.10": 1}, "$inc": {"a.9": 5}}, {"a": [None] * 9 + [5, 1]}),
        ({"a": 1, "b": 2}, {"$unset": {"a": "", "c.d": 1}}, {"b": 2}),
        ({"a": [1, {"b": 2}, 3]}, {"$unset": {"a.0": 1, "a.1.b": 1, "a.7": 1, "a.x": 1}}, {"a": [None, {}, 3]}),
        ({"a": "text"}, {"$unset": {"a.b": 1}}, {"a": "text"}),
        ({"a": 1}, {"$inc": {"a": 2, "b.c": -1.5}}, {"a": 3, "b": {"c": -1.5}}),
        ({"a": 2**63 - 1}, {"$inc": {"a": 1}}, {"a": 2**63}),
        ({"a": 0.1}, {"$inc": {"a": 0.2}}, {"a": 0.3}),
        ({"a": 1e23}, {"$inc": {"a": 1}}, {"a": 1e23}),
        ({"a": [1, 2]}, {"$inc": {"a.1": 1}}, {"a": [1, 3]}),
    ],
)
def test_updates(before: dict[str, Any], update: dict[str, Any], after: dict[str, Any]) -> None:
    untouched = copy.deepcopy(before)
    assert apply_update(parse_update(update), before) == after
    assert before == untouched


def test_each_update_sets_a_new_value() -> None:
    update = parse_update({"$set": {"a": []}})
    apply_update(update, {})["a"].append(1)
    assert apply_update(update, {}) == {"a": []}


@pytest.mark.parametrize(
    ("update", "operator", "path"),
    [
        ({"$set": {"t.x": 1}}, "$set", "t.x"),
        ({"$set": {"null.x": 1}}, "$set", "null.x"),
        ({"$set": {"list.x": 1}}, "$set", "list.x"),
        ({"$set": {"list.01": 1}}, "$set", "list.01"),
        ({"$set": {"list.1500002": 1}}, "$set", "list.1500002"),
        ({"$inc": {"t": 1}}, "$inc", "t"),
        ({"$inc": {"null": 1}}, "$inc", "null"),
        ({"$inc": {"yes": 1}}, "$inc", "yes"),
        ({"$inc": {"list": Decimal(1)}}, "$inc", "list"),
    ],
)
def test_an_update_that_does_not_fit_the_document_names_operator_and_path(
    update: dict[str, Any], operator: str, path: str
) -> None:
    with pytest.raises(InvalidUpdate, match="does not fit") as caught:
        apply_update(parse_update(update), {"t": "text", "null": None, "yes": True, "list": [1]})
    assert (caught.value.operator, caught.value.path) == (operator, path)


@pytest.mark.parametrize(
    ("update", "operator", "path"),
    [
        ({}, None, None),
        (None, None, None),
        ({"status": "paid"}, None, None),
        ({"$where": {"a": {"and": 1}}}, "$where", None),
        ({"$bit": {"a": {"and": 1.5}}}, "$bit", "a"),
        ({"$bit": {"a": {"or": 2**63}}}, "$bit", "a"),
        ({"$set": 5}, "$set", None),
        ({"$set": {1: 2}}, "$set", None),
        ({"$set": {"_id": 2}}, "$set", "_id"),
        ({"$unset": {"_id.x": 2}}, "$unset", "_id.x"),
        ({"$set": {"a.$[x].b": 2}}, "$set", "a.$[x].b"),
        ({"$set": {"a.$.b": 2}}, "$set", "a.$.b"),
        ({"$set": {"$[].b": 2}}, "$set", "$[].b"),
        ({"$set": {"a\0": 2}}, "$set", "a\0"),
        ({"$set": {".".join("a" * 300): 2}}, "$set", ".".join("a" * 300)),
        ({"$set": {"a.b": {"c": {1}}}}, "$set", "a.b.c"),
        ({"$inc": {"a": "1"}}, "$inc", "a"),
        ({"$inc": {"a": True}}, "$inc", "a"),
        ({"$inc": {"a": float("inf")}}, "$inc", "a"),
        ({"$set": {"a": 1}, "$inc": {"a": 1}}, "$inc", "a"),
        ({"$set": {"a.b": 1, "a-b": 2, "a": 1}}, "$set", "a.b"),
        ({"$set": {"a.b.c": 1}, "$unset": {"a.b": 1, "a.0": 1}}, "$set", "a.b.c"),
    ],
)
def test_the_error_of_an_invalid_update_names_operator_and_path(
    update: Any, operator: str | None, path: str | None
) -> None:
    with pytest.raises(InvalidUpdate) as caught:
        parse_update(update)
    assert (caught.value.operator, caught.value.path) == (operator, path)


@pytest.mark.parametrize(
    ("before", "update", "after"),
    [
        ({"a": 3}, {"$mul": {"a": 2, "b.c": 5}}, {"a": 6, "b": {"c": 0}}),
        ({"a": 1.1}, {"$mul": {"a": 1.1}}, {"a": 1.21}),
        ({"a": 2**70}, {"$mul": {"a": -(2**70)}}, {"a": -(2**140)}),
        (
            {"a": 5, "b": "x", "c": {"d": 1}},
            {"$min": {"a": 4, "b": 9, "c.d": None, "e": 7}},
            {"a": 4, "b": 9, "c": {"d": None}, "e": 7},
        ),
        ({"a": 5, "b": "x", "c": [1]}, {"$max": {"a": 4, "b": 9, "c": True}}, {"a": 5, "b": "x", "c": True}),
        ({"a": 1}, {"$max": {"a": 1.0}}, {"a": 1}),
        ({"a": {"b": 1}, "c": 2}, {"$rename": {"a.b": "c", "x": "a.y"}}, {"a": {}, "c": 1}),
        ({"a": [1]}, {"$rename": {"a": "b.c"}}, {"b": {"c": [1]}}),
        ({"a": [{"b": 1}]}, {"$rename": {"a.0.x": "c", "a.7.b": "d"}}, {"a": [{"b": 1}]}),
        ({"a": 1}, {"$setOnInsert": {"a": 2, "b": 3}}, {"a": 1}),
        (
            {"a": 1},
            {"$currentDate": {"a": {"$type": "date"}, "b.c": True}},
            {"a": "2026-01-02T03:04:05.000006Z", "b": {"c": "2026-01-02T03:04:05.000006Z"}},
        ),
        ({"a": [1]}, {"$push": {"a": [2], "b": 3}}, {"a": [1, [2]], "b": [3]}),
        ({}, {"$push": {"a": {"$each": []}}}, {"a": []}),
        ({"a": [1, 2, 3]}, {"$push": {"a": {"$each": [8, 9], "$position": -1}}}, {"a": [1, 2, 8, 9, 3]}),
        ({"a": [1, 2, 3]}, {"$push": {"a": {"$each": [9], "$position": -7}}}, {"a": [9, 1, 2, 3]}),
        ({"a": [1, 2, 3]}, {"$push": {"a": {"$each": [9], "$position": 10**30}}}, {"a": [1, 2, 3, 9]}),
        ({"a": [1, 2, 3]}, {"$push": {"a": {"$each": [4], "$slice": -2.0}}}, {"a": [3, 4]}),
        ({"a": [1, 2, 3]}, {"$push": {"a": {"$each": [4], "$slice": 0}}}, {"a": []}),
        ({"a": [1, 2, 3]}, {"$push": {"a": {"$each": [4], "$slice": Decimal("1e40")}}}, {"a": [1, 2, 3, 4]}),
        ({"a": [1, 2, 3]}, {"$push": {"a": {"$each": [4], "$slice": -(10**30)}}}, {"a": [1, 2, 3, 4]}),
        (
            {"a": [{"b": 1, "c": 1}, 5, {"b": 0}, {"b": 1, "c": 2}]},
            {"$push": {"a": {"$each": [], "$sort": {"b": -1}}}},
            {"a": [{"b": 1, "c": 1}, {"b": 1, "c": 2}, {"b": 0}, 5]},
        ),
        (
            {"a": [{"_id": 2}, {"_id": 1}]},
            {"$push": {"a": {"$each": [], "$sort": {"_id": 1}}}},
            {"a": [{"_id": 1}, {"_id": 2}]},
        ),
        (
            {"a": [1, 1]},
            {"$addToSet": {"a": {"$each": [1.0, True, 2, 2.0, {"b": 1, "c": 2}, {"c": 2, "b": 1}]}}},
            {"a": [1, 1, True, 2, {"b": 1, "c": 2}]},
        ),
        ({}, {"$addToSet": {"a": [1]}}, {"a": [[1]]}),
        (
            {"a": [1, 2], "b": [], "c": [3]},
            {"$pop": {"a": 1, "b": -1, "c": -1.0, "d.e": 1}},
            {"a": [1], "b": [], "c": []},
        ),
        ({"a": [1, [1], None, {"b": 1}]}, {"$pull": {"a": 1}}, {"a": [[1], None, {"b": 1}]}),
        ({"a": [1, [1], None, {"b": 1}]}, {"$pull": {"a": {"$in": [1, None]}}}, {"a": [{"b": 1}]}),
        ({"a": [1, None, {"b": None}, {"c": 1}]}, {"$pull": {"a": {"b": None}}}, {"a": [1, None]}),
        ({"a": [1, {"b": 1, "c": 1}, {"b": 2}]}, {"$pull": {"a": {"$or": [{"b": 2}, {"c": 1}]}}}, {"a": [1]}),
        ({"a": [1, {"_id": 1}, {}]}, {"$pull": {"a": {"_id": {"$gte": 1}}}}, {"a": [1, {}]}),
        ({"a": [1, {}, {"b": 1}]}, {"$pull": {"a": {}}}, {"a": [1]}),
        ({"a": [1, {"b": 1}]}, {"$pull": {"a.1.x": 1, "a.2.x": 1, "b": 1}}, {"a": [1, {"b": 1}]}),
        ({"a": [1]}, {"$push": {"a": {"$slice": 1}}}, {"a": [1, {"$slice": 1}]}),
        ({"a": {"$b": 1}}, {"$inc": {"a.$b": 1}, "$set": {"c.$d": 1}}, {"a": {"$b": 2}, "c": {"$d": 1}}),
        ({"$a": {"b": 1}}, {"$inc": {"$a.b": 1}, "$unset": {"$c": 1}}, {"$a": {"b": 2}}),
        ({"a": [1, 1.0, True, [1], None]}, {"$pullAll": {"a": [1, None, 7]}}, {"a": [True, [1]]}),
        ({"a": [[1], [2]]}, {"$push": {"a.$[]": 3}, "$set": {"b": 1}}, {"a": [[1, 3], [2, 3]], "b": 1}),
        ({"a": [{"b": [1]}, {"b": []}]}, {"$addToSet": {"a.$[].b": 1}}, {"a": [{"b": [1]}, {"b": [1]}]}),
        ({"a": [1]}, {"$set": {"a.$[].x": 1, "b.$[]": 2}}, None),
        ({"a": [1, 2]}, {"$inc": {"a.$[]": 1}, "$unset": {"b": 1}}, {"a": [2, 3]}),
    ],
)
def test_every_operator(before: dict[str, Any], update: dict[str, Any], after: dict[str, Any] | None) -> None:
    untouched = copy.deepcopy(before)
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    if after is None:
        with pytest.raises(InvalidUpdate, match="does not fit"):
            apply_update(parse_update(update), before, now=moment)
    else:
        assert compare(apply_update(parse_update(update), before, now=moment), after) == 0
    assert before == untouched


def test_set_on_insert_applies_if_the_document_is_created() -> None:
    update = parse_update({"$setOnInsert": {"a.b": 1}, "$inc": {"n": 1}})
    assert apply_update(update, {}, inserting=True) == {"a": {"b": 1}, "n": 1}
    assert apply_update(update, {}) == {"n": 1}


def test_a_product_does_not_grow_without_end() -> None:
    data: dict[str, Any] = {"n": Decimal("1." + "0" * 300 + "1")}
    factor = parse_update({"$mul": {"n": data["n"]}})
    change = compile_update(factor)
    assert "multiply_at" in change.text
    assert str(data["n"]) in change.params[1]
    assert apply_update(factor, data) == {"n": 1.0}


@pytest.mark.parametrize(
    ("update", "operator"),
    [
        ({"$mul": {"t": 2}}, "$mul"),
        ({"$mul": {"null": 2}}, "$mul"),
        ({"$mul": {"big": 10}}, "$mul"),
        ({"$inc": {"big": 10**4299}}, "$inc"),
        ({"$min": {"t.x": 2}}, "$min"),
        ({"$rename": {"t.x": "new"}}, "$rename"),
        ({"$rename": {"list.0": "new"}}, "$rename"),
        ({"$rename": {"list.x": "new"}}, "$rename"),
        ({"$rename": {"yes": "list.0"}}, "$rename"),
        ({"$rename": {"yes": "t.x"}}, "$rename"),
        ({"$push": {"t": 1}}, "$push"),
        ({"$push": {"null": 1}}, "$push"),
        ({"$addToSet": {"t": 1}}, "$addToSet"),
        ({"$pop": {"null": 1}}, "$pop"),
        ({"$pull": {"t": 1}}, "$pull"),
        ({"$pull": {"t": {"$gt": 1}}}, "$pull"),
        ({"$pullAll": {"yes": []}}, "$pullAll"),
        ({"$pull": {"list.0.x": 1}}, "$pull"),
        ({"$pullAll": {"list.x": [1]}}, "$pullAll"),
        ({"$pop": {"t.x": 1}}, "$pop"),
        ({"$set": {"$inc": 1}}, "$set"),
        ({"$push": {"$list.x": 1}}, "$push"),
        ({"$set": {"list.$[].x": 1}}, "$set"),
        ({"$set": {"none.$[]": 1}}, "$set"),
        ({"$pull": {"t.$[]": 1}}, "$pull"),
    ],
)
def test_a_misfit_of_every_operator(update: dict[str, Any], operator: str) -> None:
    data = {"t": "text", "null": None, "yes": True, "list": [1], "big": 9 * 10**4299}
    with pytest.raises(InvalidUpdate, match="does not fit") as caught:
        apply_update(parse_update(update), data)
    assert caught.value.operator == operator
    assert caught.value.path in update[operator]


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("$mul", "2"),
        ("$mul", None),
        ("$mul", True),
        ("$min", float("nan")),
        ("$max", {1}),
        ("$rename", 1),
        ("$rename", "p"),
        ("$rename", "p.q"),
        ("$rename", ""),
        ("$rename", "_id"),
        ("$rename", "a.$[]"),
        ("$rename", "$a"),
        ("$setOnInsert", object()),
        ("$currentDate", 1),
        ("$currentDate", None),
        ("$currentDate", {"$type": "time"}),
        ("$currentDate", {"$type": "date", "x": 1}),
        ("$push", {"$each": 1}),
        ("$push", {"$each": {"a": 1}}),
        ("$push", {"$each": [], "x": 1}),
        ("$push", {"$each": [], "$slice": "1"}),
        ("$push", {"$each": [], "$slice": 1.5}),
        ("$push", {"$each": [], "$slice": float("nan")}),
        ("$push", {"$each": [], "$position": float("inf")}),
        ("$push", {"$each": [], "$position": Decimal("1e5000")}),
        ("$pop", Decimal("sNaN")),
        ("$inc", Decimal("NaN")),
        ("$push", {"$each": [], "$position": True}),
        ("$push", {"$each": [], "$sort": 0}),
        ("$push", {"$each": [], "$sort": True}),
        ("$push", {"$each": [], "$sort": {}}),
        ("$push", {"$each": [], "$sort": {"a": 2}}),
        ("$push", {"$each": [], "$sort": {"a..b": 1}}),
        ("$push", {"$each": [], "$sort": {1: 1}}),
        ("$push", {"$each": [{1}]}),
        ("$addToSet", {"$each": 1}),
        ("$addToSet", {"$each": [], "$slice": 1}),
        ("$pop", 0),
        ("$pop", 2),
        ("$pop", True),
        ("$pop", "1"),
        ("$pull", {"$gt": 1, "b": 2}),
        ("$pull", {"$nonsense": 1}),
        ("$pull", {"b": {"$nonsense": 1}}),
        ("$pull", {"$or": []}),
        ("$pull", {1}),
        ("$pullAll", 1),
        ("$pullAll", {"a": 1}),
    ],
)
def test_an_operand_of_the_wrong_kind_is_refused(operator: str, value: Any) -> None:
    with pytest.raises(InvalidUpdate) as caught:
        parse_update({operator: {"p": value}})
    assert caught.value.operator == operator
    assert caught.value.path is not None


def test_a_condition_of_pull_names_the_place_in_the_array() -> None:
    for condition, place in ({"b": {"$near": 1}}, "'a.b'"), ({"$near": 1}, "'a'"), ({"$gt": {1}}, "at 'a'"):
        with pytest.raises(InvalidUpdate, match=place) as caught:
            parse_update({"$pull": {"a": condition}})
        assert caught.value.path == "a"


@pytest.mark.parametrize("operator", ["$set", "$inc", "$push", "$rename", "$pull", "$unset", "$currentDate"])
@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", "_id", "_id.x", "$", "a.$", "$[].a", "a.$[x]", "a\0b", "\ud800"]
)
def test_a_path_that_leads_nowhere_is_refused(operator: str, path: str) -> None:
    with pytest.raises(InvalidUpdate) as caught:
        parse_update({operator: {path: 1}})
    assert caught.value.operator == operator
    assert caught.value.path == path


@pytest.mark.parametrize(
    "update",
    [
        {"$rename": {"a": "b", "c": "b"}},
        {"$rename": {"a": "b.c"}, "$set": {"b": 1}},
        {"$rename": {"a": "b"}, "$set": {"b.c": 1}},
        {"$rename": {"a.b": "a.b.c"}},
        {"$setOnInsert": {"a": 1}, "$set": {"a": 1}},
        {"$push": {"a.$[]": 1}, "$inc": {"a.0.b": 1}},
        {"$push": {"a.$[].b": 1}, "$inc": {"a.3.b": 1}},
        {"$push": {"a.0": 1}, "$inc": {"a.$[].$[]": 1}},
        {"$push": {"a": 1}, "$inc": {"a.$[]": 1}},
        {"$pull": {"a.b": 1}, "$pop": {"a": 1}},
    ],
)
def test_paths_that_overlap_are_refused(update: dict[str, Any]) -> None:
    with pytest.raises(InvalidUpdate, match="overlap") as caught:
        parse_update(update)
    assert caught.value.operator in update
    assert caught.value.path


def test_paths_next_to_each_other_are_valid() -> None:
    update = {"$push": {"a.$[].b": 1}, "$inc": {"a.0.c": 1}, "$set": {"a-b": 1, "a.1.c": 1}, "$rename": {"x": "a1"}}
    assert len(parse_update(update).changes) == 5


@pytest.mark.parametrize("operator", ["$set", "$setOnInsert", "$min", "$max", "$push", "$addToSet"])
def test_a_document_can_not_become_too_deep(operator: str) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    array = operator in {"$push", "$addToSet"}
    path = ["a"] * (54 - array)
    parse_update({operator: {".".join(path): deep}})
    with pytest.raises(InvalidUpdate, match="levels deep") as caught:
        parse_update({operator: {".".join([*path, "a"]): deep}})
    assert (caught.value.operator, caught.value.path) == (operator, ".".join([*path, "a"]))


def test_values_and_paths_never_stand_in_the_sql() -> None:
    evil = "'); DROP TABLE x; --%s{}\""
    each = {"$each": [evil], "$sort": {evil: 1}}
    update = {
        "$set": {evil: evil, f"1.{evil}": evil},
        "$rename": {f"2.{evil}": f"3.{evil}"},
        "$push": {f"4.{evil}": each},
        "$pull": {f"5.{evil}": {evil: {"$gt": evil}}, f"6.$[].{evil}": {"$in": [evil]}},
        "$pullAll": {f"7.{evil}": [evil]},
        "$min": {f"8.$[].{evil}": evil},
    }
    change = compile_update(parse_update(update))
    assert "DROP" not in change.text
    assert change.text.count("%s") == len(change.params)


@pytest.mark.parametrize(
    ("operator", "path", "value", "limit"),
    [("$inc", "f{}", 1, 1000), ("$pull", "f{}", {"$gt": 1}, 50), ("$set", "f{}.$[]", 1, 50), ("$pull", "f{}", 1, 1000)],
)
def test_an_update_has_a_limit_of_changes(operator: str, path: str, value: Any, limit: int) -> None:
    changes = {path.format(number): value for number in range(limit)}
    compile_update(parse_update({operator: changes, "$unset": {f"g{number}": 1 for number in range(2000)}}))
    with pytest.raises(InvalidUpdate, match="at most") as caught:
        compile_update(parse_update({operator: {**changes, path.format("x"): value}}))
    assert caught.value.operator == operator
    assert caught.value.path


def test_a_path_has_a_limit_of_elements() -> None:
    """Each `$[]` is a query inside that of the previous one."""
    compile_update(parse_update({"$set": {"a" + ".$[]" * 50: 1}}))
    with pytest.raises(InvalidUpdate, match=r"at most 50 paths to elements and \$pull conditions, got 51"):
        compile_update(parse_update({"$set": {"a" + ".$[]" * 51: 1}}))
