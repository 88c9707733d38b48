"""The parts of an index of a collection: their names, and their SQL with placeholders for constants.

Each part is one index of PostgreSQL. One is on the sort keys of all paths. Two more per path are on the rows in which
the path meets an array: one on the keys of all values found there, one on the span of these keys. If documents expire
by the index, one more is on their times, and its comment says after how long. The comment of each part describes the
index that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidFilter, InvalidInput
from pgdoc.model.json_codec import decode, decode_as_written, encode_value
from pgdoc.model.names import check_name
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.collations import COLLATIONS
from pgdoc.query.filters.key_sql import MAX_PARTS, expiry_time, found_keys, has_array, key_span, sort_key, sort_rest
from pgdoc.query.filters.parse import parse_filter
from pgdoc.query.filters.paths import parse_sort
from pgdoc.query.filters.sql import compile_filter
from pgdoc.query.filters.sql_text import Compiled, join
from pgdoc.query.indexes.plan import IndexedPaths, Indexes, conjuncts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.nodes import Path, SortKey

EVERYTHING: Final = "$**"
MAX_PATHS: Final = 8
"""The most paths of an index: their longest sort keys fit into one index entry, a third of a page."""

TIMES: Final = "times"
"""The label of the part by which documents expire."""

_COMMENT: Final = "pgdoc index"
_MOST_S: Final = 2_147_483_647  # as in MongoDB
_FORMAT: Final = 2
"""The version of the parts and of the expressions in them: an index of another format serves no query."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a collection.

    Attributes:
        name: the name, for `drop_index`.
        paths: the paths as given to `create_index`; a leading `-` means descending.
        unique: whether no two documents may have the same values at the paths.
        where: the filter that selects the indexed documents; `None` for all documents.
        valid: whether all parts are complete. If not, `create_index` repairs the index.
        size_bytes: the size of all parts on the server's disk.
        collation: how texts in it compare; `None` for by code point.
        expire_after: how long after the time at the path a document is deleted; `None` if none expires by this index.
    """

    name: str
    paths: tuple[str, ...]
    unique: bool
    where: dict[str, Any] | None
    valid: bool
    size_bytes: int
    collation: str | None = None
    expire_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """The progress of the build of an index.

    Attributes:
        index: the name of the index.
        phase: the phase from PostgreSQL's `pg_stat_progress_create_index`; "ready" at the end.
        done: how many of `total` are done in this phase, in blocks of the table or in rows.
        total: the total for this phase; 0 if PostgreSQL reports none.
    """

    index: str
    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One index of PostgreSQL.

    Attributes:
        label: part of its name; empty for the first part.
        kind: the access method.
        body: the columns and the predicate, which follow it in CREATE INDEX.
    """

    label: str
    kind: str
    body: Compiled


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """A checked call of `create_index`."""

    name: str
    paths: tuple[str, ...]
    unique: bool
    where: str | None
    parts: tuple[IndexPart, ...]
    collation: str | None = None
    expire_after: timedelta | None = None

    @property
    def definition(self) -> dict[str, Any]:
        """What two indexes of the same name must agree on."""
        return {"paths": list(self.paths), "unique": self.unique, "where": self.where, "collation": self.collation}

    def comment(self, part: IndexPart) -> str:
        """Return the part's comment, for `read_comment`."""
        about: dict[str, Any] = {"part": part.label, "parts": sum(each.label != TIMES for each in self.parts)}
        about["format"] = _FORMAT
        if part.label == TIMES and self.expire_after is not None:
            about["expire_after"] = self.expire_after.total_seconds()
        return json.dumps({_COMMENT: self.name, **self.definition, **about})


def plan_index(  # noqa: PLR0913
    paths: tuple[str, ...],
    *,
    unique: bool,
    where: Mapping[str, Any] | None,
    name: str | None,
    expire_after: timedelta | None = None,
    encoder: Encoder | None = None,
    collation: str | None = None,
) -> IndexPlan:
    """Check the arguments of `create_index`, and plan the parts; `encoder` is that of the store."""
    keys = _check_paths(paths, unique=unique, collation=collation)
    condition = _condition(where, encoder, collation) if where else None
    text = encode_value(where, "", encoder).decode() if where else None
    if keys is None:
        parts = [IndexPart("", "GIN", _partial(Compiled("(data pg_catalog.jsonb_path_ops)", []), [condition]))]
    else:
        parts = [
            IndexPart("", "btree", _partial(_btree_columns(keys, unique=unique), [condition])),
            *_parts_for_arrays(keys, condition),
        ]
    if expire_after is not None:
        path = _expiry_path(keys, expire_after)
        parts.append(IndexPart(TIMES, "btree", _partial(Compiled(f"({expiry_time(path)})", []), [condition])))
    if name is None:
        name = _default_name(paths, unique=unique, where=text, collation=collation)
    return IndexPlan(check_name(name, "index"), tuple(paths), unique, text, tuple(parts), collation, expire_after)


