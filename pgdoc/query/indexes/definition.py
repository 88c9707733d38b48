"""What an index of a collection is made of: the definitions, as SQL that still lacks its literals, and the names.

An index of `create_index` has several parts, each an index to PostgreSQL: one on the sort keys of its paths, and for
each path two on the rows in which it meets an array, one on the keys of what is found there and one on their span.
The comment of each part says what it is part of.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidFilter, InvalidInput
from pgdoc.model.json_codec import decode, encode_value
from pgdoc.model.names import check_name
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.parse import parse_filter, parse_sort
from pgdoc.query.filters.sql import compile_filter
from pgdoc.query.indexes.keys import (
    MAX_PARTS,
    Compiled,
    found_keys,
    joined,
    key_span,
    meets_array,
    sort_key,
    sort_rest,
)
from pgdoc.query.indexes.plan import IndexedPaths, Indexes, conjuncts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgdoc.query.filters.nodes import SortKey

EVERYTHING: Final = "$**"
MAX_PATHS: Final = 8
"""The longest sort keys of that many paths fit into an entry of an index, which is a third of a page."""

_COMMENT: Final = "pgdoc index"
_FORMAT: Final = 2
"""Of the parts and the expressions in them: an index of another format serves no query."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a collection.

    Attributes:
        name: what `drop_index` takes.
        paths: as they were given; a leading `-` descends.
        unique: whether two documents may not have the same values there.
        where: the filter that says which documents it holds; `None` for all.
        valid: whether it was built to the end; else `create_index` repairs it.
        size_bytes: on the server's disk, all its parts.
    """

    name: str
    paths: tuple[str, ...]
    unique: bool
    where: dict[str, Any] | None
    valid: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far the building of an index is.

    Attributes:
        index: its name.
        phase: as PostgreSQL calls it, in `pg_stat_progress_create_index`; "ready" at the end.
        done: of `total`, in this phase: blocks of the table, or rows.
        total: 0 where the phase has no measure.
    """

    index: str
    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One index of PostgreSQL: its label in the name, and what stands before and after the table in CREATE INDEX."""

    label: str
    kind: str
    body: Compiled


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What `create_index` was asked for."""

    name: str
    paths: tuple[str, ...]
    unique: bool
    where: str | None
    parts: tuple[IndexPart, ...]

    @property
    def definition(self) -> dict[str, Any]:
        """What makes it this index and no other."""
        return {"paths": list(self.paths), "unique": self.unique, "where": self.where}

    def comment(self, part: IndexPart) -> str:
        """Return what is written at the part, for `described` to read."""
        about = {"part": part.label, "parts": len(self.parts), "format": _FORMAT}
        return json.dumps({_COMMENT: self.name, **self.definition, **about})


def plan_index(paths: tuple[str, ...], *, unique: bool, where: Mapping[str, Any] | None, name: str | None) -> IndexPlan:
    """Work out the parts of an index.

    Raises:
        InvalidInput: these paths can't be indexed.
        InvalidFilter: `where` is no filter, or none that an index can have.
        InvalidName: not a name for an index.
    """
    keys = _check_paths(paths, unique=unique)
    text = encode_value(where, "").decode() if where else None
    condition = _condition(where) if where else None
    if keys is None:
        parts = [IndexPart("", "GIN", _with(Compiled("(data jsonb_path_ops)", []), [condition]))]
    else:
        parts = [
            IndexPart("", "btree", _with(_sorted(keys, unique=unique), [condition])),
            *_for_arrays(keys, condition),
        ]
    name = _default_name(paths, unique=unique, where=text) if name is None else check_name(name, "index")
    return IndexPlan(name, tuple(paths), unique, text, tuple(parts))


def _check_paths(paths: tuple[str, ...], *, unique: bool) -> tuple[SortKey, ...] | None:
    """Return the keys of a btree, or `None` where everything is to be indexed."""
    if not paths or len(paths) > MAX_PATHS:
        raise InvalidInput(f"an index takes 1 to {MAX_PATHS} paths, not {len(paths)}")
    if EVERYTHING in paths:
        if len(paths) > 1 or unique:
            raise InvalidInput(f"{EVERYTHING!r} stands alone, and is never unique", path=EVERYTHING)
        return None
    keys = parse_sort(paths)
    for place, key in enumerate(keys):
        dotted = ".".join(key.path)
        if key.path in [other.path for other in keys[:place]]:
            raise InvalidInput(f"the path {short_repr(dotted)} comes twice: once is enough", path=dotted)
        if len(key.path) > MAX_PARTS:
            raise InvalidInput(f"the path has {len(key.path)} parts: {MAX_PARTS} can be indexed", path=dotted)
        if key.path[0] == "_id" and len(key.path) > 1:
            raise InvalidInput(f"{short_repr(dotted)} leads into the id, which is text", path=dotted)
    return keys


def _condition(where: Any) -> Compiled:
    condition = compile_filter(parse_filter(where))
    if "SELECT" in condition.text:
        raise InvalidFilter(
            "the where of an index takes comparisons with numbers, text, booleans and null on paths without digits, "
            "and $exists: leave the rest to the filter of find"
        )
    return condition


