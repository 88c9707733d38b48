"""Sort keys as SQL: the expressions that indexes store, and conditions on them.

`pgdoc.sort_key(value)` is a text that sorts in MongoDB's order of all values, truncated so that an index entry can hold
it. It does not cover the items of arrays. `has_array` finds the rows whose path meets an array, at its end or on the
way; it is the predicate of two more indexes: on the keys of all values found there, and on the span of those keys.

PostgreSQL uses an index only if the query repeats its expression, constants included. So filters and sorts compile to
these very expressions, with paths as constants; `literal` makes sure that no path can end its constant. Values are
always parameters.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pgdoc.query.filters.nodes import has_array_index
from pgdoc.query.filters.sql_text import EQUALS, Compiled, join, jsonpath, literal, operator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgdoc.query.filters.nodes import Operand, Path

_OVERLAPS: Final = operator("&&")
_FIELD: Final = operator("->")

ID: Final = 'id COLLATE pg_catalog."C"'
"""The expression that rows are sorted by last."""

MAX_PARTS: Final = 16
"""The most parts of a path that can be indexed: the test for arrays grows with the square of their number."""

# `pgdoc.sort_key` truncates keys to 80 characters. A text's key is the rank of its type, one character, and the text. A
# number's key has four characters for four digits, and nine for its size.
WHOLE_TEXT: Final = 78
"""The most characters of a text whose key holds all of it."""

_WHOLE_NUMBER: Final = 60
"""The most characters of a number, as it is written, whose key holds all of it."""

_RANKS: Final = {"n": 1, '"': 3, "{": 4, "[": 5, "t": 6, "f": 6}
"""The rank of a value's type, by the first character of its JSON text; all other characters start a number."""


@lru_cache(maxsize=1024)
def sort_key(path: Path, collation: str | None = None) -> str:
    """Return the expression that rows are sorted by."""
    return f'pgdoc.sort_key({_value(path, collation)}) COLLATE pg_catalog."C"'


def value_sql(path: Path) -> str:
    """Return the expression for the value at a path, which is null if there is none; for `_id`, the id."""
    return "pg_catalog.to_jsonb(id)" if path == ("_id",) else _value(path, None)


@lru_cache(maxsize=1024)
def sort_rest(path: Path, collation: str | None = None) -> str:
    """Return the expression for the full key of a truncated sort key; it is null for a whole one."""
    return f'pgdoc.sort_rest({_value(path, collation)}) COLLATE pg_catalog."C"'


@lru_cache(maxsize=1024)
def found_keys(path: Path, collation: str | None = None) -> str:
    """Return the expression for the keys of all values that a filter tests at the path."""
    return f"pgdoc.found_keys({_data(path, collation)}, {_parts(path)})"


@lru_cache(maxsize=1024)
def key_span(path: Path, collation: str | None = None) -> str:
    """Return the expression for the range of the `found_keys`."""
    return f"pgdoc.key_span({_data(path, collation)}, {_parts(path)})"


def expiry_time(path: Path) -> str:
    """Return the expression for the time by which documents expire."""
    return f"pgdoc.expiry_time(data, {_parts(path)})"


@lru_cache(maxsize=1024)
def has_array(path: Path) -> str:
    """Return the condition that the path meets an array, at its end or on the way."""
    tests = (f'{jsonpath(path[:length])}.type() == "array"' for length in range(1, len(path) + 1))
    # A function, not the operator @@: to estimate its selectivity, the planner would run @@ on a hundred sampled
    # documents each time it plans.
    return f"pg_catalog.jsonb_path_match(data, {literal(' || '.join(tests))}::pg_catalog.jsonpath, '{{}}', true)"


def keys_suffice(path: Path, operands: Iterable[Operand]) -> bool:
    """Whether comparing keys is as good as comparing values.

    It is if no operand's key is truncated, and the path has one value or meets an array (with an array index in the
    path, both can hold).
    """
    return not has_array_index(path) and all(map(is_whole, operands))


def is_whole(operand: Operand) -> bool:
    """Whether the operand's key is not truncated, as far as Python can tell."""
    value = operand.value
    if isinstance(value, str):
        return len(value) <= WHOLE_TEXT
    return isinstance(value, bool) or (isinstance(value, int | float | Decimal) and len(operand.text) <= _WHOLE_NUMBER)


def key_equals(path: Path, operands: Sequence[Operand], collation: str | None) -> Compiled:
    """Return the condition that the path's own key, not that of an array's item, is an operand's."""
    if len(operands) == 1:
        return _wrap(f"{sort_key(path, collation)} {EQUALS} ", key_of(operands[0]))
    return _wrap(f"{sort_key(path, collation)} {EQUALS} ANY (", _keys(operands), ")")


MOST_ITEM_KEYS: Final = 1_000
"""The most keys to look up in a GIN index of items: it compares all of them for each document that it finds."""


