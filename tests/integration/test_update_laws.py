"""An update stores in PostgreSQL what the Python interpreter computes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, assume, event, example, given, reject, settings
from hypothesis import strategies as st

from pgdoc.errors import InvalidUpdate
from pgdoc.model.json_codec import decode, encode, encode_value
from pgdoc.query import apply_update, compare, compile_first, compile_update, parse_update
from tests import json_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.query import Compiled, Update

laws = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def connection(server: Any, shared_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.conninfo_for(shared_database)) as connection:
        yield connection
        connection.rollback()


_integers = st.integers(-4, 4)
_numbers = st.sampled_from([1, -2, 0.1, 10**25, 1e23, 5e-324, 1.5e-200, 0])
_few = st.lists(json_values.small_json, max_size=3)
_names = st.sampled_from(["a", "0", "b", "a.0", "a.b"])
_orders = st.sampled_from([1, -1]) | st.dictionaries(_names, st.sampled_from([1, -1]), min_size=1, max_size=2)
_modifiers = st.fixed_dictionaries(
    {"$each": _few}, optional={"$position": _integers, "$slice": _integers, "$sort": _orders}
)
_comparisons = st.dictionaries(
    st.sampled_from(["$gt", "$gte", "$lt", "$ne", "$eq"]), json_values.small_json, min_size=1, max_size=2
) | st.builds(lambda values: {"$in": values}, _few)
_fields = st.dictionaries(_names, json_values.small_json | _comparisons, max_size=2)
_conditions = json_values.small_json | _comparisons | _fields | st.builds(lambda one: {"$or": [one, {"b": 1}]}, _fields)
_plain = json_values.small_json.filter(lambda value: not isinstance(value, dict) or not value.keys() & {"$each"})

OPERANDS: dict[str, st.SearchStrategy[Any]] = {
    "$set": json_values.small_json,
    "$setOnInsert": json_values.small_json,
    "$unset": st.just(""),
    "$inc": _numbers,
    "$mul": _numbers,
    "$min": json_values.small_json,
    "$max": json_values.small_json,
    "$rename": _names | json_values.paths,
    "$currentDate": st.booleans(),
    "$push": _plain | _modifiers,
    "$addToSet": _plain | st.builds(lambda values: {"$each": values}, _few),
    "$pop": st.sampled_from([1, -1]),
    "$pull": _conditions,
    "$pullAll": _few,
}


@st.composite
def operations(draw: st.DrawFn, data: dict[str, Any]) -> tuple[str, str, Any]:
    """Draw an operator, a path that often exists in the data, and an operand that often is its value."""
    operator = draw(st.sampled_from(sorted(OPERANDS)))
    path, value = draw(json_values.paths_into(data))
    if draw(st.integers(0, 3)) == 0:
        path = draw(json_values.paths)
    operand = draw(OPERANDS[operator])
    if isinstance(value, list) and value and operator in {"$push", "$addToSet", "$pull", "$pullAll"}:
        there = draw(st.sampled_from(value))
        if draw(st.booleans()):
            operand = [there, operand] if operator == "$pullAll" else there
    if draw(st.integers(0, 7)) == 0:
        path = ".".join("$[]" if part.isdigit() else part for part in f"{path}.0".split("."))
    return operator, path, operand


@st.composite
def documents_with_updates(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    lists = st.lists(json_values.small_json, max_size=5)
    data = draw(json_values.documents | st.dictionaries(st.sampled_from(["a", "b"]), lists, min_size=1))
    update: dict[str, Any] = {}
    for operator, path, operand in draw(st.lists(operations(data), min_size=1, max_size=6)):
        update.setdefault(operator, {})[path] = operand
    return data, update


def parsed(wanted: dict[str, Any]) -> Update:
    try:
        return parse_update(wanted)
    except InvalidUpdate:
        reject()  # overlapping paths or empty parts


def stored(connection: psycopg.Connection, change: Compiled, data: dict[str, Any]) -> tuple[Any, bool, datetime]:
    """Return the server's new data, whether it equals the old data, and the transaction time."""
    documents = "(SELECT %s::jsonb AS data) AS documents"
    changed = f"(SELECT {change.text} AS after, data FROM {documents}) AS changed"
    query = f"SELECT after::text, after = data, now() FROM {changed}"
    row = connection.execute(query, [*change.params, encode(data).decode()]).fetchone()
    assert row is not None
    return None if row[0] is None else decode(row[0]), row[1], row[2]


