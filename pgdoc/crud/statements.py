"""The SQL of the document calls, put together once for each table and kind of call."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = [
    "CHANGING",
    "CLAIMING",
    "call_statement",
    "check_count",
    "first_statement",
    "read_statement",
    "reading_statement",
    "write_statement",
]


CHANGING: Final = "FOR NO KEY UPDATE"
CLAIMING: Final = "FOR NO KEY UPDATE SKIP LOCKED"
"""How the first document is locked."""

_NO_CLAUSES = dict.fromkeys(("change", "first", "condition"), "")


@lru_cache(maxsize=1024)
def write_statement(name: str, table: str, *, carry: bool, versioned: bool = False, **clauses: str) -> bytes:
    """Return a write of `documents.sql`.

    Args:
        name: of its block.
        table: the collection's table, quoted.
        carry: whether it takes the message with the writer's metadata along, as its first parameter.
        versioned: whether it asks for a version, after the id.
        **clauses: what else the block has a place for, as SQL: `change`, an expression over `data` that gives the new
            data; `first`, the data of a new document, or the SELECT of the first one; `condition`, over `id` and
            `data`.
    """
    carried = statement("documents", "carry")
    return (
        statement("documents", name)
        .format(
            table=table,
            carry=carried if carry else "",
            with_carry=f"{carried}," if carry else "WITH",
            and_carry=", carried" if carry else "",
            from_carry="FROM carried" if carry else "",
            using_carry="USING carried" if carry else "",
            and_version="AND version = %s" if versioned else "",
            **{**_NO_CLAUSES, **clauses},
        )
        .strip()
        .encode()
    )


def first_statement(table: str, conditions: Sequence[str], *, order: str, lock: str, in_turn: bool) -> str:
    """Return the SELECT of the first document, locked; after the first condition each takes its parameters twice.

    Args:
        table: the collection's table, quoted.
        conditions: SQL conditions over `id` and `data`, of which a document meets one at most.
        order: what to sort by, as SQL; empty for any order.
        lock: the clause FOR UPDATE, or one like it.
        in_turn: whether all documents of one condition come before those of the next; then each takes its parameters
            once.
    """
    order = f"ORDER BY {order}" if order else ""
    one = statement("documents", "one")
    first, *rest = conditions
    if not in_turn:  # else the order's index might be read to its end for them; OFFSET 0 would lock them all
        rest = [f"({part}) AND id = ANY (ARRAY(SELECT id FROM {table} WHERE {part}))" for part in rest]
    texts = [one.format(table=table, condition=part, order=order, lock=lock) for part in (first, *rest)]
    if not rest:
        return texts[0]
    branches = " UNION ALL ".join(f"SELECT * FROM ({text}) AS branch" for text in texts)
    return f"SELECT * FROM ({branches}) AS branches {'' if in_turn else order} LIMIT 1"


def call_statement(name: str, *, carry: bool) -> bytes:
    """Return a call of `catalog.sql` on a collection.

    Args:
        name: of its block.
        carry: whether it takes the message with the writer's metadata along, as its first parameter.
    """
    call = statement("catalog", name)
    return (f"{statement('documents', 'carry')} {call} FROM carried" if carry else call).encode()


@lru_cache(maxsize=1024)
def read_statement(name: str, table: str, *, change: str = "") -> bytes:
    """Return a read of `documents.sql`.

    Args:
        name: of its block.
        table: the collection's table, quoted.
        change: as for `write_statement`.
    """
    return statement("documents", name).format(table=table, change=change).encode()


_MOST: Final = 2**63 - 1

_ANY_NUMBER: Final = "(SELECT %s::bigint)"  # what is in a subquery, PostgreSQL does not plan for
_NO_READ_CLAUSES = dict.fromkeys(("fields", "values"), "")


@lru_cache(maxsize=1024)
def reading_statement(  # noqa: PLR0913
    name: str,
    table: str,
    conditions: tuple[str, ...],
    *,
    order: str = "",
    limit: int | None = None,
    skip: int = 0,
    in_turn: bool = False,
    **clauses: str,
) -> bytes:
    """Return a block of `reading.sql`.

    Args:
        name: of the block.
        table: the collection's table, quoted.
        conditions: SQL conditions over `id` and `data`, of which a document meets one at most.
        order: what to sort by, as SQL; empty for any order.
        limit: how many documents at most of that order. With no order the number is a parameter, the last one: a plan
            for any is as good then, and can be kept.
        skip: how many to leave out first.
        in_turn: whether all documents of one condition come before those of the next. PostgreSQL executes the branches
            of UNION ALL one after the other, and those with a limit not in parallel.
        **clauses: what else the block has a place for: `fields`, what of `data` to give out; `values`, a set of them.
    """
    order = f"ORDER BY {order}" if order else ""
    rows = _matching(table, conditions[0])
    if len(conditions) > 1:
        apart = [f"(SELECT * FROM {_matching(table, part)} OFFSET 0) AS apart" for part in conditions[1:]]
        sources = [
            rows,
            *(apart if limit is not None and not in_turn else [_matching(table, part) for part in conditions[1:]]),
        ]
        ordered = f"{order} LIMIT {min(limit + skip, _MOST)}" if limit is not None else ""
        branches = [statement("reading", "branch").format(rows=source, ordered=ordered) for source in sources]
        rows = f"({' UNION ALL '.join(branches)}) AS branches"
    number = _ANY_NUMBER if not order else "ALL" if limit is None else limit
    numbers = f"LIMIT {number} OFFSET {skip}" if skip else f"LIMIT {number}"
    given = {**_NO_READ_CLAUSES, **clauses, "order": "" if in_turn else order, "numbers": numbers}
    return statement("reading", name).format(table=table, rows=rows, condition=conditions[0], **given).encode()


def _matching(table: str, condition: str) -> str:
    return statement("reading", "matching").format(table=table, condition=condition)


def check_count(name: str, value: Any) -> None:
    """Refuse what is no count: of documents, or of versions.

    Raises:
        InvalidInput: not an integer from 0 on that PostgreSQL can hold.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise InvalidInput(f"{name} is {short_repr(value)}: give an integer from 0 to 9,223,372,036,854,775,807")
