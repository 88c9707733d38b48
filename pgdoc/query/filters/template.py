"""Parse and compile only once the filters that differ in nothing but short texts and integers.

These are most filters of a busy application, and compiling one takes as long as the rest of its call. The first filter
of a shape is compiled with placeholders as its values; in later filters of that shape, their values replace the
placeholders. So a shape covers only values that are written alike in everything they are compiled to: JSON, jsonpath
and sort keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.query.filters.key_sql import WHOLE_TEXT
from pgdoc.query.filters.sql_text import Compiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Shape: TypeAlias = tuple[Any, ...]
"""The paths of a filter, then the type of each value."""

_MAX_PATHS: Final = 4
_INTEGER_LIMIT: Final = 10**15
_TEXT_PLACEHOLDER: Final = "=mark{}="
_INTEGER_PLACEHOLDER: Final = 918_273_645_000


def shape_of(wanted: Any) -> Shape | None:
    """Return the shape of a filter such as `{"status": "new", "shop": 7}`, or `None` if it has none."""
    if type(wanted) is not dict or not 0 < len(wanted) <= _MAX_PATHS:
        return None
    types = []
    for value in wanted.values():
        kind = type(value)
        if kind is str:
            plain = value.isascii() and value.isprintable() and '"' not in value and "\\" not in value
            if not plain or len(value) > WHOLE_TEXT:
                return None
        elif kind is not int or not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
            return None
        types.append(kind)
    return (*wanted, *types)


def with_placeholders(shape: Shape) -> dict[str, Any] | None:
    """Return a filter of the shape with placeholders as values; `None` if a path contains one."""
    size = len(shape) // 2
    filter_ = {
        path: _TEXT_PLACEHOLDER.format(number) if kind is str else _INTEGER_PLACEHOLDER + number
        for number, (path, kind) in enumerate(zip(shape[:size], shape[size:], strict=True))
    }
    is_ambiguous = any(str(placeholder) in str(path) for placeholder in filter_.values() for path in filter_)
    return None if is_ambiguous else filter_


@dataclass(frozen=True, slots=True)
class Conditions:
    """A compiled filter: conditions of which a document meets at most one.

    Attributes:
        in_turn: whether all documents of one condition come before those of the next in the requested order.
    """

    parts: tuple[Compiled, ...]
    in_turn: bool


@dataclass(frozen=True, slots=True)
class Template:
    """Conditions without their values.

    Attributes:
        params: for each condition and parameter, a constant with the number -1, or the text before a value, the number
            of the value, and the text after it.
    """

    texts: tuple[str, ...]
    params: tuple[tuple[tuple[Any, int, str], ...], ...]
    in_turn: bool

    @classmethod
    def of(cls, placeholders: Mapping[str, Any], conditions: Conditions) -> Template:
        """Find the placeholders in the conditions that their filter was compiled to."""
        words = [str(placeholder) for placeholder in placeholders.values()]
        params = tuple(tuple(_split(param, words) for param in condition.params) for condition in conditions.parts)
        return cls(tuple(condition.text for condition in conditions.parts), params, conditions.in_turn)

    def params_for(self, values: Iterable[Any]) -> list[Any]:
        """Return the parameters of all conditions for these values."""
        words = [str(value) for value in values]
        return [
            before if number < 0 else before + words[number] + after
            for params in self.params
            for before, number, after in params
        ]

    def fill(self, values: Iterable[Any]) -> Conditions:
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
