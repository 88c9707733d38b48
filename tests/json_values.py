"""Hypothesis strategies for documents, filters and updates that often match: few keys, few values, all shapes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
big_integers = st.integers(-(10**60), 10**60)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | big_integers | floats | texts
any_json = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
any_documents = st.dictionaries(texts.filter(lambda key: key != "_id"), any_json, max_size=5)

_plain_keys = st.sampled_from(["a", "0", "1"])
_odd_keys = st.sampled_from(["b", "", 'q"', "é", "\U0001f600", "01", "-1", "%s"])
keys = _plain_keys | _plain_keys | _odd_keys
_few_scalars = st.sampled_from([None, True, 1, 1.0, "a", 5])
_more_scalars = st.sampled_from(
    [False, 0, -1, 0.5, 10**30, 1e23, -1e-7, "", "b", "é", "\U0001f600", "\uffff", 'q"\\', "1", "\x1f"]
)
small_json = st.recursive(
    _few_scalars | _few_scalars | _more_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(keys, small_json, max_size=3)
paths = st.lists(keys.filter(bool), min_size=1, max_size=3).map(".".join)
sort_paths = paths.filter(lambda path: path and not path.startswith("-"))
ids = st.sampled_from(["a", "b", "é", "1"])

_comparisons = st.dictionaries(
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), small_json, min_size=1, max_size=2
)
_lists = st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(small_json, max_size=4), min_size=1, max_size=1)
_existence = st.booleans().map(lambda value: {"$exists": value})
_types = st.sampled_from(["null", "int", "long", "double", "decimal", "number", "string", "object", "array", "bool", 9])
_arrays = st.fixed_dictionaries({"$all": st.lists(small_json, max_size=3)}) | st.fixed_dictionaries(
    {"$size": st.integers(0, 3)}
)
_divisions = st.fixed_dictionaries(
    {"$mod": st.tuples(st.sampled_from([1, -2, 3, 2.5, 2**63 - 1]), st.sampled_from([0, 1, -1, 0.5]))}
)
patterns = st.fixed_dictionaries(
    {
        "$regex": st.sampled_from(
            [
                "^a",
                "é?$",
                ".",
                "[^a]",
                "A|B",
                r"\w",
                "\U0001f600",
                'q"',
                "^a$",
                r"\Aé",
                "^(?:a+)",
                "^b.*$",
                "^\uffff",
                "^$",
            ]
        ),
        "$options": st.sampled_from(["", "i", "ms"]),
    }
)
_bits = st.dictionaries(
    st.sampled_from(["$bitsAllSet", "$bitsAnySet", "$bitsAllClear", "$bitsAnyClear"]),
    st.sampled_from([0, 1, 5.0, 2**63 - 1, [], [0], [0, 2], [1, 63], [200]]),
    min_size=1,
    max_size=2,
)
_others = (
    st.fixed_dictionaries({"$type": _types | st.lists(_types, min_size=1, max_size=3)}) | _divisions | patterns | _bits
)
_simple = _comparisons | _lists | _existence | _arrays | _others


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for operators that contain operators, or filters on the elements of an array."""
    elements = inner | st.dictionaries(paths | st.just("_id"), inner | small_json, max_size=2)
    return st.fixed_dictionaries({"$not": inner}) | st.fixed_dictionaries({"$elemMatch": elements})


_operators = st.recursive(_simple, _nested, max_leaves=3)
_conditions = _operators | _operators | small_json
_fields = st.dictionaries(paths | st.just("_id"), _conditions, min_size=1, max_size=2)
filters = st.recursive(
    _fields,
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=1
    ).map(lambda combined: {"$comment": "why", **combined}),
    max_leaves=3,
)

updates = st.fixed_dictionaries(
    {},
    optional={
        "$set": st.dictionaries(paths, small_json, max_size=3),
        "$unset": st.dictionaries(paths, st.just(""), max_size=2),
        "$inc": st.dictionaries(paths, st.sampled_from([1, -2, 0.1, 10**25, 1e23, 5e-324]), max_size=2),
    },
).filter(bool)


