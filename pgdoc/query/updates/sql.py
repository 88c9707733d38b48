"""Compile an update to one SQL expression over the column `data`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidUpdate
from pgdoc.model.json_codec import encode
from pgdoc.query.filters.nodes import ELEMENT, AnyElement
from pgdoc.query.filters.sql import Compiled, compile_filter
from pgdoc.query.filters.sql_text import EQUALS, join, operator
from pgdoc.query.updates.apply import apply_update
from pgdoc.query.updates.element_tests import ElementTests
from pgdoc.query.updates.nodes import (
    EACH,
    MATCHED,
    AddToSet,
    Bit,
    Bound,
    CurrentDate,
    FieldChange,
    Increment,
    Multiply,
    Pop,
    Pull,
    PullAll,
    Push,
    Rename,
    Set,
    SetOnInsert,
    Unset,
    Update,
)
from pgdoc.query.updates.positions import (
    ArrayStep,
    FirstItem,
    filter_name,
    is_dynamic,
    no_element,
    positions_of,
    steps_of,
)
from pgdoc.query.updates.tree import STEPS, bit_operations, push_order, tree_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from pgdoc.query.filters.nodes import Node, Path
    from pgdoc.query.updates.positions import Branch, ElementSearch

MAX_CHANGES: Final = 1000
"""The most changes of one update, besides those of whole top-level fields."""

MAX_CALLS: Final = 3
"""How many changes are calls around each other. Each copies the document, so that more are one tree."""

MAX_SUBQUERIES: Final = 50
"""The most parts for elements and `$pull` conditions in these changes: PostgreSQL plans each as a query of its own."""

_DATA: Final = Compiled("data", [])

# The elements of the array at a path. `data` is a document with the element as its field, for the inner expression.
_ELEMENTS: Final = (
    f"(SELECT item, place, pg_catalog.jsonb_build_object('{ELEMENT}', item) AS data"
    " FROM pgdoc.items_at(whole.data, %s::pg_catalog.text[]) WITH ORDINALITY AS found(item, place)) AS element"
)

# OFFSET 0 keeps the planner from substituting the whole expression for each use of `whole.data`. The same goes for
# `changed` below, where the expression would double with each `$[]` of a path.
_WHOLE: Final = "FROM (SELECT {data} AS data OFFSET 0) AS whole"


def compile_update(update: Update, data: Compiled = _DATA, *, max_calls: int = MAX_CALLS) -> Compiled:
    """Compile to the new data of an existing document, which is null if a change does not fit.

    Each change is a function call around the previous one, and returns null for a null argument. Setting and unsetting
    top-level fields always fits, so PostgreSQL's own operators do all of that at once. Many other changes become one
    call, the last: the changes that can't be part of it must not see the nulls that it adds to arrays.
    """
    _check_limits(update)
    whole = [change for change in update.changes if _is_whole_field(change)]
    names = sorted({change.path[0] for change in update.creating_dollar_fields()})
    if names:
        data = Compiled(
            f"CASE WHEN {data.text} {operator('?&')} %s::pg_catalog.text[] THEN {data.text} END",
            [*data.params, names, *data.params],
        )
    result = _unset_fields(_set_fields(data, whole), whole)
    rest: list[FieldChange] = [change for change in update.changes if not _is_whole_field(change)]
    in_tree = [change for change in rest if _fits_tree(change)]
    if len(in_tree) > max_calls:
        rest = [change for change in rest if not _fits_tree(change)]
    applied = [change for change in rest if not isinstance(change, SetOnInsert)]
    arrays = _Arrays(replace(update, changes=tuple(applied)))
    result = arrays.compile_all(result, [(change.path, change) for change in applied])
    return arrays.with_positions(_compile_tree(result, in_tree) if len(in_tree) > max_calls else result)


def compile_first(update: Update, data: Mapping[str, Any] | None = None) -> Compiled:
    """Compile to the data of a document that an upsert creates, from what its filter says of it.

    Raises:
        InvalidUpdate: a change does not fit this data.
    """
    seed = {} if data is None else dict(data)
    first = first_text(update, seed).decode()
    tests = ElementTests(update, "", seed)
    dates = tuple(
        CurrentDate(path)
        for change in update.changes
        if isinstance(change, CurrentDate)
        for path in tests.paths(seed, change.path)
    )
    return compile_update(Update(dates), Compiled("%s::pg_catalog.jsonb", [first]))


def first_text(update: Update, data: Mapping[str, Any] | None = None, now: datetime | None = None) -> bytes:
    """Return the JSON text of the data that an upsert creates; `now` is as for `apply_update`.

    Raises:
        InvalidUpdate: as `compile_first`.
    """
    for change in update.changes:
        if MATCHED in change.path:
            raise no_element(change)
    return encode(apply_update(update, {} if data is None else data, now=now, inserting=True, decimals=True))


def _is_whole_field(change: FieldChange) -> bool:
    return len(change.path) == 1 and isinstance(change, Set | Unset)


def _fits_tree(change: FieldChange) -> bool:
    return type(change) in STEPS and not any(map(is_dynamic, change.path))


def _check_limits(update: Update) -> None:
    calls = [change for change in update.changes if not _is_whole_field(change)]
    queries: dict[Any, FieldChange] = {}
    for change in calls:
        parts = [number for number, part in enumerate(change.path) if is_dynamic(part)]
        queries |= {change.path[: number + 1]: change for number in parts}
        queries |= {(change.path, "$pull"): change} if isinstance(change, Pull) else {}
    what = "paths to elements and $pull conditions"
    for found, limit, name in ((calls, MAX_CHANGES, "changes"), ([*queries.values()], MAX_SUBQUERIES, what)):
        if len(found) > limit:
            raise InvalidUpdate(
                f"an update can have at most {limit:,} {name}, got {len(found):,}: split it into several updates",
                path=".".join(found[limit].path),
                operator=found[limit].operator,
            )


def _set_fields(data: Compiled, changes: list[Any]) -> Compiled:
    texts = {change.path[0]: change.operand.text for change in changes if isinstance(change, Set)}
    if not texts:
        return data
    fields = "{" + ",".join(f"{json.dumps(key)}:{text}" for key, text in texts.items()) + "}"
    return Compiled(f"({data.text} {operator('||')} %s::pg_catalog.jsonb)", [*data.params, fields])


def _unset_fields(data: Compiled, changes: list[Any]) -> Compiled:
    names = [change.path[0] for change in changes if isinstance(change, Unset)]
    return Compiled(f"({data.text} {operator('-')} %s::pg_catalog.text[])", [*data.params, names]) if names else data


class _Arrays:
    """Compiles changes, those below elements of arrays included. `place` is the position of an element, from 1."""

    def __init__(self, update: Update) -> None:
        self._filters = update.filters
        self._positions = [(array, position) for array, position in positions_of(update).items()]
        self._columns = {array: f"position_{number}" for number, (array, _) in enumerate(self._positions)}

    def with_positions(self, change: Compiled) -> Compiled:
        """Compute the positions for `$` once, from the document before the update; without one, it does not fit."""
        if not self._positions:
            return change
        found = [_compile_position(position) for _, position in self._positions]
        columns = [f"{position.text} AS position_{number}" for number, position in enumerate(found)]
        is_found = " AND ".join(f"position_{number} IS NOT NULL" for number in range(len(found)))
        text = (
            f"(SELECT CASE WHEN {is_found} THEN {change.text} END"
            f" FROM (SELECT {', '.join(['data', *columns])} OFFSET 0) AS positioned)"
        )
        return Compiled(text, [*change.params, *(item for position in found for item in position.params)])

    def compile_all(self, data: Compiled, changes: Iterable[tuple[Path, FieldChange]]) -> Compiled:
        for step in steps_of(changes):
            if isinstance(step, ArrayStep):
                data = self._compile_elements(data, step)
            else:
                path, change = step
                data = _COMPILERS[type(change)](data, path, change)
        return data

    def _compile_elements(self, data: Compiled, step: ArrayStep) -> Compiled:
        """Change elements, each as a field of its own document; an unset field leaves null."""
        above = list(step.array)
        elements = Compiled(_ELEMENTS, [above])
        changed = self._one_branch(step, elements) if len(step.branches) == 1 else self._branches(step, elements)
        items = f"pg_catalog.jsonb_agg(coalesce(changed {operator('->')} '{ELEMENT}', 'null') ORDER BY place)"
        text = (
            "(SELECT pgdoc.put_items(whole.data, %s::pg_catalog.text[],"
            f" (SELECT CASE WHEN pg_catalog.count(*) {EQUALS} pg_catalog.count(changed)"
            f" THEN coalesce({items}, '[]') END FROM ({changed.text} OFFSET 0) AS elements))"
            f" {_WHOLE.format(data=data.text)})"
        )
        return Compiled(text, [above, *changed.params, *data.params])

    def _one_branch(self, step: ArrayStep, elements: Compiled) -> Compiled:
        (branch,) = step.branches
        changed = self.compile_all(_DATA, branch.changes)
        if branch.part != EACH:
            test = self._test(step.array, branch)
            changed = Compiled(
                f"CASE WHEN {test.text} THEN {changed.text} ELSE data END", [*test.params, *changed.params]
            )
        return Compiled(
            f"SELECT place, {changed.text} AS changed FROM {elements.text}", [*changed.params, *elements.params]
        )

    def _branches(self, step: ArrayStep, elements: Compiled) -> Compiled:
        """Test each element for all branches before the first change; in two that conflict, it does not fit."""
        tests = [self._test(step.array, branch) for branch in step.branches]
        columns = [f"is_in_{number}" for number in range(len(tests))]
        named = ", ".join(f"({test.text}) IS TRUE AS {column}" for test, column in zip(tests, columns, strict=True))
        source = Compiled(
            f"(SELECT place, data, {named} FROM {elements.text} OFFSET 0) AS tested",
            [*(item for test in tests for item in test.params), *elements.params],
        )
        for branch, column in zip(step.branches, columns, strict=True):
            changed = self.compile_all(_DATA, branch.changes)
            source = Compiled(
                f"(SELECT place, {', '.join(columns)}, CASE WHEN {column} THEN {changed.text} ELSE data END AS data"
                f" FROM {source.text} OFFSET 0) AS changed",
                [*changed.params, *source.params],
            )
        clashes = " OR ".join(f"({columns[one]} AND {columns[other]})" for one, other in step.conflicts) or "FALSE"
        return Compiled(
            f"SELECT place, CASE WHEN NOT ({clashes}) THEN data END AS changed FROM {source.text}", source.params
        )

    def _test(self, array: Path, branch: Branch) -> Compiled:
        if branch.part == EACH:
            return Compiled("TRUE", [])
        if branch.part == MATCHED:
            return Compiled(f"place {EQUALS} {self._columns[array]}", [])
        return compile_filter(self._filters[str(filter_name(branch.part))])


def _compile_position(position: ElementSearch) -> Compiled:
    """Compile to the place of the first item that the position finds, from 1, or null."""
    if not isinstance(position, FirstItem):
        listed = join(", ", [_compile_alternative(guard, inner) for guard, inner in position.alternatives])
        return Compiled(f"coalesce{listed.text}", listed.params)
    node, array = position.node, list(position.array)
    condition = compile_filter(node)
    columns = f"pg_catalog.jsonb_build_object('{ELEMENT}', item) AS data"
    test = f"pg_catalog.jsonb_typeof(item) {EQUALS} 'object' AND ({condition.text})"
    if not node.path:
        columns = "pg_catalog.jsonb_build_array(item) AS value" if isinstance(node, AnyElement) else "item AS value"
        test = condition.text
    items = "pgdoc.items_at(data, %s::pg_catalog.text[]) WITH ORDINALITY AS found(item, place)"
    text = f"(SELECT pg_catalog.min(place) FROM (SELECT place, item, {columns} FROM {items}) AS element WHERE {test})"
    return Compiled(text, [array, *condition.params])


def _compile_alternative(guard: Node | None, position: ElementSearch) -> Compiled:
    found = _compile_position(position)
    if guard is None:
        return found
    applies = compile_filter(guard)
    return Compiled(f"CASE WHEN {applies.text} THEN {found.text} END", [*applies.params, *found.params])


def _compile_tree(data: Compiled, changes: list[FieldChange]) -> Compiled:
    moment = "pg_catalog.to_jsonb(pgdoc.transaction_time())"
    return _call(data, "change_tree", f"%s::pg_catalog.jsonb, {moment}", tree_text(changes))


def _call(data: Compiled, name: str, casts: str, *params: Any) -> Compiled:
    return Compiled(f"pgdoc.{name}({data.text}, {casts})", [*data.params, *params])


def _compile_set(data: Compiled, path: Path, change: Set) -> Compiled:
    return _call(data, "set_at", "%s::pg_catalog.text[], %s::pg_catalog.jsonb", list(path), change.operand.text)


def _compile_unset(data: Compiled, path: Path, _change: Unset) -> Compiled:
    return _call(data, "unset_at", "%s::pg_catalog.text[]", list(path))


def _compile_increment(data: Compiled, path: Path, change: Increment) -> Compiled:
    return _call(data, "increment_at", "%s::pg_catalog.text[], %s::numeric", list(path), change.operand.text)


def _compile_multiply(data: Compiled, path: Path, change: Multiply) -> Compiled:
    return _call(data, "multiply_at", "%s::pg_catalog.text[], %s::numeric", list(path), change.operand.text)


def _compile_bound(data: Compiled, path: Path, change: Bound) -> Compiled:
    sign = -1 if change.operator == "$min" else 1
    return _call(
        data,
        "bound_at",
        "%s::pg_catalog.text[], %s::pg_catalog.jsonb, %s::integer",
        list(path),
        change.operand.text,
        sign,
    )


def _compile_bit(data: Compiled, path: Path, change: Bit) -> Compiled:
    return _call(
        data, "bit_at", "%s::pg_catalog.text[], %s::pg_catalog.jsonb", list(path), bit_operations(change.operations)
    )


def _compile_rename(data: Compiled, path: Path, change: Rename) -> Compiled:
    return _call(data, "rename_at", "%s::pg_catalog.text[], %s::pg_catalog.text[]", list(path), list(change.target))


def _compile_current_date(data: Compiled, path: Path, _change: CurrentDate) -> Compiled:
    return _call(data, "set_at", "%s::pg_catalog.text[], pg_catalog.to_jsonb(pgdoc.transaction_time())", list(path))


def _compile_push(data: Compiled, path: Path, change: Push) -> Compiled:
    return _call(
        data,
        "push_at",
        "%s::pg_catalog.text[], %s::pg_catalog.jsonb, %s::integer, %s::pg_catalog.jsonb, %s::integer",
        list(path),
        change.items.text,
        change.position,
        push_order(change.order),
        change.size,
    )


def _compile_add_to_set(data: Compiled, path: Path, change: AddToSet) -> Compiled:
    return _call(data, "add_to_set_at", "%s::pg_catalog.text[], %s::pg_catalog.jsonb", list(path), change.items.text)


def _compile_pop(data: Compiled, path: Path, change: Pop) -> Compiled:
    return _call(data, "pop_at", "%s::pg_catalog.text[], %s::boolean", list(path), change.first)


def _compile_pull(data: Compiled, path: Path, change: Pull) -> Compiled:
    condition = compile_filter(change.node)
    kind = f"pg_catalog.jsonb_typeof(item) {EQUALS} 'object' AND " if change.objects_only else ""
    text = (
        "(SELECT pgdoc.keep_at(whole.data, %s::pg_catalog.text[],"
        f" (SELECT coalesce(pg_catalog.jsonb_agg(item ORDER BY place), '[]') FROM {_ELEMENTS}"
        f" WHERE ({kind}({condition.text})) IS NOT TRUE)) {_WHOLE.format(data=data.text)})"
    )
    return Compiled(text, [list(path), list(path), *condition.params, *data.params])


def _compile_pull_all(data: Compiled, path: Path, change: PullAll) -> Compiled:
    return _call(data, "pull_all_at", "%s::pg_catalog.text[], %s::pg_catalog.jsonb", list(path), change.items.text)


_COMPILERS: Final[Mapping[type, Callable[[Compiled, Path, Any], Compiled]]] = {
    Set: _compile_set,
    Unset: _compile_unset,
    Increment: _compile_increment,
    Multiply: _compile_multiply,
    Bound: _compile_bound,
    Bit: _compile_bit,
    Rename: _compile_rename,
    CurrentDate: _compile_current_date,
    Push: _compile_push,
    AddToSet: _compile_add_to_set,
    Pop: _compile_pop,
    Pull: _compile_pull,
    PullAll: _compile_pull_all,
}
