"""Under a collation, SQL, Python and a slow reference agree, with an index and without."""

from __future__ import annotations

import unicodedata
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgdoc.model.json_codec import decode, encode, encode_value
from pgdoc.query import compare, compile_sort, matches, parse_filter, parse_sort
from pgdoc.query.filters.collations import COLLATIONS, collated, fold_text
from pgdoc.query.filters.order import compile_after, parse_after
from tests import json_values
from tests.indexed import times_found

if TYPE_CHECKING:
    from collections.abc import Iterator

laws = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
collations = st.sampled_from(COLLATIONS)

_LETTERS = [
    "a",
    "A",
    "b",
    "B",
    "é",
    "É",
    "e\u0301",
    "E",
    "ß",
    "ẞ",
    "ss",
    "Ł",
    "l",
    "æ",
    "\u0345",
    "\u212a",
    "\x01",
    "%",
]
texts = st.lists(st.sampled_from(_LETTERS), max_size=4).map("".join) | st.sampled_from(["a" * 78 + "É", "é" * 80])
values = st.recursive(
    texts | texts | st.sampled_from([None, True, 1, 2.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "A"]), inner, max_size=2),
    max_leaves=4,
)
documents = st.dictionaries(st.sampled_from(["a", "b"]), values | st.lists(values, max_size=2), max_size=2)
_conditions = (
    st.dictionaries(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), values, min_size=1, max_size=2)
    | st.dictionaries(st.sampled_from(["$in", "$nin", "$all"]), st.lists(values, min_size=1, max_size=3), min_size=1)
    | st.fixed_dictionaries({"$elemMatch": st.fixed_dictionaries({"$gte": texts})})
    | st.fixed_dictionaries(
        {
            "$regex": st.sampled_from(["^a", "^É", "^e", "^ss", "^a$", "^É$", "^K"]),
            "$options": st.sampled_from(["", "i"]),
        }
    )
    | texts
)
_fields = st.dictionaries(st.sampled_from(["a", "b", "a.a"]), _conditions, min_size=1, max_size=2)
filters = _fields | st.fixed_dictionaries({"$or": st.lists(_fields, min_size=1, max_size=3)})


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("collation", COLLATIONS)
def test_every_character_folds_alike_in_the_server_and_in_python(
    connection: psycopg.Connection, collation: str
) -> None:
    query = """
        SELECT code, pgdoc.folded(chr(code), %s) FROM generate_series(1, 130000) AS code
        WHERE code NOT BETWEEN 55296 AND 57343
    """
    different = [
        (hex(code), found)
        for code, found in connection.execute(query, [collation])
        if found != fold_text(chr(code), collation)
    ]
    assert different == []


@laws
@given(values, collations)
@example(["É", {"É": "É"}], "ci")
@example("xé" * 9_000, "ci")
def test_a_value_folds_alike_in_the_server_and_in_python(
    connection: psycopg.Connection, value: Any, collation: str
) -> None:
    text = encode_value(value, "")
    row = connection.execute("SELECT pgdoc.collated(%s::jsonb, %s)::text", [text.decode(), collation]).fetchone()
    assert row is not None
    assert decode(row[0]) == collated(decode(text), collation)


def slow_accents(text: str) -> str:
    """Return the letters and accents of a text by other means than the tested code: Unicode's data in Python."""
    return unicodedata.normalize("NFD", text.lower())


def slow_letters(text: str) -> str:
    others = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ß": "ss"})
    return "".join(char for char in slow_accents(text) if not unicodedata.combining(char)).translate(others)


@laws
@given(texts, texts)
@example("Straße", "STRASSE")
@example("Straße", "STRAẞE")
@example("Łódź", "LODZ")
@example("ÆON", "aeon")
@example("\u1fbc", "\u1fb3")
@example("\u1fbc", "\u03b1")
@example("\u0401", "\u0435")
@example("\u0419", "\u0438")
def test_texts_are_equal_regardless_of_case_and_accents(left: str, right: str) -> None:
    if {left, right} != {"\u0419", "\u0438"}:  # an accent for Unicode, another letter for ICU and for readers
        assert (fold_text(left, "ci_ai") == fold_text(right, "ci_ai")) == (slow_letters(left) == slow_letters(right))
    assert (fold_text(left, "ci") == fold_text(right, "ci")) == (slow_accents(left) == slow_accents(right))


