"""`$`, `$[]`, `$[name]` and `$bit` store in PostgreSQL what the Python interpreter computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, event, example, given, reject, settings
from hypothesis import strategies as st

from pgdoc.errors import InvalidFilter, InvalidUpdate
from pgdoc.model.json_codec import decode, encode
from pgdoc.query import apply_update, compare, compile_first, compile_update, matches, parse_filter, parse_update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.query import Update

laws = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Drawn(NamedTuple):
    data: dict[str, Any]
    update: dict[str, Any]
    array_filters: list[Any]
    filter: dict[str, Any]


@pytest.fixture(scope="module")
def connection(server: Any, shared_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.conninfo_for(shared_database)) as connection:
        yield connection
        connection.rollback()


_scalars = st.sampled_from([0, 1, 2, 5, -3, 2**63, 1.5, "a", None, True])
_items = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["q", "b", "0"]), inner, max_size=3),
    max_leaves=6,
)
_arrays = st.lists(_items, max_size=4)
_documents = st.dictionaries(st.sampled_from(["a", "c"]), _arrays | st.builds(lambda b: {"b": b}, _arrays), min_size=1)
_conditions = (
    _items
    | st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$ne", "$eq"]), _scalars, min_size=1, max_size=2)
    | st.sampled_from([{"$exists": True}, {"$type": "object"}, {"$size": 1}, {"$in": [1, 2, None]}, {"$regex": "^a"}])
    | st.sampled_from(
        [{"$not": {"$gt": 1}}, {"$nin": [5]}, {"$mod": [2, 1]}, {"$all": [1]}, {"$type": ["int", "array"]}]
    )
)
_elements = st.builds(
    lambda given: {"$elemMatch": given},
    st.dictionaries(st.sampled_from(["q", "b"]), _conditions, min_size=1, max_size=2)
    | st.sampled_from([{"$gt": 1}, {"$not": {"$gt": 1}}, {"$or": [{"q": 1}, {"b": {"$ne": 2}}]}]),
)


@st.composite
def _filters(draw: st.DrawFn, paths: list[str], depth: int = 1) -> dict[str, Any]:
    found = {draw(st.sampled_from(paths)): draw(_conditions | _elements) for _ in range(draw(st.integers(1, 2)))}
    if depth and draw(st.booleans()):
        name = draw(st.sampled_from(["$and", "$or", "$or", "$nor"]))
        found[name] = [draw(_filters(paths, depth - 1)) for _ in range(draw(st.integers(1, 2)))]
    return found


_CHANGES: list[tuple[str, Any]] = [
    ("$set", 7),
    ("$set", {"q": 1}),
    ("$unset", ""),
    ("$inc", 1),
    ("$mul", 3),
    ("$max", 2),
    ("$push", 1),
    ("$addToSet", 1),
    ("$pull", {"$gt": 1}),
    ("$pull", {"q": 1}),
    ("$pullAll", [1, None]),
    ("$pop", 1),
    ("$currentDate", True),
    ("$bit", {"and": 5}),
    ("$bit", {"or": 2**40, "xor": -1}),
    ("$setOnInsert", 1),
]
_PATHS = ["a", "c", "a.b", "a.0", "a.q", "a.b.q", "a.0.q", "c.b.0"]
_TAILS = ["", ".q", ".b", ".b.$[]", ".b.$[x].q", ".b.$[z]", ".0", ".b.0.q"]


@st.composite
def _conditions_on(draw: st.DrawFn, name: str, items: list[Any]) -> dict[str, Any]:
    """Draw a filter on elements that often matches one of these."""
    item = draw(st.sampled_from(items)) if items else 1
    if isinstance(item, dict) and item and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(item)))
        name, item = f"{name}.{key}", item[key]
    operator = draw(st.sampled_from(["$eq", "$eq", "$gte", "$in", "$elemMatch", "$ne"]))
    given = {"$eq": item} if operator == "$elemMatch" else [item, 5] if operator == "$in" else item
    return {name: {operator: given}}


@st.composite
def updates(draw: st.DrawFn) -> Drawn:
    data = draw(_documents)
    arrays = {key: value if isinstance(value, list) else value["b"] for key, value in data.items()}
    paths = [key if isinstance(value, list) else f"{key}.b" for key, value in data.items()]
    update: dict[str, Any] = {}
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        operator, operand = draw(st.sampled_from(_CHANGES))
        array = draw(st.sampled_from(paths * 4 + ["a", "c", "a.b", "a.0"]))
        part = draw(st.sampled_from(["$", "$", "$[x]", "$[x]", "$[y]", "$[]", "0"]))
        update.setdefault(operator, {})[f"{array}.{part}{draw(st.sampled_from(['', '', *_TAILS]))}"] = operand
    used = [name for name in "xyz" if any(f"$[{name}]" in path for paths in update.values() for path in paths)]
    every = [item for items in arrays.values() for item in items]
    array_filters = [
        draw(_conditions_on(name, every) | _filters([name, f"{name}.q", f"{name}.b", f"{name}.b.q", f"{name}.0"]))
        for name in used
    ]
    key = draw(st.sampled_from(sorted(arrays)))
    path = key if isinstance(data[key], list) else f"{key}.b"
    matched = draw(_conditions_on(path, arrays[key]) | _filters([*_PATHS, "_id"]))
    return Drawn(data, update, array_filters, matched)


def parsed(drawn: Drawn, *, matched: bool = True) -> Update:
    try:
        node = parse_filter(drawn.filter) if matched else None
        return parse_update(drawn.update, array_filters=drawn.array_filters, matched=node)
    except (InvalidUpdate, InvalidFilter):
        reject()  # overlapping paths, or no condition for `$`


@laws
@given(updates())
@example(Drawn({"a": [1, 5, 5]}, {"$set": {"a.$": 0}}, [], {"a": 5}))
@example(Drawn({"a": [{"q": 1}, {"q": 5}]}, {"$inc": {"a.$[x].q": 5, "a.$[x].b": 1}}, [{"x.q": {"$lt": 3}}], {}))
@example(Drawn({"a": [{"q": 1}, {"q": 5}]}, {"$set": {"a.$[x].q": 5, "a.$[y].b": 1}}, [{"x.q": 1}, {"y.q": 5}], {}))
@example(Drawn({"a": [{"q": 1}, {"q": 5}]}, {"$set": {"a.$[x].q": 5, "a.$[y].q": 1}}, [{"x.q": 1}, {"y.q": 1}], {}))
@example(Drawn({"a": [{"q": 1}]}, {"$set": {"a.$.q": 5, "a.$[].b": 1}}, [], {"a.q": {"$gt": 0}}))
@example(Drawn({"a": [[1], [2]]}, {"$push": {"a.$": 3}}, [], {"a": {"$elemMatch": {"$elemMatch": {"$gt": 1}}}}))
@example(Drawn({"a": [[1], 2]}, {"$set": {"a.$": 3}}, [], {"$or": [{"c": 1}, {"a": [1]}]}))
@example(Drawn({"a": [1, 2]}, {"$set": {"a.$": 3}}, [], {"$or": [{"_id": "no", "a": 2}, {"_id": "x", "a": 1}]}))
@example(Drawn({"a": 5}, {"$set": {"a.$": 3}}, [], {"a": 5}))
@example(Drawn({"a": [{"b": [{"q": 1}]}]}, {"$set": {"a.$[].b.$[x].q": 3}}, [{"x": {"q": 1}}], {}))
def test_the_server_changes_the_elements_that_python_changes(connection: psycopg.Connection, drawn: Drawn) -> None:
    update = parsed(drawn)
    compiled = compile_update(update)
    query = f"SELECT ({compiled.text})::text, now() FROM (SELECT 'x' AS id, %s::jsonb AS data) AS documents"
    row = connection.execute(query, [*compiled.params, encode(drawn.data).decode()]).fetchone()
    assert row is not None
    before = decode(encode(drawn.data))
    if update.matched is not None and matches(update.matched, "x", before):
        event("matched")
    if row[0] is None:
        event("misfit")
        with pytest.raises(InvalidUpdate) as caught:
            apply_update(update, before, now=row[1], document_id="x")
        assert caught.value.path in drawn.update[str(caught.value.operator)]
        return
    after = apply_update(update, before, now=row[1], document_id="x")
    event("same" if compare(before, after) == 0 else "changed")
    assert compare(decode(row[0]), after) == 0


@settings(laws, max_examples=100)
@given(updates())
@example(Drawn({"a": [1, 2]}, {"$currentDate": {"a.$[x]": True}, "$set": {"a.$[y]": 5}}, [{"x": 1}, {"y": 2}], {}))
def test_an_upsert_changes_the_elements_that_python_changes(connection: psycopg.Connection, drawn: Drawn) -> None:
    update = parsed(drawn, matched=False)
    try:
        first = compile_first(update, drawn.data)
    except InvalidUpdate:
        with pytest.raises(InvalidUpdate):
            apply_update(update, decode(encode(drawn.data)), inserting=True)
        return
    row = connection.execute(f"SELECT ({first.text})::text, now()", first.params).fetchone()
    assert row is not None
    expected = apply_update(update, decode(encode(drawn.data)), now=row[1], inserting=True)
    assert compare(decode(row[0]), expected) == 0