@st.composite
def paths_into(draw: st.DrawFn, data: Any) -> tuple[str, Any]:
    """Draw a path to a value of the data, possibly with one more part, and that value."""
    parts: list[str] = []
    value = data
    while isinstance(value, dict | list) and value and (not parts or draw(st.booleans())):
        if isinstance(value, dict):
            if not any(value):
                break  # an empty key cannot be part of a path
            parts.append(draw(st.sampled_from(sorted(filter(None, value)))))
            value = value[parts[-1]]
        else:
            index = draw(st.integers(0, len(value) - 1))
            parts += [str(index)] if draw(st.booleans()) else []
            value = value[index]
    suffix = draw(st.sampled_from([[], [], ["a"], ["0"], ["5"]]))
    return ".".join([*parts, *suffix] or ["a"]), value


@st.composite
def documents_with_filters(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    data = draw(documents)
    path, value = draw(paths_into(data))
    operator = draw(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lte", "$in", "$exists", "$all", "$elemMatch"]))
    if isinstance(value, list) and draw(st.booleans()):
        return data, {path: {"$size": draw(st.sampled_from([len(value), 1]))}}
    if operator == "$elemMatch":
        return data, {path: {operator: _element_filter(draw, value)}}
    return data, {
        path: {operator: [value, 7][: 2 if operator == "$in" else 1] if operator in {"$in", "$all"} else value}
    }


def _element_filter(draw: st.DrawFn, value: Any) -> dict[str, Any]:
    """Draw a filter that an item of the value may match."""
    item = draw(st.sampled_from(value)) if isinstance(value, list) and value else value
    if isinstance(item, list):
        item = {str(index): part for index, part in enumerate(item)}
    if isinstance(item, dict) and any(item) and draw(st.booleans()):
        path, found = draw(paths_into(item))
        return {path: found}
    return draw(st.sampled_from([{"$eq": item}, {"$gte": item}, {"$in": [item]}, {"$not": {"$eq": item}}]))


@st.composite
def documents_with_updates(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    data = draw(documents)
    operators = draw(st.lists(st.sampled_from(["$set", "$unset", "$inc"]), min_size=1, unique=True))
    return data, {operator: {draw(paths_into(data))[0]: 3} for operator in operators}


_slices = st.integers(-3, 3) | st.tuples(st.integers(-3, 3), st.integers(1, 3))
_references = paths.map("$".__add__) | st.sampled_from(["$_id", "$a", "$a.a", "$_id.a"])
_expressions: st.SearchStrategy[Any] = st.recursive(
    _references | st.fixed_dictionaries({"$literal": small_json}) | st.sampled_from([[], 0, None, "a", {"a": 1}]),
    lambda inner: (
        st.fixed_dictionaries({"$ifNull": st.lists(inner, min_size=2, max_size=3)})
        | st.sampled_from(["$size", "$first", "$last"]).flatmap(lambda name: st.fixed_dictionaries({name: inner}))
        | st.fixed_dictionaries({"$arrayElemAt": st.tuples(inner, st.integers(-3, 3))})
    ),
    max_leaves=3,
).filter(lambda value: isinstance(value, str | dict) and value not in ("a", {"a": 1}))


@st.composite
def documents_with_projections(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Draw a document, a filter, and fields with operators."""
    data, wanted = draw(documents_with_filters())
    if draw(st.booleans()):
        wanted = draw(filters)
    kind = draw(st.sampled_from([0, 1]))
    fields: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 3))):
        path = draw(paths_into(data))[0]
        entry = draw(st.sampled_from(["plain", "slice", "match", "position", "computed"]))
        if entry == "match":
            fields[path.split(".")[0]] = {"$elemMatch": _element_filter(draw, data.get(path.split(".")[0]))}
        elif entry == "position":
            at = draw(st.sampled_from(sorted(path for path in wanted if not path.startswith("$")) or ["a"]))
            parts = at.split(".")
            fields[".".join([*parts[: draw(st.integers(1, len(parts)))], "$"])] = 1
        elif entry == "computed":
            fields[draw(st.sampled_from(["x", "y", "b"]))] = draw(_expressions)
        else:
            fields[path] = kind if entry == "plain" else {"$slice": draw(_slices)}
    return data, wanted, fields