@pytest.fixture
def icu(connection: psycopg.Connection) -> psycopg.Connection:
    try:
        connection.execute(
            "CREATE COLLATION letters (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("the server has no ICU")
    connection.execute("CREATE COLLATION accents (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    return connection


def is_plain_letter(char: str) -> bool:
    """Whether it is a letter, not another form of one for compatibility, such as the digraphs and the lunate sigma."""
    is_other_form = unicodedata.normalize("NFD", char) != unicodedata.normalize("NFKD", char)
    return char.isalpha() and not is_other_form and char not in "\u03f2\u03f9"


def test_letters_are_equal_as_in_icu(icu: psycopg.Connection) -> None:
    blocks = ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x1E00, 0x1FFF))
    letters = [char for low, high in blocks for char in map(chr, range(low, high + 1)) if is_plain_letter(char)]
    letters += ["ss", "ae", "oe", "e\u0301"]
    pairs = """
        SELECT a, b FROM unnest(%s::text[]) AS a, unnest(%s::text[]) AS b
        WHERE a < b COLLATE "C" AND a = b COLLATE {}
    """
    for name, collation in ("letters", "ci_ai"), ("accents", "ci"):
        equal = set(icu.execute(pairs.format(name).encode(), [letters, letters]).fetchall())
        ours: dict[str, list[str]] = {}
        for letter in letters:
            ours.setdefault(fold_text(letter, collation), []).append(letter)
        assert equal == {(a, b) for same in ours.values() for a in same for b in same if a < b}


@pytest.mark.parametrize("collation", COLLATIONS)
def test_accents_decide_after_all_letters(collation: str) -> None:
    names = ["Zoe", "zoë", "Äpfel", "apfel", "Apfelsaft", "aqua"]
    order = sorted(names, key=lambda name: (fold_text(name, collation), name))
    assert order == ["apfel", "Äpfel", "Apfelsaft", "aqua", "Zoe", "zoë"]


def found_in_sql(
    connection: psycopg.Connection, data: dict[str, Any], wanted: dict[str, Any], collation: str
) -> set[int]:
    """Return how often the document is found, in each way to find it."""
    compiled = times_found(parse_filter(wanted, collation=collation), (None, *COLLATIONS))
    query = f"SELECT {compiled.text} FROM (SELECT 'x' AS id, %s::jsonb AS data) AS documents"
    row = connection.execute(query.encode(), [*compiled.params, encode(data).decode()]).fetchone()
    assert row is not None
    return set(row[0])


@laws
@given(documents, filters, collations)
@example({"a": "ANNA"}, {"a": {"$in": ["anna", None, 5]}}, "ci")
@example({}, {"a": {"$in": ["anna", None]}}, "ci")
@example({"a": [[], "É"]}, {"a": {"$gte": "é", "$lte": "É"}}, "ci")
@example({"a": ["É"]}, {"a": {"$regex": "^é", "$options": "i"}}, "ci_ai")
@example({"a": "É"}, {"$or": [{"a": "e"}, {"a": "é"}, {"a": 1}]}, "ci_ai")
def test_a_filter_finds_the_same_documents_in_sql_with_and_without_an_index_and_in_python(
    connection: psycopg.Connection, data: dict[str, Any], wanted: dict[str, Any], collation: str
) -> None:
    expected = matches(parse_filter(wanted, collation=collation), "x", decode(encode(data)))
    assert found_in_sql(connection, data, wanted, collation) == {int(expected)}


@laws
@given(documents, st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$in"]), values, collations)
def test_a_comparison_is_one_of_folded_documents(
    data: dict[str, Any], operator: str, operand: Any, collation: str
) -> None:
    wanted = {"a": {operator: [operand] if operator == "$in" else operand}}
    other = {"a": {operator: collated([operand] if operator == "$in" else operand, collation)}}
    read = decode(encode(data))
    found = matches(parse_filter(wanted, collation=collation), "x", read)
    assert found == matches(parse_filter(other), "x", {key: collated(value, collation) for key, value in read.items()})


@laws
@given(st.lists(documents, min_size=2, max_size=6), st.booleans(), collations)
def test_a_sort_and_its_pages_are_in_the_order_of_the_folded_values(
    connection: psycopg.Connection, data: list[dict[str, Any]], descending: bool, collation: str
) -> None:
    keys = parse_sort("-a" if descending else "a", collation)
    rows = [[str(number) for number in range(len(data))], [encode(item).decode() for item in data]]
    source = "(SELECT * FROM unnest(%s::text[], %s::jsonb[]) AS row(id, data)) AS documents"
    order = compile_sort(keys).text
    found = [row[0] for row in connection.execute(f"SELECT id FROM {source} ORDER BY {order}".encode(), rows)]
    sign = -1 if descending else 1

    def by_value(left: str, right: str) -> int:
        values = (collated(decode(encode(data[int(number)])).get("a"), collation) for number in (left, right))
        return sign * compare(*values) or int(left) - int(right)

    assert found == sorted(found, key=cmp_to_key(by_value))
    after = compile_after(keys, parse_after([data[int(found[0])].get("a"), found[0]], keys, None))
    query = f"SELECT id FROM {source} WHERE {after.text} ORDER BY {order}"
    assert [row[0] for row in connection.execute(query.encode(), [*rows, *after.params])] == found[1:]


@laws
@given(json_values.documents, json_values.filters, collations)
def test_a_collation_changes_no_filter_without_texts(
    connection: psycopg.Connection, data: dict[str, Any], wanted: dict[str, Any], collation: str
) -> None:
    expected = matches(parse_filter(wanted, collation=collation), "x", decode(encode(data)))
    assert found_in_sql(connection, data, wanted, collation) == {int(expected)}
