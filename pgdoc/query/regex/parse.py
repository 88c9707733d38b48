"""Parse regular expressions in RE2's syntax, and write them so that RE2 and PostgreSQL read them alike.

The result avoids everything that the two read differently: classes, `.` and case become ranges of characters, and
anchors become those that no mode changes. Patterns that PostgreSQL can't match, or not in time linear in the text, are
refused. Greedy and lazy repetition are the same here, since only whether there is a match counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn

from pgdoc.query.regex.charset import ALL, CLASSES, LAST, NEWLINE, POSIX, Ranges, folded, inverse, union, within_text
from pgdoc.query.regex.nodes import (
    Assertion,
    Chars,
    Choice,
    RegexPart,
    Repeat,
    Sequence,
    for_postgresql,
    for_re2,
    may_be_empty,
    weigh,
)
from pgdoc.query.regex.prefix import find_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.query.regex.prefix import Rest

MAX_LENGTH: Final = 10_000
"""The most characters of a pattern."""

MAX_SIZE: Final = 500
"""The most characters and classes of a pattern with its repetitions written out."""

MAX_OPTIONAL: Final = 64
"""The most optional parts of a pattern with its repetitions written out."""

MAX_ASSERTIONS: Final = 8
"""The most anchors of a pattern that has optional parts, with its repetitions written out."""

MAX_REPEAT: Final = 255
"""PostgreSQL's limit for `n` in `{n}`."""

MAX_NESTING: Final = 100

MAX_MEMORY: Final = 2 << 20
"""The most bytes that RE2 may use for one pattern."""


class BadPattern(ValueError):  # noqa: N818
    """The pattern is not valid, or RE2 and PostgreSQL do not both support it; the message says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One regular expression, written for RE2 and for PostgreSQL.

    Attributes:
        start: the characters with which each matching text starts.
        rest: what follows the start.
    """

    re2: str
    postgresql: str
    start: tuple[Ranges, ...] = ()
    rest: Rest = "more"


@lru_cache(maxsize=256)
def parse_pattern(text: str, options: str = "") -> Pattern:
    """Parse the operands of `$regex` and `$options`.

    `text` is in RE2's syntax (https://github.com/google/re2/wiki/Syntax). `options` are any of `i`, `m`, `s` and `x`;
    `u` has no effect.
    """
    unknown = set(options) - set("imsxu")
    if unknown:
        raise BadPattern(f"unknown option {min(unknown)!r} (use i, m, s, x)")
    if len(text) > MAX_LENGTH:
        raise BadPattern(f"it has {len(text):,} characters, more than {MAX_LENGTH:,}")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise BadPattern("it has a NUL character or a lone surrogate, which no stored text contains")
    part = _Parser(text, frozenset(options)).parse()
    pattern = Pattern(for_re2(part), for_postgresql(part), *find_start(part))
    searcher(pattern.re2)
    return pattern


@lru_cache(maxsize=256)
def searcher(text: str) -> Callable[[bytes], object]:
    """Compile a pattern written for RE2 to a search of UTF-8 text, which returns `None` without a match.

    Raises:
        BadPattern: the pattern exceeds RE2's memory limit.
    """
    import re2  # noqa: PLC0415 (imported when first used)

    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        search: Callable[[bytes], object] = re2.compile(text, options).search
    except re2.error as exc:
        raise BadPattern(f"RE2 can't compile it ({exc}): make it shorter") from exc
    return search


_REPEAT: Final = re.compile(r"\{(0|[1-9][0-9]*)(?:(,)(0|[1-9][0-9]*)?)?\}")
_FLAGS: Final = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAME: Final = re.compile(r"\(\?P?<([A-Za-z0-9_]+)>")
_SPACE: Final = re.compile(r"(?:[\t\n\v\f\r ]|#[^\n]*)*")
_OCTAL: Final = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_HEX: Final = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,8})\})")
_POSIX_CLASS: Final = re.compile(r"\[:(\^?)([a-z]+):\]")

_CONTROLS: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_REPEAT_CHARS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_ESCAPED_ASSERTIONS: Final = {
    "A": Assertion.TEXT_START,
    "z": Assertion.TEXT_END,
    "b": Assertion.WORD_BOUNDARY,
}
_EMPTY: Final = Sequence(())