def item_key_equals(path: Path, operands: Sequence[Operand], collation: str | None) -> Compiled:
    """Return the condition that the path meets an array, and a value found there has the key of an operand."""
    # The subquery hides the key from the planner. Otherwise a plan for this one key looks slightly cheaper than the
    # generic plan, which PostgreSQL could keep, and it plans anew on each execution.
    found = found_keys(path, collation)
    return _wrap(f"{has_array(path)} AND {found} {_OVERLAPS} (SELECT ", _keys(operands), ")")


def key_in_range(path: Path, bounds: Sequence[tuple[str, Operand]], collation: str | None, *, strict: bool) -> Compiled:
    """Return the condition that the path's own key, not that of an array's item, is within all bounds.

    A bound is an operator (`<`, `<=`, `>` or `>=`) and its operand. `strict` means that equal keys are equal values;
    otherwise a key may be truncated, so the bounds include it.
    """
    ranks = {rank_of(operand) for _, operand in bounds}
    has_ends = len(ranks) == 1 and {symbol[0] for symbol, _ in bounds} == {"<", ">"}
    own, parts = sort_key(path, collation), []
    for symbol, operand in bounds:
        parts.append(_wrap(f"{own} {operator(symbol if strict else symbol[0] + '=')} ", key_of(operand)))
        if not has_ends:  # a key starts with the rank of its type, which bounds the open end of the range
            other, rank = ("<", rank_of(operand) + 1) if ">" in symbol else (">=", rank_of(operand))
            parts.append(Compiled(f"{own} {operator(other)} '{rank}'", []))
    return join(" AND ", parts)


def item_key_in_range(path: Path, bounds: Sequence[tuple[str, Operand]], collation: str | None) -> Compiled:
    """Return the condition that the path meets an array, and for each bound some value found there may be within it."""
    span, parts = key_span(path, collation), [Compiled(has_array(path), [])]
    for symbol, operand in bounds:
        key, rank = key_of(operand), rank_of(operand)
        if ">" in symbol:
            parts.append(_wrap(f"{span} {_OVERLAPS} pgdoc.key_range(", key, f", '{rank + 1}')"))
        else:
            parts.append(_wrap(f"{span} {_OVERLAPS} pgdoc.key_range('{rank}', ", key, ", '[]')"))
    return join(" AND ", parts)


def sorts_as_array(path: Path, collation: str | None, *, at_end: bool) -> Compiled:
    """Return the condition that the document sorts among arrays; without `at_end`, as if the value were missing."""
    key, rank = sort_key(path, collation), _RANKS["["]
    if not at_end:
        return Compiled(f"{key} {EQUALS} '{_RANKS['n']}'", [])
    return Compiled(f"({key} {operator('>=')} '{rank}' AND {key} {operator('<')} '{rank + 1}')", [])


def rank_of(operand: Operand) -> int:
    """Return the rank of the operand's type in the order of all values, with which its key begins."""
    return _RANKS.get(operand.text[0], 2)


def key_of(operand: Operand) -> Compiled:
    """Return the sort key of the operand; the server computes the keys of numbers, objects and arrays."""
    value = operand.value
    if isinstance(value, str):
        return Compiled("%s::pg_catalog.text", [_key_of_text(value)])
    if value is None or isinstance(value, bool):
        return Compiled("%s::pg_catalog.text", ["1" if value is None else "61" if value else "60"])
    return Compiled("pgdoc.sort_key(%s::pg_catalog.jsonb)", [operand.text])


def _key_of_text(text: str) -> str:
    return "3" + text[: WHOLE_TEXT + 1]


def _keys(operands: Sequence[Operand]) -> Compiled:
    if len(operands) == 1:
        return _wrap("ARRAY[", key_of(operands[0]), "]")
    texts = [operand.value for operand in operands if isinstance(operand.value, str)]
    if len(texts) == len(operands):  # most lists
        return Compiled("%s::pg_catalog.text[]", [list(map(_key_of_text, texts))])
    keys = [key_of(operand) for operand in operands]
    if all(key.text == "%s::pg_catalog.text" for key in keys):
        return Compiled("%s::pg_catalog.text[]", [[key.params[0] for key in keys]])
    return Compiled("pgdoc.sort_keys(%s::pg_catalog.jsonb[])", [[operand.text for operand in operands]])


def _wrap(before: str, part: Compiled, after: str = "") -> Compiled:
    return Compiled(f"{before}{part.text}{after}", part.params)


def _value(path: Path, collation: str | None) -> str:
    if has_array_index(path):
        value = f"pgdoc.value_at(data, {_parts(path)})"
    else:
        value = "data" + "".join(f" {_FIELD} {literal(part)}::pg_catalog.text" for part in path)
    return value if collation is None else f"pgdoc.collated({value}, {literal(collation)})"


def _data(path: Path, collation: str | None) -> str:
    """Return the document, or its part on the path with all texts folded."""
    if collation is None:
        return "data"
    return f"pgdoc.collated_field(data, {literal(path[0])}::pg_catalog.text, {literal(collation)})"


def _parts(path: Path) -> str:
    items = ('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in path)
    return f"{literal('{' + ','.join(items) + '}')}::pg_catalog.text[]"
