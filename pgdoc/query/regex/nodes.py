"""What a regular expression is parsed into, and how it is written for RE2 and for PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.query.regex.charset import Ranges


class Assertion(Enum):
    """Holds between two characters, and takes none."""

    TEXT_START = "text start"
    TEXT_END = "text end"
    LINE_START = "line start"
    LINE_END = "line end"
    WORD_EDGE = "word edge"


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; of none, the empty text."""

    parts: tuple[RegexPart, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the ways."""

    ways: tuple[RegexPart, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The part several times; without end where `high` is `None`."""

    part: RegexPart
    low: int
    high: int | None


RegexPart: TypeAlias = Assertion | Chars | Sequence | Choice | Repeat


@dataclass(frozen=True, slots=True)
class Weight:
    """What a part costs with its repetitions written out.

    Attributes:
        size: characters, assertions and ways of choices: what RE2 may have to look at for each character of a text.
        optional: parts that may be left out: PostgreSQL's work to compile grows with the third power of these.
        assertions: with parts that may be left out between them, they multiply PostgreSQL's work.
    """

    size: int = 0
    optional: int = 0
    assertions: int = 0

    def __add__(self, other: Weight) -> Weight:
        return Weight(self.size + other.size, self.optional + other.optional, self.assertions + other.assertions)

    def __mul__(self, times: int) -> Weight:
        return Weight(self.size * times, self.optional * times, self.assertions * times)


def weigh(part: RegexPart) -> Weight:
    """Count what the part costs."""
    if isinstance(part, Sequence):
        return sum(map(weigh, part.parts), Weight())
    if isinstance(part, Choice):
        return sum(map(weigh, part.ways), Weight(len(part.ways), optional=int(may_be_empty(part))))
    if isinstance(part, Repeat):
        optional = part.low == 0 or part.high is None
        return weigh(part.part) * (part.high or part.low + 1) + Weight(optional=int(optional))
    return Weight(1, assertions=int(isinstance(part, Assertion)))


def may_be_empty(part: RegexPart) -> bool:
    """Whether it can match without taking a character."""
    if isinstance(part, Sequence):
        return all(map(may_be_empty, part.parts))
    if isinstance(part, Choice):
        return any(map(may_be_empty, part.ways))
    if isinstance(part, Repeat):
        return part.low == 0 or may_be_empty(part.part)
    return isinstance(part, Assertion)


_RE2: Final = {
    Assertion.TEXT_START: r"\A",
    Assertion.TEXT_END: r"\z",
    Assertion.LINE_START: "(?m:^)",
    Assertion.LINE_END: "(?m:$)",
    Assertion.WORD_EDGE: r"\b",
}

# In the mode that begins with (?w), ^ and $ are at lines, and nothing else knows of lines.
_POSTGRESQL: Final = {
    Assertion.TEXT_START: r"\A",
    Assertion.TEXT_END: r"\Z",
    Assertion.LINE_START: "^",
    Assertion.LINE_END: "$",
    Assertion.WORD_EDGE: r"\y",
}


def for_re2(part: RegexPart) -> str:
    """Write it for RE2 without options."""
    return _written(part, _RE2, lambda code: f"\\x{{{code:X}}}")


def for_postgresql(part: RegexPart) -> str:
    """Write it for PostgreSQL's `~` with the collation "C"."""
    return "(?w)" + _written(part, _POSTGRESQL, lambda code: f"\\U{code:08X}")


def _written(part: RegexPart, assertions: Mapping[Assertion, str], escape: Callable[[int], str]) -> str:
    if isinstance(part, Assertion):
        return assertions[part]
    if isinstance(part, Chars):
        return _written_chars(
            part, lambda code: chr(code) if chr(code).isascii() and chr(code).isalnum() else escape(code)
        )
    if isinstance(part, Sequence):
        return "".join(_written(item, assertions, escape) for item in part.parts)
    if isinstance(part, Choice):
        return "(?:" + "|".join(_written(item, assertions, escape) for item in part.ways) + ")"
    return f"(?:{_written(part.part, assertions, escape)}){_times(part)}"


def _written_chars(part: Chars, shown: Callable[[int], str]) -> str:
    ((low, high), *others) = part.ranges
    if low == high and not others:
        return shown(low)
    return "[" + "".join(f"{shown(low)}-{shown(high)}" if low < high else shown(low) for low, high in part.ranges) + "]"


def _times(part: Repeat) -> str:
    high = "" if part.high is None else part.high
    return f"{{{part.low}}}" if part.low == high else f"{{{part.low},{high}}}"
