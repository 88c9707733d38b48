"""The filter language and sorts as SQL over the columns `id` and `data` of a collection's table.

Most tests become one jsonpath, whose lax mode walks arrays as MongoDB does and which a GIN index on `data` can serve.
jsonpath can't compare objects and arrays, and takes `[0]` of an object for the object itself; where an operand or a
path needs that, `pgdoc.values_at` walks instead. Values and paths are parameters, never part of the text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.match import matches
from pgdoc.query.nodes import And, Equal, Exists, Field, In, Node, Not, Operand, Or, Ordered, Path, SortKey, has_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL with psycopg's placeholders, and what goes into them."""

    text: str
    params: list[Any]


def compile_filter(node: Node) -> Compiled:
    """Compile to a condition; like any condition of SQL it may be null instead of false."""
    build: Callable[[Any], Compiled] = _COMPILERS[type(node)]
    return build(node)


def _compile_and(node: And) -> Compiled:
    return _join(" AND ", map(compile_filter, node.nodes)) if node.nodes else Compiled("TRUE", [])


def _compile_or(node: Or) -> Compiled:
    return _join(" OR ", map(compile_filter, node.nodes))


def _compile_not(node: Not) -> Compiled:
    inner = compile_filter(node.node)
    return Compiled(f"({inner.text}) IS NOT TRUE", inner.params)


def _join(word: str, parts: Iterable[Compiled]) -> Compiled:
    joined = list(parts)
    return Compiled(
        "(" + word.join(part.text for part in joined) + ")", [item for part in joined for item in part.params]
    )


def _compile_equal(node: Equal) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, "id = %s", [node.operand])
    if _is_scalar(node.operand) and not has_index(node.path):
        return _jsonpath_match(_jsonpath_equal(node))
    if node.operand.value is None:
        return _found_at(node.path, "value IS NULL OR value = 'null'", [])
    return _found_at(node.path, "value = %s::jsonb", [node.operand.text])


def _compile_ordered(node: Ordered) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, f'id COLLATE "C" {node.operator} %s', [node.operand])
    if node.operand.value is None:
        return _compile_equal(Equal(node.path, node.operand)) if "=" in node.operator else Compiled("FALSE", [])
    if _is_scalar(node.operand) and not has_index(node.path):
        return _jsonpath_match(f"{_jsonpath(node.path)} {node.operator} {node.operand.text}")
    condition = (
        f"pgdoc.type_rank(value) = pgdoc.type_rank(%s::jsonb) AND pgdoc.compare(value, %s::jsonb) {node.operator} 0"
    )
    return _found_at(node.path, condition, [node.operand.text, node.operand.text])


def _compile_in(node: In) -> Compiled:
    """Scalars are looked up together, so that a long list costs little; the others are tests of their own."""
    together = [item for item in node.operands if _is_scalar(item) and item.value is not None]
    alone = [Equal(node.path, item) for item in node.operands if not _is_scalar(item) or item.value is None]
    parts = [_compile_equal(item) for item in alone]
    if together:
        parts.append(_compile_lookup(node.path, together))
    return _join(" OR ", parts) if parts else Compiled("FALSE", [])


def _compile_lookup(path: Path, operands: list[Operand]) -> Compiled:
    if path[0] == "_id":
        return _compile_ids(path, operands)
    texts = [item.text for item in operands]
    if has_index(path):
        return _found_at(path, "value = ANY(%s::jsonb[])", [texts])
    text = "EXISTS (SELECT FROM jsonb_path_query(data, %s::jsonpath) AS found(value) WHERE value = ANY(%s::jsonb[]))"
    return Compiled(text, [f"{_jsonpath(path)}[*]", texts])


def _compile_exists(node: Exists) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, "TRUE", [])
    if has_index(node.path):
        return _found_at(node.path, "value IS NOT NULL", [])
    return Compiled("data @? %s::jsonpath", [_jsonpath(node.path)])


