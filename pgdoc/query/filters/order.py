"""Sorts, and the position of a document in one, as SQL over the columns `id` and `data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidDocument, InvalidInput
from pgdoc.model.documents import Document, projection_of
from pgdoc.model.ids import check_id
from pgdoc.model.json_codec import decode_comparable, encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.collations import collated_operand
from pgdoc.query.filters.key_sql import ID, is_whole, key_of, sort_key, sort_rest
from pgdoc.query.filters.nodes import Operand, has_array_index, is_array_index
from pgdoc.query.filters.sql_text import EQUALS, Compiled, join, operator

if TYPE_CHECKING:
    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Path, SortKey

_ID_PATH: Final = ("_id",)


def compile_sort(sort: tuple[SortKey, ...]) -> Compiled:
    """Compile to the list after ORDER BY; empty for no order. Documents with equal values sort by id.

    A missing value sorts as null, before numbers, text by code point, objects, arrays and booleans.
    """
    return Compiled(", ".join(column.order for column in _columns(sort)) if sort else "", [])


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of a sort: the id, or of a path, the key or the rest of a truncated key.

    Attributes:
        number: that of the sort key it belongs to; that after the last for the id at the end.
    """

    text: str
    descending: bool
    number: int
    is_rest: bool = False

    @property
    def order(self) -> str:
        direction = " DESC" if self.descending else ""
        # A rest is null if the key is whole. A whole key sorts before an equal one that was truncated.
        nulls = (" NULLS LAST" if self.descending else " NULLS FIRST") if self.is_rest else ""
        return f"{self.text}{direction}{nulls}"


def _columns(sort: tuple[SortKey, ...]) -> list[_Column]:
    keys = [
        _Column(ID if key.path == _ID_PATH else sort_key(key.path, key.collation), key.descending, number)
        for number, key in enumerate(sort)
    ]
    rests = [
        _Column(sort_rest(key.path, key.collation), key.descending, number, is_rest=True)
        for number, key in enumerate(sort)
        if key.path != _ID_PATH
    ]
    last = [] if _ID_PATH in (key.path for key in sort) else [_Column(ID, descending=False, number=len(sort))]
    return [*keys, *rests, *last]


def parse_after(after: Any, sort: tuple[SortKey, ...], encoder: Encoder | None = None) -> tuple[Operand, ...]:
    """Return the position of a document in the sort: its values at the paths, then its id.

    Args:
        after: the document, or a list of these values.
        sort: the sort of the same call.
        encoder: that of the store.
    """
    if not sort:
        raise InvalidInput("after needs a sort, which gives the pages their order: add one such as sort='_id'")
    paths = [key.path for key in sort]
    if isinstance(after, Document):
        return _position_of(after, paths)
    names = [".".join(path) for path in paths] + ([] if _ID_PATH in paths else ["_id"])
    if not isinstance(after, Sequence) or isinstance(after, str | bytes) or len(after) != len(names):
        raise InvalidInput(
            f"after must be a document, or a list of its values at {', '.join(map(repr, names))}, got "
            f"{short_repr(after)}"
        )
    return tuple(_operand(name, value, encoder) for name, value in zip(names, after, strict=True))


def _position_of(document: Document, paths: list[Path]) -> tuple[Operand, ...]:
    values, projection = [], projection_of(document)
    for path in paths:
        if path == _ID_PATH:
            values.append(document.id)
            continue
        if projection is not None and not projection.keeps(path):
            dotted = ".".join(path)
            raise InvalidInput(
                f"after can't be document {short_repr(document.id)}, because the fields that it was read with leave "
                f"out or change {dotted!r} of the sort, or a part of it: add {dotted!r} to them, or give the values as "
                "a list",
                path=dotted,
            )
        values.append(value_at(document.data, path))
    names = [".".join(path) for path in paths]
    last = [] if _ID_PATH in paths else [_operand("_id", document.id)]
    return (*map(_operand, names, values), *last)