def _sorted(keys: tuple[SortKey, ...], *, unique: bool) -> Compiled:
    columns: list[str] = []
    for key in keys:
        column = 'id COLLATE "C"' if key.path == ("_id",) else sort_key(key.path)
        columns.append(f"({column}){' DESC' if key.descending else ''}")
    if not unique:
        return Compiled(f"({', '.join(columns)})", [])
    paths = [key.path for key in keys if key.path != ("_id",)]
    in_array = " OR ".join(map(meets_array, paths)) or "FALSE"
    rests = ", ".join(map(sort_rest, paths))
    columns.append(f"(pgdoc.unique_rest(id, {in_array}, VARIADIC ARRAY[{rests}]::text[]))")
    return Compiled(f"({', '.join(columns)}) NULLS NOT DISTINCT", [])


def _for_arrays(keys: tuple[SortKey, ...], condition: Compiled | None) -> list[IndexPart]:
    parts = []
    for number, key in enumerate(keys):
        if key.path != ("_id",):
            conditions = [Compiled(meets_array(key.path), []), condition]
            items, spans = Compiled(f"({found_keys(key.path)})", []), Compiled(f"({key_span(key.path)})", [])
            parts.append(IndexPart(f"items{number}", "GIN", _with(items, conditions)))
            parts.append(IndexPart(f"spans{number}", "GiST", _with(spans, conditions)))
    return parts


def _with(columns: Compiled, conditions: list[Compiled | None]) -> Compiled:
    given = [condition for condition in conditions if condition is not None]
    if not given:
        return columns
    where = joined(" AND ", given)
    return Compiled(f"{columns.text} WHERE {where.text}", [*columns.params, *where.params])


def _default_name(paths: tuple[str, ...], *, unique: bool, where: str | None) -> str:
    """Make a name of the paths; what it can't tell apart, a digest does."""
    words = "_".join(_word(path) for path in paths)
    if len(paths) == 1 and words == paths[0] and not unique and where is None and len(words.encode()) <= 40:
        return words
    return f"{_clipped(words, 40)}_{_digest([list(paths), unique, where])}"


def _word(path: str) -> str:
    word = "all" if path == EVERYTHING else re.sub(r"\W+", "_", path.removeprefix("-"))
    return ("_" if word[:1].isdigit() else "") + word + ("_desc" if path.startswith("-") else "")


def relation_name(table: str, oid: int, name: str, part: str) -> str:
    """Name a part in the schema: no collection has a dot in its name, and no other part has this digest."""
    label = f".{part}" if part else ""
    return f"{_clipped(table, 16)}.{_clipped(name, 22)}{label}.{part_digest(oid, name, part)}"


def part_digest(oid: int, name: str, part: str) -> str:
    """Return the end of a part's name, which stays when the table is renamed."""
    return _digest([oid, name, part])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:10]


def _clipped(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def described(comment: str | None) -> dict[str, Any] | None:
    """Return what the comment says where it is one of a part, with its index's name as `name`."""
    try:
        found = json.loads(comment or "")
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get(_COMMENT), str):
        return None
    return {**found, "name": found[_COMMENT]}


def is_current(comment: str | None) -> bool:
    """Whether what the comment is of need not be built anew."""
    found = described(comment)
    return found is not None and found.get("format") == _FORMAT


def indexed_paths(comments: Iterable[str | None]) -> Indexes:
    """Return what the indexes are on that a filter can use: all parts of them are there.

    Args:
        comments: of the parts that are valid.
    """
    found: dict[str, tuple[set[str], dict[str, Any]]] = {}
    for comment in comments:
        if is_current(comment) and (part := described(comment)) is not None:
            found.setdefault(part["name"], (set(), part))[0].add(part["part"])
    whole = [part for labels, part in found.values() if len(labels) == part["parts"] and part["paths"] != [EVERYTHING]]
    return Indexes(tuple(map(_indexed_paths, whole)))


def _indexed_paths(found: dict[str, Any]) -> IndexedPaths:
    where = () if found["where"] is None else tuple(conjuncts(parse_filter(decode(found["where"]))))
    return IndexedPaths(tuple(key.path for key in parse_sort(found["paths"])), where)


def collected(rows: list[tuple[str, bool, int, str | None]]) -> list[Index]:
    """Put the parts together again.

    Args:
        rows: of the parts: name in the schema, validity, size and comment.
    """
    groups: dict[str, list[tuple[bool, int, dict[str, Any]]]] = {}
    for _, valid, size, comment in rows:
        if (found := described(comment)) is not None:
            groups.setdefault(found["name"], []).append((valid, size, found))
    return [_index(name, groups[name]) for name in sorted(groups)]


def _index(name: str, parts: list[tuple[bool, int, dict[str, Any]]]) -> Index:
    first = parts[0][2]
    return Index(
        name=name,
        paths=tuple(first["paths"]),
        unique=first["unique"],
        where=None if first["where"] is None else decode(first["where"]),
        valid=len(parts) == first["parts"]
        and all(valid and found.get("format") == _FORMAT for valid, _, found in parts),
        size_bytes=sum(size for _, size, _ in parts),
    )