def rounds(update: Update, before: Any, now: datetime) -> bool:
    """Whether the update changes a number by less than a float can hold, as 1e23 + 1: only the server sees that."""
    if not any(change.operator in {"$inc", "$mul"} for change in update.changes):
        return False
    floats = [value for value in _leaves(apply_update(update, before, now=now)) if isinstance(value, float)]
    return any(value == value + 1 for value in floats)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


@laws
@given(documents_with_updates())
@example(({"a": [3, {"b": 1}, [1], None, True, "x"]}, {"$push": {"a": {"$each": [{"a": 2}, []], "$sort": -1}}}))
@example(
    ({"a": [1, True, 1.0, {"b": 1, "a": 2}]}, {"$addToSet": {"a": {"$each": [True, 1.0, {"a": 2, "b": 1}, 2, 2.0]}}})
)
@example(({"a": [1, [1], [[1]], {"a": 1}]}, {"$pull": {"a": {"$gte": 1}}}))
@example(({"a": [1, [1], None, {"b": 1}, {"a": 1}]}, {"$pull": {"a": {"a": None}}}))
@example(({"a": [{"_id": 1}, {"_id": 2}]}, {"$pull": {"a": {"_id": 1}}}))
@example(
    ({"a": [[1, {"b": [2]}], [3]]}, {"$push": {"a.$[]": {"$each": [0], "$position": 0}}, "$currentDate": {"b": True}})
)
@example(({"a": [[1], 2]}, {"$pull": {"a.$[]": {"$gt": 0}}}))
@example(({"a": ["ab", "cd", 5]}, {"$pull": {"a": {"$regex": "^a"}}}))
@example(({"a": [{"b": [1, 2]}, {"b": [3]}]}, {"$pull": {"a": {"b": {"$elemMatch": {"$gt": 2}}}}}))
@example(({"a": [[{"b": 1}], [{"b": 2}]]}, {"$pull": {"a": {"$elemMatch": {"b": 1}}}}))
@example(({"a": [4, 5, [6]]}, {"$pull": {"a": {"$not": {"$mod": [2, 0]}}}}))
@example(({"a": [[1], [2, {"b": 3}]]}, {"$pull": {"a.$[]": {"b": 3}}}))
@example(({"a": [[1, 2], [3]]}, {"$unset": {"a.$[].$[]": 1}}))
@example(({"a": 10**4299 * 9}, {"$mul": {"a": 1.2}}))
@example(({"a": 10**4299 * 9}, {"$inc": {"a": 10**4299}}))
@example(({"a": 1e-200, "b": 5e-324}, {"$mul": {"a": 1.5e-201, "b": 5e-324}}))
@example(({"a": {"b": [1]}}, {"$rename": {"a.b.0": "c"}}))
@example(({"a": {"b": [1]}, "c": 1}, {"$rename": {"c": "a.b.0"}}))
@example(({"a": 1}, {"$rename": {"a.b": "c"}}))
@example(({"a": []}, {"$pop": {"a": 1, "b.c": -1}}))
@example(({"a": 1e23}, {"$inc": {"a": 1}}))
@example(({"a": [None, None]}, {"$set": {"a.9.b": 1}, "$min": {"a.$[]": 5}}))
@example(
    ({"a": [1]}, {"$set": {"a.9": 1, "a.10.b": 2}, "$inc": {"a.3.b.c": 1}, "$pop": {"a.2": 1}, "$unset": {"a.0": 1}})
)
@example(({"a": [1]}, {"$set": {"a.9": 1}, "$pull": {"a.7": {"$gt": 1}}, "$push": {"a.8": 1}}))
@example(({"a": [1]}, {"$set": {"a.5": 1}, "$pop": {"a.4": 1}}))
@example(({"a": [1]}, {"$set": {"a.9": 1}, "$rename": {"a.7.x": "b"}}))
@example(({"a": 5}, {"$unset": {"a.b.c": 1, "a.b.d": 1, "a.x": 1}}))
@example(({"a": 5}, {"$unset": {"a.b.c": 1}, "$pop": {"a.b.d": 1}}))
@example(({"a": None}, {"$unset": {"a.b": 1}, "$pullAll": {"b.c.d": [1]}, "$pop": {"b.c.e": 1}}))
@example(({"a": [[1, 2], 3]}, {"$unset": {"a.0.1": 1, "a.x": 1, "a.5": 1}}))
@example(
    ({"a": {"b": {"c": {"d": 1}}}}, {"$inc": {"a.b.c.d": 1, "a.b.c.e": 1, "a.b.x.y.z": 1}, "$unset": {"a.b.q.r": 1}})
)
@example(({"a": []}, {"$set": {"a.0.0": "b"}}))
@example(({"a": {"b": 3}}, {"$inc": {"a.b.c.d": 1, "a.b.c.e": 1}}))
@example(({"a": {"b": 3}}, {"$pop": {"a.b.c.d": 1, "a.b.c.e": 1}}))
@example(({"a": {"b": [3]}}, {"$pop": {"a.b.c.d": 1, "a.b.c.e": 1}}))
@example(({"a": {"b": [3]}}, {"$pop": {"a.b.7.d": 1, "a.b.7.e": 1}}))
@example(({"a": {"b": [3]}}, {"$set": {"a.b.1500003.d": 1, "a.b.1500003.e": 1}}))
@example(({"a": {"b": [3]}}, {"$set": {"a.b.3.d": 1, "a.b.3.e": 1}}))
def test_the_server_stores_what_python_computes(
    connection: psycopg.Connection, drawn: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    data, wanted = drawn
    update = parsed(wanted)
    before = decode(encode(data))
    found, same, now = stored(connection, compile_update(update, max_calls=0), data)
    by_calls = stored(connection, compile_update(update, max_calls=1_000), data)
    assert (found, same) == by_calls[:2] or compare(found, by_calls[0]) == 0
    if found is None:
        event("misfit")
        with pytest.raises(InvalidUpdate) as caught:
            apply_update(update, before, now=now)
        assert caught.value.path in wanted[str(caught.value.operator)]
    else:
        after = apply_update(update, before, now=now)
        event("changed" if compare(before, after) else "same")
        assert compare(found, after) == 0
        assert same == (compare(before, after) == 0) or (not same and rounds(update, before, now))
    assert compare(before, decode(encode(data))) == 0


@settings(laws, max_examples=60)
@given(documents_with_updates())
def test_an_upsert_inserts_what_python_computes(
    connection: psycopg.Connection, drawn: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    update = parsed(drawn[1])
    try:
        first = compile_first(update)
    except InvalidUpdate:
        assume(any("$[]" in path for fields in drawn[1].values() for path in fields))
        reject()
    row = connection.execute(f"SELECT ({first.text})::text, now()", first.params).fetchone()
    assert row is not None
    assert compare(decode(row[0]), apply_update(update, {}, now=row[1], inserting=True)) == 0


@laws
@given(json_values.small_json, json_values.small_json)
@example([1], [1, None])
@example({"a": 1}, {"a": 1, "b": None})
@example({"b": "", "a": None}, {"a": None, "c": ""})
@example([[]], [{}])
@example([[1], 5], [[1, 0]])
@example([{"a": 1}, None], [{"a": 1, "b": None}])
def test_sort_parts_have_the_order_of_the_values(connection: psycopg.Connection, left: Any, right: Any) -> None:
    texts = [encode_value(value, "").decode() for value in (left, right)]
    query = "SELECT a < b, a > b FROM (SELECT pgdoc.sort_parts(%s::jsonb), pgdoc.sort_parts(%s::jsonb)) AS parts(a, b)"
    order = compare(left, right)
    assert connection.execute(query, texts).fetchone() == (order < 0, order > 0)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2026, 7, 1, 0, 0, 0, 70, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ],
)
def test_a_transaction_time_is_written_in_one_form_and_read_back(
    connection: psycopg.Connection, moment: datetime
) -> None:
    text = apply_update(parse_update({"$currentDate": {"at": True}}), {}, now=moment)["at"]
    query = "SELECT to_char(%s AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"  # as in transaction_time
    assert connection.execute(query, [moment]).fetchone() == (text,)
    assert datetime.fromisoformat(text) == moment


@pytest.mark.parametrize(("digits", "kept"), [(1, 2), (150, 300), (300, 400), (500, 500)])
def test_a_product_keeps_400_decimal_places_or_those_of_a_factor(
    connection: psycopg.Connection, digits: int, kept: int
) -> None:
    number = "1." + "3" * digits
    query = "SELECT scale((pgdoc.multiply_at(%s::jsonb, '{n}', %s::numeric) -> 'n')::numeric)"
    assert connection.execute(query, [f'{{"n": {number}}}', number]).fetchone() == (kept,)
