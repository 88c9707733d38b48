"""Strategies for documents, filters and updates that meet each other often: few keys, few values, all shapes."""

from __future__ import annotations

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
big_integers = st.integers(-(10**60), 10**60)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | big_integers | floats | texts
any_json = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
any_documents = st.dictionaries(texts.filter(lambda key: key != "_id"), any_json, max_size=5)

keys = st.sampled_from(["a", "b", "0", "1", "", 'q"', "é", "\U0001f600", "01", "-1", "%s"])
small_scalars = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        1.0,
        -1,
        2,
        0.5,
        10**30,
        1e23,
        -1e-7,
        "",
        "a",
        "b",
        "é",
        "\U0001f600",
        "\uffff",
        'q"\\',
        "1",
        "\x1f",
    ]
)
small_json = st.recursive(
    small_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
documents = st.dictionaries(keys, small_json, max_size=3)
paths = st.lists(keys, min_size=1, max_size=3).map(".".join)
sort_paths = paths.filter(lambda path: path and not path.startswith("-"))
ids = st.sampled_from(["a", "b", "é", "1"])

_comparisons = st.dictionaries(
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), small_json, min_size=1, max_size=2
)
_lists = st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(small_json, max_size=4), min_size=1, max_size=1)
_existence = st.booleans().map(lambda value: {"$exists": value})
_operators = _comparisons | _lists | _existence
_conditions = _operators | _operators.map(lambda operators: {"$not": operators}) | small_json
_fields = st.dictionaries(paths | st.just("_id"), _conditions, min_size=1, max_size=2)
filters = st.recursive(
    _fields,
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=1
    ),
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
