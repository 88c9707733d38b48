"""The filter language and sorts as SQL over the columns `id` and `data` of a collection's table.

Most tests become one jsonpath, whose lax mode walks arrays as MongoDB does and which a GIN index on `data` can serve.
jsonpath can't compare objects and arrays, and takes `[0]` of an object for the object itself; where an operand or a
path needs that, `pgdoc.values_at` walks instead. Values and patterns are parameters, never part of the text.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.filters.match import matches
from pgdoc.query.filters.nodes import (
    And,
    AnyElement,
    ByKey,
    Equal,
    Exists,
    Field,
    HasSize,
    HasType,
    In,
    Lookup,
    Matches,
    Node,
    Not,
    Operand,
    Or,
    Ordered,
    Path,
    Remainder,
    SortKey,
    has_index,
)
from pgdoc.query.filters.value_sql import condition
from pgdoc.query.indexes.keys import (
    Compiled,
    equals_key,
    finds_key,
    in_key_range,
    jsonpath,
    meets_array,
    sort_key,
    sort_rest,
    sorted_as_array,
    spans_key_range,
    step,
    tells_all,
)
from pgdoc.query.indexes.keys import joined as _join

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


__all__ = ["Compiled", "compile_filter", "compile_sort"]

_SHORT_LIST: Final = 16
"""How many operands of `$in` go into one jsonpath, which a GIN index on all of `data` can serve."""

_MATCHES: Final = "data @@ %s::jsonpath"


def compile_filter(node: Node) -> Compiled:
    """Compile to a condition; like any condition of SQL it may be null instead of false."""
    if isinstance(node, (And, Or, Not, ByKey)) or node.path:
        return _COMPILERS[type(node)](node)
    return _condition(node)


def _condition(node: Field) -> Compiled:
    """Compile what is said of one value, the column `value`."""
    return _any_element(node) if isinstance(node, AnyElement) else condition(node)


def _any_element(node: AnyElement) -> Compiled:
    """Names of the inner condition mean the element: its `data` is a document made of it, its `value` itself."""
    inner = compile_filter(node.node)
    elements = "pgdoc.element_documents(value) AS element(data)"
    if not node.whole:
        elements = "jsonb_array_elements(value) AS element(value)"
    exists = f"EXISTS (SELECT FROM {elements} WHERE {inner.text})"
    return Compiled(f"CASE jsonb_typeof(value) WHEN 'array' THEN {exists} END", inner.params)


def _compile_and(node: And) -> Compiled:
    if len(node.nodes) == 1:
        return compile_filter(node.nodes[0])
    return _join(" AND ", map(compile_filter, node.nodes)) if node.nodes else Compiled("TRUE", [])


def _compile_or(node: Or) -> Compiled:
    return _join(" OR ", map(compile_filter, node.nodes))


def _compile_not(node: Not) -> Compiled:
    inner = compile_filter(node.node)
    return Compiled(f"({inner.text}) IS NOT TRUE", inner.params)


def _compile_by_key(node: ByKey) -> Compiled:
    """The exact conditions stand beside the keys where those do not tell all."""
    if node.side == "exact":
        return _join(" AND ", map(_exact, node.nodes))
    operands = _operands(node.nodes)
    whole, bounds = (
        tells_all(node.path, operands),
        [(part.operator, part.operand) for part in node.nodes if isinstance(part, Ordered)],
    )
    told = whole and not bounds  # of arrays too: their items stand in a range each for itself
    parts = []
    if node.side in {"either", "value"}:
        parts.append(in_key_range(node.path, bounds, strict=whole) if bounds else equals_key(node.path, operands))
    if node.side != "value":
        parts.append(spans_key_range(node.path, bounds) if bounds else finds_key(node.path, operands))
    if node.side in {"through", "ending"}:
        parts = [_join(" AND ", [*parts, sorted_as_array(node.path, at_end=node.side == "ending")])]
    either = parts[0] if len(parts) == 1 else _join(" OR ", parts)
    if told or (whole and node.side == "value"):
        return either
    exact = [either, *map(_exact, node.nodes)]
    if node.side == "value":
        exact.append(Compiled(f"{meets_array(node.path)} IS NOT TRUE", []))
    return _join(" AND ", exact)


def _operands(nodes: tuple[Lookup, ...]) -> list[Operand]:
    if isinstance(nodes[0], In):
        return list(nodes[0].operands)
    return [node.operand for node in nodes if not isinstance(node, In)]


def _exact(node: Lookup) -> Compiled:
    """Compile without a thought for indexes; a function for `@@`, as for the test for arrays."""
    compiled = compile_filter(node)
    if compiled.text != _MATCHES:
        return compiled
    return Compiled("jsonb_path_match(data, %s::jsonpath, '{}', true)", compiled.params)


def _compile_equal(node: Equal) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, "id = %s", [node.operand])
    return _equals(node)


def _equals(node: Equal) -> Compiled:
    if _is_scalar(node.operand) and not has_index(node.path):
        return _jsonpath_match(_jsonpath_equal(node))
    if node.operand.value is None:
        return _found_at(node.path, "value IS NULL OR value = 'null'", [])
    return _found_at(node.path, "value = %s::jsonb", [node.operand.text])


def _compile_ordered(node: Ordered) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, f'id COLLATE "C" {node.operator} %s', [node.operand])
    if node.operand.value is None:
        return _equals(Equal(node.path, node.operand)) if "=" in node.operator else Compiled("FALSE", [])
    if _is_scalar(node.operand) and not has_index(node.path):
        return _jsonpath_match(f"{jsonpath(node.path)} {node.operator} {node.operand.text}")
    return _found(node)


def _compile_in(node: In) -> Compiled:
    """Scalars are looked up together, so that a long list costs little; the others are tests of their own."""
    if not node.operands:
        return Compiled("FALSE", [])
    if node.path[0] == "_id":
        return _compile_ids(node.path, node.operands)
    together = [item for item in node.operands if _is_scalar(item) and item.value is not None]
    alone = [Equal(node.path, item) for item in node.operands if not _is_scalar(item) or item.value is None]
    parts = [_equals(item) for item in alone]
    if together:
        parts.append(_lookup(node.path, together))
    return _join(" OR ", parts)


def _lookup(path: Path, operands: list[Operand]) -> Compiled:
    texts = [item.text for item in operands]
    if has_index(path):
        return _found_at(path, "value = ANY(%s::jsonb[])", [texts])
    if len(texts) <= _SHORT_LIST:
        return _jsonpath_match(" || ".join(f"{jsonpath(path)} == {text}" for text in texts))
    text = "EXISTS (SELECT FROM jsonb_path_query(data, %s::jsonpath) AS found(value) WHERE value = ANY(%s::jsonb[]))"
    return Compiled(text, [f"{jsonpath(path)}[*]", texts])


def _compile_exists(node: Exists) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, "TRUE", [])
    if has_index(node.path):
        return _found(node)
    return Compiled("data @? %s::jsonpath", [jsonpath(node.path)])


def _compile_scalar(node: HasType | Remainder) -> Compiled:
    """Where only scalars can match, an array stands for its items alone, and what is missing does not count."""
    if node.path[0] == "_id":
        return _constant(node)
    if has_index(node.path) or (isinstance(node, HasType) and "array" in node.types):
        return _found(node)
    return _found_by(node, jsonpath(node.path) + "[*]")


def _compile_pattern(node: Matches) -> Compiled:
    if node.path == ("_id",):
        return Compiled('id COLLATE "C" ~ %s::text', [node.pattern.postgresql])
    if node.path[0] == "_id":
        return _constant(node)
    return _found(node) if has_index(node.path) else _found_by(node, jsonpath(node.path) + "[*]")


def _compile_array(node: HasSize | AnyElement) -> Compiled:
    if node.path[0] == "_id":
        return _constant(node)
    if not has_index(node.path):
        return _found_by(node, jsonpath(node.path))
    inner = _condition(node)
    text = f"EXISTS (SELECT FROM pgdoc.ends_at(data, %s::text[]) AS found(value) WHERE {inner.text})"
    return Compiled(text, [list(node.path), *inner.params])


def _found(node: Field) -> Compiled:
    inner = _condition(node)
    return _found_at(node.path, inner.text, inner.params)


def _found_by(node: Field, found: str) -> Compiled:
    inner = _condition(node)
    text = f"EXISTS (SELECT FROM jsonb_path_query(data, %s::jsonpath) AS found(value) WHERE {inner.text})"
    return Compiled(text, [found, *inner.params])


_COMPILERS: Final[Mapping[type, Callable[[Any], Compiled]]] = {
    And: _compile_and,
    Or: _compile_or,
    Not: _compile_not,
    ByKey: _compile_by_key,
    Equal: _compile_equal,
    In: _compile_in,
    Ordered: _compile_ordered,
    Exists: _compile_exists,
    HasType: _compile_scalar,
    HasSize: _compile_array,
    Matches: _compile_pattern,
    Remainder: _compile_scalar,
    AnyElement: _compile_array,
}


def _compile_id(node: Field, text: str, operands: list[Operand]) -> Compiled:
    """Below the id, or against anything but text, the answer is the same for every document."""
    if len(node.path) > 1 or not all(isinstance(item.value, str) for item in operands):
        return _constant(node)
    return Compiled(text, [item.value for item in operands])


def _constant(node: Field) -> Compiled:
    """Compile what is the same for every id, which is text and has nothing below it."""
    return Compiled("TRUE" if matches(node, "any", {}) else "FALSE", [])


def _compile_ids(path: Path, operands: tuple[Operand, ...]) -> Compiled:
    ids = [item.value for item in operands if isinstance(item.value, str)]
    if len(path) == 1:
        return Compiled("id = ANY(%s::text[])", [ids])
    return Compiled("TRUE" if any(item.value is None for item in operands) else "FALSE", [])


def _is_scalar(operand: Operand) -> bool:
    return operand.value is None or isinstance(operand.value, str | bool | int | float | Decimal)


def _found_at(path: Path, condition: str, params: list[Any]) -> Compiled:
    text = f"EXISTS (SELECT FROM pgdoc.values_at(data, %s::text[]) AS found(value) WHERE {condition})"
    return Compiled(text, [list(path), *params])


def _jsonpath_match(predicate: str) -> Compiled:
    return Compiled(_MATCHES, [predicate])


def _jsonpath_equal(node: Equal) -> str:
    equal = f"{jsonpath(node.path)} == {node.operand.text}"
    return equal if node.operand.value is not None else " || ".join([equal, *_jsonpath_missing(node.path)])


def _jsonpath_missing(path: Path) -> list[str]:
    """All the ways in which a path misses: no such field in an object on the way, or no object but a scalar there."""
    ways = [f"!exists({jsonpath(path[:1])})"]
    for length in range(1, len(path)):
        above = jsonpath(path[:length])
        ways.append(f'exists({above} ? (@.type() == "object" && !exists(@{step(path[length])})))')
        ways.append(f'exists({above}.type() ? (@ != "object" && @ != "array"))')
    return ways


def compile_sort(sort: tuple[SortKey, ...]) -> Compiled:
    """Compile to what stands after ORDER BY; empty where no order is asked for. Equal documents go by their id.

    Missing goes as null; then numbers, text by code point, objects, arrays, booleans.
    """
    if not sort:
        return Compiled("", [])
    keys = [_directed(_order(key.path), key, "") for key in sort]
    rests = [_directed(Compiled(sort_rest(key.path), []), key, " NULLS") for key in sort if key.path != ("_id",)]
    last = [] if ("_id",) in (key.path for key in sort) else [_ID]
    parts = [*keys, *rests, *last]
    return Compiled(", ".join(part.text for part in parts), [item for part in parts for item in part.params])


_ID: Final = Compiled('id COLLATE "C"', [])


def _order(path: Path) -> Compiled:
    return _ID if path == ("_id",) else Compiled(sort_key(path), [])


def _directed(part: Compiled, key: SortKey, nulls: str) -> Compiled:
    """A value whose key is whole comes before those that go on after it."""
    direction = " DESC" if key.descending else ""
    place = nulls and nulls + (" LAST" if key.descending else " FIRST")
    return Compiled(f"{part.text}{direction}{place}", part.params)