def value_at(value: Any, path: Path) -> Any:
    """Return the value that the document sorts by; `None` for a missing one."""
    into_arrays = has_array_index(path)
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif into_arrays and isinstance(value, list) and is_array_index(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _operand(name: str, value: Any, encoder: Encoder | None = None) -> Operand:
    if name == "_id":
        try:
            check_id(value)
        except InvalidInput as exc:
            raise InvalidInput(f"after has an invalid id: {exc}", path=name) from exc
    try:
        text = encode_value(value, name, encoder)
    except InvalidDocument as exc:
        raise InvalidInput(f"after has a value that no document can contain: {exc}", path=exc.path) from exc
    return Operand(decode_comparable(text), text.decode())


def compile_after(sort: tuple[SortKey, ...], position: tuple[Operand, ...]) -> Compiled:
    """Compile to the condition that a document comes after the position."""
    collations = [*(key.collation for key in sort), None]
    position = tuple(map(collated_operand, position, collations))
    after = Compiled("FALSE", [])
    for column in reversed(_columns(sort)):
        operand = position[column.number]
        if not column.is_rest or not _is_whole(operand):
            after = _or_equal_and(*(_compared_rest if column.is_rest else _compared)(column, operand), after)
    return join(" AND ", [*_bound(sort, position), after])


def _is_whole(operand: Operand) -> bool:
    """Whether all documents with the operand's key have no rest."""
    return operand.value is None or is_whole(operand)


def _or_equal_and(behind: Compiled, equal: Compiled, after: Compiled) -> Compiled:
    return behind if after.text == "FALSE" else join(" OR ", [behind, join(" AND ", [equal, after])])


def _bound(sort: tuple[SortKey, ...], position: tuple[Operand, ...]) -> list[Compiled]:
    """Return a condition that follows from the others, and that an index on the leading paths can serve."""
    columns = [column for column in _columns(sort) if not column.is_rest]
    # The rests come before the id at the end; they are equal if the keys are whole and equal.
    keys = columns if all(map(_is_whole, position)) else columns[: len(sort)]
    same = next((n for n, column in enumerate(keys) if column.descending != keys[0].descending), len(keys))
    values = [_value_of(column, position[column.number]) for column in keys[:same]]
    symbol = operator("<=" if keys[0].descending else ">=")
    row = ", ".join(column.text for column in keys[:same])
    given = ", ".join(value.text for value in values)
    text = f"({row}) {symbol} ({given})" if same > 1 else f"{row} {symbol} {given}"
    return [Compiled(text, [item for value in values for item in value.params])]


def _compared(column: _Column, operand: Operand) -> tuple[Compiled, Compiled]:
    """Return the conditions that a document comes after the operand, and that it is equal."""
    value = _value_of(column, operand)
    symbol = operator("<" if column.descending else ">")
    return (
        Compiled(f"{column.text} {symbol} {value.text}", value.params),
        Compiled(f"{column.text} {EQUALS} {value.text}", value.params),
    )


def _compared_rest(column: _Column, operand: Operand) -> tuple[Compiled, Compiled]:
    """Do the same for a rest, which is null if the key is whole, on both sides."""
    rest, params = "pgdoc.sort_rest(%s::pg_catalog.jsonb)", [operand.text]
    if column.descending:
        behind = f"({rest} IS NOT NULL AND ({column.text} IS NULL OR {column.text} {operator('<')} {rest}))"
    else:
        behind = f"({column.text} IS NOT NULL AND ({rest} IS NULL OR {column.text} {operator('>')} {rest}))"
    equal = f"({column.text} {EQUALS} {rest} OR ({column.text} IS NULL AND {rest} IS NULL))"
    return Compiled(behind, params * 2), Compiled(equal, params * 2)


def _value_of(column: _Column, operand: Operand) -> Compiled:
    return Compiled("%s::pg_catalog.text", [operand.value]) if column.text == ID else key_of(operand)
