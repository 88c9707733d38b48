"""Parsing of patterns. `tests/integration/test_regex_laws.py` checks that PostgreSQL agrees with RE2."""

from __future__ import annotations

import subprocess
import sys

import pytest
import re2

from pgdoc.query.regex.charset import folded, inverse, union
from pgdoc.query.regex.parse import MAX_MEMORY, BadPattern, parse_pattern, searcher


def found(pattern: str, text: str, options: str = "") -> bool:
    return searcher(parse_pattern(pattern, options).re2)(text.encode()) is not None


@pytest.mark.parametrize(
    ("pattern", "options", "text"),
    [
        ("b", "", "abc"),
        ("^a.c$", "", "abc"),
        ("a.c", "s", "a\nc"),
        ("^b$", "m", "a\nb\nc"),
        ("(?i)CAF\u00c9", "", "caf\u00e9"),
        ("stra\u00dfe", "i", "STRA\u1e9eE"),
        ("k", "i", "\u212a"),
        ("[a-z]+\\d{2,3}?", "i", "XY12"),
        ("a b # the rest", "x", "ab"),
        ("[ #] \\ +", "x", "#  "),
        ("a{,2}", "", "a{,2}"),
        ("a{01}", "", "a{01}"),
        ("[]a]]", "", "]]"),
        ("[^]a]", "", "b"),
        ("[a\\-z]", "", "-"),
        ("[[:alpha:]_[:^word:]]", "", "!"),
        ("\\x41\\x{1F600}\\101\\t", "", "A\U0001f600A\t"),
        ("(?P<year>\\d+)-(?<month>\\d+)", "", "2024-05"),
        ("(?i:a)b", "", "Ab"),
        ("(a|(?i)b|c)d", "", "Cd"),
        ("\\bfoo\\b", "", "a foo."),
        ("(|a)+$", "u", ""),
        (r"\*\*\*=a", "", "***=a"),
        ("\\Aa\\z", "m", "a"),
    ],
)
def test_found(pattern: str, options: str, text: str) -> None:
    assert found(pattern, text, options)


@pytest.mark.parametrize(
    ("pattern", "options", "text"),
    [
        ("a.c", "", "a\nc"),
        ("^b$", "", "a\nb\nc"),
        ("a$", "", "a\n"),
        ("\\Ab", "m", "a\nb"),
        ("caf\u00e9", "", "CAF\u00c9"),
        ("\\d", "", "\u0663"),
        ("\\w", "", "\u00e9"),
        ("\\s", "", "\v"),
        ("a b", "x", "a b"),
        ("(?i:a)b", "", "aB"),
        ("[^a]", "i", "A"),
    ],
)
def test_not_found(pattern: str, options: str, text: str) -> None:
    assert not found(pattern, text, options)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)", "lookaround"),
        ("(?!a)", "lookaround"),
        ("(?<=a)b", "lookaround"),
        ("(?>a)", "RE2 does not support"),
        ("(?#a)", "RE2 does not support"),
        ("(?x)a", "RE2 does not support"),
        ("(a)\\1", "escape"),
        ("\\B", "escape"),
        ("\\pL", "escape"),
        ("\\C", "escape"),
        ("\\Qa\\E", "escape"),
        ("\\Z", "escape"),
        ("\\m", "escape"),
        ("[\\b]", "escape"),
        ("[a-\\d]", "escape"),
        ("\\x{110000}", "beyond Unicode"),
        ("a\\", "unexpected end"),
        ("[a", "unexpected end"),
        ("[[:foo:]]", "unknown class"),
        ("[[:a]", "unknown class"),
        ("[z-a]", "range"),
        ("[^\\x00-\\x{10FFFF}]", "without any character"),
        ("\\0", "without any character"),
        ("(a", r"a \( without a \)"),
        ("a)", r"a \) without a \("),
        ("*a", "nothing to repeat"),
        ("a|+", "nothing to repeat"),
        ("(?i)*", "can't be repeated"),
        ("a**", "repetition"),
        ("a{2}{3}", "repetition"),
        ("a{256}", "255"),
        ("a{3,2}", "minimum above its maximum"),
        ("a{99999999999999999999}", "255"),
        ("(a{200}){3}", "500"),
        ("(a?){65}", "optional"),
        ("a*" * 65, "optional"),
        ("(\\b|a)" * 9, "anchors"),
        ("(^|a){2}", "anchor alone"),
        ("(\\b)(a*$)*", "anchor alone"),
        ("(" * 101 + ")" * 101, "levels deep"),
        ("a" * 10_001, "10,000"),
        ("\ud800", "surrogate"),
        ("a\0", "NUL"),
        ("a" * 501, "500"),
    ],
)
def test_refused(pattern: str, reason: str) -> None:
    with pytest.raises(BadPattern, match=reason):
        parse_pattern(pattern)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(BadPattern, match="'g'"):
        parse_pattern("a", "ig")


def test_what_re2_has_no_room_for_is_refused() -> None:
    with pytest.raises(BadPattern, match="RE2"):
        searcher(r"\pL{500}")
    assert MAX_MEMORY <= 8 << 20


@pytest.mark.parametrize("pattern", ["(x+x+)+y", "(?:.*.*){20}z", "[xa]*a[xa]{200}[yz]", "(?:[^x]{25}){10}[xy]"])
def test_patterns_known_for_exponential_time_are_answered(pattern: str) -> None:
    assert not found(pattern, "ax" * 20_000)


def test_cases_are_those_of_re2() -> None:
    letters = [
        *range(1, 0x390),
        *range(0x391, 0x3B0),
        *range(0x3B1, 0x590),
        *range(0x1E00, 0x1FD0),
        *range(0x2100, 0x2200),
    ]
    text = "".join(map(chr, letters))
    for code in letters:
        expected = {ord(char) for char in re2.findall(f"(?i)\\x{{{code:x}}}", text)}
        assert {other for low, high in folded(((code, code),)) for other in range(low, high + 1)} & set(
            letters
        ) == expected


def test_sets() -> None:
    assert union(((5, 6), (1, 2)), ((3, 3), (9, 9))) == ((1, 3), (5, 6), (9, 9))
    assert inverse(((1, 4), (6, 0x10FFFF))) == ((5, 5),)
    assert inverse(()) == ((1, 0x10FFFF),)


def test_re2_is_imported_when_it_is_used() -> None:
    code = "import sys, pgdoc.query as q; q.parse_filter({'a': 1}); assert 're2' not in sys.modules"
    code += "; q.parse_filter({'a': {'$regex': 'b'}}); assert 're2' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
