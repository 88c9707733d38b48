"""The SQL that reads many documents, put together once for each table and kind of call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from pgdoc.errors import InvalidInput
from pgdoc.shown import shown
from pgdoc.sql import statement

__all__ = ["check_count", "reading_statement"]

_MOST: Final = 2**63 - 1

_ANY_NUMBER: Final = "(SELECT %s::bigint)"  # what is in a subquery, PostgreSQL does not plan for
_NO_CLAUSES = dict.fromkeys(("fields", "values"), "")


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
    given = {**_NO_CLAUSES, **clauses, "order": "" if in_turn else order, "numbers": numbers}
    return statement("reading", name).format(table=table, rows=rows, condition=conditions[0], **given).encode()


def _matching(table: str, condition: str) -> str:
    return statement("reading", "matching").format(table=table, condition=condition)


def check_count(name: str, value: Any) -> None:
    """Refuse what is no count: of documents, or of versions.

    Raises:
        InvalidInput: not an integer from 0 on that PostgreSQL can hold.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise InvalidInput(f"{name} is {shown(value)}: give an integer from 0 to 9,223,372,036,854,775,807")