def _expiry_path(keys: tuple[SortKey, ...] | None, expire_after: Any) -> Path:
    """Check `expire_after` and return the path of the times."""
    if keys is None or len(keys) != 1 or keys[0].path == ("_id",):
        raise InvalidInput(
            "an index with expire_after needs one path, that of the times: leave out '_id', '$**' and others"
        )
    if not isinstance(expire_after, timedelta) or not 0 <= expire_after.total_seconds() <= _MOST_S:
        raise InvalidInput(
            f"expire_after must be a timedelta from 0 to {_MOST_S:,} seconds, got {short_repr(expire_after)}"
        )
    return keys[0].path


def _check_paths(paths: tuple[str, ...], *, unique: bool, collation: str | None) -> tuple[SortKey, ...] | None:
    """Return the sort keys of a btree; `None` for an index on everything."""
    if not paths or len(paths) > MAX_PATHS:
        raise InvalidInput(f"an index needs 1 to {MAX_PATHS} paths, got {len(paths)}")
    if EVERYTHING in paths:
        if len(paths) > 1 or unique or collation is not None:
            raise InvalidInput(
                f"{EVERYTHING!r} must be the only path, without unique=True and without a collation", path=EVERYTHING
            )
        return None
    keys = parse_sort(paths, collation)
    if collation is not None and all(key.path == ("_id",) for key in keys):
        raise InvalidInput(
            "an index on '_id' can't have a collation, which ids do not follow: leave it out", path="_id"
        )
    for number, key in enumerate(keys):
        dotted = ".".join(key.path)
        if key.path in [other.path for other in keys[:number]]:
            raise InvalidInput(f"an index has the path {short_repr(dotted)} twice: remove one", path=dotted)
        if len(key.path) > MAX_PARTS:
            raise InvalidInput(
                f"the path {short_repr(dotted)} has {len(key.path)} parts: an index path has at most {MAX_PARTS}",
                path=dotted,
            )
        if key.path[0] == "_id" and len(key.path) > 1:
            raise InvalidInput(
                f"the path {short_repr(dotted)} is below the id, which is text: index '_id' itself, or another path",
                path=dotted,
            )
    return keys


def _condition(where: Any, encoder: Encoder | None, collation: str | None) -> Compiled:
    condition = compile_filter(parse_filter(where, encoder, collation))
    if "SELECT" in condition.text:
        kinds = "numbers, text, booleans and null" if collation is None else "numbers, booleans and null"
        with_it = "" if collation is None else f" with the collation {collation!r}"
        raise InvalidFilter(
            f"the where of an index{with_it} can only use $exists and comparisons with {kinds}, on paths without "
            "digits: move the other conditions to the filter of find"
        )
    return condition


def _btree_columns(keys: tuple[SortKey, ...], *, unique: bool) -> Compiled:
    columns: list[str] = []
    for key in keys:
        column = 'id COLLATE pg_catalog."C"' if key.path == ("_id",) else sort_key(key.path, key.collation)
        columns.append(f"({column}){' DESC' if key.descending else ''}")
    if not unique:
        return Compiled(f"({', '.join(columns)})", [])
    compared = [key for key in keys if key.path != ("_id",)]
    in_array = " OR ".join(has_array(key.path) for key in compared) or "FALSE"
    rests = ", ".join(sort_rest(key.path, key.collation) for key in compared)
    columns.append(f"(pgdoc.unique_rest(id, {in_array}, VARIADIC ARRAY[{rests}]::pg_catalog.text[]))")
    return Compiled(f"({', '.join(columns)}) NULLS NOT DISTINCT", [])


def _parts_for_arrays(keys: tuple[SortKey, ...], condition: Compiled | None) -> list[IndexPart]:
    parts = []
    for number, key in enumerate(keys):
        if key.path != ("_id",):
            conditions = [Compiled(has_array(key.path), []), condition]
            items, spans = (Compiled(f"({call(key.path, key.collation)})", []) for call in (found_keys, key_span))
            parts.append(IndexPart(f"items{number}", "GIN", _partial(items, conditions)))
            parts.append(IndexPart(f"spans{number}", "GiST", _partial(spans, conditions)))
    return parts


