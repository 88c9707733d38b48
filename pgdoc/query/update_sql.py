"""The update language as one SQL expression over the column `data`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pgdoc.query.sql import Compiled
from pgdoc.query.update import Change, Increment, Set, Unset, Update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def compile_update(update: Update) -> Compiled:
    """Compile to the new data; null where a change does not fit the document.

    The changes are calls around each other, and each of them is null where what it is called with is null. Fields of
    the document itself always fit, so PostgreSQL's own operators set and remove them all at once.
    """
    whole = [change for change in update.changes if _is_whole_field(change)]
    result = _unset_fields(_set_fields(Compiled("data", []), whole), whole)
    for change in update.changes:
        if not _is_whole_field(change):
            result = _COMPILERS[type(change)](result, change)
    return result


def _is_whole_field(change: Change) -> bool:
    return len(change.path) == 1 and not isinstance(change, Increment)


def _set_fields(data: Compiled, changes: list[Any]) -> Compiled:
    texts = {change.path[0]: change.operand.text for change in changes if isinstance(change, Set)}
    if not texts:
        return data
    fields = "{" + ",".join(f"{json.dumps(key)}:{text}" for key, text in texts.items()) + "}"
    return Compiled(f"({data.text} || %s::jsonb)", [*data.params, fields])


def _unset_fields(data: Compiled, changes: list[Any]) -> Compiled:
    names = [change.path[0] for change in changes if isinstance(change, Unset)]
    return Compiled(f"({data.text} - %s::text[])", [*data.params, names]) if names else data


def _compile_set(data: Compiled, change: Set) -> Compiled:
    text = f"pgdoc.set_at({data.text}, %s::text[], %s::jsonb)"
    return Compiled(text, [*data.params, list(change.path), change.operand.text])


def _compile_unset(data: Compiled, change: Unset) -> Compiled:
    return Compiled(f"pgdoc.unset_at({data.text}, %s::text[])", [*data.params, list(change.path)])


def _compile_increment(data: Compiled, change: Increment) -> Compiled:
    text = f"pgdoc.increment_at({data.text}, %s::text[], %s::numeric)"
    return Compiled(text, [*data.params, list(change.path), change.operand.text])


_COMPILERS: Final[Mapping[type, Callable[[Compiled, Any], Compiled]]] = {
    Set: _compile_set,
    Unset: _compile_unset,
    Increment: _compile_increment,
}
