"""The SQL that reads many documents, put together once for each table and kind of call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from pgdoc.errors import InvalidInput
from pgdoc.shown import shown
from pgdoc.sql import statement

__all__ = ["check_count", "reading_statement"]

_TOO_MANY: Final = 2**63

_NO_CLAUSES = dict.fromkeys(("fields", "order", "values"), "")


@lru_cache(maxsize=1024)
def reading_statement(name: str, table: str, *, condition: str, order: str = "", **clauses: str) -> bytes:
    """Return a block of `reading.sql`.

    Args:
        name: of the block.
        table: the collection's table, quoted.
        condition: an SQL condition over `id` and `data`.
        order: what to sort by, as SQL; empty for any order.
        **clauses: what else the block has a place for: `fields`, what of `data` to give out; `values`, a set of them.
    """
    given = {**_NO_CLAUSES, **clauses, "condition": condition, "order": f"ORDER BY {order}" if order else ""}
    return statement("reading", name).format(table=table, **given).encode()


def check_count(name: str, value: Any) -> None:
    """Refuse what is no count: of documents, or of versions.

    Raises:
        InvalidInput: not an integer from 0 on that PostgreSQL can hold.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _TOO_MANY:
        raise InvalidInput(f"{name} is {shown(value)}: give an integer from 0 to 9,223,372,036,854,775,807")
