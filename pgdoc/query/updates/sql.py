"""Compile an update to one SQL expression over the column `data`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidUpdate
from pgdoc.model.json_codec import encode
from pgdoc.query.filters.nodes import ELEMENT
from pgdoc.query.filters.sql import Compiled, compile_filter
from pgdoc.query.filters.sql_text import EQUALS, operator
from pgdoc.query.updates.apply import apply_update
from pgdoc.query.updates.nodes import (
    EACH,
    AddToSet,
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
from pgdoc.query.updates.tree import STEPS, push_order, tree_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.query.filters.nodes import Path

MAX_CHANGES: Final = 1000
"""The most changes of one update, besides those of whole top-level fields."""

MAX_CALLS: Final = 3
"""How many changes are calls around each other. Each copies the document, so that more are one tree."""

MAX_SUBQUERIES: Final = 50
"""The most `$[]` and `$pull` conditions in these changes: PostgreSQL plans each as a query of its own."""

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
    for change in rest:
        if not isinstance(change, SetOnInsert):
            result = _compile(result, change.path, change)
    return _compile_tree(result, in_tree) if len(in_tree) > max_calls else result


def compile_first(update: Update) -> Compiled:
    """Compile to the data of a document that an upsert creates.

    Raises:
        InvalidUpdate: a change does not fit an empty document.
    """
    first = encode(apply_update(update, {}, inserting=True, decimals=True)).decode()
    dates = tuple(change for change in update.changes if isinstance(change, CurrentDate))
    return compile_update(Update(dates), Compiled("%s::pg_catalog.jsonb", [first]))


def _is_whole_field(change: FieldChange) -> bool:
    return len(change.path) == 1 and isinstance(change, Set | Unset)


def _fits_tree(change: FieldChange) -> bool:
    return type(change) in STEPS and EACH not in change.path


def _check_limits(update: Update) -> None:
    calls = [change for change in update.changes if not _is_whole_field(change)]
    queries = [change for change in calls for _ in range(change.path.count(EACH) + isinstance(change, Pull))]
    for found, limit, what in ((calls, MAX_CHANGES, "changes"), (queries, MAX_SUBQUERIES, "$[] and $pull conditions")):
        if len(found) > limit:
            raise InvalidUpdate(
                f"an update can have at most {limit:,} {what}, got {len(found):,}: split it into several updates",
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


def _compile(data: Compiled, path: Path, change: FieldChange) -> Compiled:
    return _compile_each(data, path, change) if EACH in path else _COMPILERS[type(change)](data, path, change)


def _compile_each(data: Compiled, path: Path, change: FieldChange) -> Compiled:
    """Apply the change to each element as a field of its own document; an unset field leaves null."""
    at = path.index(EACH)
    inner = _compile(_DATA, (ELEMENT, *path[at + 1 :]), change)
    items = f"pg_catalog.jsonb_agg(coalesce(changed {operator('->')} '{ELEMENT}', 'null') ORDER BY place)"
    text = (
        "(SELECT pgdoc.put_items(whole.data, %s::pg_catalog.text[],"
        f" (SELECT CASE WHEN pg_catalog.count(*) {EQUALS} pg_catalog.count(changed) THEN coalesce({items}, '[]') END"
        f" FROM (SELECT place, {inner.text} AS changed FROM {_ELEMENTS} OFFSET 0) AS elements))"
        f" {_WHOLE.format(data=data.text)})"
    )
    above = list(path[:at])
    return Compiled(text, [above, *inner.params, above, *data.params])


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
    Rename: _compile_rename,
    CurrentDate: _compile_current_date,
    Push: _compile_push,
    AddToSet: _compile_add_to_set,
    Pop: _compile_pop,
    Pull: _compile_pull,
    PullAll: _compile_pull_all,
}
