"""The expressions that an index holds, as the compiled filters and sorts have them too, else no index would serve them.

`pgdoc.sort_key` of the value at a path is text in MongoDB's order of all values, cut so that an index can hold it. It
says nothing of the items of arrays: a row whose path meets an array, at its end or on the way, is found through the
test for that, which is the condition of indexes of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.nodes import ELEMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.query.nodes import Path

MAX_PARTS: Final = 16
"""Of a path that can be indexed: the test for arrays names each part of it again for all that follow."""


_RANKS: Final = {"n": 1, '"': 3, "{": 4, "[": 5, "t": 6, "f": 6}
"""Of the type of a value, by the first character of its JSON text; all others are numbers."""


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


@lru_cache(maxsize=1024)
def sort_key(path: Path) -> Compiled:
    """Return what rows are sorted by."""
    return Compiled(f'pgdoc.sort_key({_value(path)}) COLLATE "C"', [list(path)])


@lru_cache(maxsize=1024)
def sort_rest(path: Path) -> Compiled:
    """Return what tells apart the values whose sort key was cut, and is null for all others."""
    return Compiled(f'pgdoc.sort_rest({_value(path)}) COLLATE "C"', [list(path)])


@lru_cache(maxsize=1024)
def found_keys(path: Path) -> Compiled:
    """Return the sort keys of all that a filter finds."""
    return Compiled("pgdoc.found_keys(data, %s::text[])", [list(path)])


@lru_cache(maxsize=1024)
def meets_array(path: Path, *, in_range: bool = False) -> Compiled:
    """Return the condition that there is an array at the end of the path or on the way.

    Args:
        path: where.
        in_range: written otherwise, for the index that a range walks. PostgreSQL knows a condition by its text, and
            guesses from a hundred documents how many meet it: for a lookup it would take that index now and then, as
            if none of a million did, and read them all.
    """
    test = '"array" == {}.type()' if in_range else '{}.type() == "array"'
    tests = (test.replace("{}", jsonpath(path[:length])) for length in range(1, len(path) + 1))
    return Compiled("data @@ %s::jsonpath", [" || ".join(tests)])


@lru_cache(maxsize=1024)
def jsonpath(path: Path) -> str:
    """Return the path in PostgreSQL's language; a part of digits is a key there."""
    return "$" + "".join(map(step, path))


def step(part: str) -> str:
    """Return one part of a `jsonpath`."""
    return "." + json.dumps(part)


def equal_key(path: Path, exact: Compiled, operand: str) -> Compiled:
    """Add to the exact condition that the value has the operand's key, which an index can look up."""
    keys = Compiled("pgdoc.sort_key(%s::jsonb)", [operand])
    return _indexable(path, exact, lambda key: _compare(key, "=", keys), Compiled(f"ARRAY[{keys.text}]", keys.params))


def one_of_keys(path: Path, exact: Compiled, operands: list[str]) -> Compiled:
    """Add to the exact condition that the value has the key of one of the operands."""
    keys = Compiled("pgdoc.sort_keys(%s::jsonb[])", [operands])
    return _indexable(path, exact, lambda key: _compare(key, "= ANY", Compiled(f"({keys.text})", keys.params)), keys)


def range_key(path: Path, exact: list[Compiled], bounds: list[tuple[str, str]]) -> Compiled:
    """Add to the exact conditions that the key stands as they say, or is equal because it was cut.

    Args:
        path: where the value is.
        exact: the conditions; each may hold for another item of an array, but a key is of one value.
        bounds: of each condition its operator, `<`, `<=`, `>` or `>=`, and its operand as JSON text.
    """

    def between(key: Compiled) -> Compiled:
        return joined(" AND ", [_bounded(key, operator, operand) for operator, operand in bounds])

    return _indexable(path, joined(" AND ", exact), between, None)


def _bounded(key: Compiled, operator: str, operand: str) -> Compiled:
    """Keys begin with the rank of the type, which ends the range on its open side."""
    rank = _RANKS.get(operand[0], 2)
    bound = Compiled("pgdoc.sort_key(%s::jsonb)", [operand])
    if "<" in operator:
        return joined(" AND ", [_compare(key, ">=", Compiled(f"'{rank}'", [])), _compare(key, "<=", bound)])
    return joined(" AND ", [_compare(key, ">=", bound), _compare(key, "<", Compiled(f"'{rank + 1}'", []))])


def _indexable(path: Path, exact: Compiled, build: Callable[[Compiled], Compiled], keys: Compiled | None) -> Compiled:
    if len(path) > MAX_PARTS or path[0] == ELEMENT:
        return exact
    in_array = [meets_array(path, in_range=keys is None)]
    if keys is not None:
        in_array.append(_compare(found_keys(path), "&&", keys))
    return joined(" AND ", [exact, joined(" OR ", [build(sort_key(path)), joined(" AND ", in_array)])])


def _compare(left: Compiled, operator: str, right: Compiled) -> Compiled:
    return Compiled(f"{left.text} {operator} {right.text}", [*left.params, *right.params])


def _value(path: Path) -> str:
    # PostgreSQL's own operator is quicker, and reads more as an index than MongoDB does ("-1", "01").
    has_digit = any(map(str.isdigit, "".join(path[1:])))
    return "pgdoc.value_at(data, %s::text[])" if has_digit else "data #> %s::text[]"
