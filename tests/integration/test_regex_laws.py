"""An accepted pattern matches the same texts in RE2 as given, in RE2 as rewritten, and in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
import re2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgdoc.query.regex.parse import BadPattern, parse_pattern, searcher

if TYPE_CHECKING:
    from collections.abc import Iterator

laws = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])

_tokens = r"""
    \b \B \d \D \w \W \s \S \A \z \n \t \. \_ \x41 \x{e9} \012 \1 \Z \pL \Q . ^ $ { } ] - # , : [ab] [^ab] [a-c]
    [^\n] [\w-] [^\W] [[:alpha:]] [[:^upper:]] []a] [^]a] [k-s] [--a] [z-a] [a [[:x:]] [\x{0}-\x{10FFFF}]
    [\x{e9}-\x{fc}] [^\d\s] (?:) () (?i) (?s) (?-i) (?m) (?x) (? (?=a) (?!a) (?<=a) ***= a{ a{,2} a{01}
"""
_atoms = st.sampled_from([*"aabbABkKs\u00e9\u00c9\u017f\u212a _1\n\U0001f600", *_tokens.split()])
_opens = st.sampled_from(["(", "(?:", "(?i:", "(?s:", "(?m:", "(?P<n>", "(?<m>", "(?-i:", "(?ims:", "(|"])
_times = st.sampled_from(
    ["*", "+", "?", "*?", "+?", "??", "{0}", "{1}", "{2}", "{0,2}", "{1,}", "{2,3}?", "**", "{300}"]
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.lists(inner, min_size=2, max_size=3).map("".join)
        | st.tuples(_opens, inner, st.just(")")).map("".join)
        | st.tuples(_opens, inner, st.just("|"), inner, st.just(")")).map("".join)
        | st.tuples(inner, _times).map("".join)
        | st.tuples(st.just("("), inner, st.just(")"), _times).map("".join)
    )


patterns = st.recursive(_atoms, _larger, max_leaves=6)
options = st.sets(st.sampled_from("ims")).map("".join)
texts = st.text(st.sampled_from("aabABkKs\u00e9\u00c9\u017f\u212a \n_1.{},-]\U0001f600\t"), max_size=8)


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@laws
@given(patterns, options, st.lists(texts, min_size=8, max_size=8))
@example(r"\Bb", "", ["\u00e9b"])
@example("(?m)^$", "", ["a\n", "\n", "a\n\nb"])
@example("k", "i", ["\u212a"])
@example(r"\w", "i", ["\u017f"])
def test_an_accepted_pattern_means_the_same_everywhere(
    connection: psycopg.Connection, pattern: str, flags: str, strings: list[str]
) -> None:
    try:
        parsed = parse_pattern(pattern, flags)
    except BadPattern:
        return
    expected = [given_to_re2(pattern, flags, text) for text in strings]
    assert [searcher(parsed.re2)(text.encode()) is not None for text in strings] == expected
    assert in_postgresql(connection, parsed.postgresql, strings) == expected


def given_to_re2(pattern: str, flags: str, text: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    prefix = f"(?{flags})" if flags else ""
    return re2.compile(prefix + pattern, options).search(text) is not None


def in_postgresql(connection: psycopg.Connection, pattern: str, strings: list[str]) -> list[bool]:
    query = 'SELECT text COLLATE "C" ~ %s FROM unnest(%s::text[]) WITH ORDINALITY AS row(text, place) ORDER BY place'
    return [row[0] for row in connection.execute(query, [pattern, strings])]


HARD = [
    "(?:.*.*){32}z",
    "(?:a?){64}z",
    "(?:\\b|a)" * 8,
    "(?:^|$|a*)" * 4,
    "(?:a{0,7}b{0,7}){30}z",
    "[^\\x{1F600}]{255}[\u00e9-\u00fc]{240}z",
]


@pytest.mark.parametrize("pattern", [*HARD, "(?:(?:\\b|)a?b?c?d?)" * 8, "[ab]*a[ab]{250}c", "(?:[ab]+c?){32}z"])
def test_the_hardest_patterns_do_not_hold_up_the_server(connection: psycopg.Connection, pattern: str) -> None:
    connection.execute("SET statement_timeout = '20s'")
    parsed = parse_pattern(pattern, "m")
    text = "ab aab\n" * 3_000
    assert in_postgresql(connection, parsed.postgresql, [text]) == [searcher(parsed.re2)(text.encode()) is not None]
