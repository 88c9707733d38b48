"""Compile filters to SQL over the columns `id` and `data` of a collection's table.

Most conditions become one jsonpath: its lax mode follows arrays as MongoDB does, and a GIN index on `data` can serve
it. But jsonpath can't compare objects and arrays, and in lax mode `[0]` of an object is the object itself. There
`pgdoc.tested_values` follows the path. Values and patterns are always parameters.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.filters.key_sql import (
    ID,
    MOST_ITEM_KEYS,
    has_array,
    item_key_equals,
    item_key_in_range,
    key_equals,
    key_in_range,
    keys_suffice,
    sorts_as_array,
)
from pgdoc.query.filters.match import matches
from pgdoc.query.filters.nodes import (
    And,
    AnyElement,
    ByKey,
    Equal,
    Exact,
    Exists,
    Field,
    HasBits,
    HasSize,
    HasType,
    In,
    Lookup,
    Matches,
    MeetsArray,
    Node,
    Not,
    Operand,
    Or,
    Ordered,
    Path,
    Remainder,
    has_array_index,
    may_be_missing_in_array,
)
from pgdoc.query.filters.sql_text import EQUALS, Compiled, join, jsonpath, jsonpath_step, operator
from pgdoc.query.filters.value_sql import type_is, value_condition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


__all__ = ["Compiled", "compile_filter"]

_SHORT_LIST: Final = 16
"""The most operands of `$in` that go into one jsonpath, which a GIN index on all of `data` can serve."""

_JSONPATH_QUERY: Final = "pg_catalog.jsonb_path_query(data, %s::pg_catalog.jsonpath)"
_IS_LISTED: Final = f"value {EQUALS} ANY(%s::pg_catalog.jsonb[])"
_JSONPATH_MATCH: Final = f"data {operator('@@')} %s::pg_catalog.jsonpath"
_JSONPATH_EXISTS: Final = f"data {operator('@?')} %s::pg_catalog.jsonpath"
_SILENT: Final = "data, %s::pg_catalog.jsonpath, '{}', true"


def compile_filter(node: Node) -> Compiled:
    """Compile to a condition, which may be null instead of false."""
    if isinstance(node, (And, Or, Not, ByKey, MeetsArray, Exact)) or node.path:
        return _COMPILERS[type(node)](node)
    return _condition(node)


def _condition(node: Field) -> Compiled:
    """Compile to a condition on one value, the column `value`."""
    return _any_element(node) if isinstance(node, AnyElement) else value_condition(node)


def _any_element(node: AnyElement) -> Compiled:
    # In the inner condition, `value` is the element, or `data` is a document with the element as its field.
    inner = compile_filter(node.node)
    elements = "pgdoc.element_documents(value) AS element(data)"
    if not node.as_document:
        elements = "pg_catalog.jsonb_array_elements(value) AS element(value)"
    exists = f"EXISTS (SELECT FROM {elements} WHERE {inner.text})"
    return Compiled(f"CASE WHEN {type_is('array')} THEN {exists} END", inner.params)


def _compile_and(node: And) -> Compiled:
    if len(node.nodes) == 1:
        return compile_filter(node.nodes[0])
    return join(" AND ", map(compile_filter, node.nodes)) if node.nodes else Compiled("TRUE", [])


def _compile_or(node: Or) -> Compiled:
    return join(" OR ", map(compile_filter, node.nodes))


def _compile_not(node: Not) -> Compiled:
    inner = compile_filter(node.node)
    return Compiled(f"({inner.text}) IS NOT TRUE", inner.params)


def _compile_by_key(node: ByKey) -> Compiled:
    if node.scope == "exact":
        return join(" AND ", map(_exact, node.nodes))
    operands = _operands(node.nodes)
    bounds = [(part.operator, part.operand) for part in node.nodes if isinstance(part, Ordered)]
    suffices = keys_suffice(node.path, operands)
    parts = []
    if node.scope not in {"no_array", "own_key"}:  # first, since the own key of an array takes long to compute
        parts.append(item_key_in_range(node.path, bounds, node.collation) if bounds else _item_equals(node, operands))
    if node.scope in {"all", "no_array", "keys", "own_key"}:
        parts.append(
            key_in_range(node.path, bounds, node.collation, strict=suffices)
            if bounds
            else key_equals(node.path, operands, node.collation)
        )
    if any(operand.value is None for operand in operands):
        parts.reverse()  # most documents that match null have it as their own key
    if node.scope in {"array_on_way", "array_at_end"}:
        parts = [
            join(" AND ", [*parts, sorts_as_array(node.path, node.collation, at_end=node.scope == "array_at_end")])
        ]
    by_key = parts[0] if len(parts) == 1 else join(" OR ", parts)
    # The span of an array's keys may overlap a range that none of its items is in, so the values decide.
    suffices = suffices and len(operands) <= MOST_ITEM_KEYS
    if node.scope in {"keys", "own_key"} or (suffices and (not bounds or node.scope == "no_array")):
        return by_key
    exact = [by_key, *map(_exact, node.nodes)]
    if node.scope == "no_array":
        exact.append(Compiled(f"{has_array(node.path)} IS NOT TRUE", []))
    return join(" AND ", exact)


def _item_equals(node: ByKey, operands: list[Operand]) -> Compiled:
    """Compile to a condition that every document meets whose path meets an array that matches."""
    if len(operands) > MOST_ITEM_KEYS:
        return Compiled(has_array(node.path), [])
    found = item_key_equals(node.path, operands, node.collation)
    (lookup,) = node.nodes
    if node.scope != "array" or isinstance(lookup, Ordered) or not may_be_missing_in_array(lookup):
        return found
    # The index of items does not hold what is missing in an array on the way, but then the path's own key is null.
    return join(
        " OR ",
        [found, join(" AND ", [Compiled(has_array(node.path), []), key_equals(node.path, operands, node.collation)])],
    )


def _operands(nodes: tuple[Lookup, ...]) -> list[Operand]:
    if isinstance(nodes[0], In):
        return list(nodes[0].operands)
    return [node.operand for node in nodes if not isinstance(node, In)]


def _exact(node: Node) -> Compiled:
    """Compile without keys; a function replaces `@@` and `@?`, as in `has_array`."""
    compiled = compile_filter(node)
    text = compiled.text.replace(_JSONPATH_MATCH, f"pg_catalog.jsonb_path_match({_SILENT})")
    return Compiled(text.replace(_JSONPATH_EXISTS, f"pg_catalog.jsonb_path_exists({_SILENT})"), compiled.params)


def _compile_meets_array(node: MeetsArray) -> Compiled:
    return Compiled(has_array(node.path), [])


def _compile_exact(node: Exact) -> Compiled:
    return _exact(node.node)


def _compile_equal(node: Equal) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, f"id {EQUALS} %s::pg_catalog.text", [node.operand])
    return _equals(node)


def _equals(node: Equal) -> Compiled:
    if node.collation is not None:
        return _any_value(node)
    if _is_scalar(node.operand) and not has_array_index(node.path):
        return _jsonpath_match(_jsonpath_equal(node))
    if node.operand.value is None:
        return _any_value_at(node.path, f"value IS NULL OR value {EQUALS} 'null'", [])
    return _any_value_at(node.path, f"value {EQUALS} %s::pg_catalog.jsonb", [node.operand.text])


def _compile_ordered(node: Ordered) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, f"{ID} {operator(node.operator)} %s", [node.operand])
    if node.operand.value is None:
        return _equals(Equal(node.path, node.operand)) if "=" in node.operator else Compiled("FALSE", [])
    if node.collation is None and _is_scalar(node.operand) and not has_array_index(node.path):
        return _jsonpath_match(f"{jsonpath(node.path)} {node.operator} {node.operand.text}")
    return _any_value(node)


def _compile_in(node: In) -> Compiled:
    """Compile all scalars to one lookup, so that a long list is cheap, and other operands one by one."""
    if not node.operands:
        return Compiled("FALSE", [])
    if node.path[0] == "_id":
        return _compile_ids(node.path, node.operands)
    if node.collation is not None:
        missing = [_equals(Equal(node.path, item)) for item in node.operands if item.value is None]
        return join(" OR ", [_any_value(node), *missing])
    together = [item for item in node.operands if _is_scalar(item) and item.value is not None]
    alone = [Equal(node.path, item) for item in node.operands if not _is_scalar(item) or item.value is None]
    parts = [_equals(item) for item in alone]
    if together:
        parts.append(_lookup(node.path, together))
    return join(" OR ", parts)


def _lookup(path: Path, operands: list[Operand]) -> Compiled:
    texts = [item.text for item in operands]
    if has_array_index(path):
        return _any_value_at(path, _IS_LISTED, [texts])
    if len(texts) <= _SHORT_LIST:
        return _jsonpath_match(" || ".join(f"{jsonpath(path)} == {text}" for text in texts))
    return Compiled(
        f"EXISTS (SELECT FROM {_JSONPATH_QUERY} AS found(value) WHERE {_IS_LISTED})", [f"{jsonpath(path)}[*]", texts]
    )


def _compile_exists(node: Exists) -> Compiled:
    if node.path[0] == "_id":
        return _compile_id(node, "TRUE", [])
    if has_array_index(node.path):
        return _any_value(node)
    return Compiled(_JSONPATH_EXISTS, [jsonpath(node.path)])


def _compile_non_array(node: HasType | Remainder | HasBits) -> Compiled:
    """Compile a node that no array or missing value matches; of an array, only the items count."""
    if node.path[0] == "_id":
        return _constant_for_ids(node)
    if has_array_index(node.path) or (isinstance(node, HasType) and "array" in node.types):
        return _any_value(node)
    return _any_jsonpath_value(node, jsonpath(node.path) + "[*]")


def _compile_pattern(node: Matches) -> Compiled:
    if node.path == ("_id",):
        return Compiled(f"{ID} {operator('~')} %s::pg_catalog.text", [node.pattern.postgresql])
    if node.path[0] == "_id":
        return _constant_for_ids(node)
    return _any_value(node) if has_array_index(node.path) else _any_jsonpath_value(node, jsonpath(node.path) + "[*]")


def _compile_array(node: HasSize | AnyElement) -> Compiled:
    if node.path[0] == "_id":
        return _constant_for_ids(node)
    if not has_array_index(node.path):
        return _any_jsonpath_value(node, jsonpath(node.path))
    inner = _condition(node)
    text = f"EXISTS (SELECT FROM pgdoc.ends_at(data, %s::pg_catalog.text[]) AS found(value) WHERE {inner.text})"
    return Compiled(text, [list(node.path), *inner.params])


def _any_value(node: Field) -> Compiled:
    inner = _condition(node)
    return _any_value_at(node.path, inner.text, inner.params)


def _any_jsonpath_value(node: Field, found: str) -> Compiled:
    inner = _condition(node)
    text = f"EXISTS (SELECT FROM {_JSONPATH_QUERY} AS found(value) WHERE {inner.text})"
    return Compiled(text, [found, *inner.params])


_COMPILERS: Final[Mapping[type, Callable[[Any], Compiled]]] = {
    And: _compile_and,
    Or: _compile_or,
    Not: _compile_not,
    ByKey: _compile_by_key,
    MeetsArray: _compile_meets_array,
    Exact: _compile_exact,
    Equal: _compile_equal,
    In: _compile_in,
    Ordered: _compile_ordered,
    Exists: _compile_exists,
    HasType: _compile_non_array,
    HasSize: _compile_array,
    Matches: _compile_pattern,
    Remainder: _compile_non_array,
    HasBits: _compile_non_array,
    AnyElement: _compile_array,
}


def _compile_id(node: Field, text: str, operands: list[Operand]) -> Compiled:
    """Compile a node on `_id`. Below the id, and against anything but text, all documents have the same answer."""
    if len(node.path) > 1 or not all(isinstance(item.value, str) for item in operands):
        return _constant_for_ids(node)
    return Compiled(text, [item.value for item in operands])


def _constant_for_ids(node: Field) -> Compiled:
    """Compile a node that matches every id or none: an id is text, and has no fields."""
    return Compiled("TRUE" if matches(node, "any", {}) else "FALSE", [])


def _compile_ids(path: Path, operands: tuple[Operand, ...]) -> Compiled:
    ids = [item.value for item in operands if isinstance(item.value, str)]
    if len(path) == 1:
        return Compiled(f"id {EQUALS} ANY(%s::pg_catalog.text[])", [ids])
    return Compiled("TRUE" if any(item.value is None for item in operands) else "FALSE", [])


def _is_scalar(operand: Operand) -> bool:
    return operand.value is None or isinstance(operand.value, str | bool | int | float | Decimal)


def _any_value_at(path: Path, condition: str, params: list[Any]) -> Compiled:
    text = f"EXISTS (SELECT FROM pgdoc.tested_values(data, %s::pg_catalog.text[]) AS found(value) WHERE {condition})"
    return Compiled(text, [list(path), *params])


def _jsonpath_match(predicate: str) -> Compiled:
    return Compiled(_JSONPATH_MATCH, [predicate])


def _jsonpath_equal(node: Equal) -> str:
    equal = f"{jsonpath(node.path)} == {node.operand.text}"
    return equal if node.operand.value is not None else " || ".join([equal, *_jsonpath_missing(node.path)])


def _jsonpath_missing(path: Path) -> list[str]:
    """Return the cases of a missing value: an object on the way lacks the field, or there is no object."""
    cases = [f"!exists({jsonpath(path[:1])})"]
    for length in range(1, len(path)):
        above = jsonpath(path[:length])  # of an array, the filter tests each item
        cases.append(f'exists({above} ? (@.type() != "object" || !exists(@{jsonpath_step(path[length])})))')
        cases.append(f"{above}.size() == 0")
    return cases