_COMPILERS: Final[Mapping[type, Callable[[Any], Compiled]]] = {
    And: _compile_and,
    Or: _compile_or,
    Not: _compile_not,
    Equal: _compile_equal,
    In: _compile_in,
    Ordered: _compile_ordered,
    Exists: _compile_exists,
}


def _compile_id(node: Field, text: str, operands: list[Operand]) -> Compiled:
    """Below the id, or against anything but text, the answer is the same for every document."""
    if len(node.path) > 1 or not all(isinstance(item.value, str) for item in operands):
        return Compiled("TRUE" if matches(node, "any", {}) else "FALSE", [])
    return Compiled(text, [item.value for item in operands])


def _compile_ids(path: Path, operands: list[Operand]) -> Compiled:
    ids = [item.value for item in operands if isinstance(item.value, str)]
    return Compiled("id = ANY(%s::text[])", [ids]) if len(path) == 1 else Compiled("FALSE", [])


def _is_scalar(operand: Operand) -> bool:
    return operand.value is None or isinstance(operand.value, str | bool | int | float | Decimal)


def _found_at(path: Path, condition: str, params: list[Any]) -> Compiled:
    text = f"EXISTS (SELECT FROM pgdoc.values_at(data, %s::text[]) AS found(value) WHERE {condition})"
    return Compiled(text, [list(path), *params])


def _jsonpath_match(predicate: str) -> Compiled:
    return Compiled("data @@ %s::jsonpath", [predicate])


def _jsonpath(path: Path) -> str:
    return "$" + "".join(map(_step, path))


def _step(part: str) -> str:
    return "." + json.dumps(part)


def _jsonpath_equal(node: Equal) -> str:
    equal = f"{_jsonpath(node.path)} == {node.operand.text}"
    return equal if node.operand.value is not None else " || ".join([equal, *_jsonpath_missing(node.path)])


def _jsonpath_missing(path: Path) -> list[str]:
    """All the ways in which a path misses: no such field in an object on the way, or no object but a scalar there."""
    ways = [f"!exists({_jsonpath(path[:1])})"]
    for length in range(1, len(path)):
        above = _jsonpath(path[:length])
        ways.append(f'exists({above} ? (@.type() == "object" && !exists(@{_step(path[length])})))')
        ways.append(f'exists({above}.type() ? (@ != "object" && @ != "array"))')
    return ways


_SORT_KEYS: Final = (
    "COALESCE(pgdoc.type_rank({value}), 1)",
    "CASE jsonb_typeof({value}) WHEN 'number' THEN {value}::numeric END",
    "CASE jsonb_typeof({value}) WHEN 'number' THEN NULL ELSE {value} #>> '{{}}' END COLLATE \"C\"",
)


def compile_sort(sort: tuple[SortKey, ...]) -> Compiled:
    """Compile to what stands after ORDER BY; empty where no order is asked for. Equal documents go by their id.

    Missing goes as null; then numbers, text by code point, objects, arrays, booleans.
    """
    parts = [_compile_key(key) for key in sort]
    if parts and all(key.path != ("_id",) for key in sort):
        parts.append(Compiled('id COLLATE "C"', []))
    return Compiled(", ".join(part.text for part in parts), [item for part in parts for item in part.params])


def _compile_key(key: SortKey) -> Compiled:
    direction = " DESC" if key.descending else ""
    if key.path == ("_id",):
        return Compiled(f'id COLLATE "C"{direction}', [])
    # PostgreSQL's own operator is quicker, and reads more as an index than MongoDB does ("-1", "01").
    has_digit = any(map(str.isdigit, "".join(key.path[1:])))
    value = "pgdoc.value_at(data, %s::text[])" if has_digit else "(data #> %s::text[])"
    text = ", ".join(part.format(value=value) + direction for part in _SORT_KEYS)
    return Compiled(text, [list(key.path)] * text.count("%s"))
