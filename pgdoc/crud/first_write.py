"""The arguments of writes to the first document that matches, parsed and compiled; for single calls and for bulks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidFilter, InvalidInput, InvalidUpdate
from pgdoc.model.ids import check_id, new_id
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.parse import parse_filter, parse_filter_of_write
from pgdoc.query.filters.sql_text import Compiled
from pgdoc.query.updates.nodes import Update
from pgdoc.query.updates.parse import parse_update
from pgdoc.query.updates.sql import compile_first, compile_update, first_text
from pgdoc.query.updates.upsert_seed import equal_fields, equal_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgdoc.errors import SchemaViolation
    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Node

__all__ = ["FirstWrite", "Insertion", "first_replace", "first_update"]

_RETURNS: Final = ("after", "before")


@dataclass(frozen=True, slots=True)
class Insertion:
    """The document that an upsert inserts if none matches.

    Attributes:
        text: returns the JSON text of the data, with the time of this call for `$currentDate`.
    """

    key: str
    data: Compiled
    text: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class FirstWrite:
    """A write to the first document that matches.

    Attributes:
        name: the block of `documents.sql`.
        update: to find the reason why it does not fit; empty for a replacement.
        change: the new data.
        insertion: for an upsert; `None` if it is none, or can't insert.
        obstacle: why an upsert can't insert, to raise if no document matches.
        returns: which document the call returns: `after` or `before` the write.
    """

    name: str
    wanted: Node
    update: Update
    change: Compiled
    insertion: Insertion | None
    obstacle: InvalidFilter | InvalidUpdate | SchemaViolation | None
    returns: str


def first_update(  # noqa: PLR0913
    filter: Mapping[str, Any],  # noqa: A002 (the name in the public calls)
    changes: Mapping[str, Any],
    *,
    upsert: bool,
    array_filters: Sequence[Mapping[str, Any]] | None,
    return_document: str = "after",
    skip_locked: bool = False,
    encoder: Encoder | None = None,
    collation: str | None = None,
) -> FirstWrite:
    """Parse and compile the arguments of `update_one`."""
    if upsert and skip_locked:
        raise InvalidInput(
            "upsert and skip_locked exclude each other: a locked document that matches would be skipped, and inserted "
            "again"
        )
    returns, wanted = _check_return(return_document), parse_filter_of_write(filter, encoder, collation)
    update = parse_update(changes, encoder, array_filters=array_filters, matched=wanted, collation=collation)
    insertion = obstacle = None
    if upsert:
        try:
            said = parse_filter(filter, encoder)  # without the collation, for which texts are folded
            fields = equal_fields(said)
            text = partial(first_text, update, fields, datetime.now(UTC))
            insertion = Insertion(_key(said), compile_first(update, fields), text)
        except (InvalidFilter, InvalidUpdate) as exc:  # as in MongoDB, it matters only if no document matches
            obstacle = exc
    return FirstWrite("update_one", wanted, update, compile_update(update), insertion, obstacle, returns)


def first_replace(  # noqa: PLR0913
    filter: Mapping[str, Any],  # noqa: A002
    text: str,
    *,
    upsert: bool,
    return_document: str = "after",
    encoder: Encoder | None = None,
    collation: str | None = None,
) -> FirstWrite:
    """Parse and compile the arguments of `replace_one`, with the JSON text of the new data."""
    returns, wanted = _check_return(return_document), parse_filter_of_write(filter, encoder, collation)
    data = Compiled("%s::pg_catalog.jsonb", [text])
    insertion = obstacle = None
    if upsert:
        try:
            insertion = Insertion(_key(wanted), data, text.encode)
        except InvalidFilter as exc:
            obstacle = exc
    return FirstWrite("replace_one", wanted, Update(()), data, insertion, obstacle, returns)


def _key(wanted: Node) -> str:
    key = equal_id(wanted)
    return new_id() if key is None else check_id(key)


def _check_return(value: Any) -> str:
    if value not in _RETURNS:
        raise InvalidInput(f"return_document must be 'after' or 'before', got {short_repr(value)}")
    return str(value)
