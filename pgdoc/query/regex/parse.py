"""Regular expressions: RE2's, in a form that RE2 and PostgreSQL read alike.

A pattern is parsed as RE2 parses it and written anew for each side. What the two understand differently never gets
there: classes, `.` and case are spelled out as ranges of characters, anchors as those that no mode changes. What
PostgreSQL can't do in time that grows with the text alone, or at all, is refused. Greedy and lazy are the same here:
only whether there is a match is asked.
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

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LENGTH: Final = 10_000
"""How many characters a pattern may have."""

MAX_SIZE: Final = 500
"""How many characters and classes a pattern may stand for, repetitions written out."""

MAX_OPTIONAL: Final = 64
"""How many parts a pattern may have that may be left out, repetitions written out."""

MAX_ASSERTIONS: Final = 8
"""How many anchors may stand beside parts that may be left out, repetitions written out."""

MAX_REPEAT: Final = 255
"""PostgreSQL's limit of `{n}`."""

MAX_NESTING: Final = 100

MAX_MEMORY: Final = 2 << 20
"""What RE2 may keep for one pattern, in bytes."""


class BadPattern(ValueError):  # noqa: N818
    """Not a pattern that both sides understand; the message continues a sentence about the pattern."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One regular expression, as RE2 and as PostgreSQL has to get it."""

    re2: str
    postgresql: str


@lru_cache(maxsize=256)
def parse_pattern(text: str, options: str = "") -> Pattern:
    """Parse what `$regex` and `$options` say.

    Args:
        text: in RE2's syntax.
        options: of `i`, `m`, `s`, `x`; `u` changes nothing.

    Raises:
        BadPattern: not a pattern, or not one that both sides understand.
    """
    unknown = set(options) - set("imsxu")
    if unknown:
        raise BadPattern(f"has the unknown option {min(unknown)!r}: i, m, s, x are known")
    if len(text) > MAX_LENGTH:
        raise BadPattern(f"has {len(text):,} characters: {MAX_LENGTH:,} at most")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise BadPattern("has a NUL character or a lone surrogate, which no text has here")
    part = _Parser(text, frozenset(options)).parse()
    pattern = Pattern(for_re2(part), for_postgresql(part))
    searcher(pattern.re2)
    return pattern


@lru_cache(maxsize=256)
def searcher(text: str) -> Callable[[bytes], object]:
    """Compile a pattern that was written for RE2; the result searches UTF-8 and returns `None` where nothing is found.

    Raises:
        BadPattern: RE2 has no room for it.
    """
    import re2  # noqa: PLC0415 (imported when first used)

    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        search: Callable[[bytes], object] = re2.compile(text, options).search
    except re2.error as exc:
        raise BadPattern(f"is too much for RE2 ({exc}): make it shorter") from exc
    return search


_REPEAT: Final = re.compile(r"\{(0|[1-9][0-9]*)(?:(,)(0|[1-9][0-9]*)?)?\}")
_FLAGS: Final = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAME: Final = re.compile(r"\(\?P?<([A-Za-z0-9_]+)>")
_SPACE: Final = re.compile(r"(?:[\t\n\v\f\r ]|#[^\n]*)*")
_OCTAL: Final = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_HEX: Final = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,8})\})")
_POSIX_CLASS: Final = re.compile(r"\[:(\^?)([a-z]+):\]")

_CONTROLS: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_SIMPLE_REPEATS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_ESCAPED_ASSERTIONS: Final = {
    "A": Assertion.TEXT_START,
    "z": Assertion.TEXT_END,
    "b": Assertion.WORD_EDGE,
}
_NOTHING: Final = Sequence(())


