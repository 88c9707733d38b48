"""The SQL of the document calls, built once per table and kind of call."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.crud.guard import guarded_query
from pgdoc.errors import InvalidFilter, InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.fold import MOST_CONDITIONS
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc.crud.guard import GuardedQuery

__all__ = [
    "CHANGING",
    "CLAIMING",
    "catalog_statement",
    "check_count",
    "check_params",
    "copy_statement",
    "distinct_statement",
    "find_statement",
    "has_long_list",
    "larger_statement",
    "lock_first_statement",
    "part_statement",
    "table_statement",
    "write_statement",
]


CHANGING: Final = "FOR NO KEY UPDATE"
"""The lock clause of `update_one` and `delete_one`: wait for a document that another transaction has locked."""

CLAIMING: Final = "FOR NO KEY UPDATE SKIP LOCKED"
"""The lock clause of `update_one` with `skip_locked`: take the next document instead."""

_DEFAULT_CLAUSES = {
    **dict.fromkeys(("change", "first", "condition"), ""),
    "and_data": "id, data::pg_catalog.text,",
    "matched": "NULL",
}


@lru_cache(maxsize=1024)
def write_statement(
    name: str, table: str, *, with_metadata: bool, versioned: bool = False, **clauses: str
) -> GuardedQuery:
    """Return a write of `documents.sql` to the quoted table.

    With `with_metadata`, it emits the writer's metadata, its first parameter; if `versioned`, it checks the version,
    the parameter after the id. The clauses are the block's other placeholders: `change`, an expression over `data` for
    the new data; `first`, the data of a new document or the SELECT of the first document; `condition`, over `id` and
    `data`; `and_data`, empty if the write need not return the stored id and data; `matched`, a count. For `update_one`
    and `replace_one`, they are also those of `_first_block`.
    """
    block = _first_block(name, clauses) if name in _FIRST else statement("documents", name)
    metadata = statement("documents", "with_metadata")
    given = {
        "with_metadata": metadata if with_metadata else "",
        "with_metadata_and": f"{metadata}," if with_metadata else "WITH",
        "and_metadata": ', "pgdoc metadata"' if with_metadata else "",
        "from_metadata": 'FROM "pgdoc metadata"' if with_metadata else "",
        "using_metadata": 'USING "pgdoc metadata"' if with_metadata else "",
        "and_version": "AND version OPERATOR(pg_catalog.=) %s" if versioned else "",
    }
    return guarded_query(block, table, {**given, **_DEFAULT_CLAUSES, **clauses})._replace(writes=True)


_FIRST: Final = {
    "update_one": ("update_one_set", "update_one_differs"),
    "replace_one": ("replace_one_set", "replace_one_differs"),
}
_RESULTS: Final = {
    "after": ("result_after", "inserted_after", ""),
    "before": ("result_before", "inserted_before", ""),
    "counts": ("result_counts", "inserted_counts", "0"),
}


def _first_block(name: str, clauses: Mapping[str, str]) -> str:
    """Return the block of a write to the first matching document.

    The clause `result` says what it returns: the document `after` (the default) or `before` the write, or `counts`. The
    clause `seed` is the data of the document that an upsert creates, and `conflict` what may keep it out: `(id)`, or
    any unique index if it is empty.
    """
    is_upsert = "seed" in clauses
    set_, differs = _FIRST[name]
    result, inserted, no_insert = _RESULTS[clauses.get("result", "after")]
    parts = {
        "insertion": statement("documents", "insertion") if is_upsert else "",
        "result": statement("documents", result),
        "inserted": statement("documents", inserted) if is_upsert else no_insert,
        "set": statement("documents", set_),
        "differs": statement("documents", differs),
    }
    block = statement("documents", "write_first")
    for placeholder, text in parts.items():
        block = block.replace(f"{{{placeholder}}}", text)
    return block


def lock_first_statement(table: str, conditions: Sequence[str], *, order: str, lock: str, in_turn: bool) -> str:
    """Return the SELECT of the first matching document, locked.

    A document meets at most one of the conditions, which are SQL over `id` and `data`. `in_turn` is as in `Conditions`;
    without it, each condition after the first takes its parameters twice. `order` is the list after ORDER BY, empty for
    any order.
    """
    order = f"ORDER BY {order}" if order else ""
    first_match = statement("documents", "first_match")
    first, *rest = conditions
    if not in_turn:
        # The subquery on ids keeps PostgreSQL from reading the index of the order to its end to find the few documents
        # of these conditions. OFFSET 0 would do so too, but lock all of them.
        rest = [
            f"({part}) AND id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT id FROM {table} WHERE {part}))" for part in rest
        ]
    texts = [first_match.format(table=table, condition=part, order=order, lock=lock) for part in (first, *rest)]
    if not rest:
        return texts[0]
    branches = " UNION ALL ".join(f"SELECT * FROM ({text}) AS branch" for text in texts)
    return f"SELECT * FROM ({branches}) AS branches {'' if in_turn else order} LIMIT 1"


def catalog_statement(name: str, *, with_metadata: bool) -> bytes:
    """Return a call of `catalog.sql` that creates, renames or drops a collection.

    With `with_metadata`, the writer's metadata is its first parameter.
    """
    call = statement("catalog", name)
    return (
        f'{statement("documents", "with_metadata")} {call} FROM "pgdoc metadata"' if with_metadata else call
    ).encode()


@lru_cache(maxsize=1024)
def table_statement(name: str, table: str, *, change: str = "") -> GuardedQuery:
    """Return a block of `documents.sql` that needs only the table, such as `get`.

    `check_update` and `apart_look` also need `change`, as for `write_statement`.
    """
    return guarded_query(statement("documents", name), table, {"change": change})


@lru_cache(maxsize=1024)
def copy_statement(table: str) -> bytes:
    """Return the COPY of documents, which has no guard: `hold` goes before it."""
    return statement("documents", "copy").format(table=table).encode()


@lru_cache(maxsize=1024)
def part_statement(table: str) -> GuardedQuery:
    """Return the read of a part of a stream's snapshot."""
    return guarded_query(statement("streams", "part"), table, {})


