"""Sets of characters as ranges of code points, and case folding."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""The first and last code point of each range; the ranges are in order, and do not touch each other."""

LAST: Final = 0x10FFFF

ALL: Final[Ranges] = ((1, LAST),)
"""All characters of a text; PostgreSQL does not allow NUL."""

_CASED_END: Final = 0x1E944  # no character from here on has case


def union(*sets: Ranges) -> Ranges:
    """Return the characters that are in any of the sets."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(item for ranges in sets for item in ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def inverse(ranges: Ranges) -> Ranges:
    """Return the characters that are not in the set, without NUL."""
    edges = [(0, 0), *union(ranges), (LAST + 1, LAST + 1)]
    gaps = [(before + 1, after - 1) for (_, before), (after, _) in pairwise(edges)]
    return tuple((low, high) for low, high in gaps if low <= high)


def within_text(ranges: Ranges) -> Ranges:
    """Return the set without NUL."""
    return tuple((max(low, 1), high) for low, high in ranges if high)


@lru_cache(maxsize=256)
def folded(ranges: Ranges) -> Ranges:
    """Add the other cases of the characters, by Unicode's simple case folding."""
    variants = _ASCII_VARIANTS if not ranges or ranges[-1][1] < 0x80 else _variants()
    others = [
        (other, other)
        for low, high in ranges
        for char in (variants if high - low > len(variants) else range(low, high + 1))
        if low <= char <= high
        for other in variants.get(char, ())
    ]
    return union(ranges, tuple(others))


_ASCII_VARIANTS: Final[Mapping[int, tuple[int, ...]]] = {
    code: (*map(ord, letter + letter.upper()), *{"k": (0x212A,), "s": (0x17F,)}.get(letter, ()))
    for letter in map(chr, range(ord("a"), ord("z") + 1))
    for code in map(ord, letter + letter.upper())
}
"""The ASCII entries of `_variants()`, which is slow the first time; k and s also have a case outside ASCII."""


@lru_cache(maxsize=1)
def _variants() -> Mapping[int, tuple[int, ...]]:
    together: dict[str, list[int]] = {}
    for code in range(_CASED_END):
        together.setdefault(_fold(chr(code)), []).append(code)
    return {code: tuple(codes) for codes in together.values() if len(codes) > 1 for code in codes}


def _fold(char: str) -> str:
    """Fold to one character; the lower case if full folding yields several, as for the sharp s."""
    return next((form for form in (char.casefold(), char.lower()) if len(form) == 1), char)


def _set(*parts: str) -> Ranges:
    """Make a set of ranges such as `az` and single characters such as `_`."""
    return union(tuple((ord(part[0]), ord(part[-1])) for part in parts))


NEWLINE: Final = _set("\n")

CLASSES: Final[Mapping[str, Ranges]] = {
    "d": _set("09"),
    "s": _set("\t\n", "\f\r", " "),
    "w": _set("09", "AZ", "_", "az"),
}
"""The classes of a backslash and a letter. As in RE2, they are ASCII only, and `s` lacks the vertical tab."""

POSIX: Final[Mapping[str, Ranges]] = {
    "alnum": _set("09", "AZ", "az"),
    "alpha": _set("AZ", "az"),
    "ascii": _set("\0\x7f"),
    "blank": _set("\t", " "),
    "cntrl": _set("\0\x1f", "\x7f"),
    "digit": _set("09"),
    "graph": _set("!~"),
    "lower": _set("az"),
    "print": _set(" ~"),
    "punct": _set("!/", ":@", "[`", "{~"),
    "space": _set("\t\r", " "),
    "upper": _set("AZ"),
    "word": CLASSES["w"],
    "xdigit": _set("09", "AF", "af"),
}
