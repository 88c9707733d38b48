"""The expressions that an index holds, as the compiled filters and sorts have them too, else no index would serve them.

`pgdoc.sort_key` of the value at a path is text in MongoDB's order of all values, cut so that an index can hold it. It
says nothing of the items of arrays: a row whose path meets an array, at its end or on the way, is found through the
test for that, which is the condition of indexes of its own, on the keys of what is found there and on their span.

PostgreSQL knows an expression again by its constants, so paths are literals here, written without any character that
could end one. Values never are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.filters.nodes import has_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgdoc.query.filters.nodes import Operand, Path

MAX_PARTS: Final = 16
"""Of a path that can be indexed: the test for arrays names each part of it again for all that follow."""

WHOLE_TEXT: Final = 78
_WHOLE_NUMBER: Final = 60
"""Up to so many characters a text's key, and that of a number as it is written, holds all of it: none is cut below 80,
and a part of a text's key is its type; four digits of a number take four, beside nine for its size."""

_RANKS: Final = {"n": 1, '"': 3, "{": 4, "[": 5, "t": 6, "f": 6}
"""Of the type of a value, by the first character of its JSON text; all others are numbers."""

_UNSAFE: Final = re.compile(r"[^ -~]|['\\%]")


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL with psycopg's placeholders, and what goes into them."""

    text: str
    params: list[Any]


def joined(word: str, parts: Iterable[Compiled]) -> Compiled:
    """Put the parts in brackets, with the word between them."""
    every = list(parts)
    return Compiled(
        "(" + word.join(part.text for part in every) + ")", [item for part in every for item in part.params]
    )


def literal(text: str) -> str:
    """Write text as a constant: printable ASCII as it is, without quotes, backslashes and percent signs."""
    return "E'" + _UNSAFE.sub(lambda found: f"\\U{ord(found[0]):08X}", text) + "'"


@lru_cache(maxsize=1024)
def sort_key(path: Path) -> str:
    """Return what rows are sorted by."""
    return f'pgdoc.sort_key({_value(path)}) COLLATE "C"'


@lru_cache(maxsize=1024)
def sort_rest(path: Path) -> str:
    """Return what tells apart the values whose sort key was cut, and is null for all others."""
    return f'pgdoc.sort_rest({_value(path)}) COLLATE "C"'


@lru_cache(maxsize=1024)
def found_keys(path: Path) -> str:
    """Return the sort keys of all that a filter finds."""
    return f"pgdoc.found_keys(data, {_parts(path)})"


@lru_cache(maxsize=1024)
def key_span(path: Path) -> str:
    """Return the range from the least of these keys to the greatest."""
    return f"pgdoc.key_span(data, {_parts(path)})"


@lru_cache(maxsize=1024)
def meets_array(path: Path) -> str:
    """Return the condition that there is an array at the end of the path or on the way.

    A function, not the operator `@@`: PostgreSQL would try that on a hundred documents for every plan.
    """
    tests = (f'{jsonpath(path[:length])}.type() == "array"' for length in range(1, len(path) + 1))
    return f"jsonb_path_match(data, {literal(' || '.join(tests))}::jsonpath, '{{}}', true)"


@lru_cache(maxsize=1024)
def jsonpath(path: Path) -> str:
    """Return the path in PostgreSQL's language; a part of digits is a key there."""
    return "$" + "".join(map(step, path))


def step(part: str) -> str:
    """Return one part of a `jsonpath`."""
    return "." + json.dumps(part)


def tells_all(path: Path, operands: Iterable[Operand]) -> bool:
    """Whether to compare keys is to compare the values: none is cut, and the path has one value or meets an array."""
    return not has_index(path) and all(map(_is_whole, operands))


def _is_whole(operand: Operand) -> bool:
    value = operand.value
    if isinstance(value, str):
        return len(value) <= WHOLE_TEXT
    return isinstance(value, bool) or (isinstance(value, int | float | Decimal) and len(operand.text) <= _WHOLE_NUMBER)


