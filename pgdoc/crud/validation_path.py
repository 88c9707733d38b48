"""Translate a JSON Schema to a jsonpath that finds documents which do not conform, for the check of a table.

The path is strict, and its logic has three values. A term is true only where the value breaks a rule; it is unknown or
false where the value keeps it, or where the rule can't be translated. So the check never refuses what the schema
allows. Terms are combined, and never negated, which would turn "can't tell" into "broken".
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["resolve_pointer", "violation_path"]

_TYPES: Final = {
    "null": '@.type() == "null"',
    "boolean": '@.type() == "boolean"',
    "number": '@.type() == "number"',
    "integer": '(@.type() == "number" && @ % 1 == 0)',
    "string": '@.type() == "string"',
    "array": '@.type() == "array"',
    "object": '@.type() == "object"',
}
_MOST_REPEATS: Final = 255  # of one quantifier in a regular expression of PostgreSQL
_MOST_CHARACTERS: Final = 2_000  # a regular expression that counts more is too large for PostgreSQL
_DEEPEST: Final = 32
_LONGEST: Final = 200_000  # characters in all terms: references can repeat a part without end
_NEVER: Final = "1 == 0"
_ALWAYS: Final = "1 == 1"


def violation_path(schema: Mapping[str, Any] | bool) -> str | None:
    """Return the jsonpath; `None` if no rule of the schema can be translated."""
    term = _Translation(schema).of(schema, 0)
    return None if term == _NEVER else f"strict $ ? ({term})"


def resolve_pointer(root: Any, reference: str) -> Any:
    """Return the part of a schema that a `$ref` within it points to; `None` if it points to nothing."""
    node = root
    for part in unquote(reference.removeprefix("#")).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node


class _Translation:
    """The translation of one schema."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._open: list[str] = []  # the references that are being followed: one in a circle is not translated
        self._length = 0

    def of(self, schema: Any, depth: int) -> str:
        """Return the term that is true for a value `@` that breaks the schema."""
        if schema is False:
            return _ALWAYS
        if not isinstance(schema, dict) or depth > _DEEPEST or self._length > _LONGEST:
            return _NEVER
        term = self._of(schema, depth)
        self._length += len(term)
        return term

    def _of(self, schema: Mapping[str, Any], depth: int) -> str:
        terms = [term for keyword, rule in _RULES.items() if keyword in schema for term in rule(schema[keyword])]
        terms += self._object(schema, depth)
        terms += self._array(schema, depth)
        for part in schema.get("allOf", ()):
            terms.append(self.of(part, depth + 1))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                terms.append(_every(self.of(part, depth + 1) for part in schema[keyword]))
        if isinstance(schema.get("$ref"), str):
            terms.append(self._referenced(schema["$ref"], depth))
        return _any(terms)

    def _referenced(self, reference: str, depth: int) -> str:
        if (reference != "#" and not reference.startswith("#/")) or reference in self._open:
            return _NEVER
        self._open.append(reference)
        try:
            return self.of(resolve_pointer(self._root, reference), depth + 1)
        finally:
            self._open.pop()

    def _object(self, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        terms = [_missing(name) for name in schema.get("required", ())]
        for name, needed in schema.get("dependentRequired", {}).items():
            terms += [f"(exists({_member(name)}) && {_missing(other)})" for other in needed]
        for name, part in schema.get("properties", {}).items():
            terms.append(_found(_member(name), self.of(part, depth + 1)))
        if "additionalProperties" in schema and not schema.get("patternProperties"):
            others = [f"@.key != {_text(name)}" for name in schema.get("properties", {}) if _is_storable(name)]
            broken = self.of(schema["additionalProperties"], depth + 1)
            broken = broken if broken in {_NEVER, _ALWAYS} else f"exists(@.value ? ({broken}))"
            terms.append(_found("@.keyvalue()", _every([*others, broken])))
        if (term := _any(terms)) != _NEVER:
            yield f'(@.type() == "object" && {term})'

    def _array(self, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        first = schema.get("prefixItems", [])
        terms = [_found(f"@[{place}]", self.of(part, depth + 1)) for place, part in enumerate(first)]
        if "items" in schema:
            rest = f"@[{len(first)} to last]" if first else "@[*]"
            terms.append(_found(rest, self.of(schema["items"], depth + 1)))
        if (term := _any(terms)) != _NEVER:
            yield f'(@.type() == "array" && {term})'


def _type(wanted: str | list[str]) -> Iterator[str]:
    names = [wanted] if isinstance(wanted, str) else wanted
    yield f"!({' || '.join(_TYPES[name] for name in names)})"


def _enum(values: list[Any]) -> Iterator[str]:
    by_type: dict[str, list[str]] = {}
    for value in values:
        kind = _kind(value)
        by_type.setdefault(kind, [])
        if value in (math.inf, -math.inf):  # what Python reads for a number out of its range
            by_type[kind].append(_ALWAYS)
        elif kind in {"string", "number", "boolean"} and (not isinstance(value, str) or _is_storable(value)):
            by_type[kind].append(f"@ == {_text(value)}")
    parts = []
    for kind, equals in by_type.items():  # an object or array may be equal
        no_other = {"string", "number", "boolean"}
        term = _any(equals) if kind in no_other else _ALWAYS
        parts.append(f'(@.type() == "{kind}" && {term})')
    yield f"!{_any(parts)}" if len(parts) > 1 else f"!({_any(parts)})"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    kinds: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "number")


def _compared(symbol: str) -> Callable[[Any], Iterator[str]]:
    """Return the rule that is broken by numbers that compare so with the limit."""

    def rule(limit: Any) -> Iterator[str]:
        if abs(limit) != math.inf:  # what Python reads for a number out of its range
            yield f'(@.type() == "number" && @ {symbol} {_text(limit)})'

    return rule


def _multiple(factor: Any) -> Iterator[str]:
    if isinstance(factor, int):  # Python divides by a fraction inexactly
        yield f'(@.type() == "number" && @ % {_text(factor)} != 0)'


def _min_length(length: Any) -> Iterator[str]:
    if 0 < length <= _MOST_CHARACTERS:
        yield f'(@.type() == "string" && !(@ like_regex "^{_characters(int(length), "{{{0}}}")}" flag "s"))'


def _max_length(length: Any) -> Iterator[str]:
    if length <= _MOST_CHARACTERS:
        yield f'(@.type() == "string" && !(@ like_regex "^{_characters(int(length), "{{0,{0}}}")}$" flag "s"))'


def _characters(length: int, quantifier: str) -> str:
    whole, rest = divmod(length, _MOST_REPEATS)
    return "".join([*["." + quantifier.format(_MOST_REPEATS)] * whole, "." + quantifier.format(rest)])


def _size(symbol: str) -> Callable[[Any], Iterator[str]]:
    """Return the rule that is broken by arrays whose size compares so with the limit."""

    def rule(limit: Any) -> Iterator[str]:
        yield f'(@.type() == "array" && @.size() {symbol} {_text(limit)})'

    return rule


def _const(value: Any) -> Iterator[str]:
    return _enum([value])


_RULES: Final[dict[str, Callable[[Any], Iterator[str]]]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _compared("<"),
    "maximum": _compared(">"),
    "exclusiveMinimum": _compared("<="),
    "exclusiveMaximum": _compared(">="),
    "multipleOf": _multiple,
    "minLength": _min_length,
    "maxLength": _max_length,
    "minItems": _size("<"),
    "maxItems": _size(">"),
}


def _any(terms: list[str]) -> str:
    """Return a term that is true if one of the terms is."""
    if _ALWAYS in terms:
        return _ALWAYS
    kept = list(dict.fromkeys(term for term in terms if term != _NEVER))
    return _NEVER if not kept else kept[0] if len(kept) == 1 else f"({' || '.join(kept)})"


def _every(terms: Iterator[str] | list[str]) -> str:
    """Return a term that is true if all terms are."""
    every = list(terms)
    if _NEVER in every:
        return _NEVER
    kept = list(dict.fromkeys(term for term in every if term != _ALWAYS))
    return _ALWAYS if not kept else kept[0] if len(kept) == 1 else f"({' && '.join(kept)})"


def _found(values: str, broken: str) -> str:
    """Return a term that is true if one of the values breaks its rule."""
    if broken == _NEVER:
        return _NEVER
    return f"exists({values})" if broken == _ALWAYS else f"exists({values} ? ({broken}))"


def _missing(name: str) -> str:
    """Return a term that is true for an object without this key: strict paths can't tell whether it exists."""
    return f"((exists({_member(name)})) is unknown)"


def _member(name: str) -> str:
    return f"@.{_text(name)}" if _is_storable(name) else '@."pgdoc: no document has this key"'


def _is_storable(text: str) -> bool:
    """Whether jsonb can hold the text, and so jsonpath can name it."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _text(value: Any) -> str:
    """Write a scalar as jsonpath, which has JSON's texts and numbers."""
    return json.dumps(value)
