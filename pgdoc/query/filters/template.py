"""Filters that differ in nothing but short texts and whole numbers are parsed and compiled once.

That is most of what is asked many times a second, and takes as long as the rest of such a call. The first filter of a
shape is compiled with marks in place of the values, by the same code as any other; what comes after has its values
written over the marks. So only values are taken that look the same in all that is made of them, JSON and sort keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.query.indexes.keys import WHOLE_TEXT, Compiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Shape: TypeAlias = tuple[Any, ...]
"""The paths of a filter, and of each value its kind."""

_MOST_PATHS: Final = 4
_LARGEST: Final = 10**15
_TEXT_MARK: Final = "=mark{}="
_NUMBER_MARK: Final = 918_273_645_000


def shape_of(wanted: Any) -> Shape | None:
    """Return the shape of a filter such as `{"status": "new", "shop": 7}`, or `None` for any other."""
    if type(wanted) is not dict or not 0 < len(wanted) <= _MOST_PATHS:
        return None
    kinds = []
    for value in wanted.values():
        kind = type(value)
        if kind is str:
            plain = value.isascii() and value.isprintable() and '"' not in value and "\\" not in value
            if not plain or len(value) > WHOLE_TEXT:
                return None
        elif kind is not int or not -_LARGEST < value < _LARGEST:
            return None
        kinds.append(kind)
    return (*wanted, *kinds)


def marked(shape: Shape) -> dict[str, Any] | None:
    """Return a filter of the shape with marks for values, or `None` where a path has something like a mark."""
    size = len(shape) // 2
    marks = {
        path: _TEXT_MARK.format(number) if kind is str else _NUMBER_MARK + number
        for number, (path, kind) in enumerate(zip(shape[:size], shape[size:], strict=True))
    }
    return None if any(str(mark) in str(path) for mark in marks.values() for path in marks) else marks


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a filter is compiled to.

    Attributes:
        parts: conditions of which a document meets one at most.
        in_turn: whether all documents of one come before those of the next in the order that is asked for.
    """

    parts: tuple[Compiled, ...]
    in_turn: bool


@dataclass(frozen=True, slots=True)
class Template:
    """Conditions that lack their values.

    Attributes:
        texts: the SQL of each.
        params: of each, what goes into it: a constant, or what stands before and after a value, with its number.
        in_turn: as `Conditions` have it.
    """

    texts: tuple[str, ...]
    params: tuple[tuple[tuple[Any, int, str], ...], ...]
    in_turn: bool

    @classmethod
    def of(cls, marks: Mapping[str, Any], conditions: Conditions) -> Template:
        """Find the marks in what the filter of marks was compiled to."""
        words = [str(mark) for mark in marks.values()]
        params = tuple(tuple(_split(param, words) for param in condition.params) for condition in conditions.parts)
        return cls(tuple(condition.text for condition in conditions.parts), params, conditions.in_turn)

    def filled(self, values: Iterable[Any]) -> Conditions:
        """Return the conditions for these values."""
        words = [str(value) for value in values]
        parts = tuple(
            Compiled(
                text, [before if number < 0 else before + words[number] + after for before, number, after in params]
            )
            for text, params in zip(self.texts, self.params, strict=True)
        )
        return Conditions(parts, self.in_turn)


def _split(param: Any, words: Sequence[str]) -> tuple[Any, int, str]:
    if isinstance(param, str):
        for number, word in enumerate(words):
            before, found, after = param.partition(word)
            if found:
                return before, number, after
    return param, -1, ""
