"""The parts of a path that stand for elements of an array: `$[]`, `$[name]` and `$`.

All conditions of an update see the document as it was before the update, as in MongoDB. So the changes below one array
are applied together: first every element is tested, then each change applies to the elements that passed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.errors import InvalidFilter, InvalidUpdate
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.match import matcher
from pgdoc.query.filters.nodes import ELEMENT, And, AnyElement, HasSize, Not, Or, Path, has_array_index
from pgdoc.query.filters.parse import parse_filter
from pgdoc.query.updates.nodes import EACH, MATCHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Field, Node
    from pgdoc.query.updates.nodes import FieldChange, Update

_NAMED: Final = re.compile(r"\$\[([a-z][a-zA-Z0-9]*)\]")
_NAME: Final = re.compile(r"[a-z][a-zA-Z0-9]*")
_NAME_RULE: Final = "a lower-case letter, followed by letters and digits"


def looks_dynamic(part: str) -> bool:
    """Whether the part stands for elements of an array, or looks as if it was meant to."""
    return part == MATCHED or part.startswith("$[")


def is_dynamic(part: str) -> bool:
    """Whether the part is `$`, `$[]` or `$[name]`."""
    return part in {MATCHED, EACH} or filter_name(part) is not None


def filter_name(part: str) -> str | None:
    """Return the name in `$[name]`; `None` for any other part."""
    found = _NAMED.fullmatch(part)
    return found.group(1) if found else None


def parse_array_filters(value: Any, encoder: Encoder | None = None, collation: str | None = None) -> dict[str, Node]:
    """Parse `array_filters`: a list of filters, each on elements with a name of their own."""
    if value is None:
        return {}
    if not isinstance(value, list | tuple):
        raise InvalidUpdate(
            f"array_filters must be a list such as [{{'item.quantity': {{'$gt': 5}}}}], got {short_repr(value)}"
        )
    filters: dict[str, Node] = {}
    for given in value:
        name, node = _parse_array_filter(given, encoder, collation)
        if name in filters:
            raise InvalidUpdate(
                f"array_filters has two filters for {name!r}: combine them with $and, or use another name", path=name
            )
        filters[name] = node
    return filters


def _parse_array_filter(given: Any, encoder: Encoder | None, collation: str | None) -> tuple[str, Node]:
    if not isinstance(given, Mapping):
        raise InvalidUpdate(f"an array filter must be a dict such as {{'item.quantity': 5}}, got {short_repr(given)}")
    try:
        node = parse_filter(given, encoder, collation)
    except InvalidFilter as exc:
        raise InvalidUpdate(f"an array filter is invalid: {exc}", path=exc.path, operator=exc.operator) from exc
    names = list(dict.fromkeys(_names_in(node)))
    if not names:
        raise InvalidUpdate("array_filters has an empty filter: use $[] in the path to change all elements")
    name = names[0]
    if len(names) > 1:
        raise InvalidUpdate(
            f"an array filter must be about one name, got {name!r} and {names[1]!r}: use a filter for each", path=name
        )
    if not _NAME.fullmatch(name):
        raise InvalidUpdate(f"{short_repr(name)} is not a valid name of an array filter: use {_NAME_RULE}", path=name)
    return name, _on_element(node)


def _names_in(node: Any) -> Iterator[str]:
    if isinstance(node, And | Or):
        for inner in node.nodes:
            yield from _names_in(inner)
    elif isinstance(node, Not):
        yield from _names_in(node.node)
    else:
        yield node.path[0]


def _on_element(node: Any) -> Node:
    """Replace the name of the array filter, the first part of each path, by `ELEMENT`."""
    if isinstance(node, And | Or):
        return replace(node, nodes=tuple(map(_on_element, node.nodes)))
    if isinstance(node, Not):
        return Not(_on_element(node.node))
    return _at_path(node, (ELEMENT, *node.path[1:]))


def _at_path(node: Any, path: Path) -> Node:
    moved: Node = replace(node, path=path)
    return moved


def check_dynamic_parts(name: str, path: Path) -> None:
    """Check the parts of a path that stand for elements.

    Raises:
        InvalidUpdate: a part is malformed, or stands where it can't.
    """
    for number, part in enumerate(path):
        if not looks_dynamic(part):
            continue
        problem = _problem_of(name, path, number)
        if problem:
            dotted = ".".join(path)
            raise InvalidUpdate(f"{name} at {short_repr(dotted)} {problem}", path=dotted, operator=name)


def _problem_of(name: str, path: Path, number: int) -> str | None:
    part = path[number]
    if name == "$rename":
        return f"can't move elements of arrays, got {short_repr(part)}: use an index"
    if not is_dynamic(part):
        return (
            f"has an unsupported path part {short_repr(part)}: use an index, '$', '$[]', "
            f"or '$[name]' with a name of {_NAME_RULE}"
        )
    if not number:
        return f"begins with {short_repr(part)}: put the name of the array before it"
    if part == MATCHED and any(map(is_dynamic, path[:number])):
        return "has '$' below another part that stands for elements: use '$[name]' with array_filters"
    return None


def check_filters_used(changes: Iterable[FieldChange], filters: Mapping[str, Node]) -> None:
    """Check that each name in a path has an array filter, and that each array filter is used.

    Raises:
        InvalidUpdate: one has no partner; the message names it.
    """
    unused = dict(filters)
    for change in changes:
        for part in change.path:
            name = filter_name(part)
            if name is None:
                continue
            if name not in filters:
                dotted = ".".join(change.path)
                raise InvalidUpdate(
                    f"{change.operator} at {short_repr(dotted)} has no array filter for {name!r}: "
                    f"pass array_filters=[{{{name!r}: ...}}]",
                    path=dotted,
                    operator=change.operator,
                )
            unused.pop(name, None)
    for name in unused:
        raise InvalidUpdate(
            f"the array filter for {name!r} is not used: write $[{name}] in a path, or leave the filter out", path=name
        )


@dataclass(frozen=True, slots=True)
class FirstItem:
    """The index of the first item of the array at `array` that passes a test.

    Attributes:
        node: tests the item, with an empty path; or `[item]`, if it is an `AnyElement` with an empty path; or, if the
            item is an object, `{ELEMENT: item}`.
    """

    array: Path
    node: Field


@dataclass(frozen=True, slots=True)
class FirstFound:
    """The index that the first alternative finds. A node beside an alternative says when it counts, `None` always."""

    alternatives: tuple[tuple[Node | None, ElementSearch], ...]


ElementSearch: TypeAlias = FirstItem | FirstFound


def find_position(node: Node, array: Path) -> ElementSearch | None:
    """Return which element of the array at a path a filter matches; `None` if the filter can't tell.

    As in MongoDB, the last condition on the array decides, and negations have no position. Of `$or`, the first filter
    decides that matches and has a position.
    """
    if isinstance(node, And):
        found = [(None, position) for part in reversed(node.nodes) if (position := find_position(part, array))]
        return FirstFound(tuple(found)) if found else None
    if isinstance(node, Or):
        positions = [(part, position) for part in node.nodes if (position := find_position(part, array))]
        # An item that passes the test of one condition proves that the condition matches. Below an index it does not: a
        # filter does not look into the items of an array that it reaches by its index.
        proves = not has_array_index(array)
        alternatives = [(None if proves and isinstance(inner, FirstItem) else part, inner) for part, inner in positions]
        return FirstFound(tuple(alternatives)) if alternatives else None
    path = getattr(node, "path", ())
    if path[: len(array)] != array:
        return None
    field: Any = node
    rest = path[len(array) :]
    if rest:
        return FirstItem(array, replace(field, path=(ELEMENT, *rest)))
    return None if isinstance(node, HasSize) else FirstItem(array, replace(field, path=()))


def position_finder(position: ElementSearch) -> Callable[[str, dict[str, Any], list[Any]], int | None]:
    """Compile to a function of the id, the data and the array, which returns the index or `None`."""
    if isinstance(position, FirstItem):
        passes = _item_test(position.node)
        return lambda _id, _data, items: next((index for index, item in enumerate(items) if passes(item)), None)
    alternatives = [
        (None if guard is None else matcher(guard), position_finder(inner)) for guard, inner in position.alternatives
    ]

    def find(document_id: str, data: dict[str, Any], items: list[Any]) -> int | None:
        for applies, find_inner in alternatives:
            if applies is None or applies((document_id, data)):
                index = find_inner(document_id, data, items)
                if index is not None:
                    return index
        return None

    return find


def _item_test(node: Field) -> Callable[[Any], bool]:
    passes = matcher(node)
    if node.path:
        return lambda item: isinstance(item, dict) and passes(("", {ELEMENT: item}))
    return (lambda item: passes([item])) if isinstance(node, AnyElement) else passes


@dataclass(frozen=True, slots=True)
class Branch:
    """The changes of the elements that one part stands for, by their paths in `{ELEMENT: item}`."""

    part: str
    changes: tuple[tuple[Path, FieldChange], ...]


@dataclass(frozen=True, slots=True)
class ArrayStep:
    """All changes of the elements of one array.

    Attributes:
        conflicts: the pairs of branches, by their numbers, that change the same value; no element may be in both.
    """

    array: Path
    branches: tuple[Branch, ...]
    conflicts: tuple[tuple[int, int], ...]

    @property
    def first_change(self) -> FieldChange:
        """The change to name in an error about the array."""
        return self.branches[0].changes[0][1]


Step: TypeAlias = "tuple[Path, FieldChange] | ArrayStep"


def steps_of(changes: Iterable[tuple[Path, FieldChange]]) -> list[Step]:
    """Return the changes in their order, those below the elements of one array together, where the first was."""
    steps: dict[Any, Any] = {}
    for path, change in changes:
        at = next((number for number, part in enumerate(path) if is_dynamic(part)), None)
        if at is None:
            steps[path] = (path, change)
        else:
            rest = (ELEMENT, *path[at + 1 :])
            steps.setdefault((path[:at], None), {}).setdefault(path[at], []).append((rest, change))
    return [_array_step(key[0], found) if isinstance(found, dict) else found for key, found in steps.items()]


def _array_step(array: Path, branches: dict[str, list[tuple[Path, FieldChange]]]) -> ArrayStep:
    listed = tuple(Branch(part, tuple(changes)) for part, changes in branches.items())
    numbered = itertools.combinations(enumerate(listed), 2)
    conflicts = tuple((a, b) for (a, one), (b, other) in numbered if _meet(one, other))
    return ArrayStep(array, listed, conflicts)


def _meet(one: Branch, other: Branch) -> bool:
    return any(overlap(path, other_path) for path, _ in one.changes for other_path, _ in other.changes)


def overlap(path: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one of the paths may equal or contain the other."""
    return all(itertools.starmap(may_coincide, zip(path, other, strict=False)))


