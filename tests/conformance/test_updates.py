"""Each update operator means what MongoDB's manual says, in PostgreSQL and in Python.

A case is the data before, an update, and the data after, which is `None` if the update does not fit the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from pgdoc.errors import InvalidUpdate
from pgdoc.query import compare, parse_update
from tests.conformance.interpreters import MOMENT, changed_in_python, changed_in_sql

if TYPE_CHECKING:
    import psycopg

    Case: TypeAlias = tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]

NOW = f"{MOMENT:%Y-%m-%dT%H:%M:%S.%f}Z"

FIELDS: list[Case] = [
    # $set
    ({}, {"$set": {"a": 1}}, {"a": 1}),
    ({"a": 1}, {"$set": {}}, {"a": 1}),
    ({"a": 1}, {"$set": {"a": {"b": [None]}}}, {"a": {"b": [None]}}),
    ({}, {"$set": {"a.b.c": 1, "a.b.d": 2}}, {"a": {"b": {"c": 1, "d": 2}}}),
    ({"a": {"0": "x"}}, {"$set": {"a.0": "y", "a.1": "z"}}, {"a": {"0": "y", "1": "z"}}),
    ({}, {"$set": {"a.0": 1}}, {"a": {"0": 1}}),
    ({"a": [1, 2]}, {"$set": {"a.1": 3}}, {"a": [1, 3]}),
    ({"a": []}, {"$set": {"a.2": 3}}, {"a": [None, None, 3]}),
    ({"a": []}, {"$set": {"a.1.b": 3, "a.3.0": 4}}, {"a": [None, {"b": 3}, None, {"0": 4}]}),
    ({"a": [{"b": 1}, [2]]}, {"$set": {"a.0.b": 5, "a.1.0": 6}}, {"a": [{"b": 5}, [6]]}),
    ({"a": [1]}, {"$set": {"a.b": 1}}, None),
    ({"a": [1]}, {"$set": {"a.-1": 1}}, None),
    ({"a": [1]}, {"$set": {"a.0.b": 1}}, None),
    ({"a": None}, {"$set": {"a.b": 1}}, None),
    ({"a": "text"}, {"$set": {"a.b.c": 1}}, None),
    ({"a": 1}, {"$set": {"a": 2, "b.c": 3}, "$unset": {"d": 1}}, {"a": 2, "b": {"c": 3}}),
    # $unset
    ({"a": 1, "b": 2}, {"$unset": {"a": ""}}, {"b": 2}),
    ({"a": 1}, {"$unset": {"b": "", "a.b": 1, "c.d": True}}, {"a": 1}),
    ({"a": {"b": 1, "c": 2}}, {"$unset": {"a.b": False}}, {"a": {"c": 2}}),
    ({"a": {"b": 1}}, {"$unset": {"a.b": 1}}, {"a": {}}),
    ({"a": [1, 2, 3]}, {"$unset": {"a.1": 1, "a.9": 1, "a.x": 1}}, {"a": [1, None, 3]}),
    ({"a": [{"b": 1}]}, {"$unset": {"a.0.b": 1}}, {"a": [{}]}),
    ({"a": [{"b": 1}]}, {"$unset": {"a.b": 1}}, {"a": [{"b": 1}]}),
    # $inc and $mul
    ({"a": 1}, {"$inc": {"a": 2, "b": -3, "c.d": 0.5}}, {"a": 3, "b": -3, "c": {"d": 0.5}}),
    ({"a": 1.5}, {"$inc": {"a": 1.5}}, {"a": 3.0}),
    ({"a": 2**31 - 1}, {"$inc": {"a": 1}}, {"a": 2**31}),
    ({"a": [1, 2]}, {"$inc": {"a.1": 5, "a.3": 1}}, {"a": [1, 7, None, 1]}),
    ({"a": 0}, {"$inc": {"a": 0}}, {"a": 0}),
    ({"a": "1"}, {"$inc": {"a": 1}}, None),
    ({"a": None}, {"$inc": {"a": 1}}, None),
    ({"a": True}, {"$inc": {"a": 1}}, None),
    ({"a": [1]}, {"$inc": {"a": 1}}, None),
    ({"a": {}}, {"$inc": {"a": 1}}, None),
    ({"a": 3}, {"$mul": {"a": 2.5, "b": 4, "c.d": 2}}, {"a": 7.5, "b": 0, "c": {"d": 0}}),
    ({"a": -3}, {"$mul": {"a": 0}}, {"a": 0}),
    ({"a": [2, 3]}, {"$mul": {"a.0": -1}}, {"a": [-2, 3]}),
    ({"a": "3"}, {"$mul": {"a": 2}}, None),
    ({"a": None}, {"$mul": {"a": 2}}, None),
    ({"a": []}, {"$mul": {"a": 2}}, None),
    # $min and $max, over all types
    ({"a": 5}, {"$min": {"a": 4}}, {"a": 4}),
    ({"a": 5}, {"$min": {"a": 6}}, {"a": 5}),
    ({"a": 5}, {"$max": {"a": 6, "b": 0, "c.d": None}}, {"a": 6, "b": 0, "c": {"d": None}}),
    ({"a": 5}, {"$max": {"a": 4.9}}, {"a": 5}),
    ({"a": 5}, {"$min": {"a": None}}, {"a": None}),
    ({"a": None}, {"$max": {"a": -1}}, {"a": -1}),
    ({"a": 10**30}, {"$max": {"a": ""}}, {"a": ""}),
    ({"a": "z"}, {"$max": {"a": {}}}, {"a": {}}),
    ({"a": {"b": 9}}, {"$max": {"a": []}}, {"a": []}),
    ({"a": [9]}, {"$max": {"a": False}}, {"a": False}),
    ({"a": True}, {"$min": {"a": [True]}}, {"a": [True]}),
    ({"a": "abc"}, {"$min": {"a": "ab"}}, {"a": "ab"}),
    ({"a": [1, 2]}, {"$max": {"a": [1, 3]}}, {"a": [1, 3]}),
    ({"a": [1, 5]}, {"$min": {"a.1": 2}, "$max": {"a.0": 2}}, {"a": [2, 2]}),
    ({"a": 1}, {"$min": {"a.b": 0}}, None),
    # $rename
    ({"a": 1, "b": 2}, {"$rename": {"a": "c"}}, {"b": 2, "c": 1}),
    ({"a": 1, "b": 2}, {"$rename": {"a": "b"}}, {"b": 1}),
    ({"a": 1}, {"$rename": {"x": "a"}}, {"a": 1}),
    ({"a": 1}, {"$rename": {"x": "a.b"}}, {"a": 1}),
    ({"a": {"b": 1, "c": 2}}, {"$rename": {"a.b": "d.e"}}, {"a": {"c": 2}, "d": {"e": 1}}),
    ({"a": {"b": 1}}, {"$rename": {"a.b": "a.c"}}, {"a": {"c": 1}}),
    ({"a": [1], "b": {}}, {"$rename": {"a": "b.c"}}, {"b": {"c": [1]}}),
    ({"a": 1, "b": 2}, {"$rename": {"a": "c", "b": "d"}}, {"c": 1, "d": 2}),
    ({"a": 1, "b": 2}, {"$rename": {"a": "b.c"}}, None),
    ({"a": 1}, {"$rename": {"a.b": "c"}}, None),
    ({"a": [{"b": 1}]}, {"$rename": {"a.0.b": "c"}}, None),
    ({"a": [{"b": 1}]}, {"$rename": {"a.b": "c"}}, None),
    ({"a": [1], "b": 2}, {"$rename": {"b": "a.0"}}, None),
    # $currentDate and $setOnInsert
    ({"a": 1}, {"$currentDate": {"a": True, "b.c": False}}, {"a": NOW, "b": {"c": NOW}}),
    ({}, {"$currentDate": {"a": {"$type": "date"}, "b": {"$type": "timestamp"}}}, {"a": NOW, "b": NOW}),
    ({"a": [1]}, {"$currentDate": {"a.0": True}}, {"a": [NOW]}),
    ({"a": 1}, {"$currentDate": {"a.b": True}}, None),
    ({"a": 1}, {"$setOnInsert": {"a": 2, "b": 3}}, {"a": 1}),
    ({"a": 1}, {"$setOnInsert": {"a.b.c": 2}}, {"a": 1}),
    # field names that begin with a dollar sign
    ({"a": {"$b": 1}}, {"$inc": {"a.$b": 1}, "$set": {"a.$c.$d": 2}}, {"a": {"$b": 2, "$c": {"$d": 2}}}),
    ({"$a": {"b": 1}}, {"$inc": {"$a.b": 1}, "$set": {"$a.c": 2}}, {"$a": {"b": 2, "c": 2}}),
    ({"$a": 1}, {"$set": {"$a": {"$b": 2}}}, {"$a": {"$b": 2}}),
    ({"$a": 1, "b": 2}, {"$unset": {"$a": 1, "$b": 1}, "$pull": {"$c": 1}}, {"b": 2}),
    ({"$a": 1}, {"$rename": {"$a": "b", "$x": "c"}}, {"b": 1}),
    ({"a": 1}, {"$set": {"$a": 2}}, None),
    ({"$a": {}}, {"$set": {"$a.b": 1, "$b.c": 2}}, None),
    ({}, {"$push": {"$a": 2}}, None),
]

ARRAYS: list[Case] = [
    # $push
    ({"a": [1]}, {"$push": {"a": 2}}, {"a": [1, 2]}),
    ({}, {"$push": {"a": 1, "b.c": [2]}}, {"a": [1], "b": {"c": [[2]]}}),
    ({"a": [1]}, {"$push": {"a": [2, 3]}}, {"a": [1, [2, 3]]}),
    ({"a": [1]}, {"$push": {"a": {"$each": [2, [3], {"b": 4}]}}}, {"a": [1, 2, [3], {"b": 4}]}),
    ({}, {"$push": {"a": {"$each": []}}}, {"a": []}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [8, 9], "$position": 0}}}, {"a": [8, 9, 1, 2]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [8, 9], "$position": 1}}}, {"a": [1, 8, 9, 2]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [8], "$position": 7}}}, {"a": [1, 2, 8]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [8], "$position": -1}}}, {"a": [1, 8, 2]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [8], "$position": -9}}}, {"a": [8, 1, 2]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [3], "$slice": 2}}}, {"a": [1, 2]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [3], "$slice": -2}}}, {"a": [2, 3]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [3], "$slice": 0}}}, {"a": []}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [], "$slice": 9}}}, {"a": [1, 2]}),
    ({"a": [1, 2]}, {"$push": {"a": {"$each": [], "$slice": -9}}}, {"a": [1, 2]}),
    ({"a": [3, 1]}, {"$push": {"a": {"$each": [2], "$sort": 1}}}, {"a": [1, 2, 3]}),
    ({"a": [3, 1]}, {"$push": {"a": {"$each": [2], "$sort": -1}}}, {"a": [3, 2, 1]}),
    ({"a": [3, 1]}, {"$push": {"a": {"$sort": 1, "$slice": -2, "$each": [2, 0], "$position": 0}}}, {"a": [2, 3]}),
    (
        {"a": [True, [0], {"b": 0}, "x", 7, None]},
        {"$push": {"a": {"$each": [], "$sort": 1}}},
        {"a": [None, 7, "x", {"b": 0}, [0], True]},
    ),
    (
        {"a": [{"n": 2, "m": 1}, {"n": 1}, {"n": 2, "m": 0}]},
        {"$push": {"a": {"$each": [{"n": 1, "m": 5}], "$sort": {"n": -1, "m": 1}}}},
        {"a": [{"n": 2, "m": 0}, {"n": 2, "m": 1}, {"n": 1}, {"n": 1, "m": 5}]},
    ),
    (
        {"a": [{"b": {"c": 2}}, {"b": {"c": 1}}, {"b": 3}, 4]},
        {"$push": {"a": {"$each": [], "$sort": {"b.c": 1}}}},
        {"a": [{"b": 3}, 4, {"b": {"c": 1}}, {"b": {"c": 2}}]},
    ),
    (
        {"a": [{"b": [2]}, {"b": [1]}]},
        {"$push": {"a": {"$each": [], "$sort": {"b.0": 1}}}},
        {"a": [{"b": [1]}, {"b": [2]}]},
    ),
    ({"a": [1]}, {"$push": {"a": {"$slice": 0}}}, {"a": [1, {"$slice": 0}]}),
    ({"a": [1]}, {"$push": {"a": {"$position": 0, "$sort": 1}}}, {"a": [1, {"$position": 0, "$sort": 1}]}),
    ({"a": [[1], 2]}, {"$push": {"a.0": 5, "a.3": 6}}, {"a": [[1, 5], 2, None, [6]]}),
    ({"a": [[1], 2]}, {"$push": {"a.1": 5}}, None),
    ({"a": None}, {"$push": {"a": 1}}, None),
    ({"a": {"0": 1}}, {"$push": {"a": 1}}, None),
    ({"a": 1}, {"$push": {"a.b": 1}}, None),
    # $addToSet
    ({"a": [1]}, {"$addToSet": {"a": 2}}, {"a": [1, 2]}),
    ({"a": [1, 1]}, {"$addToSet": {"a": 1.0}}, {"a": [1, 1]}),
    ({"a": [1]}, {"$addToSet": {"a": True}}, {"a": [1, True]}),
    ({}, {"$addToSet": {"a": {"$each": [2, 1, 2]}}}, {"a": [2, 1]}),
    ({"a": [[1, 2]]}, {"$addToSet": {"a": {"$each": [[1, 2], [2, 1], 1]}}}, {"a": [[1, 2], [2, 1], 1]}),
    ({"a": [{"b": 1}]}, {"$addToSet": {"a": {"b": 1}}}, {"a": [{"b": 1}]}),
    ({"a": [{"b": 1}]}, {"$addToSet": {"a": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"b": 1, "c": 2}]}),
    ({"a": []}, {"$addToSet": {"a": {"$each": []}}}, {"a": []}),
    ({"a": [None]}, {"$addToSet": {"a": None}}, {"a": [None]}),
    ({"a": "x"}, {"$addToSet": {"a": "x"}}, None),
    ({"a": None}, {"$addToSet": {"a": 1}}, None),
    # $pop
    ({"a": [1, 2, 3]}, {"$pop": {"a": 1}}, {"a": [1, 2]}),
    ({"a": [1, 2, 3]}, {"$pop": {"a": -1}}, {"a": [2, 3]}),
    ({"a": []}, {"$pop": {"a": 1}}, {"a": []}),
    ({"a": [[1, 2]]}, {"$pop": {"a.0": 1.0}}, {"a": [[1]]}),
    ({"a": {"b": [1]}}, {"$pop": {"a.b": 1, "a.c": 1, "x.y": -1}}, {"a": {"b": []}}),
    ({"a": [1]}, {"$pop": {"a.3.b": 1}}, {"a": [1]}),
    ({"a": 1}, {"$pop": {"a": 1}}, None),
    ({"a": None}, {"$pop": {"a": 1}}, None),
    ({"a": 1}, {"$pop": {"a.b": 1}}, None),
    ({"a": [{"b": [1]}]}, {"$pop": {"a.b": 1}}, None),
    # $pull
    ({"a": [1, 2, 1, "1", [1]]}, {"$pull": {"a": 1}}, {"a": [2, "1", [1]]}),
    ({"a": [1, [1], [1, 2], [[1], 2]]}, {"$pull": {"a": [1]}}, {"a": [1, [1, 2], [[1], 2]]}),
    ({"a": [1, [1], [1, 2], [[1], 2]]}, {"$pull": {"a": {"$eq": [1]}}}, {"a": [1, [1, 2]]}),
    ({"a": [1, [1], [2, 1]]}, {"$pull": {"a": {"$in": [1]}}}, {"a": []}),
    ({"a": [1, 5, 9, "9", [7]]}, {"$pull": {"a": {"$gt": 4, "$lt": 9}}}, {"a": [1, 9, "9"]}),
    ({"a": [1, None, 2]}, {"$pull": {"a": None}}, {"a": [1, 2]}),
    ({"a": [1, 2, 3]}, {"$pull": {"a": {"$nin": [2]}}}, {"a": [2]}),
    ({"a": [1, 2, 3]}, {"$pull": {"a": {"$not": {"$gte": 2}}}}, {"a": [2, 3]}),
    ({"a": ["ab", "b", 1]}, {"$pull": {"a": {"$regex": "^A", "$options": "i"}}}, {"a": ["b", 1]}),
    ({"a": [1, "x", {}, []]}, {"$pull": {"a": {"$type": ["string", "object"]}}}, {"a": [1, []]}),
    ({"a": [1, 2, 3, 4]}, {"$pull": {"a": {"$mod": [2, 0]}}}, {"a": [1, 3]}),
    ({"a": [[], [1], 1]}, {"$pull": {"a": {"$size": 1}}}, {"a": [[], 1]}),
    ({"a": [{"b": 1, "c": 2}, {"b": 1}, 1]}, {"$pull": {"a": {"b": 1}}}, {"a": [1]}),
    ({"a": [{"b": 1, "c": 2}, {"b": 1}]}, {"$pull": {"a": {"b": 1, "c": 2}}}, {"a": [{"b": 1}]}),
    ({"a": [{"b": 1}, {"c": 1}, 2]}, {"$pull": {"a": {"b": None}}}, {"a": [{"b": 1}, 2]}),
    ({"a": [{"b": {"c": 5}}, {"b": [{"c": 7}]}]}, {"$pull": {"a": {"b.c": {"$gt": 5}}}}, {"a": [{"b": {"c": 5}}]}),
    ({"a": [{"b": [1, 2]}, {"b": [3]}]}, {"$pull": {"a": {"b": {"$elemMatch": {"$lt": 2}}}}}, {"a": [{"b": [3]}]}),
    ({"a": [{"b": 1}, {"c": 2}]}, {"$pull": {"a": {"$or": [{"b": 1}, {"c": 3}]}}}, {"a": [{"c": 2}]}),
    ({"a": [[{"b": 1}], {"b": 1}]}, {"$pull": {"a": {"b": 1}}}, {"a": [[{"b": 1}]]}),
    ({"a": [[{"b": 1}], {"b": 1}]}, {"$pull": {"a": {"$eq": {"b": 1}}}}, {"a": []}),
    ({"a": [[1, 2], [2]]}, {"$pull": {"a.0": 2}}, {"a": [[1], [2]]}),
    ({"a": [1]}, {"$pull": {"b": 1, "c.d": 1, "a.5": 1}}, {"a": [1]}),
    ({"a": 1}, {"$pull": {"a": 1}}, None),
    ({"a": {"b": 1}}, {"$pull": {"a": {"b": 1}}}, None),
    ({"a": [{"b": [1]}]}, {"$pull": {"a.b": 1}}, None),
    ({"a": "x"}, {"$pull": {"a.b": {"$gt": 1}}}, None),
    # $pullAll
    ({"a": [1, 2, 1.0, 3, [1]]}, {"$pullAll": {"a": [1, 3]}}, {"a": [2, [1]]}),
    ({"a": [{"b": 1}, {"b": 1, "c": 1}]}, {"$pullAll": {"a": [{"b": 1}]}}, {"a": [{"b": 1, "c": 1}]}),
    ({"a": [1]}, {"$pullAll": {"a": [], "b": [1]}}, {"a": [1]}),
    ({"a": None}, {"$pullAll": {"a": [None]}}, None),
    ({"a": [1]}, {"$pullAll": {"a.b": [1]}}, None),
    # $[]
    ({"a": [1, 2]}, {"$inc": {"a.$[]": 1}}, {"a": [2, 3]}),
    ({"a": [{"b": 1}, {}]}, {"$set": {"a.$[].b": 5, "a.$[].c.d": 6}}, {"a": [{"b": 5, "c": {"d": 6}}] * 2}),
    ({"a": [[1, 2], [3]]}, {"$mul": {"a.$[].$[]": 2}}, {"a": [[2, 4], [6]]}),
    ({"a": [1, 2]}, {"$unset": {"a.$[]": 1}}, {"a": [None, None]}),
    ({"a": [{"b": 1}, 2]}, {"$unset": {"a.$[].b": 1}}, {"a": [{}, 2]}),
    ({"a": [[1], []]}, {"$push": {"a.$[]": 7}, "$set": {"b": 1}}, {"a": [[1, 7], [7]], "b": 1}),
    ({"a": [{"b": [1, 2]}]}, {"$pull": {"a.$[].b": {"$gt": 1}}}, {"a": [{"b": [1]}]}),
    ({"a": [[2, 1], [3]]}, {"$pop": {"a.$[]": -1}}, {"a": [[1], []]}),
    ({"a": []}, {"$set": {"a.$[].b": 1}}, {"a": []}),
    ({"a": [5, 1]}, {"$min": {"a.$[]": 3}}, {"a": [3, 1]}),
    ({"a": [1]}, {"$currentDate": {"a.$[]": True}}, {"a": [NOW]}),
    ({"a": [[1, 2], [3, 4]]}, {"$inc": {"a.$[].0": 1, "a.$[].1": 2}}, {"a": [[2, 4], [4, 6]]}),
    ({"a": [[1], 2]}, {"$push": {"a.$[]": 1}}, None),
    ({"a": [1]}, {"$set": {"a.$[].b": 1}}, None),
    ({"a": {"b": 1}}, {"$set": {"a.$[]": 1}}, None),
    ({}, {"$unset": {"a.$[]": 1}}, None),
]


@pytest.mark.parametrize(("before", "wanted", "after"), [*FIELDS, *ARRAYS], ids=str)
def test_an_update_makes(
    connection: psycopg.Connection, before: dict[str, Any], wanted: dict[str, Any], after: dict[str, Any] | None
) -> None:
    update = parse_update(wanted)
    for found in changed_in_python(update, before), changed_in_sql(connection, update, before):
        assert (found is None) == (after is None), found
        assert found is None or compare(found, after) == 0


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ({"$set": {"a.b": 1}, "$setOnInsert": {"c.0": 2}}, {"a": {"b": 1}, "c": {"0": 2}}),
        (
            {"$inc": {"a": 5}, "$mul": {"b": 5}, "$min": {"c": 5}, "$max": {"d.e": 5}},
            {"a": 5, "b": 0, "c": 5, "d": {"e": 5}},
        ),
        ({"$push": {"a": 1}, "$addToSet": {"b": {"$each": [1, 1]}}}, {"a": [1], "b": [1]}),
        (
            {"$pull": {"a": 1}, "$pullAll": {"b": [1]}, "$pop": {"c.d": 1}, "$unset": {"e": 1}, "$rename": {"f": "g"}},
            {},
        ),
        ({"$currentDate": {"a": True, "b.$c": True}, "$setOnInsert": {"$d": 1}}, {"a": NOW, "b": {"$c": NOW}, "$d": 1}),
        ({"$set": {"a.$[]": 1}}, None),
        ({"$push": {"a.$[].b": 1}}, None),
    ],
    ids=str,
)
def test_an_upsert_makes_of_nothing(
    connection: psycopg.Connection, wanted: dict[str, Any], first: dict[str, Any] | None
) -> None:
    update = parse_update(wanted)
    assert changed_in_python(update, {}, inserting=True) == first
    assert changed_in_sql(connection, update, {}, inserting=True) == first


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"a": 1},
        {"a": 1, "$set": {"b": 1}},
        {"$bit": {"a": 1}},
        {"$bit": {"a": {}}},
        {"$bit": {"a": {"not": 1}}},
        {"$bit": {"a": {"and": 1.0}}},
        {"$bit": {"a": {"and": True}}},
        {"$bit": {"a": {"xor": -(2**63) - 1}}},
        {"$set": [["a", 1]]},
        {"$pop": "a"},
        {"$set": {"": 1}},
        {"$set": {"a.": 1}},
        {"$set": {"a..b": 1}},
        {"$set": {"_id": 1}},
        {"$inc": {"_id.x": 1}},
        {"$set": {"$[]": 1}},
        {"$set": {"a.$": 1}},
        {"$set": {"a.$.b": 1}},
        {"$set": {"a.$[x]": 1}},
        {"$set": {"a.$[]b": 1}},
        {"$rename": {"a.$[]": "b"}},
        {"$rename": {"a": "b.$[]"}},
        {"$rename": {"a": "$b"}},
        {"$set": {"a": 1}, "$unset": {"a": 1}},
        {"$set": {"a.b": 1, "a": 1}},
        {"$set": {"a.b.c": 1}, "$inc": {"a.b": 1}},
        {"$set": {"a.$[]": 1, "a.0": 1}},
        {"$set": {"a.$[].b": 1}, "$inc": {"a.3.b": 1}},
        {"$rename": {"a": "a"}},
        {"$rename": {"a": "a.b"}},
        {"$rename": {"a": "b"}, "$set": {"b": 1}},
        {"$rename": {"a": 1}},
        {"$inc": {"a": "1"}},
        {"$inc": {"a": None}},
        {"$mul": {"a": True}},
        {"$mul": {"a": [2]}},
        {"$currentDate": {"a": 1}},
        {"$currentDate": {"a": {}}},
        {"$currentDate": {"a": {"$type": "day"}}},
        {"$push": {"a": {"$each": 1}}},
        {"$push": {"a": {"$each": {"0": 1}}}},
        {"$push": {"a": {"$each": [], "$slices": 1}}},
        {"$push": {"a": {"$each": [], "$slice": 1.5}}},
        {"$push": {"a": {"$each": [], "$slice": "1"}}},
        {"$push": {"a": {"$each": [], "$position": True}}},
        {"$push": {"a": {"$each": [], "$sort": 0}}},
        {"$push": {"a": {"$each": [], "$sort": {}}}},
        {"$push": {"a": {"$each": [], "$sort": {"b": 2}}}},
        {"$push": {"a": {"$each": [], "$sort": {"b.": 1}}}},
        {"$addToSet": {"a": {"$each": "x"}}},
        {"$addToSet": {"a": {"$each": [], "$sort": 1}}},
        {"$pop": {"a": 0}},
        {"$pop": {"a": 2}},
        {"$pop": {"a": "1"}},
        {"$pop": {"a": True}},
        {"$pull": {"a": {"$gt": 1, "b": 1}}},
        {"$pull": {"a": {"b": 1, "$gt": 1}}},
        {"$pullAll": {"a": 1}},
        {"$pullAll": {"a": {"$in": [1]}}},
    ],
    ids=str,
)
def test_an_invalid_update_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidUpdate):
        parse_update(wanted)
