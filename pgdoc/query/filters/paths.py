"""Parse dotted paths, and sorts, which are lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidInput
from pgdoc.model.json_codec import MAX_DEPTH as MAX_PATH_PARTS
from pgdoc.model.json_codec import encode_value
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.collations import check_collation
from pgdoc.query.filters.nodes import SortKey

if TYPE_CHECKING:
    from pgdoc.query.filters.nodes import Path


def split_path(dotted: str, full: str) -> Path:
    """Split a dotted path; `full` is the path in messages."""
    if not dotted.isascii() or "\0" in dotted:
        _check_text(dotted, full)
    path = tuple(dotted.split("."))
    if len(path) > MAX_PATH_PARTS:
        raise InvalidFilter(
            f"the path {short_repr(dotted)} has {len(path):,} parts: use at most {MAX_PATH_PARTS}, "
            "the greatest depth of a document",
            path=full,
        )
    if "" in path:
        raise InvalidFilter(
            f"the path {short_repr(dotted)} has an empty part: use names separated by single dots", path=full
        )
    return path


def _check_text(dotted: str, full: str) -> None:
    try:
        encode_value(dotted, "")
    except InvalidDocument as exc:
        raise InvalidFilter(f"{short_repr(dotted)} is not a valid path: {exc}", path=full) from exc


def parse_sort(sort: str | Sequence[str] | None, collation: str | None = None) -> tuple[SortKey, ...]:
    """Parse a path such as `"total"` or `"-total"`, or a sequence of paths; `None` asks for no order."""
    keys = () if sort is None else (sort,) if isinstance(sort, str) else sort
    if not isinstance(keys, Sequence):
        raise InvalidInput(
            f"a sort must be a path such as 'total' or '-total', or a list of paths, got {short_repr(sort)}"
        )
    check_collation(collation)
    return tuple(_parse_key(key, collation) for key in keys)


def _parse_key(key: Any, collation: str | None) -> SortKey:
    dotted = key.removeprefix("-") if isinstance(key, str) else ""
    if not dotted:
        raise InvalidInput(
            f"{short_repr(key)} is not a valid path: use a path such as 'total' or '-total'",
            path=key if isinstance(key, str) else None,
        )
    path = parse_path(dotted)
    return SortKey(path, key.startswith("-"), None if path == ("_id",) else collation)


def parse_path(dotted: str) -> Path:
    """Parse a dotted path of an argument that is not a filter."""
    try:
        return split_path(dotted, dotted)
    except InvalidFilter as exc:
        raise InvalidInput(str(exc), path=exc.path) from exc