def may_coincide(part: str, other: str) -> bool:
    """Whether two parts at the same place may lead to the same value."""
    return part == other or is_dynamic(part) or is_dynamic(other)


def positions_of(update: Update) -> dict[Path, ElementSearch]:
    """Return the position for each array that a path of the update has `$` below.

    Raises:
        InvalidUpdate: the filter has no condition on the array.
    """
    found: dict[Path, ElementSearch] = {}
    for change in update.changes:
        if MATCHED in change.path:
            array = change.path[: change.path.index(MATCHED)]
            position = None if update.matched is None else find_position(update.matched, array)
            if position is None:
                raise no_position(change, update.matched)
            found[array] = position
    return found


def no_position(change: FieldChange, node: Node | None) -> InvalidUpdate:
    """Return the error for a `$` that nothing can fill."""
    dotted = ".".join(change.path)
    array = ".".join(change.path[: change.path.index(MATCHED)])
    if node is None:
        finding = (
            "has '$', but the call has no filter that matches an element: use update_one() or update_many() without "
            "upsert, or '$[name]' with array_filters"
        )
    else:
        finding = (
            f"has '$', but the filter has no condition that matches an element of {short_repr(array)}: "
            "add one that is not negated, or use '$[name]' with array_filters"
        )
    return InvalidUpdate(f"{change.operator} at {short_repr(dotted)} {finding}", path=dotted, operator=change.operator)


def no_element(change: FieldChange) -> InvalidUpdate:
    """Return the error for a `$` where the filter of the call matched no document, so that an upsert inserts one."""
    dotted = ".".join(change.path)
    return InvalidUpdate(
        f"{change.operator} at {short_repr(dotted)} has '$', but no document matches, so there is no element that the "
        "filter matched: leave upsert out, or $set the whole array with $setOnInsert in an upsert of its own",
        path=dotted,
        operator=change.operator,
    )
