"""The syntax tree of a regular expression, and its text for RE2 and for PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.query.regex.charset import Ranges


class Assertion(Enum):
    """A condition on a position between two characters; it consumes none."""

    TEXT_START = "text start"
    TEXT_END = "text end"
    LINE_START = "line start"
    LINE_END = "line end"
    WORD_BOUNDARY = "word boundary"


@dataclass(frozen=True, slots=True)
class Chars:
    """One character from a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """All parts, one after the other; the empty text if there are none."""

    parts: tuple[RegexPart, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of the alternatives."""

    alternatives: tuple[RegexPart, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The part, `low` to `high` times; without an upper limit if `high` is `None`."""

    part: RegexPart
    low: int
    high: int | None


RegexPart: TypeAlias = Assertion | Chars | Sequence | Choice | Repeat


@dataclass(frozen=True, slots=True)
class Weight:
    """The cost of a part, with its repetitions written out.

    Attributes:
        size: characters, assertions and alternatives; RE2 may test all of them for each character of a text.
        optional: optional parts; PostgreSQL's compile time grows with its third power.
        assertions: with optional parts between them, they multiply PostgreSQL's work.
    """

    size: int = 0
    optional: int = 0
    assertions: int = 0

    def __add__(self, other: Weight) -> Weight:
        return Weight(self.size + other.size, self.optional + other.optional, self.assertions + other.assertions)

    def __mul__(self, times: int) -> Weight:
        return Weight(self.size * times, self.optional * times, self.assertions * times)


def weigh(part: RegexPart) -> Weight:
    """Return the cost of the part."""
    if isinstance(part, Sequence):
        return sum(map(weigh, part.parts), Weight())
    if isinstance(part, Choice):
        return sum(map(weigh, part.alternatives), Weight(len(part.alternatives), optional=int(may_be_empty(part))))
    if isinstance(part, Repeat):
        optional = part.low == 0 or part.high is None
        return weigh(part.part) * (part.high or part.low + 1) + Weight(optional=int(optional))
    return Weight(1, assertions=int(isinstance(part, Assertion)))


def may_be_empty(part: RegexPart) -> bool:
    """Whether the part can match without consuming a character."""
    if isinstance(part, Sequence):
        return all(map(may_be_empty, part.parts))
    if isinstance(part, Choice):
        return any(map(may_be_empty, part.alternatives))
    if isinstance(part, Repeat):
        return part.low == 0 or may_be_empty(part.part)
    return isinstance(part, Assertion)


_RE2: Final = {
    Assertion.TEXT_START: r"\A",
    Assertion.TEXT_END: r"\z",
    Assertion.LINE_START: "(?m:^)",
    Assertion.LINE_END: "(?m:$)",
    Assertion.WORD_BOUNDARY: r"\b",
}

# In PostgreSQL's mode (?w), ^ and $ match at lines, and newlines have no other special meaning.
_POSTGRESQL: Final = {
    Assertion.TEXT_START: r"\A",
    Assertion.TEXT_END: r"\Z",
    Assertion.LINE_START: "^",
    Assertion.LINE_END: "$",
    Assertion.WORD_BOUNDARY: r"\y",
}


def for_re2(part: RegexPart) -> str:
    """Return the pattern for RE2, without options."""
    return _render(part, _RE2, lambda code: f"\\x{{{code:X}}}")


def for_postgresql(part: RegexPart) -> str:
    """Return the pattern for PostgreSQL's operator `~` with the collation "C"."""
    return "(?w)" + _render(part, _POSTGRESQL, lambda code: f"\\U{code:08X}")


def _render(part: RegexPart, assertions: Mapping[Assertion, str], escape: Callable[[int], str]) -> str:
    if isinstance(part, Assertion):
        return assertions[part]
    if isinstance(part, Chars):
        return _render_chars(
            part, lambda code: chr(code) if chr(code).isascii() and chr(code).isalnum() else escape(code)
        )
    if isinstance(part, Sequence):
        return "".join(_render(item, assertions, escape) for item in part.parts)
    if isinstance(part, Choice):
        return "(?:" + "|".join(_render(item, assertions, escape) for item in part.alternatives) + ")"
    return f"(?:{_render(part.part, assertions, escape)}){_render_count(part)}"


def _render_chars(part: Chars, render: Callable[[int], str]) -> str:
    ((low, high), *others) = part.ranges
    if low == high and not others:
        return render(low)
    return (
        "[" + "".join(f"{render(low)}-{render(high)}" if low < high else render(low) for low, high in part.ranges) + "]"
    )


def _render_count(part: Repeat) -> str:
    high = "" if part.high is None else part.high
    return f"{{{part.low}}}" if part.low == high else f"{{{part.low},{high}}}"