def equals_key(path: Path, operands: Sequence[Operand]) -> Compiled:
    """Return the condition that the value, if it is one, has the key of one of the operands."""
    if len(operands) == 1:
        return _after(f"{sort_key(path)} = ", _key(operands[0]))
    return _after(f"{sort_key(path)} = ANY (", _keys(operands), ")")


def finds_key(path: Path, operands: Sequence[Operand]) -> Compiled:
    """Return the condition that the path meets an array, and what is found there has the key of an operand.

    The subquery keeps PostgreSQL from planning for the operand's own key: it would find that a little cheaper than a
    plan for all, which it could keep, and plan anew each time.
    """
    return _after(f"{meets_array(path)} AND {found_keys(path)} && (SELECT ", _keys(operands), ")")


def in_key_range(path: Path, bounds: Sequence[tuple[str, Operand]], *, strict: bool) -> Compiled:
    """Return the condition that the value, if it is one, stands to each operand as its operator says.

    Args:
        path: where the value is.
        bounds: operators, `<`, `<=`, `>` or `>=`, and their operands.
        strict: whether equal keys are of equal values; else one of them may have been cut.
    """
    ranks = {_rank(operand) for _, operand in bounds}
    has_ends = len(ranks) == 1 and {operator[0] for operator, _ in bounds} == {"<", ">"}
    parts = []
    for operator, operand in bounds:
        parts.append(_after(f"{sort_key(path)} {operator if strict else operator[0] + '='} ", _key(operand)))
        if not has_ends:  # keys begin with the rank of the type, which ends the range on its open side
            other = f"< '{_rank(operand) + 1}'" if ">" in operator else f">= '{_rank(operand)}'"
            parts.append(Compiled(f"{sort_key(path)} {other}", []))
    return joined(" AND ", parts)


def spans_key_range(path: Path, bounds: Sequence[tuple[str, Operand]]) -> Compiled:
    """Return the condition that the path meets an array, and for each bound some item may stand as it says."""
    parts = [Compiled(meets_array(path), [])]
    for operator, operand in bounds:
        key, rank = _key(operand), _rank(operand)
        if ">" in operator:
            parts.append(_after(f"{key_span(path)} && pgdoc.key_range(", key, f", '{rank + 1}')"))
        else:
            parts.append(_after(f"{key_span(path)} && pgdoc.key_range('{rank}', ", key, ", '[]')"))
    return joined(" AND ", parts)


def sorted_as_array(path: Path, *, at_end: bool) -> Compiled:
    """Return the condition that the document is sorted where arrays are, or where the array is on the way."""
    key, rank = sort_key(path), _RANKS["["]
    return Compiled(f"({key} >= '{rank}' AND {key} < '{rank + 1}')" if at_end else f"{key} = '{_RANKS['n']}'", [])


def _rank(operand: Operand) -> int:
    return _RANKS.get(operand.text[0], 2)


def _key(operand: Operand) -> Compiled:
    """Return the sort key; that of a number or of more than one value is made by the server."""
    value = operand.value
    if isinstance(value, str):
        return Compiled("%s::text", ["3" + value[: WHOLE_TEXT + 1]])
    if value is None or isinstance(value, bool):
        return Compiled("%s::text", ["1" if value is None else "61" if value else "60"])
    return Compiled("pgdoc.sort_key(%s::jsonb)", [operand.text])


def _keys(operands: Sequence[Operand]) -> Compiled:
    if len(operands) == 1:
        return _after("ARRAY[", _key(operands[0]), "]")
    keys = [_key(operand) for operand in operands]
    if all(key.text == "%s::text" for key in keys):
        return Compiled("%s::text[]", [[key.params[0] for key in keys]])
    return Compiled("pgdoc.sort_keys(%s::jsonb[])", [[operand.text for operand in operands]])


def _after(text: str, part: Compiled, end: str = "") -> Compiled:
    return Compiled(f"{text}{part.text}{end}", part.params)


def _value(path: Path) -> str:
    if has_index(path):
        return f"pgdoc.value_at(data, {_parts(path)})"
    return "data" + "".join(f" -> {literal(part)}::text" for part in path)


def _parts(path: Path) -> str:
    items = ('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in path)
    return f"{literal('{' + ','.join(items) + '}')}::text[]"