@lru_cache(maxsize=1024)
def larger_statement(table: str) -> GuardedQuery:
    """Return the search for documents that are larger than a limit."""
    return guarded_query(statement("limits", "larger"), table, {})


_MAX_BIGINT: Final = 2**63 - 1
_LONG_LIST: Final = 16

# The planner does not look into a subquery, so one plan serves every limit.
_LIMIT_PARAMETER: Final = "(SELECT %s::bigint)"
_NO_READ_CLAUSES = dict.fromkeys(("fields", "values"), "")


@lru_cache(maxsize=1024)
def find_statement(  # noqa: PLR0913
    name: str,
    table: str,
    conditions: tuple[str, ...],
    *,
    order: str = "",
    limit: int | None = None,
    skip: int = 0,
    in_turn: bool = False,
    **clauses: str,
) -> GuardedQuery:
    """Return a block of `reading.sql` for the quoted table.

    `conditions` and `order` are as for `lock_first_statement`. With an order, the limit is part of the SQL. Without
    one, it is the last parameter: then one plan is good for every limit, and PostgreSQL can keep it. `in_turn` is as in
    `Conditions`: PostgreSQL executes the branches of a UNION ALL one after the other, and not in parallel if they have
    a limit. The clauses are the block's other placeholders: `fields`, an expression over `data` to return; `values`, a
    set of values.
    """
    order = f"ORDER BY {order}" if order else ""
    rows, and_condition = table, f"AND ({conditions[0]})"
    if len(conditions) > 1:
        others = [_matching(table, part) for part in conditions[1:]]
        if limit is not None and not in_turn:  # OFFSET 0: as in lock_first_statement, but without locks
            others = [f"(SELECT * FROM {other} OFFSET 0) AS apart" for other in others]
        ordered = f"{order} LIMIT {min(limit + skip, _MAX_BIGINT)}" if limit is not None else ""
        branches = [
            statement("reading", "branch").format(rows=source, ordered=ordered)
            for source in (_matching(table, conditions[0]), *others)
        ]
        rows, and_condition = f"({' UNION ALL '.join(branches)}) AS branches", ""
    number = _LIMIT_PARAMETER if not order else "ALL" if limit is None else limit
    numbers = f"LIMIT {number} OFFSET {skip}" if skip else f"LIMIT {number}"
    given = {
        "rows": rows,
        "condition": conditions[0],
        "and_condition": and_condition,
        "order": "" if in_turn else order,
        "numbers": numbers,
    }
    return guarded_query(statement("reading", name), table, {**given, **_NO_READ_CLAUSES, **clauses})


@lru_cache(maxsize=1024)
def placed_statement(query: GuardedQuery, columns: int) -> GuardedQuery:
    """Return a read, of so many columns, with a first row that says which transactions it sees."""
    nulls = ", ".join(["NULL"] * columns)
    before, _, after = statement("streams", "placed").format(table=query.table, nulls=nulls, found="\0").partition("\0")
    plain, safe = ((before + begin, end + after) for begin, end in (query.plain, query.safe))
    return query._replace(plain=plain, safe=safe)


def distinct_statement(table: str, condition: str, values: str, collation: str | None) -> GuardedQuery:
    """Return the read of the distinct `values`, a set over `id` and `data`, of the documents of a condition."""
    if collation is None:
        return find_statement("distinct", table, (condition,), values=values)
    return find_statement("distinct_collated", table, (condition,), values=values, collation=collation)


def _matching(table: str, condition: str) -> str:
    return statement("reading", "matching").format(table=table, condition=condition)


def check_params(params: Sequence[Any]) -> None:
    """Check that PostgreSQL's protocol can send the parameters; only those of a filter can be so many."""
    if len(params) > MOST_CONDITIONS:
        raise InvalidFilter(
            f"the conditions of the filter have {len(params):,} parameters, and PostgreSQL takes {MOST_CONDITIONS:,}: "
            "split the call, or compare one path with a list ($in), which is one condition"
        )


def has_long_list(params: Sequence[Any]) -> bool:
    """Whether a parameter is a list in which PostgreSQL can only search fast if it is part of the plan."""
    return any(isinstance(param, list) and len(param) > _LONG_LIST for param in params)


def check_count(name: str, value: Any) -> None:
    """Check a number of documents, or a version: an integer from 0 to PostgreSQL's largest bigint."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_BIGINT:
        raise InvalidInput(f"{name} must be an integer from 0 to 9,223,372,036,854,775,807, got {short_repr(value)}")
