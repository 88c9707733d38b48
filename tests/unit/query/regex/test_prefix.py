from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.query.regex.parse import BadPattern, parse_pattern, searcher
from pgdoc.query.regex.prefix import folded_start, literal_start, next_after


@pytest.mark.parametrize(
    ("pattern", "options", "start", "rest"),
    [
        ("^abc", "", "abc", "anything"),
        (r"\Aabc", "m", "abc", "anything"),
        (r"^a\.b\x41", "", "a.bA", "anything"),
        ("^abc.*", "", "abc", "anything"),
        ("^abc[a-z]*d?", "", "abc", "anything"),
        ("^ab+", "", "ab", "anything"),
        ("^ab{2}c", "", "abbc", "anything"),
        ("^(ab){2,3}", "", "abab", "more"),
        ("^ab+c", "", "ab", "more"),
        ("^ab(c|d)", "", "ab", "more"),
        ("^(?:^a)b$", "", "ab", "nothing"),
        ("^$", "", "", "nothing"),
        ("^a b$", "x", "ab", "nothing"),
        (r"^a\b", "", "a", "more"),
        ("^a$b", "", "a", "more"),
        ("^1a", "i", "1", "anything"),
        ("^a", "m", "", "more"),
        ("^a|^b", "", "", "more"),
        ("(^a|b)c", "", "", "more"),
        ("a", "", "", "more"),
        ("(^a)?b", "", "", "more"),
        ("", "", "", "more"),
    ],
)
def test_a_pattern_says_how_each_matching_text_starts(pattern: str, options: str, start: str, rest: str) -> None:
    parsed = parse_pattern(pattern, options)
    assert literal_start(parsed.start) == start
    assert parsed.rest == rest


def test_the_cases_of_a_letter_are_one_start() -> None:
    def fold(code: int) -> str:
        return chr(code).casefold()

    assert folded_start(parse_pattern("^Straße", "i").start, fold) == "strasse"
    assert folded_start(parse_pattern("^KELVIN[sS]?", "i").start, fold) == "kelvin"
    assert folded_start(parse_pattern("^a[b-z]", "i").start, fold) == "a"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a", "b"),
        ("az", "a{"),
        ("a\ud7ff", "a\ue000"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff", None),
        ("", None),
        ("\uffff", "\U00010000"),
    ],
)
def test_the_text_after_a_prefix_is_the_next_by_code_point(prefix: str, expected: str | None) -> None:
    assert next_after(prefix) == expected


_parts = st.sampled_from(
    ["a", "b", "é", ".", "[ab]", "a+", "b*", "(ab)", "(a|b)", "$", "^", "a{2}", r"\b", "(a?b)+", "\n"]
)


@given(st.lists(_parts, max_size=4).map("".join), st.sampled_from(["", "i", "s", "m"]), st.text("abAB\né", max_size=6))
def test_the_start_and_the_rest_say_no_more_than_the_pattern(pattern: str, options: str, text: str) -> None:
    try:
        parsed = parse_pattern("^" + pattern, options)
    except BadPattern:
        return
    found = searcher(parsed.re2)(text.encode()) is not None
    start = literal_start(parsed.start)
    is_whole = len(start) == len(parsed.start)
    if found:
        assert text.startswith(start)
    if parsed.rest == "nothing" and is_whole:
        assert found == (text == start)
    if parsed.rest == "anything" and is_whole and parsed.start:
        assert found == text.startswith(start)
