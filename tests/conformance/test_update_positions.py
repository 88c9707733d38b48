"""`$`, `$[]`, `$[name]`, `$bit` and upserts mean what MongoDB's manual says, in PostgreSQL and in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pgdoc.errors import InvalidFilter, InvalidUpdate
from pgdoc.model.json_codec import decode, encode
from pgdoc.query import apply_update, compare, compile_first, compile_update, matches, parse_filter, parse_update
from pgdoc.query.updates.upsert_seed import equal_fields, equal_id

if TYPE_CHECKING:
    import psycopg


class Case(NamedTuple):
    """The data before, an update, and the data after, which is `None` if the update does not fit the data."""

    before: dict[str, Any]
    update: dict[str, Any]
    after: dict[str, Any] | None
    filter: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)
    array_filters: list[Any] = []  # noqa: RUF012


def grades(*triples: tuple[int, int, int]) -> dict[str, Any]:
    return {"grades": [dict(zip(("grade", "mean", "std"), triple, strict=True)) for triple in triples]}


QUIZZES = [("quiz", [10, 8, 5]), ("quiz", [8, 9, 6]), ("hw", [5, 4, 3]), ("exam", [25, 10, 23, 0])]


def quizzes(*questions: list[int]) -> dict[str, Any]:
    return {"grades": [{"type": name, "questions": q} for (name, _), q in zip(QUIZZES, questions, strict=True)]}


MANUAL: list[Case] = [
    # $: the examples of the manual's page "$ (update)"
    Case({"grades": [85, 80, 80]}, {"$set": {"grades.$": 82}}, {"grades": [85, 82, 80]}, {"grades": 80}),
    Case(
        grades((80, 75, 8), (85, 90, 5), (85, 85, 8)),
        {"$set": {"grades.$.std": 6}},
        grades((80, 75, 8), (85, 90, 6), (85, 85, 8)),
        {"grades.grade": 85},
    ),
    Case(
        grades((80, 75, 8), (85, 90, 5), (90, 85, 3)),
        {"$set": {"grades.$.std": 6}},
        grades((80, 75, 8), (85, 90, 6), (90, 85, 3)),
        {"grades": {"$elemMatch": {"grade": {"$lte": 90}, "mean": {"$gt": 80}}}},
    ),
    Case(
        {"activity_ids": [1, 2], "grades": [90, 95], "deans_list": [2021, 2020]},
        {"$set": {"deans_list.$": 2022}},
        {"activity_ids": [1, 2], "grades": [90, 95], "deans_list": [2022, 2020]},
        {"activity_ids": 1, "grades": 95, "deans_list": 2021},
    ),
    Case({"a": [1, 2]}, {"$unset": {"a.$": ""}}, {"a": [1, None]}, {"a": 2}),
    # $[]: the examples of "$[] (update)"
    Case({"grades": [85, 82, 80]}, {"$inc": {"grades.$[]": 10}}, {"grades": [95, 92, 90]}),
    Case(
        grades((80, 75, 8), (85, 90, 6), (85, 85, 8)),
        {"$inc": {"grades.$[].std": -2}},
        grades((80, 75, 6), (85, 90, 4), (85, 85, 6)),
    ),
    Case({"grades": [85, 82, 80]}, {"$inc": {"grades.$[]": 10}}, {"grades": [95, 92, 90]}, {"grades": {"$ne": 100}}),
    Case(
        quizzes(*(questions for _, questions in QUIZZES)),
        {"$inc": {"grades.$[].questions.$[score]": 2}},
        quizzes([12, 10, 5], [10, 11, 6], [5, 4, 3], [27, 12, 25, 0]),
        array_filters=[{"score": {"$gte": 8}}],
    ),
    # $[<identifier>]: the examples of "$[<identifier>] (update)"
    Case(
        {"grades": [98, 100, 102]},
        {"$set": {"grades.$[element]": 100}},
        {"grades": [98, 100, 100]},
        {"grades": {"$gte": 100}},
        [{"element": {"$gte": 100}}],
    ),
    Case(
        grades((80, 75, 6), (85, 90, 4), (85, 85, 6)),
        {"$set": {"grades.$[elem].mean": 100}},
        grades((80, 75, 6), (85, 100, 4), (85, 100, 6)),
        array_filters=[{"elem.grade": {"$gte": 85}}],
    ),
    Case(
        grades((80, 75, 6), (85, 100, 4), (85, 100, 6)),
        {"$inc": {"grades.$[elem].std": -1}},
        grades((80, 75, 5), (85, 100, 4), (85, 100, 5)),
        array_filters=[{"elem.grade": {"$gte": 80}, "elem.std": {"$gt": 5}}],
    ),
    Case(
        {"degrees": [{"level": "Master"}, {"level": "Bachelor"}]},
        {"$set": {"degrees.$[degree].gradcampaign": 1}},
        {"degrees": [{"level": "Master", "gradcampaign": 1}, {"level": "Bachelor"}]},
        array_filters=[{"degree.level": {"$ne": "Bachelor"}}],
    ),
    Case(
        quizzes(*(questions for _, questions in QUIZZES)),
        {"$inc": {"grades.$[t].questions.$[score]": 2}},
        quizzes([12, 10, 5], [10, 11, 6], [5, 4, 3], [25, 10, 23, 0]),
        array_filters=[{"t.type": "quiz"}, {"score": {"$gte": 8}}],
    ),
    # $bit: the examples of "$bit"
    Case({"expdata": 13}, {"$bit": {"expdata": {"and": 10}}}, {"expdata": 8}),
    Case({"expdata": 3}, {"$bit": {"expdata": {"or": 5}}}, {"expdata": 7}),
    Case({"expdata": 1}, {"$bit": {"expdata": {"xor": 5}}}, {"expdata": 4}),
]

EDGES: list[Case] = [
    # $: which condition decides
    Case({"a": [95, 85, 70]}, {"$set": {"a.$": 0}}, {"a": [95, 0, 70]}, {"a": {"$gte": 80, "$lt": 90}}),
    Case({"a": [95, 85, 70]}, {"$set": {"a.$": 0}}, {"a": [0, 85, 70]}, {"$and": [{"a": {"$lt": 90}}, {"a": 95}]}),
    Case({"a": [1, 2], "b": 0}, {"$set": {"a.$": 0}}, {"a": [1, 0], "b": 0}, {"$or": [{"a": 5}, {"a": 2}]}),
    Case({"a": [1, 2]}, {"$set": {"a.$": 0}}, {"a": [1, 0]}, {"$or": [{"a": 2}, {"a": 1}]}),
    Case({"a": [1, 2]}, {"$set": {"a.$": 0}}, {"a": [0, 2]}, {"$or": [{"a": 2, "b": 1}, {"a": 1}]}),
    Case({"a": [1, 2], "b": 1}, {"$set": {"a.$": 0}}, None, {"$or": [{"b": 1}, {"a": 5}]}),
    Case({"a": [1, 2, 3]}, {"$set": {"a.$": 0}}, {"a": [1, 0, 3]}, {"a": {"$in": [9, 3, 2]}}),
    Case({"a": [1, 2, 3]}, {"$set": {"a.$": 0}}, {"a": [1, 0, 3]}, {"a": {"$all": [3, 2]}}),
    Case({"a": [1, 2]}, {"$set": {"a.$": 0}}, {"a": [1, 0]}, {"a": {"$elemMatch": {"$ne": 1}}}),
    Case({"a": [{"b": 1}, {"b": 2}]}, {"$set": {"a.$.b": 0}}, {"a": [{"b": 1}, {"b": 0}]}, {"a.b": {"$mod": [2, 0]}}),
    Case(
        {"a": [{"b": [1]}, {"b": [2, 3]}]},
        {"$set": {"a.$.b.0": 0}},
        {"a": [{"b": [1]}, {"b": [0, 3]}]},
        {"a.b": 3},
    ),
    Case({"a": {"b": [1, 2]}}, {"$inc": {"a.b.$": 5}}, {"a": {"b": [1, 7]}}, {"a.b": 2}),
    Case({"a": [[1, 2], [3]]}, {"$inc": {"a.0.$": 5}}, {"a": [[1, 7], [3]]}, {"a.0": {"$elemMatch": {"$eq": 2}}}),
    Case({"a": ["x", "y"]}, {"$set": {"a.$": "z"}}, {"a": ["x", "z"]}, {"_id": {"$ne": "q"}, "a": {"$regex": "^y"}}),
    Case({"a": [None, 1]}, {"$set": {"a.$": 5}}, {"a": [5, 1]}, {"a": None}),
    Case({"a": [5, [5]]}, {"$set": {"a.$": 0}}, {"a": [0, [5]]}, {"a": 5}),
    Case({"a": [1, [2]]}, {"$set": {"a.$": 0}}, {"a": [1, 0]}, {"a": [2]}),
    # $: the filter matches, but no element
    Case({"a": [1, 2]}, {"$set": {"a.$": 0}}, None, {"a": [1, 2]}),
    Case({"a": 5}, {"$set": {"a.$": 0}}, None, {"a": 5}),
    Case({"a": []}, {"$set": {"a.$": 0}}, None, {"a": {"$exists": True}}),
    Case({"a": [[1]]}, {"$set": {"a.$": 0}}, None, {"a.0": [1]}),
    Case({"a": [[1]], "b": 1}, {"$set": {"a.0.$": 0}}, None, {"$or": [{"b": 1}, {"a.0": 1}]}),
    Case({}, {"$set": {"a.$": 0}}, None, {"a": None}),
    Case({"a": [1]}, {"$setOnInsert": {"a.$": 0}}, {"a": [1]}, {"a": {"$type": "array"}}),
    # All operators go through such paths
    Case({"a": [{"b": 1}]}, {"$mul": {"a.$.b": 3}}, {"a": [{"b": 3}]}, {"a.b": 1}),
    Case({"a": [{"b": 1}]}, {"$min": {"a.$.b": 0}}, {"a": [{"b": 0}]}, {"a.b": 1}),
    Case({"a": [{"b": [1]}]}, {"$push": {"a.$.b": 2}}, {"a": [{"b": [1, 2]}]}, {"a.b": 1}),
    Case({"a": [{"b": [1, 2]}]}, {"$pull": {"a.$.b": {"$gt": 1}}}, {"a": [{"b": [1]}]}, {"a.b": 1}),
    Case({"a": [{"b": [1, 2]}]}, {"$pullAll": {"a.$.b": [2]}}, {"a": [{"b": [1]}]}, {"a.b": 1}),
    Case({"a": [{"b": [1, 2]}]}, {"$pop": {"a.$.b": 1}}, {"a": [{"b": [1]}]}, {"a.b": 1}),
    Case({"a": [{"b": [1]}]}, {"$addToSet": {"a.$.b": 1}}, {"a": [{"b": [1]}]}, {"a.b": 1}),
    Case({"a": [{"b": 1}]}, {"$unset": {"a.$.b": ""}}, {"a": [{}]}, {"a.b": 1}),
    Case({"a": [{"b": 1}]}, {"$bit": {"a.$.b": {"or": 6}}}, {"a": [{"b": 7}]}, {"a.b": 1}),
    # Every condition sees the document before the update
    Case(
        {"a": [{"q": 1}, {"q": 9}]},
        {"$set": {"a.$[x].q": 0, "a.$[x].z": 1, "a.$[y].q": 5}},
        {"a": [{"q": 5}, {"q": 0, "z": 1}]},
        array_filters=[{"x.q": {"$gt": 5}}, {"y.q": {"$lt": 5}}],
    ),
    Case({"a": [1, 2]}, {"$set": {"a.$[x]": 2, "a.$[y]": 3}}, {"a": [2, 3]}, array_filters=[{"x": 1}, {"y": 2}]),
    Case({"a": [1, 2]}, {"$set": {"a.$": 9, "a.$[y]": 3}}, {"a": [9, 3]}, {"a": 1}, [{"y": 2}]),
    Case({"a": [{"q": 1}]}, {"$set": {"a.$.q": 9, "a.$[].z": 3}}, {"a": [{"q": 9, "z": 3}]}, {"a.q": 1}),
    # An element that two parts stand for can't be changed twice
    Case({"a": [1, 2]}, {"$set": {"a.$[x]": 2, "a.$[y]": 3}}, None, array_filters=[{"x": 1}, {"y": {"$lt": 2}}]),
    Case({"a": [1, 2]}, {"$set": {"a.$": 9, "a.$[]": 3}}, None, {"a": 1}),
    Case({"a": []}, {"$set": {"a.$[x]": 9, "a.$[]": 3}}, {"a": []}, array_filters=[{"x": 1}]),
    # Array filters
    Case({"a": [1, 2]}, {"$set": {"a.$[x]": 0}}, {"a": [1, 2]}, array_filters=[{"x": 5}]),
    Case({"a": [[1], 2]}, {"$set": {"a.$[x]": 0}}, {"a": [0, 2]}, array_filters=[{"x": 1}]),
    Case(
        {"a": [{"_id": 1}, 2]}, {"$set": {"a.$[x].n": 0}}, {"a": [{"_id": 1, "n": 0}, 2]}, array_filters=[{"x._id": 1}]
    ),
    Case({"a": [1, 2, 3]}, {"$inc": {"a.$[x]": 9}}, {"a": [10, 2, 12]}, array_filters=[{"$or": [{"x": 1}, {"x": 3}]}]),
    Case({"a": [1, 2, 3]}, {"$inc": {"a.$[x]": 9}}, {"a": [1, 11, 3]}, array_filters=[{"$nor": [{"x": 1}, {"x": 3}]}]),
    Case({"a": [1, None]}, {"$set": {"a.$[x]": 9}}, {"a": [1, 9]}, array_filters=[{"x": None}]),
    Case({"a": {"b": 1}}, {"$set": {"a.$[x]": 0}}, None, array_filters=[{"x": 5}]),
    Case({}, {"$set": {"a.$[x]": 0}}, None, array_filters=[{"x": 5}]),
    Case({"a": [1, "x"]}, {"$inc": {"a.$[x]": 1}}, {"a": [2, "x"]}, array_filters=[{"x": {"$type": "number"}}]),
    Case({"a": [1, "x"]}, {"$inc": {"a.$[x]": 1}}, None, array_filters=[{"x": {"$exists": True}}]),
    # $bit
    Case({}, {"$bit": {"a": {"or": 5}, "b.c": {"and": 5}}}, {"a": 5, "b": {"c": 0}}),
    Case({"a": 1}, {"$bit": {"a": {"or": 6, "and": 5, "xor": 1}}}, {"a": 4}),
    Case({"a": -1}, {"$bit": {"a": {"xor": 2**63 - 1}}}, {"a": -(2**63)}),
    Case({"a": [1, 2]}, {"$bit": {"a.1": {"xor": -1}, "a.3": {"or": 1}}}, {"a": [1, -3, None, 1]}),
    Case({"a": 1.0}, {"$bit": {"a": {"or": 1}}}, None),
    Case({"a": 2**63}, {"$bit": {"a": {"or": 1}}}, None),
    Case({"a": None}, {"$bit": {"a": {"or": 1}}}, None),
    Case({"a": True}, {"$bit": {"a": {"or": 1}}}, None),
]


@pytest.mark.parametrize("case", [*MANUAL, *EDGES], ids=str)
def test_an_update_of_elements_makes(connection: psycopg.Connection, case: Case) -> None:
    wanted = parse_filter(case.filter)
    before = decode(encode(case.before))
    assert matches(wanted, "1", before)
    update = parse_update(case.update, array_filters=case.array_filters, matched=wanted)
    for change in (compile_update(update, max_calls=number) for number in (0, 1_000)):
        query = f"SELECT ({change.text})::text FROM (SELECT '1' AS id, %s::jsonb AS data) AS documents"
        ((found,),) = connection.execute(query, [*change.params, encode(case.before).decode()]).fetchall()
        assert (found is None) == (case.after is None), found
        assert found is None or compare(decode(found), case.after) == 0
    try:
        after = apply_update(update, before, document_id="1")
    except InvalidUpdate:
        assert case.after is None
    else:
        assert compare(after, case.after) == 0


@pytest.mark.parametrize(
    ("wanted", "update", "array_filters", "first"),
    [
        ({"_id": "1"}, {"$set": {"item": "apple"}, "$setOnInsert": {"qty": 100}}, None, {"item": "apple", "qty": 100}),
        ({"item": "x", "n": {"$gt": 5}}, {"$inc": {"n": 2}}, None, {"item": "x", "n": 2}),
        ({"n": 5}, {"$inc": {"n": 2}}, None, {"n": 7}),
        ({"a.b": 1, "a.c": {"$eq": 2}}, {"$set": {"d": 1}}, None, {"a": {"b": 1, "c": 2}, "d": 1}),
        ({"a": {"b": 1}}, {"$set": {"a.c": 2}}, None, {"a": {"b": 1, "c": 2}}),
        ({"a.b": 1}, {"$set": {"a": 2}}, None, {"a": 2}),
        ({"a.0": 1}, {"$set": {"b": 2}}, None, {"a": {"0": 1}, "b": 2}),
        (
            {"a": {"$in": [1]}, "b": {"$all": [2]}, "c": {"$in": [1, 2]}},
            {"$set": {"d": 1}},
            None,
            {"a": 1, "b": 2, "d": 1},
        ),
        ({"$and": [{"a": 1}, {"b": {"$eq": 2}}]}, {"$unset": {"b": 1}}, None, {"a": 1}),
        ({"$or": [{"a": 1}]}, {"$set": {"b": 1}}, None, {"a": 1, "b": 1}),
        ({"$or": [{"a": 1}, {"b": 2}], "$nor": [{"c": 1}], "d": {"$ne": 1}}, {"$set": {"e": 1}}, None, {"e": 1}),
        ({"a": None, "b": {"$exists": True}}, {"$set": {"c": 1}}, None, {"a": None, "c": 1}),
        ({"a": {"$regex": "x"}, "b": {"$elemMatch": {"c": 1}}, "d": {"$size": 1}}, {"$set": {"e": 1}}, None, {"e": 1}),
        ({"a": [1, 2]}, {"$push": {"a": 3}}, None, {"a": [1, 2, 3]}),
        ({"a": {}}, {}, None, None),
        # The examples of "$[<identifier>] (update)"
        ({"a": [0, 1]}, {"$set": {"a.$[element]": 2}}, [{"element": 0}], {"a": [2, 1]}),
        ({}, {"$set": {"a.$[element]": 10}}, [{"element": 9}], None),
        ({"a": 5}, {"$set": {"a.$[element]": 10}}, [{"element": 6}], None),
        ({"a": [1]}, {"$set": {"a.$[]": 10}}, None, {"a": [10]}),
        # Only an element that the filter matched has a position
        ({"a": 1}, {"$set": {"a.$": 10}}, None, None),
        # What a filter compares twice
        ({"$and": [{"a": 1}, {"a": 1}]}, {"$set": {"b": 1}}, None, None),
        ({"a": 1, "a.b": 1}, {"$set": {"c": 1}}, None, None),
        ({"a.b.c": 1, "a.b": 1}, {"$set": {"c": 1}}, None, None),
        ({"a": {"$all": [1, 2]}}, {"$set": {"c": 1}}, None, None),
    ],
    ids=str,
)
def test_an_upsert_makes_of_its_filter(
    connection: psycopg.Connection,
    wanted: dict[str, Any],
    update: dict[str, Any],
    array_filters: list[Any] | None,
    first: dict[str, Any] | None,
) -> None:
    node = parse_filter(wanted)
    try:
        parsed = parse_update(update, array_filters=array_filters, matched=node)
        change = compile_first(parsed, equal_fields(node))
    except (InvalidFilter, InvalidUpdate):
        assert first is None
        return
    ((found,),) = connection.execute(f"SELECT ({change.text})::text", change.params).fetchall()
    assert first is not None
    assert compare(decode(found), first) == 0


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        ({"_id": "a", "n": 1}, "a"),
        ({"$and": [{"_id": {"$in": ["a"]}}]}, "a"),
        ({"_id": {"$in": ["a", "b"]}}, None),
        ({"_id": {"$gt": "a"}}, None),
        ({"n": 1}, None),
    ],
)
def test_the_id_of_an_upsert_is_that_of_its_filter(wanted: dict[str, Any], key: str | None) -> None:
    assert equal_id(parse_filter(wanted)) == key


@pytest.mark.parametrize("wanted", [{"_id": 5}, {"_id": None}, {"_id.x": "a"}, {"$and": [{"_id": "a"}, {"_id": "b"}]}])
def test_a_filter_on_an_id_that_no_document_can_have_creates_none(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilter, match="_id"):
        equal_id(parse_filter(wanted))


@pytest.mark.parametrize(
    ("update", "array_filters", "wanted", "message"),
    [
        ({"$set": {"a.$[x]": 1}}, None, None, r"\$set at 'a.\$\[x\]' has no array filter for 'x'"),
        ({"$set": {"a.$[x]": 1}}, [], None, "no array filter for 'x'"),
        ({"$set": {"a.$[x]": 1}}, [{"x": 1}, {"y": 1}], None, "array filter for 'y' is not used"),
        ({"$set": {"a": 1}}, [{"x": 1}], None, "array filter for 'x' is not used"),
        ({"$set": {"a.$[x]": 1}}, [{"x": 1}, {"x.y": 1}], None, "two filters for 'x'"),
        ({"$set": {"a.$[x]": 1}}, [{"x": 1, "y": 1}], None, "about one name, got 'x' and 'y'"),
        ({"$set": {"a.$[x]": 1}}, [{"$or": [{"x": 1}, {"y": 1}]}], None, "about one name"),
        ({"$set": {"a.$[x]": 1}}, [{}], None, "empty filter"),
        ({"$set": {"a.$[x]": 1}}, [{"X": 1}], None, "'X' is not a valid name"),
        ({"$set": {"a.$[x]": 1}}, [{"x_y": 1}], None, "'x_y' is not a valid name"),
        ({"$set": {"a.$[x]": 1}}, [{"x": {"$foo": 1}}], None, r"unknown operator '\$foo'"),
        ({"$set": {"a.$[x]": 1}}, [5], None, "must be a dict"),
        ({"$set": {"a.$[x]": 1}}, {"x": 1}, None, "must be a list"),
        ({"$set": {"a.$[X]": 1}}, [{"x": 1}], None, r"unsupported path part '\$\[X\]'"),
        ({"$set": {"a.$[x.y]": 1}}, [{"x": 1}], None, "unsupported path part"),
        ({"$set": {"a.$[x]y": 1}}, [{"x": 1}], None, "unsupported path part"),
        ({"$set": {"$[x]": 1}}, [{"x": 1}], None, r"begins with '\$\[x\]'"),
        ({"$set": {"$.a": 1}}, None, {"a": 1}, r"begins with '\$'"),
        ({"$rename": {"a.$[x]": "b"}}, [{"x": 1}], None, "can't move elements"),
        ({"$rename": {"b": "a.$"}}, None, {"a": 1}, "can't move elements"),
        ({"$set": {"a.$.b.$": 1}}, None, {"a.b": 1}, r"'\$' below another part"),
        ({"$set": {"a.$[].b.$": 1}}, None, {"a.b": 1}, r"'\$' below another part"),
        ({"$set": {"a.$": 1}}, None, None, "the call has no filter"),
        ({"$set": {"a.$": 1}}, None, {}, "no condition that matches an element of 'a'"),
        ({"$set": {"a.$": 1}}, None, {"b": 1}, "no condition that matches an element of 'a'"),
        ({"$set": {"a.b.$": 1}}, None, {"a": 1}, "no condition that matches an element of 'a.b'"),
        ({"$set": {"a.$": 1}}, None, {"a": {"$ne": 1}}, "no condition"),
        ({"$set": {"a.$": 1}}, None, {"a": {"$nin": [1]}}, "no condition"),
        ({"$set": {"a.$": 1}}, None, {"a": {"$not": {"$gt": 1}}}, "no condition"),
        ({"$set": {"a.$": 1}}, None, {"$nor": [{"a": 1}]}, "no condition"),
        ({"$set": {"a.$": 1}}, None, {"a": {"$size": 1}}, "no condition"),
        ({"$set": {"a.$": 1, "a.0": 1}}, None, {"a": 1}, "overlap"),
        ({"$set": {"a.$[x]": 1, "a.0.b": 1}}, [{"x": 1}], None, "overlap"),
        ({"$set": {"a.$[x].b": 1}, "$inc": {"a.$[x].b": 1}}, [{"x": 1}], None, "overlap"),
        ({"$set": {"a.$[x].b": 1, "a": 1}}, [{"x": 1}], None, "overlap"),
        ({"$set": {"a.$[x].b.$[y].c": 1, "a.$[z].b.0.d": 1}}, [{"x": 1}, {"y": 1}, {"z": 1}], None, "in two ways"),
        ({"$set": {"a.0.b.$[y].c": 1, "a.$[z].b.0.d": 1}}, [{"y": 1}, {"z": 1}], None, "in two ways"),
    ],
    ids=str,
)
def test_an_invalid_update_of_elements_names_the_fault(
    update: dict[str, Any], array_filters: Any, wanted: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(InvalidUpdate, match=message):
        parse_update(update, array_filters=array_filters, matched=None if wanted is None else parse_filter(wanted))