class _Parser:
    """Reads a pattern from left to right; the flags hold until the group ends that sets them."""

    def __init__(self, text: str, flags: frozenset[str]) -> None:
        self._text = text
        self._at = 0
        self._flags = flags
        self._depth = 0
        self._names: set[str] = set()

    def parse(self) -> RegexPart:
        part = self._choice()
        if self._at < len(self._text):
            self._refuse("has a ) that nothing opens")
        return part

    def _refuse(self, reason: str) -> NoReturn:
        raise BadPattern(f"{reason}, at character {self._at + 1}")

    def _rest(self, start: str) -> bool:
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
            self._refuse("ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _choice(self) -> RegexPart:
        ways = [self._sequence()]
        while self._rest("|"):
            self._at += 1
            ways.append(self._sequence())
        if all(way == _NOTHING for way in ways):
            return _NOTHING
        return ways[0] if len(ways) == 1 else self._checked(Choice(tuple(ways)))

    def _sequence(self) -> RegexPart:
        parts = []
        self._skip_space()
        while self._at < len(self._text) and not self._rest("|") and not self._rest(")"):
            part = self._repeated()
            if part != _NOTHING:
                parts.append(part)
            self._skip_space()
        return parts[0] if len(parts) == 1 else self._checked(Sequence(tuple(parts)))

    def _checked(self, part: RegexPart) -> RegexPart:
        weight = weigh(part)
        if weight.size > MAX_SIZE:
            self._refuse(f"stands for more than {MAX_SIZE} characters and classes, repetitions written out")
        if weight.optional > MAX_OPTIONAL:
            self._refuse(f"has more than {MAX_OPTIONAL} parts that may be left out, repetitions written out")
        if weight.optional and weight.assertions > MAX_ASSERTIONS:
            self._refuse(
                f"has more than {MAX_ASSERTIONS} anchors beside parts that may be left out, repetitions written out"
            )
        return part

    def _repeated(self) -> RegexPart:
        part = self._atom()
        self._skip_space()
        limits = self._limits()
        if limits is None:
            return part or _NOTHING
        if part is None:
            self._refuse("repeats what can't be repeated")
        if self._rest("?"):
            self._at += 1
        self._skip_space()
        if self._limits() is not None:
            self._refuse("repeats a repetition: put it in a group")
        return self._checked(_repeat(part, *limits))

    def _limits(self) -> tuple[int, int | None] | None:
        simple = _SIMPLE_REPEATS.get(self._text[self._at : self._at + 1])
        if simple:
            self._at += 1
            return simple
        match = self._take(_REPEAT)
        if not match:
            return None
        least, comma, most = match.groups()
        if max(len(least), len(most or "")) > 3 or max(int(least), int(most or 0)) > MAX_REPEAT:
            self._refuse(f"repeats more than {MAX_REPEAT} times, which PostgreSQL can't")
        low, high = int(least), int(most) if most else None if comma else int(least)
        if high is not None and low > high:
            self._refuse("repeats at least more often than at most")
        return low, high

    def _atom(self) -> RegexPart | None:
        """Read what a repetition can follow; `None` for flags, which none can."""
        if self._rest("("):
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
            self._refuse("repeats nothing")
        return self._chars(self._folded(((ord(char), ord(char)),)))

    def _anchor(self, char: str) -> RegexPart:
        if "m" in self._flags:
            return Assertion.LINE_START if char == "^" else Assertion.LINE_END
        return Assertion.TEXT_START if char == "^" else Assertion.TEXT_END

    def _group(self) -> RegexPart | None:
        before = self._flags
        if self._open():
            return None
        self._depth += 1
        if self._depth > MAX_NESTING:
            self._refuse(f"nests groups deeper than {MAX_NESTING}")
        part = self._choice()
        if not self._rest(")"):
            self._refuse("has a ( that nothing closes")
        self._at += 1
        self._depth -= 1
        self._flags = before
        return part

    def _open(self) -> bool:
        """Go behind what opens a group, and return whether it was flags only, as in `(?i)`."""
        flags = self._take(_FLAGS)
        if flags:
            self._flags = (self._flags | set(flags[1])) - set(flags[2] or "")
            return flags[3] == ")"
        name = self._take(_NAME)
        if name:
            if name[1] in self._names:
                self._refuse(f"has two groups of the name {name[1]!r}")
            self._names.add(name[1])
        elif self._rest("(?"):
            self._refuse("has a group that is not in RE2's language, such as look-around")
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
        r"""Read a class such as `\d` from behind its backslash."""
        letter = self._text[self._at : self._at + 1]
        ranges = CLASSES.get(letter.lower())
        if ranges is None:
            return None
        self._at += 1
        return self._either(ranges, negated=letter.isupper())

    def _either(self, ranges: Ranges, *, negated: bool) -> Ranges:
        ranges = self._folded(ranges)
        return inverse(ranges) if negated else ranges

    def _escaped_char(self) -> int:
        octal, hexadecimal = self._take(_OCTAL), self._take(_HEX)
        if octal:
            return int(octal[0], 8)
        if hexadecimal:
            code = int(hexadecimal[1] or hexadecimal[2], 16)
            return code if code <= LAST else self._refuse("has a character beyond the last of Unicode")
        char = self._next()
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum() or not char.isascii():
            self._at -= 1
            self._refuse(f"has the escape \\{char}, which RE2 and PostgreSQL do not both read alike")
        return ord(char)

    def _class(self) -> RegexPart:
        negated = self._rest("^")
        self._at += negated
        ranges: Ranges = ()
        first = True
        while first or not self._rest("]"):
            ranges = union(ranges, self._class_item())
            first = False
        self._at += 1
        return self._chars(inverse(ranges) if negated else ranges)

    def _class_item(self) -> Ranges:
        posix = self._take(_POSIX_CLASS)
        if posix and posix[2] in POSIX:
            return self._either(POSIX[posix[2]], negated=bool(posix[1]))
        if posix or self._rest("[:"):
            self._refuse("has an unknown class in [: :]")
        if self._rest("\\"):
            self._at += 1
            ranges = self._perl_class()
            if ranges is not None:
                return ranges
            self._at -= 1
        low = high = self._class_char()
        if self._rest("-") and not self._rest("-]"):
            self._at += 1
            high = self._class_char()
        if low > high:
            self._refuse("has a range that begins behind its end")
        return self._folded(((low, high),))

    def _class_char(self) -> int:
        char = self._next()
        return self._escaped_char() if char == "\\" else ord(char)

    def _folded(self, ranges: Ranges) -> Ranges:
        return folded(ranges) if "i" in self._flags else ranges

    def _chars(self, ranges: Ranges) -> RegexPart:
        ranges = within_text(ranges)
        if not ranges:
            self._refuse("has a class that no character is in")
        return Chars(ranges)


def _repeat(part: RegexPart, low: int, high: int | None) -> RegexPart:
    if high == 0 or part == _NOTHING:
        return _NOTHING
    if isinstance(part, Assertion):
        return part if low else _NOTHING
    if may_be_empty(part) and weigh(part).assertions and high != 1:
        raise BadPattern("repeats a group that may be an anchor alone, which takes PostgreSQL too long")
    return Repeat(part, low, high)