def _partial(columns: Compiled, conditions: list[Compiled | None]) -> Compiled:
    given = [condition for condition in conditions if condition is not None]
    if not given:
        return columns
    where = join(" AND ", given)
    return Compiled(f"{columns.text} WHERE {where.text}", [*columns.params, *where.params])


def _default_name(paths: tuple[str, ...], *, unique: bool, where: str | None, collation: str | None) -> str:
    """Make a name from the paths, with a digest of the definition unless it is one plain path."""
    words = "_".join(_path_word(path) for path in paths)
    further = [value for value in (where, collation) if value is not None]
    if len(paths) == 1 and words == paths[0] and not (unique or further) and len(words.encode()) <= 40:
        return words
    added = [] if collation is None else [collation]
    return f"{_truncated(words, 40)}_{_digest([list(paths), unique, where, *added])}"


def _path_word(path: str) -> str:
    word = "all" if path == EVERYTHING else re.sub(r"\W+", "_", path.removeprefix("-"))
    return ("_" if word[:1].isdigit() else "") + word + ("_desc" if path.startswith("-") else "")


def relation_name(table: str, oid: int, name: str, part: str) -> str:
    """Return the name of a part: dots keep it apart from collections, the digest from other parts."""
    label = f".{part}" if part else ""
    return f"{_truncated(table, 16)}.{_truncated(name, 22)}{label}.{part_digest(oid, name, part)}"


def part_digest(oid: int, name: str, part: str) -> str:
    """Return the digest at the end of a part's name; renaming the table does not change it."""
    return _digest([oid, name, part])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:10]


def _truncated(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def read_comment(comment: str | None) -> dict[str, Any] | None:
    """Return the content of a part's comment, with the index's name as `name`; `None` for other comments."""
    try:
        found = json.loads(comment or "")
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get(_COMMENT), str):
        return None
    return {**found, "name": found[_COMMENT]}


def is_current(comment: str | None) -> bool:
    """Whether the comment is that of a part in the current format, which need not be rebuilt."""
    found = read_comment(comment)
    return found is not None and found.get("format") == _FORMAT


def indexed_paths(comments: Iterable[str | None]) -> Indexes:
    """Return the indexes of which all parts are valid, from the comments of the valid parts."""
    found: dict[str, tuple[set[str], dict[str, Any]]] = {}
    for comment in comments:
        if is_current(comment) and (part := read_comment(comment)) is not None:
            found.setdefault(part["name"], (set(), part))[0].add(part["part"])
    complete = [
        part
        for labels, part in found.values()
        if len(labels - {TIMES}) == part["parts"]
        and part["paths"] != [EVERYTHING]
        and part.get("collation") in {None, *COLLATIONS}
    ]
    unique = tuple(name for name, (_, part) in found.items() if part.get("unique"))
    return Indexes(tuple(map(_indexed_paths, complete)), unique=unique)


def _indexed_paths(found: dict[str, Any]) -> IndexedPaths:
    collation = found.get("collation")
    where = None if found["where"] is None else decode_as_written(found["where"])
    conditions = () if where is None else tuple(conjuncts(parse_filter(where, None, collation)))
    return IndexedPaths(tuple(key.path for key in parse_sort(found["paths"])), conditions, collation)


def collect_indexes(rows: list[tuple[str, bool, int, str | None]]) -> list[Index]:
    """Group the parts (name, validity, size in bytes, comment) by index."""
    groups: dict[str, list[tuple[bool, int, dict[str, Any]]]] = {}
    for _, valid, size, comment in rows:
        if (found := read_comment(comment)) is not None:
            groups.setdefault(found["name"], []).append((valid, size, found))
    return [_index(name, groups[name]) for name in sorted(groups)]


def _index(name: str, parts: list[tuple[bool, int, dict[str, Any]]]) -> Index:
    first = parts[0][2]
    seconds = next((found["expire_after"] for _, _, found in parts if found["part"] == TIMES), None)
    return Index(
        name=name,
        paths=tuple(first["paths"]),
        unique=first["unique"],
        where=None if first["where"] is None else decode(first["where"]),
        valid=sum(found["part"] != TIMES for _, _, found in parts) == first["parts"]
        and all(valid and found.get("format") == _FORMAT for valid, _, found in parts),
        size_bytes=sum(size for _, size, _ in parts),
        collation=first.get("collation"),
        expire_after=None if seconds is None else timedelta(seconds=seconds),
    )