class _Parser:
    """Reads a pattern from left to right. Flags apply to the end of the group that sets them."""

    def __init__(self, text: str, flags: frozenset[str]) -> None:
        self._text = text
        self._at = 0
        self._flags = flags
        self._depth = 0
        self._names: set[str] = set()

    def parse(self) -> RegexPart:
        part = self._choice()
        if self._at < len(self._text):
            self._fail("a ) without a (")
        return part

    def _fail(self, finding: str) -> NoReturn:
        raise BadPattern(f"{finding} at character {self._at + 1}")

    def _starts(self, start: str) -> bool:
        return self._text.startswith(start, self._at)

    def _take(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        match = expression.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _skip_space(self) -> None:
        if "x" in self._flags:
            self._take(_SPACE)

    def _next(self) -> str:
        if self._at == len(self._text):
            self._fail("unexpected end")
        self._at += 1
        return self._text[self._at - 1]

    def _choice(self) -> RegexPart:
        alternatives = [self._sequence()]
        while self._starts("|"):
            self._at += 1
            alternatives.append(self._sequence())
        if all(way == _EMPTY for way in alternatives):
            return _EMPTY
        return alternatives[0] if len(alternatives) == 1 else self._check_weight(Choice(tuple(alternatives)))

    def _sequence(self) -> RegexPart:
        parts = []
        self._skip_space()
        while self._at < len(self._text) and not self._starts("|") and not self._starts(")"):
            part = self._repeated()
            if part != _EMPTY:
                parts.append(part)
            self._skip_space()
        return parts[0] if len(parts) == 1 else self._check_weight(Sequence(tuple(parts)))

    def _check_weight(self, part: RegexPart) -> RegexPart:
        weight = weigh(part)
        if weight.size > MAX_SIZE:
            self._fail(f"more than {MAX_SIZE} characters and classes, with repetitions written out,")
        if weight.optional > MAX_OPTIONAL:
            self._fail(f"more than {MAX_OPTIONAL} optional parts, with repetitions written out,")
        if weight.optional and weight.assertions > MAX_ASSERTIONS:
            self._fail(
                f"more than {MAX_ASSERTIONS} anchors together with optional parts, with repetitions written out,"
            )
        return part

    def _repeated(self) -> RegexPart:
        part = self._atom()
        self._skip_space()
        limits = self._repeat_limits()
        if limits is None:
            return part or _EMPTY
        if part is None:
            self._fail("a repetition after flags, which can't be repeated,")
        if self._starts("?"):
            self._at += 1
        self._skip_space()
        if self._repeat_limits() is not None:
            self._fail("a repetition of a repetition (put the inner one in a group)")
        return self._check_weight(_repeat(part, *limits))

    def _repeat_limits(self) -> tuple[int, int | None] | None:
        simple = _REPEAT_CHARS.get(self._text[self._at : self._at + 1])
        if simple:
            self._at += 1
            return simple
        match = self._take(_REPEAT)
        if not match:
            return None
        least, comma, most = match.groups()
        if max(len(least), len(most or "")) > 3 or max(int(least), int(most or 0)) > MAX_REPEAT:
            self._fail(f"a repetition of more than {MAX_REPEAT} times, PostgreSQL's limit,")
        low, high = int(least), int(most) if most else None if comma else int(least)
        if high is not None and low > high:
            self._fail("a repetition with its minimum above its maximum")
        return low, high

    def _atom(self) -> RegexPart | None:
        """Read a part that can be repeated; `None` for flags, which can't."""
        if self._starts("("):
            return self._group()
        char = self._next()
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()
        if char == ".":
            return Chars(ALL if "s" in self._flags else inverse(NEWLINE))
        if char in "^$":
            return self._anchor(char)
        if char in "*+?":
            self._at -= 1
            self._fail(f"nothing to repeat with {char}")
        return self._chars(self._folded(((ord(char), ord(char)),)))

    def _anchor(self, char: str) -> RegexPart:
        if "m" in self._flags:
            return Assertion.LINE_START if char == "^" else Assertion.LINE_END
        return Assertion.TEXT_START if char == "^" else Assertion.TEXT_END

    def _group(self) -> RegexPart | None:
        before = self._flags
        if self._open_group():
            return None
        self._depth += 1
        if self._depth > MAX_NESTING:
            self._fail(f"groups nested more than {MAX_NESTING} levels deep")
        part = self._choice()
        if not self._starts(")"):
            self._fail("a ( without a )")
        self._at += 1
        self._depth -= 1
        self._flags = before
        return part

    def _open_group(self) -> bool:
        """Read the start of a group; return whether it was flags only, such as `(?i)`."""
        flags = self._take(_FLAGS)
        if flags:
            self._flags = (self._flags | set(flags[1])) - set(flags[2] or "")
            return flags[3] == ")"
        name = self._take(_NAME)
        if name:
            if name[1] in self._names:
                self._fail(f"a second group named {name[1]!r}")
            self._names.add(name[1])
        elif self._starts("(?"):
            self._fail("a group that RE2 does not support, such as a lookaround,")
        else:
            self._at += 1
        return False

    def _escape(self) -> RegexPart:
        assertion = _ESCAPED_ASSERTIONS.get(self._text[self._at : self._at + 1])
        if assertion:
            self._at += 1
            return assertion
        ranges = self._perl_class()
        if ranges is None:
            char = self._escaped_char()
            ranges = self._folded(((char, char),))
        return self._chars(ranges)

    def _perl_class(self) -> Ranges | None:
        r"""Read a class such as `\d` after its backslash."""
        letter = self._text[self._at : self._at + 1]
        ranges = CLASSES.get(letter.lower())
        if ranges is None:
            return None
        self._at += 1
        return self._maybe_negated(ranges, negated=letter.isupper())

    def _maybe_negated(self, ranges: Ranges, *, negated: bool) -> Ranges:
        ranges = self._folded(ranges)
        return inverse(ranges) if negated else ranges

    def _escaped_char(self) -> int:
        octal, hexadecimal = self._take(_OCTAL), self._take(_HEX)
        if octal:
            return int(octal[0], 8)
        if hexadecimal:
            code = int(hexadecimal[1] or hexadecimal[2], 16)
            return code if code <= LAST else self._fail("a character beyond Unicode's last")
        char = self._next()
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum() or not char.isascii():
            self._at -= 1
            self._fail(f"the escape \\{char}, which RE2 and PostgreSQL do not both support,")
        return ord(char)

    def _class(self) -> RegexPart:
        negated = self._starts("^")
        self._at += negated
        ranges: Ranges = ()
        first = True
        while first or not self._starts("]"):
            ranges = union(ranges, self._class_item())
            first = False
        self._at += 1
        return self._chars(inverse(ranges) if negated else ranges)

    def _class_item(self) -> Ranges:
        posix = self._take(_POSIX_CLASS)
        if posix and posix[2] in POSIX:
            return self._maybe_negated(POSIX[posix[2]], negated=bool(posix[1]))
        if posix or self._starts("[:"):
            self._fail("an unknown class in [: :]")
        if self._starts("\\"):
            self._at += 1
            ranges = self._perl_class()
            if ranges is not None:
                return ranges
            self._at -= 1
        low = high = self._class_char()
        if self._starts("-") and not self._starts("-]"):
            self._at += 1
            high = self._class_char()
        if low > high:
            self._fail("a range that ends before it starts")
        return self._folded(((low, high),))

    def _class_char(self) -> int:
        char = self._next()
        return self._escaped_char() if char == "\\" else ord(char)

    def _folded(self, ranges: Ranges) -> Ranges:
        return folded(ranges) if "i" in self._flags else ranges

    def _chars(self, ranges: Ranges) -> RegexPart:
        ranges = within_text(ranges)
        if not ranges:
            self._fail("a class without any character")
        return Chars(ranges)


def _repeat(part: RegexPart, low: int, high: int | None) -> RegexPart:
    if high == 0 or part == _EMPTY:
        return _EMPTY
    if isinstance(part, Assertion):
        return part if low else _EMPTY
    if may_be_empty(part) and weigh(part).assertions and high != 1:
        raise BadPattern("it repeats a group that can match an anchor alone, which PostgreSQL is too slow for")
    return Repeat(part, low, high)
