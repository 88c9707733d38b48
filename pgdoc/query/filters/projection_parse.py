"""Parse the `fields` of a call: a list of paths, or an object of paths and operators as in MongoDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.errors import InvalidFilter, InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.nodes import And, HasSize, Not, Or, has_array_index
from pgdoc.query.filters.parse import parse_filter
from pgdoc.query.filters.paths import parse_path, parse_sort
from pgdoc.query.filters.projection import ItemTest, Narrowing, Projection, Slice
from pgdoc.query.filters.projection_expressions import is_reference, known_operators, parse_expression
from pgdoc.query.filters.types import INTEGER_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Node, Path
    from pgdoc.query.filters.projection import Tree
    from pgdoc.query.filters.projection_expressions import Expression

__all__ = ["Fields", "parse_fields"]

Fields: TypeAlias = str | Sequence[str] | Mapping[str, Any]

_MAX_DEPTH: Final = 100
_ID: Final = ("_id",)
_POSITION: Final = "$"


def parse_fields(
    fields: Fields | None,
    wanted: Callable[[], Node] | None = None,
    encoder: Encoder | None = None,
    collation: str | None = None,
) -> Projection | None:
    """Parse fields such as `["total", "address.city"]`, or `["-lines"]` for all others; `None` means all.

    An object has paths with `1` or `0`, operators, and computed fields. Paths must not contain one another, and must
    not mix both kinds. `wanted` returns the filter of the call, on which paths such as `items.$` depend.
    """
    if fields is None or (isinstance(fields, Mapping) and not fields):
        return None
    parser = _FieldsParser(wanted, partial(parse_filter, encoder=encoder, collation=collation))
    if isinstance(fields, Mapping):
        parser.read_object(fields, (), 0)
    elif isinstance(fields, Sequence):
        parser.read_list(fields)
    else:
        raise InvalidInput(
            f"fields must be a list of paths such as 'total' or '-total', or a dict such as {{'total': 1}}, got "
            f"{short_repr(fields)}"
        )
    return parser.projection()


class _FieldsParser:
    """Collects the paths of a projection."""

    def __init__(self, wanted: Callable[[], Node] | None, parse: Callable[[Any], Node]) -> None:
        self._wanted, self._parse = wanted, parse
        self._tree: Tree = {}
        self._narrowings: list[Narrowing] = []
        self._matched: list[str] = []  # the top-level fields with $elemMatch
        self._computed: dict[str, Expression] = {}
        self._kinds: dict[bool, str] = {}  # by whether it excludes: the first path of this kind
        self._has_slice = self._has_id = False

    def read_list(self, fields: Sequence[str]) -> None:
        try:
            keys = parse_sort(fields)
        except InvalidInput as exc:
            raise InvalidInput(f"fields has an invalid entry: {exc}", path=exc.path) from exc
        for key in keys:
            self._add_plain(key.path, exclude=key.descending)

    def read_object(self, fields: Mapping[Any, Any], above: Path, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise InvalidInput(f"fields is nested more than {_MAX_DEPTH} levels deep: use dotted paths")
        for key, value in fields.items():
            if not isinstance(key, str) or key.startswith("$"):
                raise InvalidInput(
                    f"the keys of fields must be paths, got {short_repr(key)}: write operators as the value of a path",
                    path=_dotted(above) or None,
                )
            self._read_entry((*above, *parse_path(key)), value, depth)

    def _read_entry(self, path: Path, value: Any, depth: int) -> None:
        if isinstance(value, bool | int | float | Decimal):
            self._add_plain(path, exclude=not value)
        elif isinstance(value, Mapping) and value and not any(map(is_reference, value)):
            if _POSITION in path:
                raise _invalid(path, f"'$' needs 1 as its value, got {short_repr(value)}")
            self.read_object(value, path, depth + 1)
        elif is_reference(value):
            self._add_computed(path, value)
        elif isinstance(value, Mapping) and len(value) == 1:
            self._read_operator(path, *next(iter(value.items())))
        else:
            raise _invalid(
                path,
                f"needs 1, 0, an object of paths, or one of $slice, $elemMatch, {known_operators()}, got "
                f"{short_repr(value)}; write a constant with $literal",
            )

    def _read_operator(self, path: Path, operator: str, operand: Any) -> None:
        if _POSITION in path:
            raise _invalid(path, f"{operator} can't be combined with '$': use one of them")
        if operator == "$slice":
            self._has_slice = True
            _add_path(self._tree, path, _parse_slice(path, operand))
        elif operator == "$elemMatch":
            self._add_elem_match(path, operand)
        else:
            self._add_computed(path, {operator: operand})

    def _add_plain(self, path: Path, *, exclude: bool) -> None:
        if path == _ID:
            _check_id(excluded=exclude)
            self._has_id = True
            return
        self._add_kind(path, exclude=exclude)
        if _POSITION in path:
            path = self._add_position(path, exclude=exclude)
        _add_path(self._tree, path, True)

    def _add_kind(self, path: Path, *, exclude: bool) -> None:
        other = self._kinds.get(not exclude)
        if other is not None:
            raise InvalidInput(
                f"fields mixes paths to include and to exclude, {short_repr(other)} and {short_repr(_dotted(path))}: "
                "use only one kind",
                path=_dotted(path),
            )
        self._kinds.setdefault(exclude, _dotted(path))

    def _add_position(self, path: Path, *, exclude: bool) -> Path:
        """Add the array before the `$`; return its path."""
        array = path[:-1]
        if exclude or not array or _POSITION in array:
            raise _invalid(path, "can't be used: '$' is the last part of one path to include, such as 'items.$'")
        tests = () if self._wanted is None else tuple(_tests(self._wanted(), array))
        if not tests:
            raise _invalid(
                path,
                f"needs a condition on {short_repr(_dotted(array))} in the filter, other than a negation or $size: add "
                "one, or use $elemMatch",
            )
        self._narrowings.append(Narrowing(array, tests, keeps_others=True))
        return array

    def _add_elem_match(self, path: Path, operand: Any) -> None:
        if len(path) > 1 or path == _ID:
            raise _invalid(
                path, "can't have $elemMatch: use it for a top-level field, or '$' with a condition in the filter"
            )
        try:
            node = self._parse({path[0]: {"$elemMatch": operand}})
        except InvalidFilter as exc:
            raise InvalidFilter(f"fields: {exc}", path=exc.path, operator=exc.operator) from exc
        self._narrowings.append(Narrowing(path, (ItemTest(node),), keeps_others=False))
        self._matched.append(path[0])

    def _add_computed(self, path: Path, value: Any) -> None:
        if len(path) > 1 or path == _ID or path[0].startswith("$"):
            raise _invalid(
                path, "can't be computed: a computed field has a name without dots and a leading '$', other than '_id'"
            )
        self._add_kind(path, exclude=False)
        self._computed[path[0]] = parse_expression(value, path[0])

    def projection(self) -> Projection:
        """Return the whole projection."""
        for name in (*self._matched, *self._computed):
            if name in self._tree:
                raise _overlapping((name,))
        exclude = True in self._kinds or (not self._kinds and self._has_slice and not self._has_id)
        if not exclude:
            self._tree.update(dict.fromkeys(self._matched, True))
        return Projection(self._tree, exclude, tuple(self._narrowings), tuple(self._computed.items()))


def _parse_slice(path: Path, operand: Any) -> Slice:
    numbers = operand if isinstance(operand, list | tuple) else [operand]
    limit = INTEGER_LIMITS["int"]
    are_integers = all(
        isinstance(number, int) and not isinstance(number, bool) and -limit <= number < limit for number in numbers
    )
    is_pair = numbers is operand
    if not are_integers or (is_pair and (len(numbers) != 2 or numbers[1] <= 0)):
        raise _invalid(
            path,
            "has a $slice that needs a 32-bit integer, or a list of how many items to skip, and how many to return, at "
            f"least 1: got {short_repr(operand)}",
        )
    return Slice(int(numbers[0]) if is_pair else None, int(numbers[-1]))


def _tests(node: Node, array: Path) -> Iterator[ItemTest]:
    """Yield the tests that find the item of an array that the filter matched, as `$` in an update does.

    As in MongoDB, the last condition on the array decides, and negations match no item. Of `$or`, the first filter
    decides that matches.
    """
    if isinstance(node, And):
        for part in reversed(node.nodes):
            yield from _tests(part, array)
    elif isinstance(node, Or):
        for part in node.nodes:
            for test in _tests(part, array):
                # An item that passes the test of one condition proves that the condition matches.
                guards = [guard for guard in (None if test.node is part else part, test.guard) if guard is not None]
                yield ItemTest(test.node, And(tuple(guards)) if guards else None)
    elif not isinstance(node, Not | HasSize):
        path: Path = getattr(node, "path", ())
        if path[: len(array)] == array and not has_array_index(("", *path[len(array) :])):
            yield ItemTest(node)


def _check_id(*, excluded: bool) -> None:
    if excluded:
        raise InvalidInput(
            "fields can't exclude '_id', which every document has beside its data: remove it from fields", path="_id"
        )


def _add_path(tree: Tree, path: Path, leaf: Any) -> None:
    """Add the path to the tree, which has a field either whole or in part."""
    for part in path[:-1]:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise _overlapping(path)
        tree = below
    if tree.setdefault(path[-1], leaf) != leaf:
        raise _overlapping(path)


def _overlapping(path: Path) -> InvalidInput:
    dotted = _dotted(path)
    return InvalidInput(
        f"fields has {short_repr(dotted)} and another path that overlaps it: keep the outer one", path=dotted
    )


def _invalid(path: Path, finding: str) -> InvalidInput:
    return InvalidInput(f"fields: {short_repr(_dotted(path))} {finding}", path=_dotted(path))


def _dotted(path: Path) -> str:
    return ".".join(path)
